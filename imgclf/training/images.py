"""The images of a training: decoded, with what is fitted to them, split by split."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from imgclf import tasks
from imgclf.data import loading
from imgclf.data.dataset import TRAIN, VALIDATION, Dataset
from imgclf.tasks import Task
from imgclf.training.distillation import Lessons

if TYPE_CHECKING:
    from imgclf.training.activations import Activations

Inputs = np.ndarray | loading.Rows
"""What a network is fed: pixels or activations, in memory or fetched when asked for."""


@dataclass(frozen=True)
class Part:
    """One split: uint8 pixels (n, s, s, 3), in memory or fetched when asked for, and its targets.

    Args:
        pixels: or the activations that frozen lower layers computed from them.
        draw: for training on activations, `draw(rows, rng)` gives one of the cached augmentations of each row.
    """

    pixels: Inputs
    labels: np.ndarray
    draw: loading.Transform | None = None


@dataclass(frozen=True)
class Images:
    """The decoded images, and the places of each split among them."""

    dataset: Dataset
    pixels: loading.Pixels  # uint8 (n, s, s, 3)
    lessons: Lessons | None = None

    @property
    def task(self) -> Task:
        """What is predicted."""
        return tasks.find(self.dataset.task)

    @cached_property
    def _standardized(self) -> tuple[np.ndarray, list[np.ndarray]]:
        return self.task.standardized(self.dataset.labels, self.rows(TRAIN))

    @property
    def targets(self) -> np.ndarray:
        """What the logits are fitted to, of all images."""
        return self._standardized[0]

    @property
    def output_weights(self) -> list[np.ndarray]:
        """The weights of the output layer, which give the logits the units of the labels."""
        return self._standardized[1]

    def rows(self, split: str) -> np.ndarray:
        """int (m,): the places of a split."""
        return np.array([i for i, sample in enumerate(self.dataset.samples) if sample.split == split], int)

    @property
    def size_px(self) -> int:
        """The side of the images."""
        return int(self.pixels.shape[1])

    def part(self, split: str, cached: "Activations | None" = None) -> Part:
        """One split, as pixels, or as the activations of frozen lower layers; with the lessons of a teacher."""
        rows = self.rows(split)
        if self.lessons and split == TRAIN:
            return Part(self.lessons.pixels(self.pixels.take(rows)), self.lessons.targets)
        labels = self.targets[rows]
        if cached is None:
            return Part(self.pixels.take(rows), labels)
        own = cached.take(rows)
        return Part(own, labels, own.draw)

    def validation(self, cached: "Activations | None" = None) -> Part | None:
        """Return the validation split; None where it is empty."""
        return self.part(VALIDATION, cached) if len(self.rows(VALIDATION)) else None
