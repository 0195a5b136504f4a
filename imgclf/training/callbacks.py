"""What happens around the steps of `fit`: one callback for each job.

Keras's own callbacks do not fit where training resumes exactly and `fit` runs once for each image size:
EarlyStopping starts over with each `fit`, SwapEMAWeights swaps by additions, which round the weights, TerminateOnNaN
waits for the device at every step, and BackupAndRestore knows neither dropout's seeds nor the position in the data.
The EMA itself is the optimizer's.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment, tasks
from imgclf.errors import RunError
from imgclf.training import checkpoint, history, optimizers
from imgclf.training.progress import OnProgress, Row
from imgclf.training.recipe import Recipe

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

SHOW_EVERY_S = 0.25
"""How often the progress shows the loss: to ask a device for it is to wait for it."""

log = logging.getLogger("imgclf")


@dataclass
class State:
    """What the callbacks of one training share.

    Args:
        model: the classifier; `logits` has the same layers, and is what `fit` trains.
        steps: batches in an epoch.
        best: the weights with the best validation, or the last ones without validation images.
        last: the weights of the last epoch.
    """

    model: keras.Model
    logits: keras.Model
    recipe: Recipe
    phase: str
    steps: int
    rows: list[Row] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    last: list[np.ndarray] = field(default_factory=list)
    out_of_time: bool = False

    @property
    def task(self) -> tasks.Task:
        """What is predicted."""
        return tasks.find(self.recipe.settings.task)

    @property
    def val_score(self) -> str:
        """The name of the task's score on validation images, in a row."""
        return f"val_{self.task.SCORE}"

    def is_over(self) -> bool:
        """Whether time or patience has come to an end."""
        return self.out_of_time or self.is_exhausted()

    def is_exhausted(self) -> bool:
        """Whether validation has not improved for as many epochs as the recipe waits."""
        scores = [(row[self.val_score], -row["val_loss"]) for row in self.rows]
        if not self.recipe.patience or not scores or math.isnan(scores[0][0]):
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= self.recipe.patience

    def save(self, path: Path) -> None:
        """Write the whole state: variables (seed generators among them), optimizer, best weights, rows."""
        facts = {"training": self.training, "rows": self.rows, "best_score": self.best_score}
        model, optimizer = values(self.logits.variables), values(self.logits.optimizer.variables)
        checkpoint.write(path, facts, {"model": model, "optimizer": optimizer, "best": self.best})

    def restore(self, path: Path) -> None:
        """Take back what `save` wrote.

        Raises:
            RunError: if the file is damaged, or of another training.
        """
        facts, arrays = checkpoint.read(path, self.training)
        assign(self.logits.variables, arrays["model"])
        assign(self.logits.optimizer.variables, arrays["optimizer"])
        self.best = arrays["best"]
        self.rows[:] = facts["rows"]
        self.best_score = tuple(facts["best_score"])

    @property
    def training(self) -> str:
        """What a checkpoint must agree with."""
        return f"{self.phase}: {self.recipe!r}"


