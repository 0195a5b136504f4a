"""Scores of numbers."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, runs, storage
from imgclf.data import cells
from imgclf.data.dataset import Dataset, Sample
from imgclf.errors import DatasetError, RunError
from imgclf.evaluation import compare, conclusion, gates, intervals, page, plots, scorers
from imgclf.evaluation import report as reports
from imgclf.evaluation.page import Block
from imgclf.evaluation.scorers import Described, Table
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import Decision
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig, EvaluateConfig
from imgclf.tasks import JOINED, regression

OUTLIERS = False

SUMMARY = {"r2": (-math.inf, 1.0), "spearman": (-1.0, 1.0)}

COVERAGE = 0.9
"""The share of prediction intervals that contain the true number, unless another is asked for."""

SCORES = {
    "r2": ("R2", "share of the variance that is explained; 1 is best, 0 is a constant"),
    "mae": ("Mean absolute error", "in the unit of the numbers, lower is better"),
    "rmse": ("Root mean squared error", "in the unit of the numbers, lower is better"),
    "spearman": ("Spearman correlation", "of the ranks, -1 to 1"),
    "median_error": ("Median absolute error", "in the unit of the numbers, lower is better"),
}
"""The scores: their names for people, and what they are."""

UNITS = ("mae", "rmse", "median_error")
"""Those in the unit of the numbers: several numbers have no mean of them."""

SHAPE = documents.fields(
    {
        "n": runs.COUNT,
        **dict.fromkeys(SCORES, runs.SCORE),
        "intervals": documents.fields(dict.fromkeys(SCORES, runs.INTERVAL)),
        "per_value": documents.map_of(
            documents.fields(
                {
                    **dict.fromkeys(SCORES, runs.SCORE),
                    "mae": documents.number(0),
                    "intervals": documents.fields({"mae": documents.pair_of(documents.number())}),
                }
            )
        ),
    },
    {
        "decision": documents.fields(
            {
                "rules": documents.fields({"coverage": documents.number(0, 1)}),
                "coverage": documents.map_of(documents.number(0, 1)),
            }
        )
    },
)

_RANGES = {"r2": (-math.inf, 1.0), "spearman": (-1.0, 1.0), **dict.fromkeys(UNITS, (0.0, math.inf))}

GATES = gates.Keys(
    ranges={
        "n": (0, math.inf),
        **_RANGES,
        **{f"per_value.{gates.NAME}.{key}": ends for key, ends in _RANGES.items()},
        f"decision.coverage.{gates.NAME}": (0, 1),
    },
    losses=frozenset({*UNITS, *(f"per_value.{gates.NAME}.{key}" for key in UNITS)}),
    intervals=gates.scores_and("per_value", _RANGES, _RANGES),
)

WORST = 24
"""How many of the largest errors the report shows."""

FEW = 30
"""With fewer images, a warning says that intervals are rough."""


def temperature(targets: np.ndarray, logits: np.ndarray) -> float:
    """Numbers have none."""
    return 1.0


def rules(targets: np.ndarray, outputs: np.ndarray, names: Sequence[str]) -> Decision:
    """Prediction intervals, which contain the true number in COVERAGE of cases."""
    return with_intervals(Decision(), targets, outputs, names, COVERAGE)


def with_intervals(
    rules: Decision, targets: np.ndarray, outputs: np.ndarray, names: Sequence[str], coverage: float
) -> Decision:
    """Return the rules with intervals that contain the true number in a share `coverage` of cases or more.

    Source: split conformal prediction with absolute residuals, Lei et al. 2018, doi:10.1080/01621459.2017.1307116.
    With so few images that no width would suffice, it is the largest residual.
    """
    residuals = np.sort(np.abs(outputs - targets), axis=0)
    rank = min(len(residuals), math.ceil((len(residuals) + 1) * coverage - 1e-9))
    return replace(rules, coverage=coverage, widths=dict(zip(names, residuals[rank - 1].tolist(), strict=True)))


@dataclass(frozen=True)
class Estimates:
    """The content of a `predictions.csv`: paths, and labels and outputs float64 (n, numbers)."""

    paths: list[str]
    labels: np.ndarray
    outputs: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Scored:
    """The content of `metrics.json`, and of `predictions.csv`."""

    metrics: dict[str, Any]
    estimates: Estimates

    def write(self, folder: Path) -> None:
        """Write `metrics.json`, `predictions.csv` and `residuals.png`."""
        place, found = Run(folder), self.estimates
        _write(place.predictions, found)
        storage.write_atomic(folder / "residuals.png", draw(found))
        storage.write_json(place.metrics, self.metrics)


def write_outputs(path: Path, samples: Sequence[Sample], outputs: np.ndarray, names: Sequence[str]) -> None:
    """See `Scorer`."""
    labels = regression.encode([s.label for s in samples], names)
    _write(path, Estimates([s.path for s in samples], labels, outputs, list(names)))


def _write(path: Path, found: Estimates) -> None:
    """Write CSV in UTF-8: `path`, then `true_<name>` and `predicted_<name>` for each number."""
    lines = [cells.line(["path", *(f"{part}_{name}" for name in found.names for part in ("true", "predicted"))])]
    for file, label, output in zip(found.paths, found.labels, found.outputs.astype(np.float32), strict=True):
        lines.append(cells.line([file, *(text for pair in zip(label, output, strict=True) for text in map(str, pair))]))
    storage.write_atomic(path, "".join(lines).encode("utf-8", "surrogateescape"))


def read(path: Path) -> Estimates:
    """Read what `_write` wrote.

    Raises:
        RunError: if the file is missing or damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        names = [name.removeprefix("true_") for name in header[1::2]]
        expected = ["path", *(f"{part}_{name}" for name in names for part in ("true", "predicted"))]
        if header != expected or not names or not rows:
            raise ValueError(f"expected the columns {', '.join(expected)} and rows")
        numbers = np.array([row[1:] for row in rows], np.float64).reshape(len(rows), len(names), 2)
    except OSError as error:
        raise RunError(
            f"{path}: the predictions cannot be read ({error.strerror}). imgclf evaluate writes them."
        ) from None
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path}: damaged predictions ({error}). imgclf evaluate writes them again.") from None
    return Estimates([cells.plain(row[0]) for row in rows], numbers[:, :, 0], numbers[:, :, 1], names)


