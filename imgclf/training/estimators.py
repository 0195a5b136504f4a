"""What is trained: one protocol, which each kind of classifier implements.

`train`, `resume` and `kfold` know no kind by name. A further one is a class with the members of `Estimator`, and an
entry in `ESTIMATORS`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, Self

import numpy as np

from imgclf.prediction.artifact import File
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.settings.classical import CLASSICAL_MODELS, NETWORK
from imgclf.training.images import Images
from imgclf.training.progress import OnProgress, Row
from imgclf.training.time_budget import Clock

ESTIMATORS = {NETWORK: "neural:Network"} | dict.fromkeys(CLASSICAL_MODELS, "classical:Classical")
"""By `--model`: the module of this package and the class, imported when it is trained."""


@dataclass(frozen=True)
class Work:
    """What to fit to, and where the result goes.

    Args:
        decoding_s: seconds that decoding took.
        extended: a finished run, if this is its training for more epochs, whose files are to replace those of the run.
    """

    images: Images
    run: Run
    clock: Clock
    on_progress: OnProgress | None = None
    decoding_s: float = 0.0
    extended: Run | None = None

    def enter(self, phase: str) -> None:
        """Say that a phase without steps begins."""
        if self.on_progress:
            self.on_progress(phase, 0, None)


class Fitted(Protocol):
    """What an estimator fitted; see `job.Fitted` for the arrays."""

    @property
    def settings(self) -> TrainConfig:
        """With the numbers that training found."""
        ...

    @property
    def images(self) -> Images: ...

    @property
    def embeddings(self) -> np.ndarray: ...

    @property
    def logits(self) -> np.ndarray: ...

    @property
    def has_frozen_features(self) -> bool:
        """Whether the features of training images are made as those of new ones: no weight of theirs was fitted."""
        ...

    @property
    def rows(self) -> list[Row]: ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the stored model returns: the output of the task, and what it has besides."""
        ...

    def predictions(self, split: str, temperature: float = 1.0) -> np.ndarray:
        """float32 (m, outputs), of a split: what the model gives, such as probabilities."""
        ...

    def divide(self, temperature: float) -> None:
        """Put the temperature into the model, so that every stored or exported form has it."""
        ...

    def store(self, run: Run) -> Mapping[str, File]:
        """Write the model into the run.

        Returns:
            Its files for `artifact.json`, by their names in the run.
        """
        ...

    def exports(self, clock: Clock) -> tuple[str, ...]:
        """Return the formats to export that were asked for, as far as they fit into a time limit."""
        ...


class Estimator(Protocol):
    """How to train one kind of classifier, with nothing left open.

    Args:
        settings: as `config.json` records them.
        image_size: in px.
        name: what a run's folder is named after.
        limit_s: inf for none.
        shared: whether the folds of a cross-validation may share what `build` returns.
    """

    settings: TrainConfig
    image_size: int
    name: str
    limit_s: float
    shared: bool

    @classmethod
    def resolve(cls, settings: TrainConfig, side_px: float = math.inf) -> tuple[Self, list[str]]:
        """Settle every open setting.

        Args:
            side_px: the median of the images' shorter sides.

        Returns:
            The estimator, and plain sentences on what was chosen where it may surprise.

        Raises:
            UsageError: if settings exclude one another.
            MissingError: if a package is not installed.
        """
        ...

    @classmethod
    def of_run(cls, settings: TrainConfig) -> Self:
        """Return the estimator of settings that are resolved already."""
        ...

    def check(self, count: int) -> None:
        """Check that the settings suit a number of training images, before there is a folder.

        Raises:
            UsageError: if they do not.
        """
        ...

    def build(self, classes: int, run: Run | None = None) -> Any:
        """Get ready to fit, before there is a folder: weights that cannot be had leave nothing behind.

        Args:
            run: one that resumes.
        """
        ...

    def keep(self, built: Any, run: Run) -> None:
        """Write what resuming needs, and what the settings alone do not give again."""
        ...

    def vectors(self, built: Any, images: Images, on_progress: OnProgress | None) -> np.ndarray:
        """Compute what the classifier is fitted to where nothing below it is trained: float32 (n, d), of all images."""
        ...

    def fit(self, built: Any, work: Work) -> Fitted:
        """Fit to the training images, or train a finished run for more epochs."""
        ...


def kind(settings: TrainConfig) -> type[Estimator]:
    """Return the class of the estimator that the settings name."""
    module, _, name = ESTIMATORS[settings.model].partition(":")
    found: type[Estimator] = getattr(import_module(f"imgclf.training.{module}"), name)
    return found
