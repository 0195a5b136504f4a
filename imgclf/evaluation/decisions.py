"""What a model's rules make of labeled images, and fitting the rules on a run's validation part."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import runs, tasks
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import calibration, outputs, scorers
from imgclf.evaluation.intervals import wilson
from imgclf.prediction import artifact, decision
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import Decided, Decision
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig
from imgclf.settings.base import flag_of

log = logging.getLogger(__name__)

NONE = "none"

FEW = 20
"""With fewer positive or negative images, a threshold hardly depends on its goal."""


def measure(
    labels: np.ndarray, decided: Decided, class_names: Sequence[str], rules: Decision, *, scored: bool = True
) -> dict[str, Any]:
    """Measure what the rules make of these images.

    Args:
        labels: int (n,), the true classes.
        decided: what the rules made of them.
        scored: whether their outlier scores were known, so that the out-of-distribution rule could be applied.

    Returns:
        `rules`, those that are set; `answered`, the coverage: the share of images with a predicted class; `unsure` and
        `outlier`, the shares of rejected images (None where that rule could not be applied); `precision`, the accuracy
        over the covered images, and its 95% `interval` (None without such images). With prediction sets: `coverage`,
        the one asked for, `set_coverage`, the share of sets that contain the true class, its `set_interval`, and
        `set_size`, classes on average. With a positive class: `positive`, `threshold`, and over all images, where a
        rejected one is not predicted as positive, `positive_precision`, `positive_recall`, `positive_specificity`, each
        with its 95% interval under its name and `_interval`, and `positives` and `negatives`, numbers of images.
    """
    n, predicted = len(labels), decided.predicted
    covered = ~decided.rejected
    correct, count = int((predicted == labels).sum()), int(covered.sum())
    unknown = rules.outlier_above is not None and not scored
    found: dict[str, Any] = {
        "rules": {key: value for key, value in asdict(rules).items() if value is not None},
        "answered": count / n,
        "unsure": float(decided.unsure.mean()),
        "outlier": None if unknown else float(decided.outlier.mean()),
        "precision": correct / count if count else None,
        "interval": list(wilson(correct, count)) if count else None,
    }
    if decided.members is not None:
        inside = decided.members[np.arange(n), labels]
        found |= {
            "coverage": rules.coverage,
            "set_coverage": float(inside.mean()),
            "set_interval": list(wilson(int(inside.sum()), n)),
            "set_size": float(decided.members.sum(axis=1).mean()),
        }
    if rules.positive is not None:
        index = class_names.index(rules.positive)
        true, said = labels == index, predicted == index
        found |= {
            "positive": rules.positive,
            "threshold": rules.threshold,
            "positives": int(true.sum()),
            "negatives": int((~true).sum()),
        }
        for key, hits in (("precision", true[said]), ("recall", said[true]), ("specificity", ~said[~true])):
            found[f"positive_{key}"] = float(hits.mean()) if len(hits) else None
            found[f"positive_{key}_interval"] = list(wilson(int(hits.sum()), len(hits))) if len(hits) else None
    return found


def describe(scores: dict[str, Any]) -> str:
    """Return a sentence on rejected images, "" where there are none.

    Args:
        scores: what `scoring.score` returned.
    """
    decided, n = scores.get("decision"), scores["n"]
    if not decided or decided["answered"] == 1:
        return ""
    rejected = round((1 - decided["answered"]) * n)
    text = f"Coverage {decided['answered']:.1%}: {rejected} of {n} images rejected, counted as errors. Accuracy "
    if decided["precision"] is not None:
        low, high = decided["interval"]
        text += f"on the others: {decided['precision']:.3f} (95% CI {low:.3f} to {high:.3f}); "
    return f"{text}on all without rejection or threshold: {scores['argmax']['accuracy']:.3f}."


def calibrate(run: Run | Path | str, config: CalibrateConfig | None = None) -> tuple[Artifact, dict[str, Any]]:
    """Fit the rules on a run's validation part, and write them into its `artifact.json`.

    Settings that are None leave their rule as it is. No model is exported: the rules apply to its probabilities.

    Args:
        run: the run or its folder.

    Returns:
        The new description, and `measure` of the validation part with its `support`, the images of each class.

    Raises:
        UsageError: if the positive class is not one of two.
        DatasetError: if the goal cannot be reached.
        RunError: if the run has no validation predictions, is damaged, or another process writes it.
    """
    found = runs.find(run)
    with found.lock():
        return _calibrate(found, config or CalibrateConfig())


def _calibrate(run: Run, config: CalibrateConfig) -> tuple[Artifact, dict[str, Any]]:
    facts = artifact.read(run.path)
    if not run.validation.is_file():
        raise RunError(
            f"{run.validation}: missing. Rules are fitted on the predictions for the validation part, which training "
            "writes if that part has at least 10 images."
        )
    for each in fields(config):
        if getattr(config, each.name) != each.default:
            tasks.refuse(facts.task, flag_of(each.name))
    rules, measured = scorers.find(facts.task).recalibrated(run.validation, facts, config)
    facts = replace(facts, decision=rules)
    artifact.write(run.path, facts)
    return facts, measured


def recalibrated(path: Path, facts: Artifact, config: CalibrateConfig) -> tuple[Decision, dict[str, Any]]:
    """Fit rules on the predictions in `validation.csv`; see `Scorer.recalibrated`."""
    found = outputs.read_predictions(path)
    if found.class_names != list(facts.labels):
        raise RunError(f"{path}: expected the classes of {artifact.NAME}, found others. Train again.")
    rules = _fitted(facts.decision, found, config)
    decided = decision.decide(found.probabilities, found.class_names, rules)
    measured = measure(found.labels, decided, found.class_names, rules, scored=False)
    support = np.bincount(found.labels, minlength=len(found.class_names)).tolist()
    measured["support"] = dict(zip(found.class_names, support, strict=True))
    _warn_of_few(measured, config)
    return rules, measured


def _warn_of_few(measured: dict[str, Any], config: CalibrateConfig) -> None:
    if config.threshold in (None, NONE):
        return
    positives, negatives = measured["positives"], measured["negatives"]
    if min(positives, negatives) < FEW:
        log.warning(
            "The threshold rests on %d positive and %d negative validation images; with fewer than %d, other goals "
            "can give the same threshold. Train with a larger --validation-fraction for a reliable one.",
            positives,
            negatives,
            FEW,
        )


def _fitted(rules: Decision, found: outputs.Predictions, config: CalibrateConfig) -> Decision:
    """Return the rules with the changes that the settings ask for."""
    labels, probabilities = found.labels, found.probabilities
    if config.reject_below == "auto":
        rules = replace(rules, reject_below=calibration.rejection(labels, probabilities, config.precision))
    elif config.reject_below is not None:
        rules = replace(rules, reject_below=None if config.reject_below == NONE else float(config.reject_below))
    if config.coverage == NONE:
        rules = replace(rules, coverage=None, set_from=None)
    elif config.coverage is not None:
        wanted = float(config.coverage)
        rules = replace(rules, coverage=wanted, set_from=calibration.conformal(labels, probabilities, wanted))
    if config.outliers == NONE:
        rules = replace(rules, outlier_above=None, false_alarms=None)
    if config.threshold == NONE:
        rules = replace(rules, positive=None, threshold=None)
    elif config.threshold is not None:
        rules = _with_threshold(rules, found, config.positive, config.threshold)
    return rules


def _with_threshold(rules: Decision, found: outputs.Predictions, positive: str | None, goal: str) -> Decision:
    names = found.class_names
    if len(names) != 2 or positive not in names:
        raise UsageError(
            f"--threshold: expected two classes and one of them as --positive, found {positive!r} among "
            f"{', '.join(names)}."
        )
    index = names.index(positive)
    level = calibration.threshold(found.labels == index, found.probabilities[:, index], goal)
    return replace(rules, positive=positive, threshold=level)
