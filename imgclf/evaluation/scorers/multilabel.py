"""Scores of any number of classes for each image."""

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, runs, storage
from imgclf.data import cells
from imgclf.data.dataset import Dataset, Sample, listed
from imgclf.errors import DatasetError, RunError
from imgclf.evaluation import calibration, compare, conclusion, gates, intervals, page, plots, scorers
from imgclf.evaluation import report as reports
from imgclf.evaluation.intervals import wilson
from imgclf.evaluation.page import Block
from imgclf.evaluation.scorers import Described, Table
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import Decision
from imgclf.prediction.forms.multilabel import EVEN, thresholds
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig, EvaluateConfig
from imgclf.tasks import JOINED, multilabel

log = logging.getLogger("imgclf.evaluation.evaluate")

OUTLIERS = False

SCORES = {
    "mean_average_precision": ("Mean average precision", "mean over the classes; no threshold matters"),
    "macro_f1": ("Macro F1", "mean over the classes"),
    "micro_f1": ("Micro F1", "of all answers together"),
    "subset_accuracy": ("Subset accuracy", "share of images with every class correct"),
    "samples_f1": ("F1 of images", "mean over the images"),
    "macro_precision": ("Macro precision", "mean over the classes"),
    "macro_recall": ("Macro recall", "mean over the classes"),
    "micro_precision": ("Micro precision", "of all answers together"),
    "micro_recall": ("Micro recall", "of all answers together"),
    "samples_precision": ("Precision of images", "mean over the images"),
    "samples_recall": ("Recall of images", "mean over the images"),
    "hamming_loss": ("Hamming loss", "share of incorrect answers, lower is better"),
}
"""The scores: their names for people, and what they are."""

SUMMARY = dict.fromkeys(("mean_average_precision", "macro_f1", "micro_f1", "subset_accuracy"), (0.0, 1.0))

PER_CLASS = ("average_precision", "precision", "recall", "f1")

SHAPE = documents.fields(
    {
        "n": runs.COUNT,
        **dict.fromkeys(SCORES, runs.SCORE),
        **dict.fromkeys(("subset_accuracy", "hamming_loss"), documents.number(0, 1)),
        "intervals": documents.fields(dict.fromkeys(SCORES, runs.INTERVAL)),
        "per_class": documents.map_of(
            documents.fields({**dict.fromkeys(PER_CLASS, runs.SCORE), "support": runs.COUNT})
        ),
        "decision": documents.fields(
            {
                "rules": documents.fields({}, {"thresholds": documents.map_of(documents.number())}),
                "empty": documents.number(0, 1),
            }
        ),
    }
)

GATES = gates.Keys(
    ranges={
        "n": (0, math.inf),
        **dict.fromkeys((*SCORES, "decision.empty"), (0, 1)),
        **{f"per_class.{gates.NAME}.{key}": (0, 1) for key in PER_CLASS},
        **{f"per_class.{gates.NAME}.{key}": (0, math.inf) for key in ("support", "predicted")},
    },
    losses=frozenset({"hamming_loss", "decision.empty"}),
    intervals=gates.scores_and("per_class", SCORES, PER_CLASS),
)

FEWEST = 5
"""Images with and without a class on the validation split from which a threshold is fitted for it."""

FEW = 20
"""With fewer images of a class, a warning says that its scores are rough."""

WORST = 24
"""How many of the worst mistakes the report shows."""

_WORK = 400_000_000  # image draws times classes that the intervals of average precision may cost
_FEWEST_DRAWS = 100


