"""Compute the feature vectors of many images, on all cores where that is quicker."""

import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np

from imgclf import environment
from imgclf.descriptors.kinds import Descriptor

OnProgress = Callable[..., None]
"""Phase, images done, images in all."""

CHUNK = 32

START_S = 2.0
"""Seconds that processes must save: each imports NumPy and scikit-image when it starts."""

SLOTS = 3
"""Chunks in memory for each process: the one that it computes, and those that wait for it."""


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
    start_s: float = START_S,
) -> np.ndarray:
    """float32 (n, d), of images of the descriptor's size.

    The first chunks are computed here. Processes share the rest if they save more time than their start takes; threads
    would wait for one another, since NumPy's operations on one small image hold its lock.

    Args:
        embeddings: float32 (n, e), where they are a part of the vectors.
        start_s: seconds that processes must save.
    """
    found: list[np.ndarray] = []

    def add(vectors: np.ndarray) -> None:
        found.append(vectors)
        if on_progress:
            on_progress("features", sum(map(len, found)), len(pixels))

    parts = [slice(start, start + CHUNK) for start in range(0, len(pixels), CHUNK)]
    workers, quickest_s = environment.cpu_count(), math.inf
    for count, part in enumerate(parts, start=1):
        begun = time.perf_counter()
        add(descriptor.vectors(np.asarray(pixels[part]), _rows(embeddings, part)))
        quickest_s = min(quickest_s, time.perf_counter() - begun)  # the first may have imported scikit-image
        rest = parts[count:]
        if count > 1 and rest and quickest_s * len(rest) * (1 - 1 / workers) > start_s:
            for vectors in _in_processes(descriptor, pixels, embeddings, rest, workers):
                add(vectors)
            break
    return np.concatenate(found)


def _rows(embeddings: np.ndarray | None, part: slice) -> np.ndarray | None:
    return None if embeddings is None else embeddings[part]


def _in_processes(
    descriptor: Descriptor, pixels: Pixels, embeddings: np.ndarray | None, parts: Sequence[slice], workers: int
) -> Iterator[np.ndarray]:
    """Compute in processes that map the pixels from a file: sent through pipes, they take longer than a histogram."""
    shape = (SLOTS * workers, CHUNK, descriptor.size_px, descriptor.size_px, 3)
    with (
        tempfile.TemporaryDirectory(prefix="imgclf-") as folder,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        path = Path(folder) / "pixels"
        np.zeros(shape, np.uint8).tofile(path)  # all of it, since a full disk would end the process later
        slots = np.memmap(path, np.uint8, "r+", shape=shape)
        waiting: deque[Future[np.ndarray]] = deque()
        for place, part in enumerate(parts):
            if len(waiting) == len(slots):
                yield waiting.popleft().result()
            chunk, slot = pixels[part], place % len(slots)
            slots[slot, : len(chunk)] = chunk
            work = partial(_of_slot, descriptor.text, path, shape, slot, len(chunk))
            waiting.append(pool.submit(work, _rows(embeddings, part)))
        for future in waiting:
            yield future.result()
        del slots  # else Windows could not delete the file


def _of_slot(
    text: str, path: Path, shape: tuple[int, ...], slot: int, count: int, embeddings: np.ndarray | None
) -> np.ndarray:
    return Descriptor(text, shape[2]).vectors(_mapped(path, shape)[slot, :count], embeddings)


@cache
def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the slots, in a process of a pool."""
    return np.memmap(path, np.uint8, "r", shape=shape)
