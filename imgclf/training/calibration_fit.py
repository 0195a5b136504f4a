"""After training: put the temperature into the head, and store the features for out-of-distribution detection."""

import logging
from dataclasses import dataclass

import keras
import numpy as np

from imgclf.data import loading
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from imgclf.evaluation import calibration, outputs
from imgclf.prediction import decision
from imgclf.prediction.decision import NO_RULES, Decision, Outliers
from imgclf.runs import Run, write_atomic
from imgclf.settings import TrainConfig
from imgclf.training import features, probe
from imgclf.training.loop import OnProgress

log = logging.getLogger("imgclf")

FALSE_ALARMS = 0.01
"""The share of images like the training images that may be called strange. With fewer than 99 validation images, the
largest of their scores is the limit, and the share 1 / (n + 1)."""

FEWEST = 10
"""With fewer validation images nothing is fitted on them."""


@dataclass(frozen=True)
class Calibrated:
    """What was fitted: the number that logits were divided by, the rules for answers, and how strange the images of
    the test part are, float32 (m,)."""

    temperature: float = 1.0
    rules: Decision = NO_RULES
    outlier_scores: np.ndarray | None = None


def calibrate(
    run: Run,
    model: keras.Model,
    dataset: Dataset,
    pixels: loading.Pixels,
    config: TrainConfig,
    *,
    on_progress: OnProgress | None = None,
) -> Calibrated:
    """Fit on the validation part, and write `validation.csv` and `outliers.npz`.

    The head's weights are divided by the temperature: so every export has it, and no graph has one layer more.

    Args:
        model: the trained classifier; its head is changed.
        dataset: what `loading.decode` returned, and `pixels` with it.
    """
    at = {side: np.array([s.split == side for s in dataset.samples], bool) for side in (TRAIN, VALIDATION, TEST)}
    if at[VALIDATION].sum() < FEWEST:
        log.info("too few validation images to fit a temperature and a limit for strange images on")
        return Calibrated()
    embeddings = features.frozen(model, dataset, pixels, config, on_progress=on_progress)[0]
    kernel, bias = model.get_layer("logits").get_weights()
    logits = embeddings @ kernel + bias
    temperature = calibration.fit_temperature(dataset.labels[at[VALIDATION]], logits[at[VALIDATION]])
    model.get_layer("logits").set_weights([kernel / temperature, bias / temperature])
    probabilities = probe.softmax(logits[at[VALIDATION]] / temperature)
    paths = [s.path for s in dataset.samples if s.split == VALIDATION]
    labels = dataset.labels[at[VALIDATION]]
    outputs.write_predictions(run.validation, paths, labels, probabilities, dataset.class_names)
    outliers = Outliers.fit(embeddings[at[TRAIN]], config.seed)
    write_atomic(run.path / decision.FILE, outliers.to_bytes())
    outliers = Outliers.read(run.path / decision.FILE)  # as prediction will see them
    limit, share = limit_for(outliers.scores(embeddings[at[VALIDATION]]), FALSE_ALARMS)
    text = f"temperature {temperature:.3f}, fitted on {len(labels)} validation images"
    scores = outliers.scores(embeddings[at[TEST]])
    if len(scores):
        alarms = float((scores > limit).mean())
        text += f"; strange among the test images: {alarms:.1%}"
    log.info("%s", text)
    rules = Decision(outlier_above=limit, false_alarms=share)
    return Calibrated(temperature, rules, scores)


def limit_for(scores: np.ndarray, share: float) -> tuple[float, float]:
    """The least limit that a share of images like these, or a smaller one, is above, and that share.

    Args:
        scores: float (n,), of images that nothing was fitted on.

    Source: the quantile of split conformal prediction, as in `calibration.conformal`.
    """
    ordered, n = np.sort(scores), len(scores)
    rank = min(n, int(np.ceil((n + 1) * (1 - share) - 1e-9)))
    return float(ordered[rank - 1]), max(share, 1 / (n + 1))