def recalibrated(path: Path, facts: Artifact, config: CalibrateConfig) -> tuple[Decision, dict[str, Any]]:
    """See `Scorer`. `coverage` changes the prediction intervals."""
    found, rules = read(path), facts.decision
    if found.names != list(facts.labels):
        raise RunError(f"{path}: expected the numbers of {artifact.NAME}, found others. Train again.")
    if config.coverage == "none":
        rules = replace(rules, coverage=None, widths=None)
    elif config.coverage is not None:
        rules = with_intervals(rules, found.labels, found.outputs, found.names, float(config.coverage))
    measured: dict[str, Any] = {"support": dict.fromkeys(found.names, len(found.paths))}
    for place, name in enumerate(found.names):
        if rules.widths:
            inside = np.abs(found.outputs[:, place] - found.labels[:, place]) <= rules.widths[name]
            measured[f"coverage of {name}"] = float(inside.mean())
    return rules, measured


def score(
    samples: Sequence[Sample],
    outputs: np.ndarray,
    names: Sequence[str],
    rules: Decision,
    outlier_scores: np.ndarray | None = None,
    *,
    top_k: int = 5,
) -> Scored:
    """See `Scorer`; the content of `metrics.json` is that of `measure`."""
    labels = regression.encode([s.label for s in samples], names)
    if outputs.shape != labels.shape or not len(labels) or not np.isfinite(outputs).all():
        raise ValueError(f"expected finite numbers {labels.shape} and at least one image, found {outputs.shape}.")
    found = measure(labels, outputs, names, groups=[s.group for s in samples])
    if rules.widths:
        widths = np.array([rules.widths[name] for name in names])
        inside = np.abs(outputs - labels) <= widths
        found["decision"] = {
            "rules": {key: value for key, value in asdict(rules).items() if value is not None},
            "coverage": {name: float(share) for name, share in zip(names, inside.mean(axis=0), strict=True)},
            "interval": {
                name: list(intervals.wilson(int(own.sum()), len(own)))
                for name, own in zip(names, inside.T, strict=True)
            },
        }
    return Scored(found, Estimates([s.path for s in samples], labels, np.asarray(outputs), list(names)))


