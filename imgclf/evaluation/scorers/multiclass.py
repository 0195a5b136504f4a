"""Scores of one class for each image."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, runs
from imgclf.data.dataset import Dataset, Sample, listed
from imgclf.errors import DatasetError, RunError
from imgclf.evaluation import calibration, compare, conclusion, decisions, gates, outputs, scoring
from imgclf.evaluation import report as reports
from imgclf.evaluation.metrics import INTERVALS, LOSSES, SCORES
from imgclf.evaluation.metrics import score as score_arrays
from imgclf.evaluation.outputs import Predictions
from imgclf.evaluation.scorers import Described, Table
from imgclf.evaluation.scoring import Scored
from imgclf.evaluation.sums import PER_CLASS
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import NO_RULES, Decision
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig, EvaluateConfig
from imgclf.tasks import multiclass

log = logging.getLogger("imgclf.evaluation.evaluate")

OUTLIERS = True

SUMMARY = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), (0.0, 1.0)),
    "matthews": (-1.0, 1.0),
    "log_loss": (0.0, math.inf),
}

HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "matthews": "Matthews correlation",
    "macro_roc_auc": "ROC AUC, macro",
    "macro_average_precision": "average precision, macro",
    "log_loss": "log loss, nats",
    "brier": "Brier score, 0 to 2",
}
"""What is printed of the scores, and as what; `metrics.json` has them all."""

_OF_CLASS = (*PER_CLASS, "roc_auc", "average_precision")
_RULES = (
    *("answered", "unsure", "outlier", "precision", "set_coverage"),
    *("positive_precision", "positive_recall", "positive_specificity"),
)
"""What the rules make of the images: shares."""

_OF_RULES = {
    "decision.precision": "decision.interval",
    "decision.set_coverage": "decision.set_interval",
    **{f"decision.{key}": f"decision.{key}_interval" for key in _RULES if key.startswith("positive_")},
}

GATES = gates.Keys(
    ranges={
        "n": (0, math.inf),
        **dict.fromkeys(SCORES, (0, 1)),
        **dict.fromkeys(("cohen_kappa", "matthews"), (-1, 1)),
        **dict.fromkeys(LOSSES, (0, math.inf)),
        **dict.fromkeys((f"top_k.{gates.K}", "calibration.ece", "calibration.mce"), (0, 1)),
        **{f"per_class.{gates.NAME}.{key}": (0, 1) for key in _OF_CLASS},
        f"per_class.{gates.NAME}.support": (0, math.inf),
        **{f"decision.{key}": (0, 1) for key in _RULES},
        "decision.set_size": (0, math.inf),
    },
    losses=frozenset(
        {*LOSSES, "calibration.ece", "calibration.mce", "decision.unsure", "decision.outlier", "decision.set_size"}
    ),
    intervals={
        **gates.scores_and("per_class", INTERVALS, _OF_CLASS),
        "top_k.1": "argmax.intervals.accuracy",
        f"top_k.{gates.K}": f"intervals.top_{gates.K}",
        **_OF_RULES,
    },
)

_OF_SETS = ("coverage", "set_coverage", "set_size", "set_interval")
_OF_POSITIVE = ("positive", "threshold", "positive_precision", "positive_recall", "positive_specificity")
"""What the rules of prediction sets, and of a positive class, are described by."""

_FIELDS = documents.fields(
    {
        "n": documents.number(1, 2**63, whole=True),
        **dict.fromkeys(reports.HEADLINES, runs.SCORE),
        **dict.fromkeys(("accuracy", "balanced_accuracy"), documents.number(0, 1)),
        "per_class": documents.map_of(
            documents.fields(
                {
                    **dict.fromkeys(("precision", "recall", "f1", "specificity"), runs.SCORE),
                    **dict.fromkeys(("roc_auc", "average_precision"), runs.SCORE),
                    "support": runs.COUNT,
                    "intervals": documents.fields({"recall": runs.INTERVAL}),
                },
                {"rejected": runs.COUNT},
            )
        ),
        "top_k": documents.map_of(runs.SCORE),
        "confusion_matrix": documents.fields(
            {
                "labels": documents.list_of(documents.text, least=1),
                "counts": documents.list_of(documents.list_of(runs.COUNT)),
            }
        ),
        "most_confused": documents.list_of(
            documents.fields(
                {
                    "classes": documents.pair_of(documents.text),
                    "counts": documents.pair_of(runs.COUNT),
                    "count": runs.COUNT,
                }
            )
        ),
        "calibration": documents.fields(
            {
                **dict.fromkeys(("ece", "mce"), documents.number(0, 1)),
                "bins": documents.list_of(
                    documents.fields(
                        {
                            **dict.fromkeys(("from", "to", "confidence", "accuracy"), documents.number(0, 1)),
                            "n": documents.number(1, 2**63, whole=True),
                        }
                    )
                ),
            }
        ),
        "intervals": documents.fields({"accuracy": documents.pair_of(documents.number())}),
        "warnings": documents.list_of(documents.text),
    },
    {
        "groups": runs.COUNT,
        "argmax": documents.fields({"accuracy": runs.SCORE}),
        "decision": documents.fields(
            {
                "rules": documents.map_of(documents.anything),
                "answered": documents.number(0, 1),
                **dict.fromkeys(("unsure", "outlier", "precision"), runs.SCORE),
                "interval": runs.INTERVAL,
            },
            {
                **dict.fromkeys((*_OF_SETS, *_OF_POSITIVE), runs.SCORE),
                "positive": documents.text,
                "set_interval": documents.pair_of(documents.number()),
            },
        ),
    },
)


def SHAPE(value: Any, where: str) -> None:
    """See `Scorer`: the fields, and that their classes are the same."""
    _FIELDS(value, where)
    names, counts = value["confusion_matrix"]["labels"], value["confusion_matrix"]["counts"]
    if list(value["per_class"]) != names or {len(names)} != {len(counts), *map(len, counts)}:
        raise ValueError(f"confusion_matrix: expected a row and a column for each of {len(names)} classes")
    decided = value.get("decision", {})
    if decided.get("answered", 1) < 1 and "argmax" not in value:
        raise ValueError("argmax: expected a value, found none")
    for keys in (_OF_SETS, _OF_POSITIVE):
        if any(key in decided for key in keys) and not all(key in decided for key in keys):
            raise ValueError(f"decision: expected all of {', '.join(keys)}")
    if not {name for pair in value["most_confused"] for name in pair["classes"]} <= set(names):
        raise ValueError("most_confused: expected classes of the confusion matrix, found others")


def temperature(targets: np.ndarray, logits: np.ndarray) -> float:
    """See `Scorer`."""
    return calibration.fit_temperature(targets, logits)


def rules(targets: np.ndarray, outputs: np.ndarray, names: Sequence[str]) -> Decision:
    """See `Scorer`. No rule is fitted unasked."""
    return NO_RULES


def write_outputs(path: Path, samples: Sequence[Sample], probabilities: np.ndarray, names: Sequence[str]) -> None:
    """See `Scorer`."""
    labels = multiclass.encode([s.label for s in samples], names)
    outputs.write_predictions(path, [s.path for s in samples], labels, probabilities, names)


def recalibrated(path: Path, facts: Artifact, config: CalibrateConfig) -> tuple[Decision, dict[str, Any]]:
    """See `decisions.recalibrated`."""
    return decisions.recalibrated(path, facts, config)


def score(
    samples: Sequence[Sample],
    probabilities: np.ndarray,
    names: Sequence[str],
    rules: Decision,
    outlier_scores: np.ndarray | None = None,
    *,
    top_k: int = 5,
) -> Scored:
    """See `scoring.score`."""
    return scoring.score(samples, probabilities, names, rules, outlier_scores, top_k=top_k)


def read(path: Path) -> Predictions:
    """See `outputs.read_predictions`."""
    return outputs.read_predictions(path)


def names_of(found: Predictions) -> list[str]:
    """See `Scorer`."""
    return found.class_names


def pooled(found: Sequence[Predictions], paths: Sequence[str], names: Sequence[str], groups: Sequence[str]) -> Scored:
    """See `Scorer`."""
    if any(part.class_names != list(names) for part in found):
        raise RunError("expected predictions for the same classes, found others. Remove the folds and repeat.")
    labels, probabilities, predicted, confidence = (
        np.concatenate([getattr(part, name) for part in found])
        for name in ("labels", "probabilities", "predicted", "confidence")
    )
    scores = score_arrays(labels, probabilities, names, predicted, groups=groups)
    return Scored(scores, Predictions(list(paths), labels, probabilities, list(names), predicted, confidence))


def compared(
    paths: Sequence[Path], found: Sequence[Predictions], rows: Sequence[np.ndarray], groups: Sequence[str]
) -> dict[str, Any]:
    """See `compare.of_classes`."""
    return compare.of_classes(paths, found, rows, groups)


def matched(dataset: Dataset, names: Sequence[str], config: EvaluateConfig) -> Dataset:
    """Return the images whose class the model knows."""
    found = {s.label for s in dataset.samples}
    unknown = sorted(found - set(names))
    if len(unknown) == len(found):
        raise DatasetError(
            f"{dataset.root}: expected the model's classes, {_quoted(names)}; found none of them, but "
            f"{_quoted(unknown)}. Rename the folders, or choose another run."
        )
    if unknown and config.unknown_classes == "error":
        raise DatasetError(
            f"{dataset.root}: expected the model's classes, {_quoted(names)}; found {_quoted(unknown)}, too. "
            "Rename the folders, or skip their images with --unknown-classes skip."
        )
    missing = [name for name in names if name not in found]
    if missing and config.missing_classes == "error":
        raise DatasetError(
            f"{dataset.root}: expected images of all the model's classes, found none of {_quoted(missing)}. "
            "Score the others with --missing-classes allow."
        )
    if missing:
        log.info("No images of %s.", _quoted(missing))
    kept = tuple(s for s in dataset.samples if s.label not in unknown)
    if unknown:
        log.warning(
            "Left out: %d images of %s, which the model does not know.", len(dataset) - len(kept), _quoted(unknown)
        )
    return replace(dataset, samples=kept)


def _quoted(names: Sequence[str]) -> str:
    return listed([repr(name) for name in names])


def headline(metrics: dict[str, Any], digits: int = 3) -> str:
    """Return the accuracy."""
    value, low, high = (f"{x:.{digits}f}" for x in (metrics["accuracy"], *metrics["intervals"]["accuracy"]))
    return f"accuracy {value} (95% CI {low} to {high}), n = {metrics['n']}"


def decided(metrics: dict[str, Any]) -> str:
    """See `decisions.describe`."""
    return decisions.describe(metrics)


def tables(metrics: dict[str, Any]) -> list[Table]:
    """Return the scores of each class, and over the classes."""
    rows = []
    for name, row in metrics["per_class"].items():
        known = [None if row[key] is None else f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append((name, *known, _range(row["intervals"]["recall"]), row["support"]))
    headlines = dict(HEADLINES)
    headlines |= {f"top_{k}": f"top-{k} accuracy" for k in metrics["top_k"] if k != "1"}
    values = metrics | {f"top_{k}": share for k, share in metrics["top_k"].items()}
    cells = [
        (name, "" if values[key] is None else f"{values[key]:.3f}", _range(metrics["intervals"][key]))
        for key, name in headlines.items()
    ]
    cells.append(("calibration error (ECE)", f"{metrics['calibration']['ece']:.3f}", None))
    return [
        ("Per class", ("class", "precision", "recall", "F1", "recall, 95% interval", "support"), rows),
        ("Over the classes", ("score", "value", "95% interval"), cells),
    ]


def _range(ends: list[float] | None) -> str | None:
    return None if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def described(facts: dict[str, Any]) -> Described:
    """See `Scorer`."""
    names = facts["scores"]["confusion_matrix"]["labels"]
    body = reports.to_markdown(facts | {"mistakes": [], "learned": None, "preprocessing": ""}).split("\n")
    return Described(
        f"Classifies images into {len(names)} classes: {reports.named(names)}",
        "image-classification",
        body[2 : body.index("## Worst mistakes")],
        _rejection(facts),
    )


def _rejection(facts: dict[str, Any]) -> str:
    """Tell what the rules of the run make of images that show none of the classes."""
    rules = facts["calibration"] or {}
    reasons = []
    if rules.get("outlier_above") is not None:
        reasons.append("is unlike the training images")
    if rules.get("reject_below"):
        reasons.append(f"has a confidence below {rules['reject_below']:.3g}")
    if not reasons:
        return "Every image gets one of the classes above, including images that show none of them."
    found = f'An image that {" or ".join(reasons)} is rejected as "unknown"'
    if decided := facts["scores"].get("decision"):
        found += f": {1 - decided['answered']:.1%} of the test images"
    return f"{found}. All others get one of the classes above, including images that show none of them."


def conclude(run: Run, folder: Path, metrics: dict[str, Any], train_counts: dict[str, int]) -> list[str]:
    """See `conclusion.lines`."""
    return conclusion.lines(run, folder, metrics, train_counts)


def report(
    run: Run,
    folder: Path,
    *,
    files: Mapping[str, Path] | None = None,
    formats: Sequence[str] = ("html",),
    stage: Path | None = None,
) -> list[Path]:
    """See `report.write`."""
    return reports.write(run, folder, files=files, formats=formats, stage=stage)
