"""Decode the images of a training in a thread, while the network is built."""

import logging
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Protocol, Self

from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.settings import TrainConfig
from imgclf.training.progress import OnProgress

log = logging.getLogger("imgclf")


class Sized(Protocol):
    """What decoding has to know of a training: a recipe or an estimator."""

    @property
    def settings(self) -> TrainConfig: ...

    @property
    def image_size(self) -> int: ...


class Decoding:
    """Pixels that a thread decodes, so that the network can be built meanwhile; leaving the context ends it."""

    def __init__(self, dataset: Dataset, recipe: Sized, on_progress: OnProgress | None) -> None:
        self.seconds = 0.0  # how long it took
        self._dataset, self._recipe, self._on_progress = dataset, recipe, on_progress
        self._done = 0
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decoding")
        self._future = self._pool.submit(self._decode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()

    def result(self) -> tuple[Dataset, loading.Pixels]:
        """Return the dataset without what cannot be decoded, and the pixels of the rest.

        Raises:
            DatasetError: see `loading.decode`.
            MissingError: see `loading.decode`.
        """
        readable, pixels = self._future.result()
        for skipped in readable.skipped[len(self._dataset.skipped) :]:
            log.warning("Left out %s: %s", skipped.path, skipped.reason)
        return readable, pixels

    def _decode(self) -> tuple[Dataset, loading.Pixels]:
        settings, begun = self._recipe.settings, time.monotonic()
        decoded = loading.decode(
            self._dataset,
            self._recipe.image_size,
            settings.decoding,
            cache=settings.cache,
            cache_limit_gb=settings.cache_limit_gb,
            on_progress=self._advance,
        )
        self.seconds = time.monotonic() - begun
        return decoded

    def _advance(self, count: int) -> None:
        if self._ended.is_set():
            raise CancelledError
        self._done += count
        if self._on_progress:
            self._on_progress("decoding", self._done, len(self._dataset))
