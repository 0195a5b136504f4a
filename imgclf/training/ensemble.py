"""One model from the folds of a cross-validated probe: the average of their heads on the backbone that they share.

The average of linear heads is a linear head, so the model is as small and as fast as that of one fold. Its scores are
those of the folds on the images that each was not fitted to, which the folder of the cross-validation has.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgclf import tasks
from imgclf.data.dataset import TRAIN, Dataset, listed
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import outputs
from imgclf.models import flattening
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.training import calibration_fit, recipe
from imgclf.training import train as training
from imgclf.training.decoding import Decoding
from imgclf.training.images import Images
from imgclf.training.job import Fitted
from imgclf.training.neural import Network
from imgclf.training.progress import OnProgress

if TYPE_CHECKING:
    import keras

log = logging.getLogger("imgclf")

SMALLEST = 1e-12
"""Smallest probability whose logarithm is taken."""


def check(settings: TrainConfig) -> None:
    """Check that heads can be averaged.

    Raises:
        UsageError: if the folds do not share a frozen backbone.
    """
    found = f"--model {settings.model}" if settings.model != TrainConfig.model else f"--method {settings.method}"
    if found != "--method probe":
        raise UsageError(
            f"--ensemble: expected --method probe, whose folds share a frozen backbone, so that their heads can be "
            f"averaged; found {found}."
        )


def write(
    run: Run,
    dataset: Dataset,
    built: "keras.Model",
    folds: Sequence[Path],
    settings: TrainConfig,
    formats: Sequence[str],
    on_progress: OnProgress | None,
) -> None:
    """Write the averaged model into the folder of a cross-validation, calibrated on its out-of-fold predictions.

    Args:
        run: the folder, with `predictions.csv`. The caller holds its lock.
        built: the graph of all folds; its head is replaced.
        folds: the runs of the folds.
        formats: what to export.

    Raises:
        RunError: if a fold has another head, or images have disappeared meanwhile.
    """
    head = built.get_layer("logits")
    heads = [flattening.load(Run(fold).model).get_layer("logits").get_weights() for fold in folds]
    if any(kernel.shape != heads[0][0].shape for kernel, _ in heads):
        raise RunError(f"{run.path}: expected heads of one size in all folds, found others. Remove the folds.")
    head.set_weights([np.mean(arrays, axis=0) for arrays in zip(*heads, strict=True)])
    estimator = Network.of_run(settings)
    with Decoding(dataset.with_splits([TRAIN] * len(dataset)), estimator, on_progress) as decoding:
        decoded, pixels = decoding.result()
    images = Images(decoded, pixels)
    built.get_layer(tasks.find(dataset.task).OUTPUT).set_weights(images.output_weights)
    embeddings = estimator.vectors(built, images, on_progress)
    kernel, bias = head.get_weights()
    fitted = Fitted(built, recipe.from_resolved(settings), images, embeddings, embeddings @ kernel + bias, [])
    found = outputs.read_predictions(run.predictions)
    of_path = dict(zip(found.paths, found.probabilities, strict=True))
    if missing := [sample.path for sample in decoded.samples if sample.path not in of_path]:
        raise RunError(
            f"{run.predictions}: expected a prediction for every image, found none for {listed(missing)}. Repeat the "
            "cross-validation in another folder."
        )
    logits = np.log(np.maximum([of_path[s.path] for s in decoded.samples], SMALLEST))
    calibrated = calibration_fit.calibrate_out_of_fold(run, fitted, logits)
    training.describe(run, fitted, fitted.store(run), calibrated)
    log.info("%s: the average of %d heads, scored out of fold.", run.model, len(heads))
    training.export(run, formats, on_progress)
