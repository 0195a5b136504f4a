"""How fast a first epoch is over photographs: imgclf decodes, resizes and keeps them in its cache; Pillow alone, by the
same number of threads, decodes and resizes the same files. Then the same by processes, which is why imgclf has threads.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/decoding.py [--data DIR] [--size 96] [--repeats N]
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from processes import unzip, verdict

from imgclf import environment
from imgclf.data import collection, images, loading

SHARE = 0.9


def pillow(size_px: int, path: Path) -> np.ndarray:
    """What cannot be left out: decode, RGB, resize."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size_px, size_px), Image.Resampling.BILINEAR))


def ours(size_px: int, path: Path) -> np.ndarray:
    return images.load(path, size_px)


def rate(count: int, work: Callable[[], object]) -> float:
    """Images per second."""
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def through(pool: Executor, function: Callable[[Path], np.ndarray], paths: list[Path]) -> Callable[[], object]:
    return lambda: sum(1 for _ in pool.map(function, paths, chunksize=16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of class folders; by default the photographs of ants-bees")
    parser.add_argument("--size", type=int, default=96, help="in px")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    cores = environment.cpu_count()
    with tempfile.TemporaryDirectory() as temporary:
        dataset = collection.collect(options.data or unzip("ants-bees", Path(temporary)))
        paths, folders = dataset.paths, iter(range(10**6))

        def first_epoch() -> None:
            loading.decode(dataset, options.size, cache=f"{temporary}/cache-{next(folders)}")

        start = multiprocessing.get_context("spawn")
        with ThreadPoolExecutor(cores) as threads, ProcessPoolExecutor(cores, mp_context=start) as processes:
            sides = {
                "imgclf, first epoch, into the cache": first_epoch,
                "Pillow alone, threads": through(threads, partial(pillow, options.size), paths),
                "the decoder alone, threads": through(threads, partial(ours, options.size), paths),
                "the decoder alone, processes": through(processes, partial(ours, options.size), paths),
            }
            for work in sides.values():  # once for the file cache and the start of the processes
                work()
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(options.repeats):
                for name, work in sides.items():
                    rates[name].append(rate(len(paths), work))
    print(f"{len(paths)} images to {options.size} px on {cores} cores")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"{name:40} median {medians[name]:7.0f} images/s   best {max(found):7.0f} images/s")
    first, alone, *_ = medians.values()
    sys.exit(not verdict("share of Pillow's rate", first / alone, SHARE, "", at_least=True))


if __name__ == "__main__":
    main()