def temperature(targets: np.ndarray, logits: np.ndarray) -> float:
    """Return the divisor of all logits with the least binary cross-entropy, as `calibration.fit_temperature`."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / math.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - targets * scaled).sum()) + calibration.prior(log_temperature)

    low, high = (math.log(end) for end in calibration.TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def rules(targets: np.ndarray, outputs: np.ndarray, names: Sequence[str]) -> Decision:
    """Return a threshold for each class, with the best F1 on these images."""
    return with_thresholds(Decision(), targets, outputs, names, "f1")


def with_thresholds(
    rules: Decision, targets: np.ndarray, outputs: np.ndarray, names: Sequence[str], goal: str
) -> Decision:
    """Return the rules with a threshold for each class.

    A class with fewer than FEWEST images with it or without it gets EVEN.

    Args:
        goal: `f1`; or one of `calibration.threshold`, such as `recall=0.9`.

    Raises:
        UsageError: if the goal is another.
        DatasetError: if a class cannot reach it.
    """
    found = {}
    for name, truth, own in zip(names, targets.T > 0, outputs.T, strict=True):
        if min(truth.sum(), (~truth).sum()) < FEWEST:
            found[name] = EVEN
        else:
            try:
                found[name] = best_f1(truth, own) if goal == "f1" else calibration.threshold(truth, own, goal)
            except DatasetError as error:
                raise DatasetError(f"{name}: {error}") from None
    return replace(rules, thresholds=found)


def best_f1(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the threshold with the highest F1: midway between two neighbors, of equals the one nearest to a half."""
    levels = np.unique(scores)
    ordered, truth = np.sort(scores), positive[np.argsort(scores, kind="stable")]
    above = len(scores) - np.searchsorted(ordered, levels)
    hits = positive.sum() - np.append(0, np.cumsum(truth))[np.searchsorted(ordered, levels)]
    f1 = 2 * hits / (above + positive.sum())
    middles = (levels + np.append(0.0, levels[:-1])) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middles[best[np.argmin(np.abs(middles[best] - EVEN))]])


@dataclass(frozen=True)
class Answers:
    """The content of a `predictions.csv`: paths, labels and predicted float32 (n, classes), 1 or 0, and outputs."""

    paths: list[str]
    labels: np.ndarray
    outputs: np.ndarray
    predicted: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Scored:
    """The content of `metrics.json`, and of `predictions.csv`."""

    metrics: dict[str, Any]
    answers: Answers

    def write(self, folder: Path) -> None:
        """Write `metrics.json`, `predictions.csv` and `precision_recall.png`."""
        place = Run(folder)
        _write(place.predictions, self.answers)
        storage.write_atomic(folder / "precision_recall.png", draw(self.answers))
        storage.write_json(place.metrics, self.metrics)


def write_outputs(path: Path, samples: Sequence[Sample], outputs: np.ndarray, names: Sequence[str]) -> None:
    """See `Scorer`."""
    labels = multilabel.encode([s.label for s in samples], names)
    predicted = (outputs >= EVEN).astype(np.float32)
    _write(path, Answers([s.path for s in samples], labels, outputs, predicted, list(names)))


def _write(path: Path, found: Answers) -> None:
    """Write CSV in UTF-8: `path`, `labels` and `predicted` (names separated by |), `p_<class>` for each class."""
    lines = [cells.line(["path", "labels", "predicted", *(f"p_{name}" for name in found.names)])]
    rows = zip(found.paths, found.labels, found.predicted, found.outputs.astype(np.float32), strict=True)
    for file, label, said, output in rows:
        texts = (JOINED.join(n for n, has in zip(found.names, each, strict=True) if has) for each in (label, said))
        lines.append(cells.line([file, *texts, *map(str, output)]))
    storage.write_atomic(path, "".join(lines).encode("utf-8", "surrogateescape"))


