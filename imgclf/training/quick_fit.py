"""Fit small networks and probes fold by fold, in memory, without runs: for comparisons."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.settings import TrainConfig
from imgclf.tasks import logistic
from imgclf.training import network, optimizers, recipe

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""For each fold the rows for training and those for testing."""

EPOCHS = 20


@dataclass(frozen=True)
class Fitted:
    """Predicted class indices, int (n,), of each image by the fold that tests it, and whether the time was up."""

    predicted: np.ndarray
    was_stopped: bool = False


class _Until(keras.callbacks.Callback):
    """Stops training at a time of `time.monotonic`."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline
        self.was_stopped = False

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if time.monotonic() > self._deadline:
            self.model.stop_training = self.was_stopped = True


def probes(embeddings: np.ndarray, labels: np.ndarray, folds: Folds, *, classes: int, seed: int) -> Fitted:
    """Fit the head of a probe in each fold.

    Args:
        embeddings: float32 (n, d).
        labels: int (n,).
    """
    predicted = np.zeros(len(labels), np.int64)
    for train, tested in folds:
        kernel, bias = logistic.fit(embeddings[train], labels[train], classes=classes, seed=seed)
        predicted[tested] = (embeddings[tested] @ kernel + bias).argmax(axis=1)
    return Fitted(predicted)


def networks(
    backbone: str, pixels: np.ndarray, labels: np.ndarray, folds: Folds, *, classes: int, seed: int, limit_s: float
) -> Fitted:
    """Train a network from random weights in each fold, for EPOCHS or until its share of the time is up.

    Args:
        backbone: one without weights.
        pixels: uint8 (n, s, s, 3).
        labels: int (n,).
    """
    size = int(pixels.shape[1])
    plain: dict[str, Any] = {"augment": "none", "label_smoothing": 0.0, "image_size": size, "epochs": EPOCHS}
    plan, _ = recipe.resolve(TrainConfig(backbone=backbone, method="scratch", seed=seed, **plain))
    predicted, was_stopped, started = np.zeros(len(labels), np.int64), False, time.monotonic()
    for number, (train, tested) in enumerate(folds, start=1):
        model = network.build(plan, classes)
        steps = -(-len(train) // plan.batch_size)
        model.compile(optimizers.build(plan, steps, model), "sparse_categorical_crossentropy")
        until = _Until(started + limit_s * number / len(folds))
        model.fit(
            pixels[train].astype(np.float32),
            labels[train],
            batch_size=plan.batch_size,
            epochs=EPOCHS,
            callbacks=[until],
            verbose=0,
        )
        found = model.predict(pixels[tested].astype(np.float32), batch_size=plan.batch_size, verbose=0)
        predicted[tested] = found.argmax(axis=1)
        was_stopped |= until.was_stopped
        keras.backend.clear_session()
    return Fitted(predicted, was_stopped)
