"""Gradient descent on a job: which layers are trained, on pixels or on cached activations, in batches that fit."""

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from imgclf.data.dataset import TRAIN
from imgclf.errors import RunError
from imgclf.evaluation import plots
from imgclf.models import classifier, graph
from imgclf.storage import write_atomic
from imgclf.training import activations, devices, finetune, history, loop, lr_finder, network, stage_selection
from imgclf.training.activations import Activations
from imgclf.training.images import Part
from imgclf.training.job import Job
from imgclf.training.loop import Options
from imgclf.training.optimizers import Blocks
from imgclf.training.progress import Row
from imgclf.training.recipe import Recipe
from imgclf.training.stage_selection import ACCEPTED

if TYPE_CHECKING:
    import keras

log = logging.getLogger("imgclf")


def descend(job: Job, phase: str, recipe: Recipe, deadline: float = math.inf) -> None:
    """Train the upper layers, or all of them, and leave the model with the best weights on validation.

    Args:
        recipe: the job's, or that of a stage.

    Raises:
        RunError: if the training diverges, or a batch does not fit in memory.
        TimeIsUp: if the deadline comes before the first epoch.
    """
    trained = whole = network.for_steps(job.model, recipe)
    cached: Activations | None = None
    blocks: Blocks = ()
    if recipe.method in ("finetune", "auto"):
        cut = _unfreeze(job.model, whole, recipe)
        blocks = graph.blocks(job.model, cut) if cut and recipe.layer_decay < 1 else ()
        cached = _activations(job, whole, cut, recipe, deadline)
        if cached is not None and cut is not None:
            trained = graph.upper(whole, cut)

    before = list(job.rows)

    def on_epoch(rows: list[Row]) -> None:
        job.rows[:] = [*before, *rows]
        job.report()

    options = Options(
        phase,
        blocks=blocks,
        checkpoint=None if recipe.method == "auto" else job.run.checkpoint,
        deadline=deadline,
        on_progress=job.on_progress,
        on_epoch=on_epoch,
        callbacks=job.callbacks,
        keep_last=recipe.method == "auto",
    )
    rows = _fit(job, trained, (job.images.part(TRAIN, cached), job.images.validation(cached)), recipe, options)
    on_epoch(rows)  # those of a checkpoint after which no epoch was left
    job.model.set_weights(whole.get_weights())


def _fit(
    job: Job, trained: "keras.Model", parts: tuple[Part, Part | None], recipe: Recipe, options: Options
) -> list[Row]:
    """Halve the batch until it fits in memory, if the recipe allows it."""
    weights = trained.get_weights()
    while True:
        try:
            return loop.fit(trained, *parts, recipe, options)
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
        size, half = recipe.batch_size, recipe.batch_size // 2
        if not recipe.may_halve_batch or not half:
            advice = f"--batch-size {half}, --batch-size auto" if half else "a smaller --image-size"
            raise RunError(
                f"{history.title(options.phase)}: {size} images at {recipe.image_size} px do not fit in memory. "
                f"Try {advice} or a smaller --backbone."
            )
        log.info("%s: a batch of %d does not fit in memory; trying %d.", history.title(options.phase), size, half)
        recipe = replace(recipe, batch_size=half)
        job.recipe = job.recipe.settle(batch_size=half)
        trained.set_weights(weights)


def extend(job: Job, phase: str, recipe: Recipe, deadline: float) -> None:
    """Train for more epochs, and keep them if they are better on validation, or if there are no validation images."""
    weights, count, had = job.model.get_weights(), len(job.rows), sum(row["phase"] == phase for row in job.rows)
    validation = job.images.validation()
    before = validation and score(job, validation)
    descend(job, phase, recipe, deadline)
    for row in job.rows[count:]:
        row["epoch"] += had
    job.report()
    if not validation or not before:
        return
    outcome = stage_selection.judge(before, score(job, validation), task=job.images.dataset.task)
    if outcome != ACCEPTED:
        log.info("%s: %s, so the earlier weights are kept.", history.title(phase), outcome)
        job.model.set_weights(weights)


def score(job: Job, validation: Part) -> tuple[float, float]:
    """Return the `stage_selection.score` of the job's model."""
    logits = classifier.logits(job.model)
    logits.compile(jit_compile=devices.jit_compile())
    outputs = loop.predict(logits, validation.pixels, job.recipe.batch_size)
    return stage_selection.score(outputs, validation.labels, job.images.dataset.task)


def find_lr(job: Job) -> Recipe:
    """Return the recipe with the learning rate that a range test finds; its curve is drawn into the run."""
    recipe = replace(job.recipe, epochs=job.recipe.epochs or 1)
    if recipe.method == "auto":  # its sizes are stages
        recipe = replace(recipe, sizes=(recipe.image_size,))
    model = network.for_steps(job.model, recipe)
    if recipe.method in ("finetune", "auto"):
        _unfreeze(job.model, model, recipe)
    curve = lr_finder.sweep(model, job.images.part(TRAIN), recipe)
    picture = job.run.path / "learning_rate.png"
    write_atomic(picture, plots.learning_rates(curve.rates, curve.losses, curve.chosen))
    log.info(
        "Learning rate %.2g: a tenth of the highest without a rising loss in the range test. See %s.",
        curve.chosen,
        picture,
    )
    return job.recipe.settle(lr=curve.chosen)


def _unfreeze(model: "keras.Model", trained: "keras.Model", recipe: Recipe) -> graph.Cut | None:
    """Unfreeze layers of what is trained. The share of the arithmetic is that at one size; it may take any."""
    cut = finetune.unfreeze(model, recipe.unfreeze_from, batch_norm=recipe.batch_norm)
    for layer in classifier.backbone_layers(model):
        trained.get_layer(layer.name).trainable = layer.trainable
    return cut


def _activations(
    job: Job, model: "keras.Model", cut: graph.Cut | None, recipe: Recipe, deadline: float
) -> Activations | None:
    """Return the activations at the cut; None where every epoch needs the pixels."""
    if cut is None or recipe.changes_size or recipe.mixes or recipe.distill or not recipe.caches_activations:
        return None
    images = job.images
    on_progress = job.until(deadline)
    cached = activations.cached(model, cut, images.dataset, images.pixels, recipe, on_progress=on_progress)
    if isinstance(cached, str):
        log.info("Training on pixels: activations at %s are not cached (%s).", cut.layer, cached)
        return None
    log.info("Activations at %s are cached: an epoch is up to %.1fx as fast.", cut.layer, cut.ideal_gain)
    return cached
