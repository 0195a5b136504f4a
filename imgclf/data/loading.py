"""Load and cache a dataset's pixels, and batch them with Grain.

Files are decoded once, by threads, into one array, on disk or in memory; every epoch reads that array by row numbers.
Threads, not processes: Pillow leaves Python's lock while it decodes and resizes, and gathering rows is one copy, so
processes gain nothing and cost their start and the way of every batch between them (tests/benchmarks/loading.py).
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imgclf import environment
from imgclf.data import cache as caches
from imgclf.data import content, images
from imgclf.data.dataset import Dataset, Skipped
from imgclf.errors import DatasetError, ImageError
from imgclf.settings import Decoding, TrainConfig

log = logging.getLogger("imgclf")

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""uint8 (b, S, S, 3) and a source of randomness -> uint8 or float32 (b, s, s, 3), pixels 0-255."""

WORTH_CACHING = 50_000_000
"""Number of stored pixels from which `auto` keeps decoded images on disk; they take about a second to decode."""

_FILE_COST = 10_000
"""Cost of opening a file, in pixels."""

_CHUNK = 16
_STEPS = 1 << 40


class Rows(Protocol):
    """A source of images by row number."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray: ...


class Pixels:
    """Images of one size, uint8 (n, s, s, 3), fetched on access.

    They are in memory, in a mapped file, or still in the image files; `len`, `shape`, slices and arrays of row numbers
    work as on an array, and always give an array.
    """

    def __init__(self, source: Rows, rows: np.ndarray | None = None) -> None:
        self._source = source
        self._rows = np.arange(source.shape[0]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._source.shape[1:])

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._source[self._rows[index]])

    def take(self, rows: np.ndarray) -> "Pixels":
        """Select some of the images, without copying them."""
        return Pixels(self._source, self._rows[rows])


@dataclass(frozen=True)
class _Contents:
    """The distinct contents of a dataset's files, sorted by SHA-256, each with one of its samples, and the rules."""

    dataset: Dataset
    hashes: np.ndarray  # S64 (u,)
    samples: np.ndarray  # int (u,)
    size_px: int
    rules: Decoding

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.samples), self.size_px, self.size_px, 3)

    def path(self, row: int) -> Path:
        return self.dataset.root / self.dataset.samples[int(self.samples[row])].path

    def load(self, row: int) -> np.ndarray:
        """Decode an image to uint8 (s, s, 3).

        Raises:
            ImageError: if it cannot be decoded.
            OSError: if the file is not the one that was read: gone, unreadable or changed.
        """
        with contextlib.ExitStack() as open_file:
            try:
                open_file.enter_context(images.prepared(self.rules.allow_truncated))
                data = open_file.enter_context(content.of(self.path(row)))
            except ImageError as error:
                raise OSError(str(error)) from None
            if hashlib.sha256(data).hexdigest().encode() != self.hashes[row]:
                raise OSError("changed since the data set was read")
            return images.load(data, self.size_px, self.rules)