def read(path: Path) -> Answers:
    """Read what `_write` wrote.

    Raises:
        RunError: if the file is missing or damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        names = [cells.plain(name).removeprefix("p_") for name in header[3:]]
        if header[:3] != ["path", "labels", "predicted"] or not names or not rows:
            raise ValueError("expected the columns path, labels, predicted, p_<class>, and rows")
        outputs = np.array([row[3:] for row in rows], np.float32).reshape(len(rows), len(names))
        labels, predicted = (multilabel.encode([cells.plain(row[place]) for row in rows], names) for place in (1, 2))
    except OSError as error:
        raise RunError(
            f"{path}: the predictions cannot be read ({error.strerror}). imgclf evaluate writes them."
        ) from None
    except (ValueError, IndexError, csv.Error) as error:
        raise RunError(f"{path}: damaged predictions ({error}). imgclf evaluate writes them again.") from None
    return Answers([cells.plain(row[0]) for row in rows], labels, outputs, predicted, names)


def recalibrated(path: Path, facts: Artifact, config: CalibrateConfig) -> tuple[Decision, dict[str, Any]]:
    """See `Scorer`. `threshold` is a goal of `with_thresholds` for every class."""
    found, rules = read(path), facts.decision
    if found.names != list(facts.labels):
        raise RunError(f"{path}: expected the classes of {artifact.NAME}, found others. Train again.")
    if config.threshold == "none":
        rules = replace(rules, thresholds=None)
    elif config.threshold is not None:
        rules = with_thresholds(rules, found.labels, found.outputs, found.names, config.threshold)
    said = (found.outputs >= thresholds(found.names, rules)).astype(np.float32)
    scores = scores_of(found.labels, said, np.ones((len(said), 1)))
    measured: dict[str, Any] = {key: _number(scores[key]) for key in SCORES if key in scores}
    support = found.labels.sum(axis=0).astype(int).tolist()
    return rules, measured | {"support": dict(zip(found.names, support, strict=True))}


def score(
    samples: Sequence[Sample],
    outputs: np.ndarray,
    names: Sequence[str],
    rules: Decision,
    outlier_scores: np.ndarray | None = None,
    *,
    top_k: int = 5,
) -> Scored:
    """See `Scorer`; the content of `metrics.json` is that of `measure`, and the rules under `decision`."""
    labels = multilabel.encode([s.label for s in samples], names)
    if outputs.shape != labels.shape or not len(labels) or not ((outputs >= 0) & (outputs <= 1)).all():
        raise ValueError(f"expected probabilities {labels.shape} and at least one image, found {outputs.shape}.")
    predicted = (outputs >= thresholds(names, rules)).astype(np.float32)
    found = measure(labels, outputs, predicted, names, groups=[s.group for s in samples])
    known = {key: value for key, value in asdict(rules).items() if value is not None}
    found["decision"] = {"rules": known, "empty": float((predicted.sum(axis=1) == 0).mean())}
    return Scored(found, Answers([s.path for s in samples], labels, np.asarray(outputs), predicted, list(names)))


def measure(
    labels: np.ndarray,
    outputs: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    replicates: int = intervals.REPLICATES,
) -> dict[str, Any]:
    """Compute the scores, ready for JSON.

    A class that no image has counts in no mean over the classes. Where nothing is predicted or nothing is true, a
    precision or recall is 0, but an image without a class for which none is predicted has 1.

    Args:
        labels, predicted: float (n, classes), 1 or 0.
        outputs: float (n, classes), probabilities.
        groups: n names, "" for none; the intervals then account for them.

    Returns:
        `n`, the keys of `SCORES`, `per_class` with those of `PER_CLASS`, `support` and `intervals`; `intervals`, 95%:
        Wilson's for shares of images, else of a bootstrap of images; and `warnings`. What is undefined is None.
    """
    groups = groups if groups and any(groups) else None
    n, classes = labels.shape
    once = np.ones((n, 1))
    own, ap = scores_of(labels, predicted, once), multilabel.average_precisions(outputs, labels, once)
    enough = int(np.clip(_WORK // max(1, n * classes), _FEWEST_DRAWS, replicates))
    drawn: list[dict[str, np.ndarray]] = []
    areas: list[np.ndarray] = []
    done = 0
    for weights in intervals.draws(np.zeros(n, int), groups, replicates=replicates):
        exact = weights.astype(np.float64)
        drawn.append(scores_of(labels, predicted, exact))
        if done < enough:
            areas.append(multilabel.average_precisions(outputs, labels, exact[:, : enough - done]))
        done += weights.shape[1]
    values = {key: np.concatenate([part[key] for part in drawn], axis=-1) for key in own}
    values["average_precision"], own["average_precision"] = np.concatenate(areas, axis=1), ap
    support = labels.sum(axis=0).astype(int)
    means = {"mean_average_precision": _mean_of(ap)} | {key: own[key] for key in own if key in SCORES}
    spread = {"mean_average_precision": _mean_of(values["average_precision"])} | values
    ends = {key: _interval(spread[key], means[key], n) for key in SCORES}
    if groups is None:
        ends["subset_accuracy"] = list(wilson(round(float(own["subset_accuracy"][0]) * n), n))
    per_class = {
        name: {key: _number(own[key][i]) for key in PER_CLASS}
        | {"support": int(support[i]), "predicted": int(predicted[:, i].sum())}
        | {"intervals": {key: _interval(values[key][i], own[key][i], max(1, int(support[i]))) for key in PER_CLASS}}
        for i, name in enumerate(names)
    }
    return {
        "task": "multilabel",
        "n": n,
        **{key: _number(means[key]) for key in SCORES},
        "per_class": per_class,
        "intervals": ends,
        "warnings": _warnings(names, support),
    }


def _mean_of(rows: np.ndarray) -> np.ndarray:
    """Return the mean (b,) over the classes that define it; NaN where none does."""
    known = np.isfinite(rows)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, rows, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def scores_of(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every score that depends on the predicted classes, for weights of the images (n, b).

    Each is (b,), and those of a class (classes, b); NaN where undefined.
    """
    total = weights.sum(axis=0)
    both = labels * predicted
    right, true, said = ((each.T @ weights) for each in (both, labels, predicted))  # (classes, b)
    found = {"precision": _ratio(right, said), "recall": _ratio(right, true), "f1": _ratio(2 * right, true + said)}
    for key in ("precision", "recall", "f1"):
        found[f"macro_{key}"] = _mean_of(np.where(true > 0, found[key], np.nan))
    all_right, all_true, all_said = (each.sum(axis=0) for each in (right, true, said))
    found["micro_precision"] = _ratio(all_right, all_said)
    found["micro_recall"] = _ratio(all_right, all_true)
    found["micro_f1"] = _ratio(2 * all_right, all_true + all_said)
    hits, truth, answers = (each.sum(axis=1) for each in (both, labels, predicted))  # (n,)
    empty = (truth + answers == 0).astype(float)
    for key, below in (("precision", answers), ("recall", truth)):
        found[f"samples_{key}"] = (_ratio(hits, below) + empty) @ weights / total
    found["samples_f1"] = (_ratio(2 * hits, truth + answers) + empty) @ weights / total
    found["subset_accuracy"] = (labels == predicted).all(axis=1).astype(float) @ weights / total
    found["hamming_loss"] = (labels != predicted).mean(axis=1) @ weights / total
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)


