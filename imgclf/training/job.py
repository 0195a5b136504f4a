"""One training: what every method is given, and what it returns."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from imgclf import storage
from imgclf.data.dataset import TRAIN, VALIDATION
from imgclf.models import classifier
from imgclf.prediction import artifact
from imgclf.prediction.artifact import File
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.training import features, finetune, history
from imgclf.training.images import Images
from imgclf.training.passes import Passes
from imgclf.training.progress import OnProgress, Row
from imgclf.training.recipe import Recipe
from imgclf.training.time_budget import Clock

if TYPE_CHECKING:
    import keras

log = logging.getLogger("imgclf")

SPARE = 0.05
"""The share of a time limit by which exports that were counted on may overrun it."""


class TimeIsUp(Exception):
    """The deadline has come."""


@dataclass(frozen=True)
class Fitted:
    """What a method fitted.

    Args:
        recipe: with the numbers that training found.
        images: at the recipe's image size.
        embeddings: float32 (n, d), of all images.
        logits: float32 (n, outputs), of all images.
        rows: the history.
    """

    model: "keras.Model"
    recipe: Recipe
    images: Images
    embeddings: np.ndarray
    logits: np.ndarray
    rows: list[Row]

    def predictions(self, split: str, temperature: float = 1.0) -> np.ndarray:
        """float32 (m, outputs), of a split: what the model gives."""
        logits = self.logits[self.images.rows(split)] / temperature
        return self.images.task.link(logits, self.images.output_weights)

    @property
    def has_frozen_features(self) -> bool:
        """Whether no weight of the backbone was fitted, so that training images have features as new ones have."""
        return not any(layer.trainable_weights for layer in classifier.backbone_layers(self.model))

    @property
    def settings(self) -> TrainConfig:
        """As `config.json` records them, with the numbers that training found."""
        return self.recipe.settings

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the stored model returns."""
        return (self.images.task.OUTPUT, "embedding", *(["feature_map"] if classifier.has_map(self.model) else []))

    def divide(self, temperature: float) -> None:
        """Divide the head's weights by the temperature: so every export has it, and no graph has one layer more."""
        head = self.model.get_layer("logits")
        head.set_weights([weights / temperature for weights in head.get_weights()])

    def store(self, run: Run) -> dict[str, File]:
        """Write `model.keras`."""
        with storage.replacing(run.model) as new:
            self.model.save(new)
        return {run.model.name: File("keras", *artifact.hash_tree(run.model))}

    def exports(self, clock: Clock) -> tuple[str, ...]:
        """Return the formats to export: those asked for, as far as they fit into a time limit that was given."""
        formats = self.settings.export_formats
        if not self.recipe.is_limited:
            return formats
        left, layers = clock.left_s() + SPARE * clock.limit_s, len(self.model.layers)
        count = sum(clock.ending_s(n, layers, 0.0) <= left for n in range(1, len(formats) + 1))
        if count < len(formats):
            names = ", ".join(formats[count:])
            log.warning("Not exported, since the time limit is reached: %s. imgclf export exports them later.", names)
        return formats[:count]


