"""Gradient descent over epochs: schedule, weight average, validation, checkpoints. Used from scratch and to fine-tune.

Keras's `fit` runs the steps. Around it stands what `fit` cannot do: image sizes that grow, the weight average judged on
validation while the raw weights train on, and a checkpoint after every epoch from which training goes on exactly.
"""

import io
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imgclf.data import loading
from imgclf.errors import RunError
from imgclf.models import classifier
from imgclf.policies import Policy
from imgclf.runs import write_atomic
from imgclf.training import augmentation, devices

log = logging.getLogger("imgclf")

OnProgress = Callable[[str, int, int], None]
"""Phase, units done, units in all."""

OnEpoch = Callable[[list[dict[str, Any]]], None]
"""The rows of all epochs so far."""


@dataclass(frozen=True)
class Plan:
    """How to descend.

    Args:
        sizes: image sizes in px, each for an equal share of the epochs. Random crops enlarge what they show, so the
            last may be a little smaller than the size that the model is for (Touvron 2019, arXiv:1906.06423).
        lr: peak learning rate, reached after `warmup_epochs`, then a cosine to 0 (Loshchilov 2017, arXiv:1608.03983).
        weight_decay: decoupled from the gradient, on kernels only, as a share of the learning rate.
        ema: momentum of the average of the weights, 0 for none; the average is what is validated and kept, with the
            batch normalisation statistics of the raw weights, which it meets as the learning rate falls.
        mixup, cutmix: how images are mixed with one another, and their labels with them, as `Augmenter` says.
    """

    sizes: tuple[int, ...]
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    warmup_epochs: float
    weight_decay: float
    label_smoothing: float
    ema: float
    policy: Policy
    seed: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def size(self, epoch: int) -> int:
        """The image size of an epoch, counted from 0."""
        return self.sizes[epoch * len(self.sizes) // self.epochs]


@dataclass(frozen=True)
class Part:
    """One side of the split: uint8 pixels (n, s, s, 3), in memory or fetched when asked for, and int labels (n,)."""

    pixels: np.ndarray | loading.Pixels
    labels: np.ndarray


def fit(
    model: keras.Model,
    train: Part,
    validation: Part | None,
    plan: Plan,
    *,
    phase: str,
    checkpoint: Path | None = None,
    on_progress: OnProgress | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[dict[str, Any]]:
    """Train a classifier in place and leave it with its best weights on validation (the last ones without one).

    Args:
        model: as `models.classifier.build` makes it; only its trainable layers move.
        checkpoint: a file that is written after every epoch and from which an interrupted training goes on.

    Returns:
        One row per epoch: phase, epoch, image_size, lr, loss, accuracy, val_loss, val_accuracy, seconds.

    Raises:
        RunError: if the loss stops being a number (the best weights so far stay in the model), or the checkpoint is of
            another training.
    """
    augmenter = augmentation.Augmenter(plan.policy, seed=plan.seed, mixup=plan.mixup, cutmix=plan.cutmix)
    logits = augmentation.training_model(classifier.logits(model), augmenter)
    steps = loading.steps_per_epoch(len(train.pixels), plan.batch_size)
    logits.compile(
        optimizer=_optimizer(plan, steps, logits),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=plan.label_smoothing),
        metrics=["accuracy"],
        jit_compile=devices.jit_compile(),
    )
    logits.optimizer.build(logits.trainable_variables)
    loop = _Loop(model, logits, validation, plan, phase, steps, checkpoint, on_progress, on_epoch)
    if checkpoint and checkpoint.exists():
        loop.restore()
        log.info("%s: going on after epoch %d of %d", phase, len(loop.rows), plan.epochs)
    while len(loop.rows) < plan.epochs:
        first = len(loop.rows)
        size = plan.size(first)
        last = next((e for e in range(first, plan.epochs) if plan.size(e) != size), plan.epochs)
        loop.stage_end = last
        batches = loading.training_batches(
            train.pixels,
            train.labels,
            classes=model.output_shape[-1],
            batch_size=plan.batch_size,
            seed=plan.seed,
            transform=augmentation.Crop(plan.policy, size),
            first_step=first * steps,
        )
        logits.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            shuffle=False,
            verbose=0,
            callbacks=[loop],
        )
        loop.after_stage()
    loop.keep_best()
    return loop.rows


def _optimizer(plan: Plan, steps: int, model: keras.Model) -> keras.optimizers.Optimizer:
    total = plan.epochs * steps
    warmup = min(round(plan.warmup_epochs * steps), total // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else plan.lr,
        decay_steps=max(1, total - warmup),
        warmup_target=plan.lr if warmup else None,
        warmup_steps=warmup,
    )
    shared: dict[str, Any] = {
        "learning_rate": schedule,
        "weight_decay": plan.weight_decay or None,
        "use_ema": bool(plan.ema),
        "ema_momentum": plan.ema or 0.99,
    }
    if plan.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **shared)
    else:
        optimizer = keras.optimizers.Adam(**shared)  # with decoupled decay this is AdamW (arXiv:1711.05101)
    if plan.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])
    return optimizer