class _Files:
    """Images that are decoded on every access."""

    def __init__(self, contents: _Contents) -> None:
        self.shape = contents.shape
        self._contents = contents
        self._pool = ThreadPoolExecutor(environment.cpu_count(), thread_name_prefix="decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self))[index]
        return np.stack(list(self._pool.map(self._load, rows)))

    def _load(self, row: int) -> np.ndarray:
        try:
            return self._contents.load(row)
        except (ImageError, OSError) as error:
            raise DatasetError(f"{self._contents.path(row)}: {error}. It could be read before this training.") from None


def decode(
    dataset: Dataset,
    size_px: int,
    rules: Decoding = images.DEFAULT,
    *,
    cache: str = TrainConfig.cache,
    cache_limit_gb: float = TrainConfig.cache_limit_gb,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Dataset, Pixels]:
    """Decode and resize every sample, files of equal content once.

    Args:
        cache: where to keep the pixels: `memory`; a folder, for later runs; `auto`, a folder in the cache root, or
            memory for small datasets; `off` keeps none and decodes on every access. If the folder cannot be written,
            memory is used, or else nothing is kept.
        cache_limit_gb: maximum size of such a folder; the least recently used entries are removed first.
        on_progress: called with the number of samples done since the last call.

    Returns:
        The dataset without the samples that could not be decoded (they are in its `skipped`), and the pixels of the
        others in their order.

    Raises:
        DatasetError: if not one image could be decoded, or they do not fit into the memory that was asked for.
    """
    hashes, samples, row_of = np.unique(content_hashes(dataset), return_index=True, return_inverse=True)
    contents = _Contents(dataset, hashes, samples, size_px, rules)
    done = 0

    def report(rows: int) -> None:  # a second attempt, after the disk was full, counts from the start
        nonlocal done
        if on_progress and rows > done:
            on_progress(rows - done)
        done = max(done, rows)

    source, failed = _decode(contents, cache, round(cache_limit_gb * 1e9), report)
    report(len(dataset))
    if not failed:
        return dataset, Pixels(source, row_of)
    if len(failed) == len(hashes):
        reason = next(iter(failed.values()))
        raise DatasetError(f"{dataset.root}: expected images, but none of {len(dataset)} could be decoded ({reason}).")
    lost = np.isin(row_of, list(failed))
    skipped = (Skipped(dataset.samples[i].path, "unreadable", failed[row_of[i]]) for i in np.flatnonzero(lost))
    kept = tuple(sample for sample, gone in zip(dataset.samples, lost, strict=True) if not gone)
    return replace(dataset, samples=kept, skipped=(*dataset.skipped, *skipped)), Pixels(source, row_of[~lost])


def content_hashes(dataset: Dataset) -> np.ndarray:
    """Return the SHA-256 of each sample, S64 (n,); if unknown, that of the file, or of its name if it is gone."""

    def of_file(path: str) -> str:
        try:
            return content.sha256(dataset.root / path)
        except ImageError:
            return hashlib.sha256(os.fsencode(path)).hexdigest()

    return np.array([sample.sha256 or of_file(sample.path) for sample in dataset.samples], "S64")


def _decode(contents: _Contents, cache: str, limit: int, report: Callable[[int], None]) -> tuple[Rows, dict[int, str]]:
    """Choose a source of the pixels; return it, and the rows without pixels with the reason."""
    needed = int(np.prod(contents.shape))
    if cache not in ("off", "memory") and (cache != "auto" or _is_worth_caching(contents)):
        folder = caches.default_folder() if cache == "auto" else Path(cache)
        try:
            found = _from_folder(contents, folder, needed, limit, report)
        except OSError as error:
            found = error.strerror or str(error)
        if isinstance(found, caches.Entry):
            return found.array, found.failed
        cache = "memory" if needed <= environment.available_memory() // 2 else "off"
        instead = "memory holds them" if cache == "memory" else "every epoch decodes them again"
        log.warning("%s: decoded pixels cannot be kept there (%s); %s instead.", folder, found, instead)
    elif cache == "memory" and needed > environment.available_memory():
        raise DatasetError(
            f"{contents.dataset.root}: {contents.shape[0]:,} images at {contents.size_px} px take {needed / 1e9:.1f} "
            "GB, more than the memory has free. Use --cache auto or a folder."
        )
    failed: dict[int, str] = {}
    pixels = np.empty(contents.shape, np.uint8) if cache != "off" else None
    for first, rows, problems, _ in _decoded(contents):
        if pixels is not None:
            pixels[first : first + len(rows)] = rows
        failed |= problems
        report(first + len(rows))
    return _Files(contents) if pixels is None else pixels, failed


def _is_worth_caching(contents: _Contents) -> bool:
    samples = contents.dataset.samples
    stored = sum(max(samples[i].width * samples[i].height, _FILE_COST) for i in contents.samples.tolist())
    return bool(stored >= WORTH_CACHING)


def _from_folder(
    contents: _Contents, folder: Path, needed: int, limit: int, report: Callable[[int], None]
) -> caches.Entry | str:
    """Find or make the entry in the cache, or return the reason why that is impossible.

    Raises:
        OSError: if the folder cannot be written.
    """
    name = caches.key(contents.hashes, contents.size_px, contents.rules)
    found = caches.read(folder, name, contents.shape)
    if found:
        return found
    no_room = caches.make_room(folder, needed, limit)
    if no_room:
        return no_room
    failed: dict[int, str] = {}
    lasting = True
    with caches.Writer(folder, name, contents.shape) as writer:
        for first, rows, problems, always in _decoded(contents):
            writer.append(rows)
            failed |= problems
            lasting &= always
            report(first + len(rows))
        return writer.finish(failed, keep=lasting)


def _decoded(contents: _Contents) -> Iterator[tuple[int, np.ndarray, dict[int, str], bool]]:
    """Decode all rows in order, in threads, slightly ahead of the reader.

    Yields:
        The first row's number; pixels uint8 (k, s, s, 3), black where there are none; why there are none, by row; and
        whether these files would always give the same: none was gone or changed, nor too large for the memory left.
    """

    def load(first: int) -> tuple[int, np.ndarray, dict[int, str], bool]:
        last = min(first + _CHUNK, len(contents.samples))
        rows = np.zeros((last - first, *contents.shape[1:]), np.uint8)
        problems: dict[int, str] = {}
        lasting = True
        for row in range(first, last):
            try:
                rows[row - first] = contents.load(row)
            except (ImageError, OSError) as error:
                problems[row] = str(error)
                lasting &= isinstance(error, ImageError) and images.is_lasting(str(error))
        return first, rows, problems, lasting

    threads = environment.cpu_count()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    ahead: deque[Future[tuple[int, np.ndarray, dict[int, str], bool]]] = deque()
    try:
        for first in range(0, len(contents.samples), _CHUNK):
            ahead.append(pool.submit(load, first))
            if len(ahead) > 4 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def training_batches(
    pixels: np.ndarray | Rows,
    labels: np.ndarray,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    transform: Transform | None = None,
    balanced: bool = False,
    first_step: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> Any:
    """Make an endless Grain dataset of shuffled, full batches for `fit` with `steps_per_epoch`.

    A batch is pixels (b, s, s, 3) and targets, float32 (b, classes), for classes 1 at the label. The order of an epoch
    and the randomness of a batch follow from `seed` and the batch's number alone, on every backend, so reading can
    start at any step and gives what an uninterrupted reading would have given. (An iterator's `get_state` and
    `set_state` do the same.)

    Args:
        pixels: uint8 (n, S, S, 3).
        labels: int (n,), or the targets themselves, float32 (n, classes).
        batch_size: images in a batch of this process.
        balanced: whether an epoch shows every class equally often, small ones repeatedly, large ones in part.
        first_step: how many batches to pass over, counted from the first epoch.
        shard_index: which of the processes this is, from 0. All together read the batches that one process would
            read with `batch_size * shard_count`.
        shard_count: how many processes share the images.

    Raises:
        DatasetError: if there are fewer images than processes.
    """
    environment.quiet_logging()
    import grain

    count = len(pixels)
    if count < shard_count:
        raise DatasetError(f"expected an image for each of {shard_count} processes, found {count} in all.")
    batch_size = min(batch_size, count // shard_count)
    steps = steps_per_epoch(count, batch_size * shard_count)

    @functools.lru_cache(maxsize=2)  # threads read ahead into the next epoch
    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng((seed, epoch))
        return _balanced_order(labels, rng) if balanced else rng.permutation(count)

    def gather(step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, place = divmod(step, steps)
        first = (place * shard_count + shard_index) * batch_size
        rows = order(epoch)[first : first + batch_size]
        batch = pixels[rows]
        targets = labels[rows] if labels.ndim == 2 else np.zeros((batch_size, classes), np.float32)
        if labels.ndim == 1:
            targets[np.arange(batch_size), labels[rows]] = 1
        if transform:
            batch = transform(batch, np.random.default_rng((seed, step, shard_index)))
        return batch, targets

    return (
        grain.MapDataset.range(first_step, _STEPS)
        .map(gather)
        .to_iter_dataset(grain.ReadOptions(num_threads=environment.cpu_count(), prefetch_buffer_size=8))
    )


def _balanced_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many rows as there are labels, every class equally often (to within one), in random order."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share, more = divmod(len(labels), len(members))
    extra = rng.permutation(len(members)) < more
    rows: list[np.ndarray] = []
    for rows_of_class, one_more in zip(members, extra, strict=True):
        wanted = share + int(one_more)
        rounds = max(1, -(-wanted // len(rows_of_class)))
        rows.append(np.concatenate([rng.permutation(rows_of_class) for _ in range(rounds)])[:wanted])
    return rng.permutation(np.concatenate(rows).astype(int))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Count the full batches of an epoch; at least 1."""
    return max(1, count // batch_size)
