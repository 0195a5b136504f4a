"""How good the answers are, "unknown" among them; and the rules for answers, fitted on a run's validation part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import runs
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import calibration, outputs
from imgclf.evaluation.intervals import wilson
from imgclf.prediction import artifact, decision
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import Decision
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig

NONE = "none"


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: list[str],
    rules: Decision,
    *,
    reject_below: float | None = None,
    outlier_scores: np.ndarray | None = None,
) -> dict[str, Any]:
    """What the rules make of these images.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        outlier_scores: float (n,), where the model has such a rule.

    Returns:
        `answered`, the share that gets a class, `unsure` and `outlier`, the shares that do not; `precision`, the share
        of right ones among the answers, and its 95 % `interval` (None without answers). With prediction sets:
        `set_coverage`, the share of sets with the true class, its `set_interval`, and `set_size`, classes on average.
        With a positive class: `positive`, `threshold`, `positive_precision`, `positive_recall`, `positive_specificity`.
    """
    n, answer = len(labels), decision.best(probabilities, tuple(class_names), rules)
    confidence = probabilities[np.arange(n), answer]
    strange = np.zeros(n, bool)
    if outlier_scores is not None and rules.outlier_above is not None:
        strange = outlier_scores > rules.outlier_above
    unsure = ~strange & (confidence < (reject_below or 0.0))
    answered = ~strange & ~unsure
    right = int((answer == labels)[answered].sum())
    count = int(answered.sum())
    found: dict[str, Any] = {
        "answered": count / n,
        "unsure": float(unsure.mean()),
        "outlier": float(strange.mean()),
        "precision": right / count if count else None,
        "interval": list(wilson(right, count)) if count else None,
    }
    members = decision.prediction_set(probabilities, rules)
    if members is not None:
        inside = members[np.arange(n), labels]
        found |= {
            "coverage": rules.coverage,
            "set_coverage": float(inside.mean()),
            "set_interval": list(wilson(int(inside.sum()), n)),
            "set_size": float(members.sum(axis=1).mean()),
        }
    if rules.positive is not None:
        true, said = labels == class_names.index(rules.positive), answer == class_names.index(rules.positive)
        found |= {
            "positive": rules.positive,
            "threshold": rules.threshold,
            "positive_precision": float(true[said].mean()) if said.any() else None,
            "positive_recall": float(said[true].mean()) if true.any() else None,
            "positive_specificity": float((~said)[~true].mean()) if (~true).any() else None,
        }
    return found


def calibrate(run: Run | Path | str, config: CalibrateConfig | None = None) -> tuple[Artifact, dict[str, Any]]:
    """Fit the rules by which a run predicts on its validation split, and write them into its `artifact.json`.

    What the settings leave open stays as it is. No model is exported again: the rules apply to its probabilities.

    Args:
        run: the run or its folder.

    Returns:
        The new description, and `measure` of the validation part.

    Raises:
        UsageError: if a positive class is none of two.
        DatasetError: if what is wanted cannot be reached.
        RunError: if the run has no validation predictions, is damaged, or another process writes it.
    """
    found = runs.find(run)
    with found.lock():
        return _calibrate(found, config or CalibrateConfig())


def _calibrate(run: Run, config: CalibrateConfig) -> tuple[Artifact, dict[str, Any]]:
    facts = artifact.read(run.path)
    if not run.validation.is_file():
        raise RunError(
            f"{run.validation}: expected the answers to the validation part, found none. A training with a validation "
            "part of at least 10 images writes them."
        )
    found = outputs.read_predictions(run.validation)
    if found.class_names != list(facts.labels):
        raise RunError(f"{run.validation}: expected the classes of {artifact.NAME}, found others. Train again.")
    labels, probabilities, rules = found.labels, found.probabilities, facts.decision
    reject_below = facts.reject_below
    if config.reject_below == "auto":
        reject_below = calibration.rejection(labels, probabilities, config.precision)
    elif config.reject_below is not None:
        reject_below = None if config.reject_below == NONE else float(config.reject_below)
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
        rules = _with_threshold(rules, found, config)
    facts = replace(facts, decision=rules, reject_below=reject_below)
    artifact.write(run.path, facts)
    measured = measure(labels, probabilities, found.class_names, rules, reject_below=reject_below)
    return facts, measured


def _with_threshold(rules: Decision, found: outputs.Predictions, config: CalibrateConfig) -> Decision:
    names, positive = found.class_names, config.positive
    if len(names) != 2 or positive not in names:
        raise UsageError(
            f"--threshold: expected two classes and one of them as --positive, found {positive!r} among "
            f"{', '.join(names)}."
        )
    index = names.index(positive)
    assert config.threshold is not None
    level = calibration.threshold(found.labels == index, found.probabilities[:, index], config.threshold)
    return replace(rules, positive=positive, threshold=level)