class _Loop(keras.callbacks.Callback):
    """Everything that happens at the end of a step and of an epoch."""

    def __init__(
        self,
        classifier_model: keras.Model,
        logits: keras.Model,
        validation: Part | None,
        plan: Plan,
        phase: str,
        steps: int,
        checkpoint: Path | None,
        on_progress: OnProgress | None,
        on_epoch: OnEpoch | None,
    ) -> None:
        super().__init__()
        self.classifier = classifier_model
        self.logits = logits
        self.validation = validation
        self.plan = plan
        self.phase = phase
        self.steps = steps
        self.checkpoint = checkpoint
        self.on_progress = on_progress
        self.report = on_epoch
        self.rows: list[dict[str, Any]] = []
        self.best: list[np.ndarray] = classifier_model.get_weights()
        self.best_score = (-math.inf, -math.inf)
        self.stage_end = 0
        self.raw: list[np.ndarray] | None = None
        self.diverged = False
        self.started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.on_progress:
            self.on_progress(self.phase, len(self.rows) * self.steps + batch + 1, self.plan.epochs * self.steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        loss = float(logs.get("loss", math.nan))
        if not math.isfinite(loss):
            self.diverged = True
            self.logits.stop_training = True
            return
        self.raw = _values(self.logits.trainable_variables)
        if self.plan.ema:
            _assign(self.logits.trainable_variables, _values(self._averages()))
        val_loss, val_accuracy = self._validate()
        score = (val_accuracy, -val_loss) if self.validation else (float(epoch), 0.0)
        if score >= self.best_score:
            self.best, self.best_score = self.classifier.get_weights(), score
        _assign(self.logits.trainable_variables, self.raw)
        self.rows.append(
            {
                "phase": self.phase,
                "epoch": epoch + 1,
                "image_size": self.plan.size(epoch),
                "lr": float(keras.ops.convert_to_numpy(self.logits.optimizer.learning_rate)),
                "loss": loss,
                "accuracy": float(logs.get("accuracy", math.nan)),
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": time.monotonic() - self.started,
            }
        )
        log.info("%s", _line(self.rows[-1], self.plan.epochs))
        if self.checkpoint:
            self.save()
        if self.report:
            self.report(self.rows)

    def after_stage(self) -> None:
        """`fit` ends by laying the weight average over the weights; the next stage goes on from the raw ones."""
        if self.diverged:
            self.keep_best()
            raise RunError(
                f"{self.phase}: the loss is no longer a number in epoch {len(self.rows) + 1}. The weights of the best "
                f"epoch are kept. Try a smaller --lr than {self.plan.lr:g}."
            )
        if self.raw is not None:
            _assign(self.logits.trainable_variables, self.raw)

    def keep_best(self) -> None:
        self.classifier.set_weights(self.best)

    def _averages(self) -> list[keras.Variable]:
        return [v for v in self.logits.optimizer.variables if v.path.endswith("_average")]

    def _validate(self) -> tuple[float, float]:
        if self.validation is None:
            return math.nan, math.nan
        outputs = predict(self.logits, self.validation.pixels, self.plan.batch_size)
        return loss_and_accuracy(outputs, self.validation.labels)

    def save(self) -> None:
        """Write the whole state: variables (seed generators among them), optimiser, best weights, rows."""
        assert self.checkpoint is not None
        arrays = {f"model/{i}": v for i, v in enumerate(_values(self.logits.variables))}
        arrays |= {f"optimizer/{i}": v for i, v in enumerate(_values(self.logits.optimizer.variables))}
        arrays |= {f"best/{i}": v for i, v in enumerate(self.best)}
        meta = {"plan": repr(self.plan), "phase": self.phase, "rows": self.rows, "best_score": self.best_score}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
        write_atomic(self.checkpoint, file.getvalue())

    def restore(self) -> None:
        assert self.checkpoint is not None
        try:
            with np.load(io.BytesIO(self.checkpoint.read_bytes()), allow_pickle=False) as state:
                meta = json.loads(state["meta"].tobytes())
                if (meta["plan"], meta["phase"]) != (repr(self.plan), self.phase):
                    raise RunError(f"{self.checkpoint}: this checkpoint is of a training with other settings.")
                for group, variables in (
                    ("model", self.logits.variables),
                    ("optimizer", self.logits.optimizer.variables),
                ):
                    for i, variable in enumerate(variables):
                        variable.assign(state[f"{group}/{i}"])
                self.best = [state[f"best/{i}"] for i in range(len(self.classifier.weights))]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{self.checkpoint}: the checkpoint is damaged ({error}). Train again.") from None
        self.rows = meta["rows"]
        self.best_score = tuple(meta["best_score"])


def predict(
    model: keras.Model,
    pixels: np.ndarray | loading.Pixels,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """The model's output for uint8 pixels (n, s, s, 3), batch by batch: float32 (n, ...).

    Twice as fast as Keras's `predict` on MobileNetV2 at 224 px, whose pipeline copies the pixels several times. The
    last batch is filled up, since another size would be traced anew.

    Args:
        on_batch: called with the number of images done so far.
    """
    parts = [np.empty((0, *model.output_shape[1:]), np.float32)]
    for start in range(0, len(pixels), batch_size):
        batch = pixels[start : start + batch_size]
        full = np.zeros((batch_size, *batch.shape[1:]), batch.dtype)
        full[: len(batch)] = batch
        parts.append(np.asarray(model.predict_on_batch(full), np.float32)[: len(batch)])
        if on_batch:
            on_batch(start + len(batch))
    return np.concatenate(parts)


def loss_and_accuracy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats, without label smoothing, and the share of right answers.

    Args:
        logits: float (n, classes).
        labels: int (n,).
    """
    peak = logits.max(axis=1, keepdims=True)
    log_sum = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1))
    loss = float((log_sum - logits[np.arange(len(labels)), labels]).mean())
    return loss, float((logits.argmax(axis=1) == labels).mean())


def _values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _line(row: dict[str, Any], epochs: int) -> str:
    text = f"{row['phase']} epoch {row['epoch']}/{epochs}  {row['image_size']} px  loss {row['loss']:.4f}"
    text += f"  accuracy {row['accuracy']:.4f}"
    if not math.isnan(row["val_accuracy"]):
        text += f"  validation {row['val_accuracy']:.4f}"
    return f"{text}  {row['seconds']:.1f} s"
