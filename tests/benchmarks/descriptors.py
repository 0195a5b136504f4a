"""How fast features made by hand are computed on one core, and on each of all cores when they share the work.

    python tests/benchmarks/descriptors.py [--seconds 20] [--kinds hog,color-histogram,intensity-histogram]

Images of random pixels, 128 px; as many as take so many seconds on one core. The start of processes counts, too. Both
take turns, twice, and the faster one of each counts. Rates are told by the clock, and by processor time, which tells
what sharing costs where other programs use the cores. Linux only: one core is this process bound to it.
"""

import argparse
import os
import time

import numpy as np

from imgclf.descriptors import extraction
from imgclf.descriptors.kinds import SIZE_PX, Descriptor


class Repeated:
    """Many images in the memory of few."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._chunk = np.random.default_rng(0).integers(0, 256, (extraction.CHUNK, SIZE_PX, SIZE_PX, 3), np.uint8)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: slice) -> np.ndarray:
        return self._chunk[: len(range(*index.indices(self._count)))].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kinds", default="hog,color-histogram,intensity-histogram")
    options = parser.parse_args()
    cores = os.sched_getaffinity(0)
    print("| features | images | one core | all cores | rate of each core | images per processor second |")
    print("|---|---|---|---|---|---|")
    for kind in options.kinds.split(","):
        descriptor, few = Descriptor(kind, SIZE_PX), Repeated(4 * extraction.CHUNK)
        rates(descriptor, few, {min(cores)})  # imports
        images = Repeated(int(options.seconds * rates(descriptor, few, {min(cores)})[0]))
        turns = [(rates(descriptor, images, {min(cores)}), rates(descriptor, images, cores)) for _ in range(2)]
        (one, one_cpu), (every, every_cpu) = (np.max(found, axis=0) for found in zip(*turns, strict=True))
        print(
            f"| {kind} | {len(images):,} | {one:,.0f} images/s | {every:,.0f} images/s | "
            f"{every / len(cores) / one:.0%} | {every_cpu / one_cpu:.0%} |",
            flush=True,
        )


def rates(descriptor: Descriptor, images: Repeated, cores: set[int]) -> tuple[float, float]:
    """Images per second, and per second of processor time, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        begun, used = time.perf_counter(), sum(os.times()[:4])
        extraction.of_pixels(descriptor, images)
        return len(images) / (time.perf_counter() - begun), len(images) / (sum(os.times()[:4]) - used)
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    main()
