"""After training: put the temperature into the model, and fit the out-of-distribution detection."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from imgclf.data.dataset import TEST, TRAIN, VALIDATION
from imgclf.evaluation import scorers
from imgclf.prediction import decision
from imgclf.prediction.decision import NO_RULES, Decision, Outliers
from imgclf.runs import Run
from imgclf.storage import write_atomic
from imgclf.training.estimators import Fitted

log = logging.getLogger("imgclf")

FALSE_ALARMS = 0.01
"""The share of images like the training images that may count as out of distribution. With fewer than 99 validation
images, the largest of their scores is the threshold, and the share 1 / (n + 1)."""

FEWEST = 10
"""With fewer validation images nothing is fitted on them."""


@dataclass(frozen=True)
class Calibrated:
    """What was fitted: the temperature, the rules of the decision, and how far the test images are out of distribution,
    float32 (m,)."""

    temperature: float = 1.0
    rules: Decision = NO_RULES
    outlier_scores: np.ndarray | None = None


def calibrate(run: Run, fitted: Fitted) -> Calibrated:
    """Fit on the validation images, and write `validation.csv` and `outliers.npz`.

    The out-of-distribution threshold is a quantile of the distances of validation images and, where training did not
    change the features, of each training image from the others: a few validation images alone cannot tell 1%. Images of
    one group are too alike for that.

    Args:
        fitted: its model is divided by the temperature.
    """
    dataset, embeddings = fitted.images.dataset, fitted.embeddings
    at = {split: fitted.images.rows(split) for split in (TRAIN, VALIDATION, TEST)}
    if len(at[VALIDATION]) < FEWEST:
        log.info(
            "Not calibrated: fitting a temperature and an out-of-distribution threshold takes at least %d validation "
            "images, found %d.",
            FEWEST,
            len(at[VALIDATION]),
        )
        return Calibrated()
    scorer, names, count = scorers.find(dataset.task), dataset.class_names, len(at[VALIDATION])
    temperature = scorer.temperature(fitted.images.targets[at[VALIDATION]], fitted.logits[at[VALIDATION]])
    fitted.divide(temperature)
    found = fitted.predictions(VALIDATION, temperature)
    scorer.write_outputs(run.validation, dataset.part(VALIDATION).samples, found, names)
    rules = scorer.rules(dataset.labels[at[VALIDATION]], found, names)
    if not scorer.OUTLIERS:
        return Calibrated(temperature, rules)
    outliers = _outliers(run, fitted, at[TRAIN])
    like = outliers.scores(embeddings[at[VALIDATION]])
    if fitted.has_frozen_features and not any(sample.group for sample in dataset.part(TRAIN).samples):
        like = np.concatenate([like, outliers.own_scores()])
    threshold, share = threshold_for(like, FALSE_ALARMS)
    text = f"Temperature {temperature:.3f} makes confidence match accuracy on {count} validation images."
    scores = outliers.scores(embeddings[at[TEST]])
    if len(scores):
        alarms = float((scores > threshold).mean())
        text += f" Out of distribution, unlike the training images: {alarms:.1%} of the test images."
    log.info("%s", text)
    return Calibrated(temperature, replace(rules, outlier_above=threshold, false_alarms=share), scores)


def calibrate_out_of_fold(run: Run, fitted: Fitted, logits: np.ndarray) -> Calibrated:
    """Fit on the predictions of folds, where all images are in the training split, and write the same files.

    Args:
        fitted: its model is divided by the temperature. Its features are those of a frozen backbone.
        logits: float (n, outputs), of all images, each by the fold that was not fitted to it.
    """
    images, dataset = fitted.images, fitted.images.dataset
    scorer, names = scorers.find(dataset.task), dataset.class_names
    temperature = scorer.temperature(images.targets, logits)
    fitted.divide(temperature)
    found = images.task.link(logits / temperature, images.output_weights)
    scorer.write_outputs(run.validation, dataset.samples, found, names)
    rules = scorer.rules(dataset.labels, found, names)
    log.info("Temperature %.3f, fitted on %d out-of-fold predictions", temperature, len(dataset))
    if any(sample.group for sample in dataset.samples):  # those of a group are too alike to tell what is far away
        return Calibrated(temperature, rules)
    like = _outliers(run, fitted, np.arange(len(dataset))).own_scores()
    threshold, share = threshold_for(like, FALSE_ALARMS)
    return Calibrated(temperature, replace(rules, outlier_above=threshold, false_alarms=share))


def _outliers(run: Run, fitted: Fitted, rows: np.ndarray) -> Outliers:
    """Fit the out-of-distribution detection to the embeddings of some images, and write it."""
    outliers = Outliers.fit(fitted.embeddings[rows], fitted.settings.seed)
    write_atomic(run.path / decision.FILE, outliers.to_bytes())
    return Outliers.read(run.path / decision.FILE)  # as prediction will see them


def threshold_for(scores: np.ndarray, share: float) -> tuple[float, float]:
    """Return the smallest threshold that at most a share of images like these is above, and that share.

    Args:
        scores: float (n,), of images that nothing was fitted on.

    Source: the quantile of split conformal prediction, as in `calibration.conformal`.
    """
    ordered, n = np.sort(scores), len(scores)
    rank = min(n, int(np.ceil((n + 1) * (1 - share) - 1e-9)))
    return float(ordered[rank - 1]), max(share, 1 / (n + 1))
