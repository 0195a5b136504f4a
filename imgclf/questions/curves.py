"""Would more data help, or more capacity? Scores by training size and by capacity, on features computed once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import runs, storage
from imgclf.data import reading, splitting
from imgclf.data.dataset import Dataset
from imgclf.errors import DatasetError
from imgclf.evaluation import plots
from imgclf.evaluation.answers import Answer
from imgclf.evaluation.intervals import Z_95
from imgclf.evaluation.scorers import Table
from imgclf.questions import capacities, embedding, pages
from imgclf.questions.embedding import Embedded, OnProgress
from imgclf.runs import Run
from imgclf.settings import CurvesConfig
from imgclf.settings.questions import AUTO
from imgclf.tasks import logistic

QUESTION = "Would more data help?"

SUFFIX = ".png"

FOLDS = 5
"""Each training set is scored on a fifth of the images, which no training set of the same repeat contains."""

DRAWS = 1000
SMALL_GAIN = 0.005
"""Twice the data that bring less accuracy than this are not worth labeling."""

LOW_ERROR = 0.02
SEED_STEP = 1000


@dataclass(frozen=True)
class Point:
    """The mean scores of one size or one capacity, with 95% intervals.

    Args:
        value: the number of training images, or the value of the parameter (None: without a limit).
    """

    value: float | None
    training: float
    training_interval: tuple[float, float]
    validation: float
    validation_interval: tuple[float, float]

    @property
    def row(self) -> tuple[str, ...]:
        """For tables: the value, and both scores, each with its interval."""
        value = "no limit" if self.value is None else f"{self.value:g}"
        pairs = ((self.training, self.training_interval), (self.validation, self.validation_interval))
        cells = ((f"{score:.3f}", f"{low:.3f} to {high:.3f}") for score, (low, high) in pairs)
        return (value, *(text for pair in cells for text in pair))


@dataclass(frozen=True)
class Curves:
    """Accuracy by training size and by capacity.

    Args:
        sizes: from few training images to as many as there are outside a fold.
        capacity: in rising order of the parameter; empty for a model that has none.
        parameter: of `capacity`, such as C, or `features`, their number.
        double: the validation accuracy that twice the largest size may bring, and `interval`, which contains it with
            95% as far as the curve goes on as it did.
    """

    sizes: list[Point]
    capacity: list[Point]
    parameter: str
    double: float
    interval: tuple[float, float]
    images: int

    @property
    def shape(self) -> str:
        """What the curves show: `variance`, `bias` or `enough`."""
        last = self.sizes[-1]
        error = 1 - last.validation
        if error < LOW_ERROR:
            return "enough"
        if last.training - last.validation > error / 2:
            return "variance"
        return "bias"

    @property
    def sentence(self) -> str:
        """What the shape means, and what twice the data may bring."""
        last = self.sizes[-1]
        low, high = self.interval
        scores = f"accuracy is {last.training:.3f} on training images and {last.validation:.3f} on others"
        gain = self.double - last.validation
        double = f"Twice the data may bring {self.double:.3f} (95% CI {low:.3f} to {high:.3f})"
        worth = "hardly worth it" if gain < SMALL_GAIN else "worth it" if low > last.validation else "perhaps worth it"
        meaning = {
            "variance": f"Variance: {scores}. More data or more regularization may help.",
            "bias": f"Bias: {scores}, little more. More capacity may help: fine-tuning, or another backbone.",
            "enough": f"Enough: {scores}.",
        }
        return f"{meaning[self.shape]} {double}: {worth}."

    def tables(self) -> list[Table]:
        """Return the scores by size and by capacity."""
        columns, name = ("training", "95% CI", "validation", "95% CI"), self.parameter.replace("_", " ")
        found: list[Table] = [("Accuracy by training size", ("images", *columns), [point.row for point in self.sizes])]
        if self.capacity:
            found.append((f"Accuracy by {name}", (name, *columns), [point.row for point in self.capacity]))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"shape": self.shape, "sentence": self.sentence}

    def write(self, path: Path) -> None:
        """Draw the curves as PNG.

        Raises:
            UsageError: if the name ends otherwise, or the file cannot be written.
        """
        storage.refuse_suffix(path, SUFFIX)
        storage.write_named(path, draw(self))


def curves(
    source: Dataset | Run | Path | str,
    config: CurvesConfig | None = None,
    *,
    data: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Curves:
    """Score a probe, or a classical model, by the number of training images and by capacity.

    Args:
        source: a data set, or a run or its folder, whose images, features and kind of model count. A run keeps the
            answer for its report.
        config: how.
        data: where the run's images lie now, if they have moved.

    Raises:
        UsageError: if the task has no classes, or the model has no such capacity.
        DatasetError: if there are too few images, or images of a run are missing.
        RunError: if the run is damaged.
        MissingError: if the extra `classical` is needed and not installed.
    """
    config = config or CurvesConfig()
    if isinstance(source, Dataset):
        capacities.check(config.model, config.capacity)  # before the work
    found = embedding.find(source, config, command="curves", data=data, on_progress=on_progress)
    dataset, seed = found.dataset, found.settings.seed
    related = reading.related(dataset, found.settings)
    held: list[np.ndarray] = []
    for repeat in range(config.repeats):
        if repeat % FOLDS == 0:
            dealt = splitting.folds(dataset, FOLDS, seed + SEED_STEP * (repeat // FOLDS), related)
        held.append(np.isin(np.arange(len(dataset)), dealt[repeat % FOLDS][1]))
    answer = of_embedded(found, held, sizes=config.sizes, capacity=config.capacity, on_progress=on_progress)
    if not isinstance(source, Dataset):
        kept = Answer(QUESTION, answer.sentence, answer.tables(), picture=draw(answer))
        pages.keep(runs.find(source), "curves", kept)
    return answer


def of_embedded(
    found: Embedded,
    held: Sequence[np.ndarray],
    *,
    sizes: int,
    capacity: str = AUTO,
    on_progress: OnProgress | None = None,
) -> Curves:
    """Draw the curves of images whose features are known.

    Args:
        held: bool (n,) for each repeat, the images to score on.
        sizes: the number of training sizes.
        capacity: what is varied besides.

    Raises:
        UsageError: if the model has no such capacity.
        DatasetError: if there are too few images for that number of sizes.
    """
    labels, classes, seed = found.labels, found.classes, found.settings.seed
    pools = [np.flatnonzero(~tested) for tested in held]
    counts = training_sizes(min(map(len, pools)), classes, sizes, found.dataset)
    varied = capacities.of(found, capacity)
    fit, values = varied.fit, varied.values
    steps = len(values) + len(counts)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress("fitting", done, steps)

    points, best, losses = [], values[0], []
    for value in values if len(values) > 1 else ():
        parts = [~tested for tested in held]
        logits = fit(parts, value)
        points.append(_point(value, logits.argmax(axis=2) == labels[:, None], parts, held))
        each = [logistic.log_loss(logits[own, place], labels[own]) for place, own in enumerate(held)]
        losses.append(float(np.mean(each)) if varied.by_loss else 1 - points[-1].validation)
        tick()
    if losses:
        best = values[int(np.argmin(losses))]
    orders = [nested(labels, pool, seed + repeat) for repeat, pool in enumerate(pools)]
    by_size, scores = [], []
    for count in counts:
        parts = [np.isin(np.arange(len(labels)), order[:count]) for order in orders]
        right = fit(parts, best).argmax(axis=2) == labels[:, None]
        by_size.append(_point(count, right, parts, held))
        scores.append([float(right[tested, place].mean()) for place, tested in enumerate(held)])
        tick()
    tested = int(np.any(held, axis=0).sum())
    double, interval = extrapolate(counts, np.array(scores), tested=tested, seed=seed)
    return Curves(by_size, points, varied.parameter.replace("-", "_"), double, interval, len(labels))


def training_sizes(most: int, classes: int, count: int, dataset: Dataset) -> list[int]:
    """Numbers of training images, equally spaced by their logarithm, up to `most`.

    Raises:
        DatasetError: if there are too few images.
    """
    least = max(2 * classes, most // 32)
    sizes = sorted({round(size) for size in np.geomspace(least, most, count)}) if least < most else []
    if len(sizes) < 3:
        raise DatasetError(
            f"{dataset.origin}: expected at least {2 * classes + 2} images to train on besides the fifth to score on, "
            f"for a curve of {classes} classes, found {most}."
        )
    return sizes


def nested(labels: np.ndarray, pool: np.ndarray, seed: int) -> np.ndarray:
    """Order images so that the first ones of any number contain the classes in nearly the same shares, and each at
    least once as soon as there is room: int, a permutation of the pool.

    Args:
        labels: int (n,).
        pool: int (m,), rows.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(pool)
    own = labels[shuffled]
    place = np.empty(len(shuffled))
    for label in np.unique(own):
        rows = np.flatnonzero(own == label)
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        place[rows[0]] -= 2  # one of each class comes first
    return shuffled[np.argsort(place, kind="stable")]


