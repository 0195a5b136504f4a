"""Pixels in memory, and Grain pipelines that make batches of them.

Files are decoded once, by threads, into one uint8 array in memory; every epoch reads that array.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.data import images
from imgclf.data.dataset import Dataset, Skipped
from imgclf.errors import DatasetError, ImageError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""uint8 (b, S, S, 3) and a source of randomness -> uint8 or float32 (b, s, s, 3), pixels 0-255."""


def decode(
    dataset: Dataset, size_px: int, mode: images.Resize, on_progress: Callable[[int], None] | None = None
) -> tuple[Dataset, np.ndarray]:
    """Decode and resize every sample.

    Returns:
        The dataset without the samples that could not be decoded (they are in its `skipped`), and their pixels:
        uint8 (n, size_px, size_px, 3), in the order of its samples.

    Raises:
        DatasetError: if not one image could be decoded.
    """
    pixels = np.empty((len(dataset), size_px, size_px, 3), np.uint8)
    paths = dataset.paths
    failed: dict[int, str] = {}

    def fill(chunk: range) -> int:
        for i in chunk:
            try:
                pixels[i] = images.load(paths[i], size_px, mode)
            except ImageError as error:
                failed[i] = str(error)
        return len(chunk)

    chunks = [range(i, min(i + 16, len(paths))) for i in range(0, len(paths), 16)]
    pool = ThreadPoolExecutor(environment.cpu_count())
    try:
        for done in pool.map(fill, chunks):
            if on_progress:
                on_progress(done)
    finally:
        pool.shutdown(cancel_futures=True)
    if not failed:
        return dataset, pixels
    if len(failed) == len(paths):
        raise DatasetError(f"{dataset.root}: expected images, but none of {len(paths)} could be decoded.")
    kept = [i for i in range(len(paths)) if i not in failed]
    skipped = tuple(Skipped(dataset.samples[i].path, "unreadable", failed[i]) for i in sorted(failed))
    readable = replace(dataset, samples=tuple(dataset.samples[i] for i in kept), skipped=(*dataset.skipped, *skipped))
    return readable, pixels[kept]


def training_batches(
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    transform: Transform | None = None,
    first_step: int = 0,
) -> Any:
    """An endless Grain dataset of shuffled, full batches (pixels, targets), for `fit` with `steps_per_epoch`.

    The order of an epoch and the randomness of a batch follow from `seed` and the batch's number alone, so reading can
    start at any step and gives what an uninterrupted reading would have given.

    Args:
        pixels: uint8 (n, S, S, 3).
        targets: (n,) or (n, classes).
        first_step: how many batches to pass over, counted from the first epoch.
    """
    environment.quiet_logging()
    import grain

    batch_size = min(batch_size, len(pixels))

    def gather(indices: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        batch = pixels[indices]
        return (transform(batch, rng) if transform else batch), targets[indices]

    ordered = grain.MapDataset.range(len(pixels)).shuffle(seed=seed).batch(batch_size, drop_remainder=True)
    batches = ordered.repeat().seed(seed).random_map(gather)
    return batches[first_step:].to_iter_dataset(
        grain.ReadOptions(num_threads=environment.cpu_count(), prefetch_buffer_size=8)
    )


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in one epoch; never 0."""
    return max(1, count // batch_size)