class AfterEpoch(keras.callbacks.Callback):
    """Base: does its job after each whole epoch; one that the deadline ended early does not count."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.state.out_of_time:
            self.after_epoch(epoch, {} if logs is None else logs)

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        """Do the job; `logs` is what `fit` knows about the epoch, and callbacks may add to it."""


class StopOnNaN(AfterEpoch):
    """End a training whose loss is no longer a number."""

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        if not math.isfinite(float(logs.get("loss", math.nan))):
            raise RunError(
                f"{self.state.phase}: the loss is no longer a number in epoch {epoch + 1}. The weights of the best "
                f"epoch are kept. Try a smaller --lr than {self.state.recipe.lr:g}."
            )


class OnEMA(AfterEpoch):
    """Run other callbacks on the EMA of the weights, if the recipe has one; training resumes from the raw weights.

    The EMA meets the batch-normalization statistics of the raw weights, as both come to rest with the learning rate.
    """

    def __init__(self, state: State, *callbacks: AfterEpoch) -> None:
        super().__init__(state)
        self._callbacks = callbacks
        self._raw: list[np.ndarray] = []

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        variables = self.state.logits.trainable_variables
        if self.state.recipe.ema:
            self._raw = values(variables)
            self.state.logits.optimizer.finalize_variable_values(variables)
            assign(variables, values(variables))  # copies: else predict under JAX would donate the optimizer's arrays
        for callback in self._callbacks:
            callback.after_epoch(epoch, logs)
        if self._raw:
            assign(variables, self._raw)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """`fit` ends by putting the EMA into the model; the next image size starts from the raw weights."""
        if self._raw:
            assign(self.state.logits.trainable_variables, self._raw)


class Validation(AfterEpoch):
    """Add the loss and the score of the validation images, NaN without any, as `validate` measures them."""

    def __init__(self, state: State, validate: Callable[[], tuple[float, float]]) -> None:
        super().__init__(state)
        self._validate = validate

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        logs["val_loss"], logs[self.state.val_score] = self._validate()


class KeepWeights(AfterEpoch):
    """Keep the best and the last weights; without validation images, the last ones are the best."""

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        state = self.state
        score = (logs[state.val_score], -logs["val_loss"])
        state.last = state.model.get_weights()
        if math.isnan(score[0]):
            score = (float(epoch), 0.0)
        if score >= state.best_score:
            state.best, state.best_score = state.last, score


class History(AfterEpoch):
    """Append a row to the history, and log it."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        state, seconds = self.state, time.monotonic() - self._started
        logs["lr"] = optimizers.learning_rate(state.logits.optimizer)
        row: Row = {"phase": state.phase, "epoch": epoch + 1, "image_size": state.recipe.size(epoch)}
        score, val_score = state.task.SCORE, state.val_score
        row |= {name: float(logs[name]) for name in ("lr", "loss", score, "val_loss", val_score)}
        state.rows.append(row | {"seconds": seconds})
        place = f"{history.title(state.phase)}, epoch {epoch + 1} of {state.recipe.epochs} at {row['image_size']} px"
        speed = state.steps * state.recipe.batch_size / max(seconds, 1e-9)
        told = f"loss {row['loss']:.4f}, {history.scores(row)}"
        log.info("%s: %s (%.1f s, %.0f images/s).", place, told, seconds, speed)


class Call(AfterEpoch):
    """Call a function, such as one that writes a checkpoint."""

    def __init__(self, state: State, function: Callable[[], None]) -> None:
        super().__init__(state)
        self._function = function

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        self._function()


class Patience(AfterEpoch):
    """Stop when validation has not improved for some epochs."""

    def after_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        state = self.state
        if state.is_exhausted() and epoch + 1 < state.recipe.epochs:
            phase = history.title(state.phase)
            log.info("%s: stopped early, no improvement for %d epochs.", phase, state.recipe.patience)
            state.logits.stop_training = True


class Deadline(keras.callbacks.Callback):
    """Stop at a point in time, of `time.monotonic`; an epoch that has not ended by then is dropped."""

    def __init__(self, state: State, deadline: float) -> None:
        super().__init__()
        self._state, self._deadline = state, deadline

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch + 1 < self._state.steps:
            self._stop()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if time.monotonic() > self._deadline:
            self._state.out_of_time = self._state.logits.stop_training = True


class Progress(keras.callbacks.Callback):
    """Show epoch, speed, loss and the last validation."""

    def __init__(self, state: State, on_progress: OnProgress) -> None:
        super().__init__()
        self._state, self._on_progress = state, on_progress
        self._started = self._shown = 0.0
        self._status = ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        rows, recipe, steps = self._state.rows, self._state.recipe, self._state.steps
        if logs and time.monotonic() - self._shown >= SHOW_EVERY_S:
            self._shown = time.monotonic()
            speed = (batch + 1) * recipe.batch_size / max(self._shown - self._started, 1e-9)
            self._status = (
                f"epoch {len(rows) + 1}/{recipe.epochs}  {speed:.0f} images/s  loss {float(logs['loss']):.3f}"
            )
            if rows and not math.isnan(last := rows[-1][self._state.val_score]):
                self._status += f"  val {last:.3f}"
        done = len(rows) * steps + batch + 1
        self._on_progress(self._state.phase, done, recipe.epochs * steps, self._status)


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    """Copy variables into arrays."""
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def assign(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    """Set variables to arrays."""
    for variable, value in zip(variables, arrays, strict=True):
        variable.assign(value)