def measure(
    labels: np.ndarray,
    outputs: np.ndarray,
    names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    replicates: int = intervals.REPLICATES,
) -> dict[str, Any]:
    """Compute the scores of numbers, ready for JSON.

    Args:
        labels: float (n, numbers), the true ones.
        outputs: float (n, numbers).
        groups: n names, "" for none; the intervals then account for them.

    Returns:
        `n`; the keys of `SCORES`, where several numbers have the mean of `r2` and of `spearman` and None for those in
        units; `per_value` with the scores and `intervals` of each number; `intervals`, the percentiles of a bootstrap
        of images; and `warnings`. What is undefined is None.
    """
    groups = groups if groups and any(groups) else None
    exact, outputs = labels.astype(np.float64), outputs.astype(np.float64)
    once = np.ones((len(exact), 1))
    own = [scores_of(exact[:, i], outputs[:, i], once) for i in range(len(names))]
    drawn: list[list[dict[str, np.ndarray]]] = [[] for _ in names]
    for weights in intervals.draws(np.zeros(len(exact), int), groups, replicates=replicates):
        for i, parts in enumerate(drawn):
            parts.append(scores_of(exact[:, i], outputs[:, i], weights.astype(np.float64)))
    values = [{key: np.concatenate([part[key] for part in parts]) for key in SCORES} for parts in drawn]
    per_value = {
        name: {key: _number(own[i][key]) for key in SCORES}
        | {"intervals": {key: _interval(values[i][key]) for key in SCORES}}
        for i, name in enumerate(names)
    }
    is_one = len(names) == 1
    means = {key: np.mean([each[key] for each in own], axis=0) for key in SCORES}
    spread = {key: np.mean([each[key] for each in values], axis=0) for key in SCORES}
    shown = {key: is_one or key not in UNITS for key in SCORES}
    return {
        "task": "regression",
        "n": len(exact),
        **{key: _number(means[key]) if shown[key] else None for key in SCORES},
        "per_value": per_value,
        "intervals": {key: _interval(spread[key]) if shown[key] else None for key in SCORES},
        "warnings": [f"Few images ({len(exact)}): below {FEW}, intervals are rough."] if len(exact) < FEW else [],
    }


