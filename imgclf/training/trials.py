"""Score settings by cross-validation, fold by fold, with what they share computed once."""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from imgclf import tasks
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.prediction import classical as stored
from imgclf.settings import TrainConfig
from imgclf.settings.classical import NETWORK
from imgclf.training import classical, crossval, estimators
from imgclf.training import train as training
from imgclf.training.images import Images

log = logging.getLogger("imgclf")

Folds = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass
class Trials:
    """Scores settings on the same folds of the same images.

    Args:
        dataset: images that can all be decoded, without those of the test split.
        folds: for each the rows for training and those for testing.
    """

    dataset: Dataset
    folds: Folds
    _vectors: dict[Any, np.ndarray] = field(default_factory=dict)

    def scores(self, config: TrainConfig) -> Iterator[float]:
        """Yield the task's score on the images that each fold holds out.

        Raises:
            ImgclfError: of any kind, if the settings do not go together, or do not suit the images.
        """
        config = replace(config, export="none")
        estimator, _ = estimators.kind(config).resolve(config, self.dataset.median_side_px)
        settings, task = estimator.settings, tasks.find(self.dataset.task)
        if not estimator.shared or settings.cached_augmentations:
            yield from self._trained(config)
            return
        vectors, labels = self._features(estimator), self.dataset.labels
        for train, tested in self.folds:
            with threadpool_limits(1, user_api="blas"):  # on so little, threads wait longer than they work
                if settings.model == NETWORK:
                    kernel, bias = task.fit(
                        vectors[np.newaxis, train],
                        labels[train],
                        outputs=len(self.dataset.class_names),
                        seed=settings.seed,
                        balanced=settings.balance != "none",
                    )
                    outputs = vectors[tested] @ kernel + bias
                else:
                    fitted = classical.make(settings, len(train)).fit(vectors[train], labels[train])
                    outputs = stored.logits(fitted, vectors[tested])
            yield task.best_score(outputs, labels[tested])

    def _features(self, estimator: Any) -> np.ndarray:
        """float32 (n, d): what a frozen network or descriptors make of the images, once for all settings."""
        settings = estimator.settings
        key = (settings.features, settings.backbone, settings.weights, settings.image_size, settings.resize)
        if key not in self._vectors:
            _, pixels = loading.decode(
                self.dataset,
                estimator.image_size,
                settings.decoding,
                cache=settings.cache,
                cache_limit_gb=settings.cache_limit_gb,
            )
            images, built = Images(self.dataset, pixels), estimator.build(len(self.dataset.class_names))
            self._vectors[key] = estimator.vectors(built, images, None)
        return self._vectors[key]

    def _trained(self, config: TrainConfig) -> Iterator[float]:
        """Yield the scores of whole trainings, whose runs are removed."""
        place = Path(tempfile.mkdtemp(prefix="imgclf-trial-"))
        try:
            for number, (_, tested) in enumerate(self.folds):
                own = crossval.split(self.dataset, tested.tolist(), config, config.seed)
                with _warnings_alone():
                    run = training.train(own, config, output=place / str(number), with_report=False)
                yield float(run.scores[tasks.find(self.dataset.task).SCORE])
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _warnings_alone() -> Iterator[None]:
    """Keep what the training of a fold tells of its images to itself: for a search, they are no test split."""

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    log.addFilter(is_warning)
    try:
        yield
    finally:
        log.removeFilter(is_warning)
