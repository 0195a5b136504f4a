"""Gradient descent over epochs: schedule, EMA, validation, checkpoints.

Used from scratch and to fine-tune.

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
from imgclf.settings import TrainConfig
from imgclf.training import augmentation, devices

BATCH_SIZE = 32
LARGE_BATCH_SIZE = 256
"""With which `--batch-size auto` begins on an accelerator; it is halved as long as the memory does not hold it."""

SHOW_EVERY_S = 0.25
"""How often the progress says how it goes: to ask a device for a loss is to wait for it."""

log = logging.getLogger("imgclf")

OnProgress = Callable[..., None]
"""Called with phase, units done, units in all; steps of gradient descent say in a fourth string how it goes."""

Images = np.ndarray | loading.Rows

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
        patience: stop after so many epochs in a row without a better validation; 0 never stops.
        balance: `weights` lets the images of a class weigh by the inverse of its frequency in the loss, `sampling`
            draws as many images of every class.
        accumulate: batches whose gradients are averaged before one step is taken.
        clip_norm: the greatest norm of all gradients together; 0 lets them be.
        layer_decay: what the learning rate is multiplied by from one of the `blocks` to the one below.
        blocks: names of the layers of each block, from the top down; the head is above them all.
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
    patience: int = 0
    balance: str = "none"
    accumulate: int = 1
    clip_norm: float = 0.0
    layer_decay: float = 1.0
    blocks: tuple[tuple[str, ...], ...] = ()

    def size(self, epoch: int) -> int:
        """The image size of an epoch, counted from 0."""
        return self.sizes[epoch * len(self.sizes) // self.epochs]


@dataclass(frozen=True)
class Part:
    """One side of the split: uint8 pixels (n, s, s, 3), in memory or fetched when asked for, and int labels (n,).

    Args:
        pixels: or what a frozen lower part of the network made of them.
        draw: for training on such, `draw(rows, rng)` gives one of the cached views of each row.
    """

    pixels: Images
    labels: np.ndarray
    draw: loading.Transform | None = None


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
    deadline: float = math.inf,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    careful: bool = False,
) -> list[dict[str, Any]]:
    """Train a classifier in place and leave it with its best weights on validation (the last ones without one).

    Args:
        model: as `models.classifier.build` makes it; only its trainable layers move.
        checkpoint: a file that is written after every epoch and from which an interrupted training goes on.
        deadline: of `time.monotonic`; the epoch that runs then is left, and what was best so far is kept.
        callbacks: of Keras, which are told the values of the rows.
        careful: whether the model is left with the weights of the epoch that `kept` names, instead of the best.

    Returns:
        One row per epoch: phase, epoch, image_size, lr, loss, accuracy, val_loss, val_accuracy, seconds.

    Raises:
        RunError: if the loss stops being a number (the best weights so far stay in the model), or the checkpoint is of
            another training.
    """
    logits = compiled(model, train, plan)
    steps = loading.steps_per_epoch(len(train.labels), plan.batch_size)
    loop = _Loop(model, logits, validation, plan, phase, steps, checkpoint, on_progress, on_epoch, deadline)
    if checkpoint and checkpoint.exists():
        loop.restore()
        log.info("%s: going on after epoch %d of %d", phase, len(loop.rows), plan.epochs)
    while len(loop.rows) < plan.epochs and not loop.is_over():
        first = len(loop.rows)
        size = plan.size(first)
        last = next((e for e in range(first, plan.epochs) if plan.size(e) != size), plan.epochs)
        loop.stage_end = last
        logits.fit(
            batches(model, train, plan, first),
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            shuffle=False,
            verbose=0,
            callbacks=[loop, *callbacks],
        )
        loop.after_stage()
    if careful and validation and loop.rows and kept(loop.rows, len(validation.labels)) is loop.rows[-1]:
        model.set_weights(loop.last)
    else:
        loop.keep_best()
    return loop.rows


def kept(rows: Sequence[dict[str, Any]], images: int) -> dict[str, Any]:
    """The last row, unless another gets more validation images right than chance explains: by one standard error.

    Few images make some early epoch look best, at a high learning rate, where weights jump about. The last ones have
    come to rest.

    Args:
        images: of the validation part.
    """
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    share = best["val_accuracy"]
    by_chance = math.sqrt(share * (1 - share) / images)
    return best if share - rows[-1]["val_accuracy"] > by_chance else rows[-1]


def compiled(model: keras.Model, train: Part, plan: Plan, *, scheduled: bool = True) -> keras.Model:
    """The classifier's logits, ready for steps of gradient descent.

    Args:
        scheduled: whether the learning rate follows the plan; else it is the optimiser's, to be set from outside.
    """
    logits = classifier.logits(model)
    if not train.draw:  # activations are no pixels: their views were augmented before they were kept
        augmenter = augmentation.Augmenter(plan.policy, seed=plan.seed, mixup=plan.mixup, cutmix=plan.cutmix)
        logits = augmentation.training_model(logits, augmenter)
    steps = loading.steps_per_epoch(len(train.labels), plan.batch_size)
    logits.compile(
        optimizer=_optimizer(plan, steps, logits) if scheduled else _one_optimizer(plan, plan.lr, logits),
        loss=_loss(plan, train.labels, model.output_shape[-1]),
        metrics=["accuracy"],
        jit_compile=devices.jit_compile(),
    )
    logits.optimizer.build(logits.trainable_variables)
    return logits


def batches(model: keras.Model, train: Part, plan: Plan, first_epoch: int) -> Any:
    """The Grain dataset of a plan's batches from an epoch on, at the image size of that epoch."""
    return loading.training_batches(
        np.arange(len(train.labels)) if train.draw else train.pixels,
        train.labels,
        classes=model.output_shape[-1],
        batch_size=plan.batch_size,
        seed=plan.seed,
        transform=train.draw or augmentation.Crop(plan.policy, plan.size(first_epoch)),
        balanced=plan.balance == "sampling",
        first_step=first_epoch * loading.steps_per_epoch(len(train.labels), plan.batch_size),
    )


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weigh images so that every class has the same total weight, and images 1 on average: float32 (classes,).

    A class without images has the weight 1.
    """
    from sklearn.utils.class_weight import compute_class_weight

    known = np.unique(labels)
    weights = np.ones(classes, np.float32)
    weights[known] = compute_class_weight("balanced", classes=known, y=labels)
    return weights


def _loss(plan: Plan, labels: np.ndarray, classes: int) -> keras.losses.Loss | Callable[[Any, Any], Any]:
    even = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=plan.label_smoothing)
    if plan.balance != "weights":
        return even
    weights = class_weights(labels, classes)

    def weighted(targets: Any, logits: Any) -> Any:  # (b, classes) twice -> (b,)
        losses = keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=plan.label_smoothing
        )
        return losses * keras.ops.sum(keras.ops.cast(targets, losses.dtype) * weights, axis=-1)

    return weighted


def _optimizer(plan: Plan, steps: int, model: keras.Model) -> keras.optimizers.Optimizer:
    top = _one_optimizer(plan, _schedule(plan, steps, 1.0), model)
    if plan.layer_decay == 1 or not plan.blocks:
        return top
    below = {
        name: optimizer
        for depth, block in enumerate(plan.blocks, start=1)
        for optimizer in [_one_optimizer(plan, _schedule(plan, steps, plan.layer_decay**depth), model)]
        for name in block
    }
    layer_of = {id(v): layer.name for layer in model.layers for v in layer.trainable_variables}
    return keras.optimizers.MultiOptimizer(lambda variable: below.get(layer_of[id(variable)], top))


def _schedule(plan: Plan, steps: int, rate: float) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warmup and cosine at a share of the plan's learning rate."""
    total = max(1, plan.epochs * steps // plan.accumulate)
    warmup = min(round(plan.warmup_epochs * steps / plan.accumulate), total // 2)
    lr = plan.lr * rate
    cosine = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else lr,
        decay_steps=max(1, total - warmup),
        warmup_target=lr if warmup else None,
        warmup_steps=warmup,
    )
    return _PerStep(cosine, plan.accumulate) if plan.accumulate > 1 else cosine


class _PerStep(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule by steps; Keras 3.15 counts batches where gradients accumulate, whatever its documentation says."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, batches: int) -> None:
        super().__init__()
        self._schedule, self._batches = schedule, batches

    def __call__(self, step: Any) -> Any:
        return self._schedule(keras.ops.floor_divide(step, self._batches))


def _one_optimizer(plan: Plan, learning_rate: Any, model: keras.Model) -> keras.optimizers.Optimizer:
    shared: dict[str, Any] = {
        "learning_rate": learning_rate,
        "weight_decay": plan.weight_decay or None,
        "use_ema": bool(plan.ema),
        "ema_momentum": plan.ema ** (1 / plan.accumulate) if plan.ema else 0.99,  # the average moves with every batch
        "gradient_accumulation_steps": plan.accumulate if plan.accumulate > 1 else None,
        "global_clipnorm": plan.clip_norm or None,
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
        deadline: float,
    ) -> None:
        super().__init__()
        self.deadline = deadline
        self.out_of_time = False
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
        self.last = self.best
        self.best_score = (-math.inf, -math.inf)
        self.stage_end = 0
        self.raw: list[np.ndarray] | None = None
        self.diverged = False
        self.started = time.monotonic()
        self.shown, self.status = 0.0, ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.on_progress:
            self._show(batch + 1, logs or {})
        if time.monotonic() > self.deadline and batch + 1 < self.steps:
            self.out_of_time = self.logits.stop_training = True

    def _show(self, steps: int, logs: dict[str, Any]) -> None:
        """Epoch, speed, loss and the last validation; the numbers are asked of the device now and then only."""
        assert self.on_progress
        if time.monotonic() - self.shown >= SHOW_EVERY_S and "loss" in logs:
            self.shown = time.monotonic()
            speed = steps * self.plan.batch_size / max(self.shown - self.started, 1e-9)
            epoch = f"epoch {len(self.rows) + 1}/{self.plan.epochs}"
            self.status = f"{epoch}  {speed:.0f} images/s  loss {float(logs['loss']):.3f}"
            if self.rows and self.validation:
                self.status += f"  val {self.rows[-1]['val_accuracy']:.3f}"
        done = len(self.rows) * self.steps + steps
        self.on_progress(self.phase, done, self.plan.epochs * self.steps, self.status)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        loss = float(logs.get("loss", math.nan))
        if not math.isfinite(loss):
            self.diverged = True
            self.logits.stop_training = True
            return
        if self.out_of_time:
            return
        self.raw = _values(self.logits.trainable_variables)
        if self.plan.ema:
            _assign(self.logits.trainable_variables, _values(self._averages()))
        val_loss, val_accuracy = self._validate()
        score = (val_accuracy, -val_loss) if self.validation else (float(epoch), 0.0)
        self.last = self.classifier.get_weights()
        if score >= self.best_score:
            self.best, self.best_score = self.last, score
        _assign(self.logits.trainable_variables, self.raw)
        self.rows.append(
            {
                "phase": self.phase,
                "epoch": epoch + 1,
                "image_size": self.plan.size(epoch),
                "lr": float(keras.ops.convert_to_numpy(self._optimizers()[0].learning_rate)),
                "loss": loss,
                "accuracy": float(logs.get("accuracy", math.nan)),
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": time.monotonic() - self.started,
            }
        )
        logs.update({name: self.rows[-1][name] for name in ("lr", "val_loss", "val_accuracy")})
        log.info("%s", _line(self.rows[-1], self.plan.epochs, self.steps * self.plan.batch_size))
        if self.checkpoint:
            self.save()
        if self.report:
            self.report(self.rows)
        if self._is_exhausted() and len(self.rows) < self.plan.epochs:
            log.info("%s: no better validation for %d epochs, so it stops", self.phase, self.plan.patience)
        self.out_of_time = time.monotonic() > self.deadline
        self.logits.stop_training = self.is_over()

    def is_over(self) -> bool:
        """Whether time or patience has come to an end."""
        return self.out_of_time or self._is_exhausted()

    def _is_exhausted(self) -> bool:
        if not self.plan.patience or self.validation is None:
            return False
        scores = [(row["val_accuracy"], -row["val_loss"]) for row in self.rows]
        return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= self.plan.patience

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

    def _optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The head's first: variables stand in the order of the graph, and so do the optimisers that they bring."""
        return list(reversed(getattr(self.logits.optimizer, "optimizers", [self.logits.optimizer])))

    def _averages(self) -> list[keras.Variable]:
        """In the order of the trainable variables."""
        average: dict[int, keras.Variable] = {}
        for optimizer in self._optimizers():
            means = optimizer._model_variables_moving_average
            average |= {id(v): mean for v, mean in zip(optimizer._trainable_variables, means, strict=True)}
        return [average[id(variable)] for variable in self.logits.trainable_variables]

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


def batch_size(config: TrainConfig) -> int:
    """Images at once where no gradient is computed, and the number settled or to start with where one is."""
    if isinstance(config.batch_size, int):
        return config.batch_size
    return BATCH_SIZE if devices.on_cpu() or config.batch_size is None else LARGE_BATCH_SIZE


def predict(
    model: keras.Model,
    pixels: Images,
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
    """Return the mean cross-entropy in nats, without label smoothing, and the accuracy.

    Args:
        logits: float (n, classes).
        labels: int (n,).
    """
    from scipy.special import log_softmax

    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def _values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _line(row: dict[str, Any], epochs: int, images: int) -> str:
    text = f"{row['phase']} epoch {row['epoch']}/{epochs}  {row['image_size']} px  loss {row['loss']:.4f}"
    text += f"  accuracy {row['accuracy']:.4f}"
    if not math.isnan(row["val_accuracy"]):
        text += f"  validation {row['val_accuracy']:.4f}"
    return f"{text}  {images / max(row['seconds'], 1e-9):.0f} images/s  {row['seconds']:.1f} s"
