"""Compute the feature vectors of many images on all cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Protocol

import numpy as np

from imgclf import environment
from imgclf.descriptors.kinds import Descriptor

OnProgress = Callable[..., None]
"""Phase, images done, images in all."""

CHUNK = 64
MANY = 1000
"""From this number of images, processes are worth their start: a second each."""


class Pixels(Protocol):
    """uint8 (n, s, s, 3), in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> np.ndarray: ...


def of_pixels(
    descriptor: Descriptor,
    pixels: Pixels,
    embeddings: np.ndarray | None = None,
    on_progress: OnProgress | None = None,
    *,
    many: int = MANY,
) -> np.ndarray:
    """float32 (n, d), of images of the descriptor's size, on all cores.

    Args:
        embeddings: float32 (n, e), where they are a part of the vectors.
        many: from this number of images, several processes share the work.
    """
    starts = range(0, len(pixels), CHUNK)

    def chunks() -> Iterator[tuple[str, int, np.ndarray, np.ndarray | None]]:
        for start in starts:
            part = slice(start, start + CHUNK)
            own = None if embeddings is None else embeddings[part]
            yield descriptor.text, descriptor.size_px, np.asarray(pixels[part]), own

    found: list[np.ndarray] = []
    workers = environment.cpu_count() if len(pixels) >= many else 1
    if workers == 1:
        results: Iterator[np.ndarray] = map(_compute, chunks())
        return _gathered(results, found, len(pixels), on_progress)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return _gathered(pool.map(_compute, chunks()), found, len(pixels), on_progress)


def _gathered(
    results: Iterator[np.ndarray], found: list[np.ndarray], count: int, on_progress: OnProgress | None
) -> np.ndarray:
    for vectors in results:
        found.append(vectors)
        if on_progress:
            on_progress("features", sum(map(len, found)), count)
    return np.concatenate(found)


def _compute(chunk: tuple[str, int, np.ndarray, np.ndarray | None]) -> np.ndarray:
    text, size_px, pixels, embeddings = chunk
    return Descriptor(text, size_px).vectors(pixels, embeddings)