def _number(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def _interval(values: np.ndarray, estimate: np.ndarray, images: int) -> list[float] | None:
    if not np.isfinite(estimate[0]):
        return None
    ends = intervals.normal(values, float(estimate[0]), (wilson(0, images)[1], wilson(images, images)[0]))
    return None if ends is None else list(ends)


def _warnings(names: Sequence[str], support: np.ndarray) -> list[str]:
    few = [f"{name!r} ({n})" for name, n in zip(names, support.tolist(), strict=True) if 0 < n < FEW]
    absent = [repr(name) for name, n in zip(names, support.tolist(), strict=True) if not n]
    found = [f"Few images of {listed(few)}: below {FEW}, the scores of a class are rough."] if few else []
    return found + ([f"Left out of every mean, for lack of images: {listed(absent)}."] if absent else [])


def names_of(found: Answers) -> list[str]:
    """See `Scorer`."""
    return found.names


def pooled(found: Sequence[Answers], paths: Sequence[str], names: Sequence[str], groups: Sequence[str]) -> Scored:
    """See `Scorer`."""
    if any(part.names != list(names) for part in found):
        raise RunError("expected predictions for the same classes, found others. Remove the folds and repeat.")
    labels, outputs, predicted = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("labels", "outputs", "predicted")
    )
    metrics = measure(labels, outputs, predicted, names, groups=groups)
    metrics["decision"] = {"rules": {}, "empty": float((predicted.sum(axis=1) == 0).mean())}
    return Scored(metrics, Answers(list(paths), labels, outputs, predicted, list(names)))


