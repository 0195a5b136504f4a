"""The methods of training: each takes a job and returns what it fitted."""

import logging
from collections.abc import Callable
from dataclasses import replace

from imgclf import runs
from imgclf.data.dataset import TEST, VALIDATION
from imgclf.models import flattening
from imgclf.runs import Run
from imgclf.training import auto_finetune, descent
from imgclf.training.job import Fitted, Job, TimeIsUp

log = logging.getLogger("imgclf")

FEWEST_WRONG = 5
"""Incorrect validation images from which automatic training continues by default: with fewer, chance decides."""


def probe(job: Job) -> Fitted:
    """Fit the head on a frozen backbone."""
    return job.fit_head("probe", job.recipe.cached_augmentations, job.on_progress)


def scratch(job: Job) -> Fitted:
    """Train all layers: from random weights, or, as the method `full`, from given ones."""
    _settle(job)
    descent.descend(job, job.recipe.method, job.recipe, job.deadline())
    return job.fitted()


def finetune(job: Job) -> Fitted:
    """Fit the head, then train the upper layers."""
    probed = job.fit_head("probe", on_progress=job.on_progress)
    _settle(job)
    try:
        descent.descend(job, "finetune", job.recipe, job.deadline())
    except TimeIsUp:
        log.warning("The time limit leaves no time to fine-tune, so the probe is the result.")
        return replace(probed, recipe=job.recipe)
    return _compared(job.fitted(), probed)


def auto(job: Job) -> Fitted:
    """Fit the head, then try what validation may reward."""
    probed = job.fit_head("probe", on_progress=job.on_progress)
    _settle(job)
    score = auto_finetune.validation_score(probed)
    if score is None:
        log.info("There are no validation images to judge by, so the probe is the result.")
        return replace(probed, recipe=job.recipe)
    count = len(probed.images.rows(VALIDATION))
    wrong = job.images.task.mistakes(score[0], count)
    if wrong is not None and wrong < FEWEST_WRONG and not job.recipe.is_limited:
        log.info(
            "Stopped after the probe: %d of %d validation images incorrect, too few to tell whether fine-tuning helps. "
            "--time-limit tries it anyway.",
            wrong,
            count,
        )
        return replace(probed, recipe=job.recipe)
    search = auto_finetune.Search(job, probed, score)
    search.run()
    return _compared(search.fitted(), probed) if search.has_improved else search.fitted()


def more_epochs(job: Job, finished: Run) -> Fitted:
    """Train a finished run for more epochs.

    Args:
        job: has a folder of its own.
    """
    recipe = job.recipe
    job.model.set_weights(flattening.load(finished.model).get_weights())
    job.rows[:] = runs.read_history(finished.history_file)
    had = sum(row["phase"] == recipe.method for row in job.rows)
    log.info("%s: training for more epochs: %d.", finished.path, recipe.epochs - had)
    descent.extend(job, recipe.method, replace(recipe, epochs=recipe.epochs - had), job.deadline())
    return job.fitted()


METHODS: dict[str, Callable[[Job], Fitted]] = {
    "probe": probe,
    "finetune": finetune,
    "full": scratch,
    "scratch": scratch,
    "auto": auto,
}


def _settle(job: Job) -> None:
    """Find the numbers that only training itself can tell, and write them into the run's settings."""
    if job.recipe.may_halve_batch:
        job.recipe = job.recipe.settle(batch_size=job.recipe.batch_size)
    if job.recipe.finds_lr:
        job.recipe = descent.find_lr(job)
    job.record()


def _compared(fitted: Fitted, probed: Fitted) -> Fitted:
    """Log the score of the test split beside that of the probe."""
    images, task = fitted.images, fitted.images.task
    labels = images.dataset.labels[images.rows(TEST)]
    if len(labels):
        now, first = (task.best_score(f.predictions(TEST), labels) for f in (fitted, probed))
        log.info("Test %s: %.4f (probe alone: %.4f).", task.SCORE, now, first)
    return fitted
