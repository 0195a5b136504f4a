"""Gradient descent over epochs: batches, validation, and the callbacks of a training.

Keras's `fit` runs the steps, once for each image size of a recipe. `callbacks` adds what `fit` cannot do.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment, tasks
from imgclf.data import loading
from imgclf.errors import RunError
from imgclf.models import classifier, textbook
from imgclf.tasks import Task
from imgclf.training import augmentation, auxiliary, callbacks, devices, distillation_loss, history, optimizers
from imgclf.training.callbacks import State
from imgclf.training.images import Inputs, Part
from imgclf.training.optimizers import Blocks
from imgclf.training.progress import OnEpoch, OnProgress, Row
from imgclf.training.recipe import Recipe

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

log = logging.getLogger("imgclf")


@dataclass(frozen=True)
class Options:
    """What belongs to one call of `fit`, beyond the recipe.

    Args:
        phase: the name of the training in the history.
        blocks: where the learning rate decays by layers.
        checkpoint: a file that is written after every epoch, and from which an interrupted training resumes.
        deadline: of `time.monotonic`; the epoch that runs then is dropped.
        callbacks: of Keras, which are told the values of the rows.
        keep_last: whether the model is left with the weights of the epoch that `kept` names, instead of the best.
    """

    phase: str
    blocks: Blocks = ()
    checkpoint: Path | None = None
    deadline: float = math.inf
    on_progress: OnProgress | None = None
    on_epoch: OnEpoch | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    keep_last: bool = False


def fit(model: keras.Model, train: Part, validation: Part | None, recipe: Recipe, options: Options) -> list[Row]:
    """Train a classifier in place and leave it with its best weights on validation (the last ones without one).

    Args:
        model: as `models.classifier.build` makes it; only its trainable layers change.

    Returns:
        One row per epoch, with most of the columns of `history.csv`.

    Raises:
        RunError: if the loss stops being a number (the best weights so far stay in the model), or the checkpoint is of
            another training.
    """
    logits = compiled(model, train, recipe, options.blocks)
    steps = loading.steps_per_epoch(len(train.labels), recipe.batch_size)
    state = State(model, logits, recipe, options.phase, steps, best=model.get_weights())
    if options.checkpoint and options.checkpoint.exists():
        state.restore(options.checkpoint)
        log.info("%s: resuming after epoch %d of %d.", history.title(options.phase), len(state.rows), recipe.epochs)
    around = _callbacks(state, validation, options)
    try:
        while len(state.rows) < recipe.epochs and not state.is_over():
            first = len(state.rows)
            size = recipe.size(first)
            logits.fit(
                batches(model, train, recipe, first),
                steps_per_epoch=steps,
                initial_epoch=first,
                epochs=next((e for e in range(first, recipe.epochs) if recipe.size(e) != size), recipe.epochs),
                shuffle=False,
                verbose=0,
                callbacks=around,
            )
    except RunError:
        model.set_weights(state.best)
        raise
    images = len(validation.labels) if validation else 0
    if options.keep_last and images and state.rows and kept(state.rows, images, state.task) is state.rows[-1]:
        model.set_weights(state.last)
    else:
        model.set_weights(state.best)
    return state.rows


def _callbacks(state: State, validation: Part | None, options: Options) -> list[keras.callbacks.Callback]:
    """Return the callbacks in their order: who measures comes before who records, and who stops comes last."""

    def validate() -> tuple[float, float]:
        if validation is None:
            return math.nan, math.nan
        outputs = predict(state.logits, validation.pixels, state.recipe.batch_size)
        return state.task.score(outputs[:, : state.model.output_shape[-1]], validation.labels)

    found: list[keras.callbacks.Callback] = [
        callbacks.StopOnNaN(state),
        callbacks.OnEMA(state, callbacks.Validation(state, validate), callbacks.KeepWeights(state)),
        callbacks.History(state),
    ]
    if path := options.checkpoint:
        found.append(callbacks.Call(state, lambda: state.save(path)))
    if on_epoch := options.on_epoch:
        found.append(callbacks.Call(state, lambda: on_epoch(state.rows)))
    if options.on_progress:
        found.append(callbacks.Progress(state, options.on_progress))
    return [*found, *options.callbacks, callbacks.Patience(state), callbacks.Deadline(state, options.deadline)]


def kept(rows: Sequence[Row], images: int, task: Task) -> Row:
    """Return the last row, unless another is better on validation images than chance explains: by one standard error.

    Few images make some early epoch look best, at a high learning rate, where weights jump about. The last ones have
    come to rest.

    Args:
        images: of the validation split.
    """
    name = f"val_{task.SCORE}"
    best = max(rows, key=lambda row: (row[name], -row["val_loss"]))
    by_chance = task.standard_error(best[name], images)
    return best if best[name] - rows[-1][name] > by_chance else rows[-1]


def compiled(
    model: keras.Model, train: Part, recipe: Recipe, blocks: Blocks = (), *, scheduled: bool = True
) -> keras.Model:
    """Return the classifier's logits, ready for steps of gradient descent; those of auxiliary heads stand behind them.

    Args:
        scheduled: whether the learning rate follows the recipe; else it is the optimizer's, to be set from outside.
    """
    logits, task, classes = classifier.logits(model), tasks.find(recipe.settings.task), model.output_shape[-1]
    heads = textbook.AUXILIARY.get(recipe.backbone, ()) if recipe.method == "scratch" else ()
    if heads:
        logits = auxiliary.attach(logits, heads, recipe.seed)
    if not train.draw:  # activations are no pixels: they were augmented before they were cached
        augmenter = augmentation.Augmenter(recipe.policy, seed=recipe.seed, mixup=recipe.mixup, cutmix=recipe.cutmix)
        logits = augmentation.training_model(logits, augmenter)
    steps = loading.steps_per_epoch(len(train.labels), recipe.batch_size)
    soft = recipe.distill and distillation_loss.loss(
        recipe.distill_temperature, recipe.label_weight, recipe.label_smoothing
    )
    loss = soft or task.loss(
        train.labels, classes, label_smoothing=recipe.label_smoothing, balanced=recipe.balance == "weights"
    )
    metric = distillation_loss.accuracy() if soft else task.metric()
    logits.compile(
        optimizer=optimizers.build(recipe, steps, logits, blocks)
        if scheduled
        else optimizers.with_rate(recipe, recipe.lr, logits),
        loss=auxiliary.loss(loss, classes) if heads else loss,
        metrics=[auxiliary.OfOwnHead(metric, classes) if heads else metric],
        jit_compile=devices.jit_compile(),
    )
    logits.optimizer.build(logits.trainable_variables)
    return logits


def batches(model: keras.Model, train: Part, recipe: Recipe, first_epoch: int) -> Any:
    """Return the Grain dataset of a recipe's batches from an epoch on, at the image size of that epoch."""
    return loading.training_batches(
        np.arange(len(train.labels)) if train.draw else train.pixels,
        train.labels,
        classes=model.output_shape[-1],
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        transform=train.draw or augmentation.Crop(recipe.policy, recipe.size(first_epoch)),
        balanced=recipe.balance == "sampling",
        first_step=first_epoch * loading.steps_per_epoch(len(train.labels), recipe.batch_size),
    )


def predict(model: keras.Model, pixels: Inputs, batch_size: int) -> np.ndarray:
    """Return the model's output for uint8 pixels (n, s, s, 3), batch by batch: float32 (n, ...).

    Twice as fast as Keras's `predict` on MobileNetV2 at 224 px, whose pipeline copies the pixels several times. The
    last batch is padded, since another size would be traced once more.
    """
    parts = [np.empty((0, *model.output_shape[1:]), np.float32)]
    for start in range(0, len(pixels), batch_size):
        batch = pixels[start : start + batch_size]
        full = np.zeros((batch_size, *batch.shape[1:]), batch.dtype)
        full[: len(batch)] = batch
        parts.append(np.asarray(model.predict_on_batch(full), np.float32)[: len(batch)])
    return np.concatenate(parts)