def scores_of(truth: np.ndarray, found: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score of one number, each (b,), for weights of the images (n, b); NaN where undefined."""
    error, total = np.abs(truth - found), weights.sum(axis=0)
    squared = (error**2) @ weights / total
    mean = truth @ weights / total
    variance = (truth**2) @ weights / total - mean**2
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where(variance > 1e-12 * max(1.0, float(np.abs(truth).max()) ** 2), 1 - squared / variance, np.nan)
        ranks = _correlation(_ranks(truth, weights), _ranks(found, weights), weights)
    return {
        "r2": r2,
        "mae": error @ weights / total,
        "rmse": np.sqrt(squared),
        "spearman": ranks,
        "median_error": _median(error, weights),
    }


def _median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted median (b,): the mean of the two middle values where the half falls between them."""
    order = np.argsort(values)
    rising, ordered = np.cumsum(weights[order], axis=0), values[order]
    half = rising[-1] / 2
    low = (rising < half - 1e-9).sum(axis=0)
    high = (rising <= half + 1e-9).sum(axis=0)
    last = len(values) - 1
    middle: np.ndarray = (ordered[np.minimum(low, last)] + ordered[np.minimum(high, last)]) / 2
    return middle


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted ranks (n, b); equal values share the mean of theirs."""
    _, place = np.unique(values, return_inverse=True)
    sums = np.zeros((place.max() + 1, weights.shape[1]))
    np.add.at(sums, place, weights)
    ranks: np.ndarray = (np.cumsum(sums, axis=0) - sums / 2)[place]
    return ranks


def _correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=0)
    one, two = (x - (x * weights).sum(axis=0) / total for x in (first, second))
    product = (one * two * weights).sum(axis=0)
    spread = np.sqrt((one**2 * weights).sum(axis=0) * (two**2 * weights).sum(axis=0))
    correlation: np.ndarray = np.where(spread > 0, product / np.where(spread > 0, spread, 1), np.nan)
    return correlation


def _number(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def _interval(values: np.ndarray) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [float(end) for end in np.percentile(known, (2.5, 97.5))] if len(known) else None


def names_of(found: Estimates) -> list[str]:
    """See `Scorer`."""
    return found.names


def pooled(found: Sequence[Estimates], paths: Sequence[str], names: Sequence[str], groups: Sequence[str]) -> Scored:
    """See `Scorer`."""
    if any(part.names != list(names) for part in found):
        raise RunError("expected predictions of the same numbers, found others. Remove the folds and repeat.")
    labels, outputs = (np.concatenate([getattr(part, name) for part in found]) for name in ("labels", "outputs"))
    return Scored(measure(labels, outputs, names, groups=groups), Estimates(list(paths), labels, outputs, list(names)))


def compared(
    paths: Sequence[Path], found: Sequence[Estimates], rows: Sequence[np.ndarray], groups: Sequence[str]
) -> dict[str, Any]:
    """See `compare.of_losses`. The loss is the absolute error, of several numbers the mean in their deviations."""
    names, labels = found[0].names, found[0].labels[rows[0]]
    unit = np.where(labels.std(axis=0) > 0, labels.std(axis=0), 1.0) if len(names) > 1 else np.ones(1)
    losses, scores = [], []
    for path, own, places in zip(paths, found, rows, strict=True):
        if own.names != names or not np.array_equal(own.labels[places], labels):
            raise RunError(f"{path}: expected the numbers and labels of {paths[0]}, found others.")
        losses.append((np.abs(own.outputs[places] - labels) / unit).mean(axis=1))
        metrics = measure(labels, own.outputs[places], names, groups=groups)
        scores.append({key: metrics[key] for key in SUMMARY} | {"intervals": metrics["intervals"]})
    return compare.of_losses(paths, losses, scores, groups)


def matched(dataset: Dataset, names: Sequence[str], config: EvaluateConfig) -> Dataset:
    """Return the images with the numbers of the model, in its order."""
    if sorted(dataset.class_names) != sorted(names):
        raise DatasetError(
            f"{dataset.root}: expected the numbers {', '.join(names)}, which the model predicts, found "
            f"{', '.join(dataset.class_names)}. Name their columns with --label-column."
        )
    if list(dataset.class_names) == list(names):
        return dataset
    places = [dataset.class_names.index(name) for name in names]

    def ordered(label: str) -> str:
        texts = label.split(JOINED)
        return JOINED.join(texts[place] for place in places)

    samples = tuple(replace(s, label=ordered(s.label)) for s in dataset.samples)
    return replace(dataset, samples=samples, class_names=tuple(names))


def headline(metrics: dict[str, Any], digits: int = 3) -> str:
    """R2."""
    if metrics["r2"] is None:
        return f"R2 undefined, since all true numbers are equal, n = {metrics['n']}"
    value, low, high = (f"{x:.{digits}f}" for x in (metrics["r2"], *metrics["intervals"]["r2"]))
    return f"R2 {value} (95% CI {low} to {high}), n = {metrics['n']}"


def decided(metrics: dict[str, Any]) -> str:
    """How often the prediction intervals contain the true number."""
    found = metrics.get("decision")
    if not found:
        return ""
    shares = ", ".join(f"{share:.1%} of {name}" for name, share in found["coverage"].items())
    return f"Prediction intervals for {found['rules']['coverage']:.0%} contain {shares} in the test images."


def tables(metrics: dict[str, Any]) -> list[Table]:
    """Return the scores of each number."""
    rows = [
        (name, title, _shown(row[key]), _range(row["intervals"][key]))
        for name, row in metrics["per_value"].items()
        for key, (title, _) in SCORES.items()
    ]
    return [("Per number", ("number", "score", "value", "95% interval"), rows)]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _range(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


def draw(found: Estimates) -> bytes:
    """Draw, for each number, predicted against true, and the residual against the predicted number. A PNG file."""
    figure = plots.new_figure(8.4, 3.4 * len(found.names))
    axes = figure.subplots(len(found.names), 2, squeeze=False)
    for (left, right), name, truth, output in zip(axes, found.names, found.labels.T, found.outputs.T, strict=True):
        low, high = min(truth.min(), output.min()), max(truth.max(), output.max())
        for place, y, label in ((left, output, "predicted"), (right, output - truth, "predicted - true")):
            x = truth if place is left else output
            place.scatter(x, y, s=9, color=plots.BLUE, alpha=0.5, linewidths=0)
            place.set_ylabel(label)
        left.plot([low, high], [low, high], color="0.5", linewidth=1)
        right.axhline(0, color="0.5", linewidth=1)
        shown = plots.drawable(name)
        left.set_xlabel(f"true {shown}", parse_math=False)
        right.set_xlabel(f"predicted {shown}", parse_math=False)
        plots.tidy(left, right)
    figure.subplots_adjust(wspace=0.3, hspace=0.35)
    return plots.to_png(figure)


def described(facts: dict[str, Any]) -> Described:
    """See `Scorer`."""
    scores = facts["scores"]
    names = list(scores["per_value"])
    return Described(
        f"Estimates {'a number' if len(names) == 1 else f'{len(names)} numbers'} for an image: {reports.named(names)}",
        "image-regression",
        reports.summary(headline(scores), tables(scores)),
        "Every image gets numbers, also one that shows nothing of the kind.",
    )


def conclude(run: Run, folder: Path, metrics: dict[str, Any], train_counts: dict[str, int]) -> list[str]:
    """Return the mean error in plain words, where the report is, and how to predict."""
    errors = []
    for name, row in metrics["per_value"].items():
        low, high = row["intervals"]["mae"]
        errors.append(f"{name} is off by {row['mae']:.3g} on average (probably {low:.3g} to {high:.3g})")
    found = [f"On {metrics['n']:,} test images, {' and '.join(errors)}.", *conclusion.pages(folder)]
    return [*found, f"Next: imgclf predict {conclusion.short(run.path)} IMAGES (estimates new images)"]


def report(
    run: Run,
    folder: Path,
    *,
    files: Mapping[str, Path] | None = None,
    formats: Sequence[str] = ("html",),
    stage: Path | None = None,
) -> list[Path]:
    """Write the report: scores, residuals and the largest errors."""
    place = stage or folder
    metrics, found = scorers.read_scores(run, place), read(place / run.predictions.name)
    headlines = [(name, what, metrics[key], metrics["intervals"][key]) for key, (name, what) in SCORES.items()]
    rows = [(name, *(_shown(row[key]) for key in SCORES)) for name, row in metrics["per_value"].items()]
    size = np.abs(found.outputs - found.labels) / np.maximum(found.labels.std(axis=0), 1e-12)
    worst = np.argsort(-size.max(axis=1), kind="stable")[:WORST]
    captions = [
        (
            found.paths[row],
            ", ".join(
                f"{name} {found.outputs[row, i]:.4g}, true {found.labels[row, i]:.4g}"
                for i, name in enumerate(found.names)
            ),
        )
        for row in worst.tolist()
    ]
    blocks = [
        Block("Numbers", decided(metrics), ("number", *(title for title, _ in SCORES.values())), rows),
        Block("Residuals", "Dots on the line are exact predictions.", plot=draw(found)),
        Block("Largest errors", "The largest errors first. Some may be errors in the labels.", images=captions),
    ]
    return page.write(run, folder, headlines, blocks, files=files, formats=formats, stage=stage)