def compared(
    paths: Sequence[Path], found: Sequence[Answers], rows: Sequence[np.ndarray], groups: Sequence[str]
) -> dict[str, Any]:
    """See `compare.of_losses`. The loss is the share of incorrect answers for an image."""
    names, labels = found[0].names, found[0].labels[rows[0]]
    losses, scores = [], []
    for path, own, places in zip(paths, found, rows, strict=True):
        order = [own.names.index(name) for name in names]
        if not np.array_equal(own.labels[places][:, order], labels):
            raise RunError(f"{path}: expected the labels of {paths[0]}, found others.")
        predicted = own.predicted[places][:, order]
        losses.append((predicted != labels).mean(axis=1))
        metrics = measure(labels, own.outputs[places][:, order], predicted, names, groups=groups)
        scores.append({key: metrics[key] for key in SUMMARY} | {"intervals": metrics["intervals"]})
    return compare.of_losses(paths, losses, scores, groups)


def matched(dataset: Dataset, names: Sequence[str], config: EvaluateConfig) -> Dataset:
    """Return the images with those of their classes that the model knows."""
    found = set(dataset.class_names)
    unknown = sorted(found - set(names))
    if len(unknown) == len(found):
        raise DatasetError(
            f"{dataset.root}: expected the model's classes, {listed(map(repr, names))}; found none of them, but "
            f"{listed(map(repr, unknown))}."
        )
    if unknown and config.unknown_classes == "error":
        raise DatasetError(
            f"{dataset.root}: expected the model's classes, {listed(map(repr, names))}; found "
            f"{listed(map(repr, unknown))}, too. Ignore them with --unknown-classes skip."
        )
    missing = [name for name in names if name not in found]
    if missing and config.missing_classes == "error":
        raise DatasetError(
            f"{dataset.root}: expected images of all the model's classes, found none of {listed(map(repr, missing))}. "
            "Score the others with --missing-classes allow."
        )
    if unknown:
        log.warning("Ignored: the classes %s, which the model does not know.", listed(map(repr, unknown)))
    samples = tuple(replace(s, label=multilabel.narrowed(s.label, names)) for s in dataset.samples)
    return replace(dataset, samples=samples, class_names=tuple(names))


def headline(metrics: dict[str, Any], digits: int = 3) -> str:
    """Return the mean average precision."""
    if metrics["mean_average_precision"] is None:
        return f"mean average precision undefined, since no image has a class, n = {metrics['n']}"
    ends = metrics["intervals"]["mean_average_precision"]
    value, low, high = (f"{x:.{digits}f}" for x in (metrics["mean_average_precision"], *ends))
    return f"mean average precision {value} (95% CI {low} to {high}), n = {metrics['n']}"


def decided(metrics: dict[str, Any]) -> str:
    """How many images are given none of the classes."""
    empty = metrics["decision"]["empty"]
    return f"{empty:.1%} of the images are given none of the classes." if empty else ""