def _point(value: Any, right: np.ndarray, parts: Sequence[np.ndarray], held: Sequence[np.ndarray]) -> Point:
    training = [float(right[part, place].mean()) for place, part in enumerate(parts)]
    validation = [float(right[tested, place].mean()) for place, tested in enumerate(held)]
    means = float(np.mean(training)), float(np.mean(validation))
    return Point(value, means[0], _interval(training), means[1], _interval(validation))


def _interval(scores: Sequence[float]) -> tuple[float, float]:
    """Of small training sets, which hardly overlap, it is too wide rather than too narrow."""
    from imgclf.training.crossval import corrected_interval

    low, high = corrected_interval(scores, 1 / (FOLDS - 1))
    return max(0.0, low), min(1.0, high)


def extrapolate(
    counts: Sequence[int], scores: np.ndarray, *, tested: int, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Estimate the score at twice the largest size, with a 95% interval.

    The error follows a power law of the size, a * n^-b, or one that levels off at the error reached. Which of them it
    will be is not known, so the interval contains both: each draw resamples the repeats, fits the power law to the
    upper half of the sizes, goes some way between both laws, and adds the noise of a score on as many images.

    Args:
        counts: (s,), rising.
        scores: float (s, repeats), accuracies.
        tested: how many images are scored in all repeats together.

    Source: for power laws, Hestness et al. 2017, arXiv:1712.00409.
    """
    rng = np.random.default_rng(seed)
    repeats = scores.shape[1]
    upper = slice(-max(3, (len(counts) + 1) // 2), None)
    x = np.log(np.asarray(counts, float))[upper]
    floor = 0.5 / tested
    ahead = x[-1] + np.log(2)

    def law(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the errors now and at twice the size, for errors (s, draws)."""
        y = np.log(np.maximum(errors[upper], floor))
        slope = np.minimum(0.0, (x - x.mean()) @ y / np.square(x - x.mean()).sum())  # more data do no harm
        return np.exp(y.mean(axis=0) + slope * (x[-1] - x.mean())), np.exp(y.mean(axis=0) + slope * (ahead - x.mean()))

    chosen = rng.integers(repeats, size=(DRAWS, repeats))
    now, then = law(1 - scores[:, chosen].mean(axis=2))
    drawn = now + rng.random(DRAWS) * (then - now)
    middle = float(np.mean(law(1 - scores.mean(axis=1, keepdims=True))))
    noise = np.sqrt(2 * max(middle * (1 - middle), floor) / tested)  # of both scores, the known and the future one
    drawn += rng.normal(0, noise, DRAWS)
    reach = Z_95 * float(drawn.std())
    estimate = 1 - middle
    return estimate, (max(0.0, estimate - reach), min(1.0, estimate + reach))


def draw(found: Curves) -> bytes:
    """Draw the curves as PNG."""
    figure = plots.new_figure(9.2 if found.capacity else 5.2, 3.8)
    several = figure.subplots(1, 2 if found.capacity else 1, sharey=True, squeeze=False)[0]
    titles = ("training images", found.parameter.replace("_", " "))
    for axes, points, title in zip(several, (found.sizes, found.capacity), titles, strict=False):
        finite = [point for point in points if point.value is not None]
        at = [float(point.value) for point in finite if point.value is not None]
        if len(finite) < len(points):  # no limit lies beyond the largest one
            finite, at = points, [*at, 2 * at[-1]]
        for name, color in (("training", "0.45"), ("validation", plots.BLUE)):
            means = [getattr(point, name) for point in finite]
            ends = [getattr(point, f"{name}_interval") for point in finite]
            axes.plot(at, means, color=color, marker="o", markersize=3, linewidth=1.5, label=name)
            axes.fill_between(at, *zip(*ends, strict=True), color=color, alpha=0.15, linewidth=0)
        axes.set(xscale="log", xlabel=title)
        axes.set_xticks(at, [f"{value:g}" for value in at[:-1]] + _last(points, at), fontsize=7, rotation=45)
        axes.minorticks_off()
    low, high = found.interval
    last = 2 * float(found.sizes[-1].value or 0)
    reach = [[found.double - low], [high - found.double]]
    several[0].errorbar([last], [found.double], reach, color=plots.BLUE, marker="s", capsize=3, label="twice the data")
    several[0].set_ylabel("accuracy")
    several[0].legend(fontsize=8, frameon=False, loc="lower right")
    plots.tidy(*several)
    figure.subplots_adjust(wspace=0.08)
    return plots.to_png(figure)


def _last(points: Sequence[Point], at: Sequence[float]) -> list[str]:
    return ["no limit" if points[-1].value is None else f"{at[-1]:g}"]


__all__ = ["Curves", "Point", "curves", "extrapolate", "nested", "of_embedded", "training_sizes"]