@dataclass
class Job:
    """One training in progress.

    Args:
        model: in float32; it has the best weights so far.
        run: where the history, the checkpoint and the found settings go.
        callbacks: of Keras.
        decoding_s: seconds that decoding took.
        rows: the history.
    """

    model: "keras.Model"
    recipe: Recipe
    images: Images
    run: Run
    clock: Clock
    on_progress: OnProgress | None = None
    callbacks: "Sequence[keras.callbacks.Callback]" = ()
    decoding_s: float = 0.0
    rows: list[Row] = field(default_factory=list)
    _passes: "tuple[keras.Model, Passes] | None" = None

    def report(self) -> None:
        """Write the history."""
        history.write(self.run.history_file, self.rows, self.images.task.SCORE)

    def add(self, row: Row) -> None:
        """Append a row to the history, and write it."""
        self.rows.append(row)
        self.report()

    def record(self) -> None:
        """Write the settings with the numbers that training found."""
        storage.write_json(self.run.config, self.run.read_config() | {"config": self.recipe.settings.to_dict()})

    def enter(self, phase: str) -> None:
        """Say that a phase without steps begins."""
        if self.on_progress:
            self.on_progress(phase, 0, None)

    def fit_head(self, phase: str, augmentations: int = 0, on_progress: OnProgress | None = None) -> Fitted:
        """Fit the head to the training images; all images go through the frozen backbone once.

        Args:
            augmentations: of each training image, which the head is fitted to as well.
        """
        started = time.monotonic()
        finetune.freeze(self.model)
        if phase == "probe":
            log.info(
                "Probe: the pretrained network stays as it is; only a linear classifier, the head, is fitted on top. "
                "docs/glossary.md explains the terms.",
                extra={"once": True},  # in a terminal; each run has it in its log
            )
        images, task, labels = self.images, self.images.task, self.images.targets
        embeddings = self._embed(augmentations, on_progress)
        at = {split: images.rows(split) for split in (TRAIN, VALIDATION)}
        self.enter("fitting the head")
        kernel, bias = task.fit(
            embeddings[:, at[TRAIN]],
            labels[at[TRAIN]],
            outputs=self.model.output_shape[-1],
            seed=self.recipe.seed,
            balanced=self.recipe.balance != "none",
        )
        self.model.get_layer("logits").set_weights([kernel, bias])
        fitted = self._fitted(embeddings[0])
        row: Row = {"phase": phase, "epoch": 1, "image_size": self.recipe.image_size}
        for split, prefix in ((TRAIN, ""), (VALIDATION, "val_")):
            if len(at[split]):
                found = task.score(fitted.logits[at[split]], labels[at[split]])
                row |= dict(zip((f"{prefix}loss", f"{prefix}{task.SCORE}"), found, strict=True))
        row["seconds"] = time.monotonic() - started
        log.info("%s: %s (%.1f s).", history.title(phase), history.scores(row), row["seconds"])
        self.add(row)
        return fitted

    def fitted(self) -> Fitted:
        """Return the model as it is, with the embeddings of all images."""
        started = time.monotonic()
        embeddings = self._embed(0, self.on_progress)[0]
        if self.clock.limit_s < math.inf:
            self.clock.learn(self.embedding_s(), time.monotonic() - started)
        return self._fitted(embeddings)

    def _embed(self, augmentations: int, on_progress: OnProgress | None) -> np.ndarray:
        dataset, pixels = self.images.dataset, self.images.pixels
        return features.frozen(
            self.model, dataset, pixels, self.recipe, augmentations=augmentations, on_progress=on_progress
        )

    def _fitted(self, embeddings: np.ndarray) -> Fitted:
        kernel, bias = self.model.get_layer("logits").get_weights()
        return Fitted(self.model, self.recipe, self.images, embeddings, embeddings @ kernel + bias, self.rows)

    def embedding_s(self) -> float:
        """Seconds that the embeddings of all images take."""
        return self.passes().embedding_s(len(self.images.pixels)) / features.gain(self.model, self.recipe)

    def announce(self) -> None:
        """Say which exports a time limit may leave no time for, before any training."""
        if not self.recipe.is_limited:
            return
        formats, layers = self.recipe.settings.export_formats, len(self.model.layers)
        passes_s, left_s = 2 * self.embedding_s(), self.clock.left_s()  # for the probe, and for the end
        count = sum(self.clock.ending_s(n, layers, passes_s) <= left_s for n in range(1, len(formats) + 1))
        if count < len(formats):
            log.warning(
                "--time-limit %s may leave no time to export %s. imgclf export makes later what is missing.",
                self.recipe.settings.time_limit,
                ", ".join(formats[count:]),
            )

    def ending_s(self, area: float = 1.0) -> float:
        """Seconds of a time limit that are kept back for the end.

        Args:
            area: of the images in relation to those of now.
        """
        if self.clock.limit_s == math.inf:
            return 0.0
        formats = len(self.recipe.settings.export_formats)
        return self.clock.ending_s(formats, len(self.model.layers), area * self.embedding_s())

    def deadline(self, area: float = 1.0) -> float:
        """When training must end, of `time.monotonic`."""
        return self.clock.deadline(self.ending_s(area))

    def until(self, deadline: float) -> OnProgress:
        """Progress that raises TimeIsUp in the work that it is called from, once the deadline has come."""

        def on_progress(phase: str, done: int, total: int) -> None:
            if time.monotonic() > deadline:
                raise TimeIsUp
            if self.on_progress:
                self.on_progress(phase, done, total)

        return on_progress

    def passes(self) -> Passes:
        """How long passes through the current model take."""
        if self._passes is None or self._passes[0] is not self.model:
            self._passes = self.model, Passes(self.model, self.images.pixels, self.recipe.batch_size)
        return self._passes[1]