def tables(metrics: dict[str, Any]) -> list[Table]:
    """Return the scores of each class, and over the classes."""
    rows = [
        (name, *(_shown(row[key]) for key in PER_CLASS), _range(row["intervals"]["average_precision"]), row["support"])
        for name, row in metrics["per_class"].items()
    ]
    over = [(title, _shown(metrics[key]), _range(metrics["intervals"][key])) for key, (title, _) in SCORES.items()]
    columns = ("class", "AP", "precision", "recall", "F1", "AP, 95% interval", "images")
    return [("Per class", columns, rows), ("Over the classes", ("score", "value", "95% interval"), over)]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _range(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def draw(found: Answers) -> bytes:
    """Draw precision against recall, a line for each class. A PNG file."""
    figure = plots.new_figure(5.6, 4.4)
    axes = figure.subplots()
    for place, name in enumerate(found.names):
        truth, own = found.labels[:, place], found.outputs[:, place]
        if not truth.any():
            continue
        order = np.argsort(-own, kind="stable")
        last = np.append(own[order][1:] != own[order][:-1], True)
        hits = np.cumsum(truth[order])
        named = place < len(plots.TEN)
        style: dict[str, Any] = (
            {"label": plots.drawable(name), "color": plots.TEN[place]} if named else {"color": "0.8"}
        )
        axes.plot(hits[last] / hits[-1], (hits / np.arange(1, len(hits) + 1))[last], linewidth=1.3, **style)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    if axes.lines:
        legend = axes.legend(fontsize=8, frameon=False, loc="lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)
    plots.tidy(axes)
    return plots.to_png(figure)


def described(facts: dict[str, Any]) -> Described:
    """See `Scorer`."""
    scores = facts["scores"]
    names = list(scores["per_class"])
    return Described(
        f"Says of {len(names)} classes which ones an image shows, any number of them: {reports.named(names)}",
        "image-classification",
        reports.summary(headline(scores), tables(scores)),
        "It can answer that an image shows none of the classes; it does not tell images unlike the training images.",
    )


def conclude(run: Run, folder: Path, metrics: dict[str, Any], train_counts: dict[str, int]) -> list[str]:
    """How many answers are correct in plain words, where the report is, and how to predict."""
    correct = 100 * (1 - metrics["hamming_loss"])
    text = (
        f"About {correct:.0f} of 100 answers to whether an image has a class are correct, and "
        f"{100 * metrics['subset_accuracy']:.0f} of 100 images have every class correct; {metrics['n']:,} test images."
    )
    return [
        text,
        *conclusion.pages(folder),
        f"Next: imgclf predict {conclusion.short(run.path)} IMAGES (tags new images)",
    ]


def report(
    run: Run,
    folder: Path,
    *,
    files: Mapping[str, Path] | None = None,
    formats: Sequence[str] = ("html",),
    stage: Path | None = None,
) -> list[Path]:
    """Write the report: scores, curves and the most confident mistakes."""
    place = stage or folder
    metrics, found = scorers.read_scores(run, place), read(place / run.predictions.name)
    headlines = [(name, what, metrics[key], metrics["intervals"][key]) for key, (name, what) in SCORES.items()]
    fitted = metrics["decision"]["rules"].get("thresholds", {})
    rows = [
        (name, *(_shown(row[key]) for key in PER_CLASS), _shown(fitted.get(name, EVEN)), row["support"])
        for name, row in metrics["per_class"].items()
    ]
    doubt = np.where(found.labels != found.predicted, np.abs(found.labels - found.outputs), -1.0)
    worst = np.argsort(-doubt.max(axis=1), kind="stable")[:WORST]
    captions = [(found.paths[row], _caption(found, row)) for row in worst.tolist() if doubt[row].max() >= 0]
    columns = ("class", "average precision", "precision", "recall", "F1", "threshold", "images")
    blocks = [
        Block("Classes", decided(metrics), columns, rows),
        Block("Curves", "Each class by itself.", plot=draw(found)),
        Block("Worst mistakes", "The most confident first. Some may be errors in the labels.", images=captions),
    ]
    return page.write(run, folder, headlines, blocks, files=files, formats=formats, stage=stage)


def _caption(found: Answers, row: int) -> str:
    """Return what one image lacks, and what it has too many of."""
    texts = []
    for name, truth, said, chance in zip(
        found.names, found.labels[row], found.predicted[row], found.outputs[row], strict=True
    ):
        if truth != said:
            texts.append(f"{'missed' if truth else 'wrongly'} {name} ({chance:.0%})")
    return ", ".join(texts)
