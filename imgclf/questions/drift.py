"""Are new images still like those of a run? Tests of predictions and of looks, without labels."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import prediction, runs, tasks
from imgclf.data import images as decoding
from imgclf.data import run_data, scan_cache, statistics
from imgclf.data.dataset import TEST, TRAIN, VALIDATION
from imgclf.errors import DatasetError, GateError, ImageError, RunError
from imgclf.evaluation import intervals, scorers
from imgclf.evaluation.answers import Answer
from imgclf.evaluation.intervals import Z_95
from imgclf.evaluation.scorers import Table
from imgclf.prediction import Classifier, sources
from imgclf.questions import pages
from imgclf.questions.embedding import OnProgress
from imgclf.runs import Run
from imgclf.settings import Decoding, DriftConfig

QUESTION = "Are new images still like the training images?"

FEWEST = 20
"""With fewer images on either side, nothing is tested."""

MOST_KNOWN = 2000
"""Held-out images of the run that new ones are compared with; a random part of more."""

MOST_NAMED = 3
"""Folders or files of new images that the report names, at most."""

PERMUTATIONS = 9999

EXACT = 250_000
"""Pairs of images up to which the p-value of the Kolmogorov-Smirnov test is computed exactly, which takes its time."""

LOOKS = ("brightness", "red against green", "blue against yellow", "blur", "size")
UNITS = {"brightness": "0 to 255", "red against green": "-255 to 255", "blue against yellow": "-255 to 255"}
UNITS |= {"blur": "0 to 1", "size": "px"}

NAMES = {
    "outliers": "share out of distribution",
    "confidence": "confidence",
    "classes": "shares of the predicted classes",
}
"""Tests of what the model says; those of `LOOKS` are named as they are."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What is tested of some images that could be read, n of them.

    Args:
        probabilities: float (n, classes), calibrated.
        outlier: bool (n,), out of distribution; None where the model has no threshold.
        looks: float (n, 5), in the order and units of LOOKS.
        labels: int (n,), where known.
    """

    probabilities: np.ndarray
    outlier: np.ndarray | None
    looks: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class Shift:
    """How one measure differs.

    Args:
        known, new: the mean, or the share, on the run's held-out images and on the new ones; for classes None.
        effect: how large the shift is: Cliff's delta, -1 to 1, the probability that a new image has the higher value
            less that of the opposite; for shares, the difference; for classes, the total variation distance, 0 to 1.
        p: adjusted by Holm's method for all tests.
        alarm: whether p is below the probability of false alarms.
    """

    name: str
    known: float | None
    new: float | None
    effect: float
    p: float
    alarm: bool


@dataclass(frozen=True)
class Drift:
    """How new images differ from the run's held-out ones.

    Args:
        tests: empty where there are too few images to tell.
        classes: for each class `name`, and shares, 0 to 1: `known` (predicted on the held-out images), `new`
            (predicted on the new ones) and `corrected` (estimated of the new ones, after correction for the model's
            mistakes).
        accuracy: the estimate of the accuracy on the new images, from their confidences alone, with its 95% interval;
            images out of distribution count as errors, as rejected images do in every score.
        images, known: how many new and held-out images were compared.
        unreadable: how many new images could not be read.
        fitted: how many new images the run was fitted to, on which its confidences are too high.
    """

    tests: list[Shift]
    classes: list[dict[str, Any]]
    accuracy: float
    interval: tuple[float, float]
    images: int
    known: int
    unreadable: int = 0
    fitted: int = 0

    @property
    def alarms(self) -> list[Shift]:
        """The tests that alarm, the surest first."""
        return sorted((test for test in self.tests if test.alarm), key=lambda test: test.p)

    @property
    def sentence(self) -> str:
        """The verdict."""
        own = f" Training images of the run among the new ones: {self.fitted:,}; the model is too sure of these."
        return self._verdict + own * bool(self.fitted)

    @property
    def _verdict(self) -> str:
        if not self.tests:
            side, count = ("new", self.images) if self.images < FEWEST else ("held-out", self.known)
            return f"Cannot tell: expected at least {FEWEST} images on either side, found {count} {side} ones."
        if not self.alarms:
            return f"No drift found: {self.images:,} new images are like the {self.known:,} held-out images of the run."
        return f"Drift: the new images differ in {', '.join(test.name for test in self.alarms)}."

    @property
    def caveat(self) -> str:
        """The estimate of the accuracy, and how far to trust it."""
        if self.images < FEWEST:
            return f"To estimate the accuracy without labels takes {FEWEST} images, too."
        low, high = self.interval
        trust = (
            "They have drifted, so expect less."
            if self.alarms
            else "It holds only while the confidences are calibrated: have some of the images labeled to be sure."
        )
        return f"Estimated accuracy without labels: {self.accuracy:.3f} (95% CI {low:.3f} to {high:.3f}). {trust}"

    def tables(self) -> list[Table]:
        """Return the tests, and the shares of the classes."""
        found: list[Table] = []
        if self.tests:
            rows = [
                (
                    *(test.name, _short(test.known), _short(test.new), f"{test.effect:+.2f}"),
                    *("< 0.001" if test.p < 0.001 else f"{test.p:.3f}", "alarm" if test.alarm else ""),
                )
                for test in self.tests
            ]
            title = f"{self.images:,} new images beside {self.known:,} held-out images of the run"
            found.append((title, ("measure", "run", "new", "effect", "p", ""), rows))
        shares = [(row["name"], *(f"{row[key]:.1%}" for key in ("known", "new", "corrected"))) for row in self.classes]
        return [*found, ("Shares of the classes", ("class", "run", "new", "new, corrected"), shares)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "verdict": "cannot tell" if not self.tests else "drift" if self.alarms else "no drift",
            "sentence": self.sentence,
            "caveat": self.caveat,
        }

    def check(self) -> None:
        """Raise the alarm.

        Raises:
            GateError: if a test alarms.
        """
        if self.alarms:
            raise GateError(self.sentence)


def drift(
    run: Run | Path | str,
    images: Iterable[Path | str] | Path | str,
    config: DriftConfig | None = None,
    *,
    data: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Drift:
    """Compare unlabeled images with the run's validation and test images, which the model was not fitted to.

    Args:
        run: the run or its folder, which keeps the answer for its report.
        images: a folder, an archive or a pattern; or several of them, or of image files.
        data: where the run's own images lie now, if they have moved.

    Raises:
        UsageError: if the run's task has no classes.
        DatasetError: if there are no images, or the run's held-out images are gone.
        RunError: if the run has no model or no held-out images, or is damaged.
    """
    config, run = config or DriftConfig(), runs.find(run)
    tasks.refuse(scorers.task_of(run), "drift")
    places = [images] if isinstance(images, str | Path) else list(images)
    new_files = [_path(source) for source in sources.find([str(place) for place in places], ())]
    held_out = run_data.read(run, data, splits=(VALIDATION, TEST))
    if not len(held_out):
        raise RunError(f"{run.manifest}: expected validation or test images to compare with, found none.")
    gone = run_data.missing(held_out)
    if gone:
        raise gone
    files, labels = held_out.paths, held_out.labels
    if len(files) > MOST_KNOWN:
        kept = np.sort(np.random.default_rng(config.seed).choice(len(files), MOST_KNOWN, replace=False))
        files, labels = [files[row] for row in kept], labels[kept]
    classifier = prediction.load(run.path)
    known, readable = observe(classifier, [str(file) for file in files], "run's images", on_progress)
    known = Observed(known.probabilities, known.outlier, known.looks, labels[readable])
    new, kept = observe(classifier, new_files, "new images", on_progress)
    found = compare(known, new, classifier.labels, false_alarms=config.false_alarms, seed=config.seed)
    trained_on = {sample.sha256 for sample in run_data.read(run, verify=False, splits=(TRAIN,)).samples}
    fitted = sum(sha256 in trained_on for sha256 in run_data.hashes(new_files) if sha256)
    found = replace(found, unreadable=len(new_files) - len(kept), fitted=fitted)
    named = (str(Path(place).resolve()) if Path(place).exists() else str(place) for place in places[:MOST_NAMED])
    text, about = f"{found.sentence} {found.caveat}", ", ".join(named)
    pages.keep(run, "drift", Answer(QUESTION, text, found.tables(), about + " and others" * (len(places) > MOST_NAMED)))
    return found


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _path(source: Any) -> str:
    return source.path if hasattr(source, "path") else str(source)


def observe(
    classifier: Classifier, files: Sequence[str], phase: str, on_progress: OnProgress | None = None
) -> tuple[Observed, np.ndarray]:
    """Predict images and measure how they look.

    Returns:
        What was observed of the readable images, and their places among the files, int (n,).

    Raises:
        DatasetError: if none can be read.
    """
    rows, places = [], []
    predicted = classifier.stream(files)
    looked = scan_cache.in_threads(lambda file: look(file, classifier.decoding), files)
    for place, (each, seen) in enumerate(zip(predicted, looked, strict=True)):
        if each.error is None and seen is not None:
            rows.append((each, seen))
            places.append(place)
        if on_progress:
            on_progress(phase, place + 1, len(files))
    if not rows:
        raise DatasetError(f"{files[0]}: none of the {len(files)} images can be read.")
    above = classifier.rules.outlier_above
    outlier = None if above is None else np.array([each.outlier_score > above for each, _ in rows])
    probabilities = np.array([each.probabilities for each, _ in rows], np.float64)
    return Observed(probabilities, outlier, np.array([seen for _, seen in rows])), np.array(places)


def look(file: str, rules: Decoding) -> np.ndarray | None:
    """How an image looks, float (5,), in the order of LOOKS; None if it cannot be read."""
    try:
        image = decoding.decode(file, rules)
    except ImageError:
        return None
    tiles = statistics.tiles(image)
    row = statistics.measure([tiles])[0]
    red, green, blue = tiles.colors.reshape(-1, 3).mean(axis=0)
    side = float(np.sqrt(image.width * image.height))
    return np.array([row["mean"], red - green, blue - (red + green) / 2, row["blur"], side], np.float64)


def compare(
    known: Observed, new: Observed, names: Sequence[str], *, false_alarms: float = 0.01, seed: int = 0
) -> Drift:
    """Test whether new images are distributed as known ones.

    Confidence and looks are compared by the Kolmogorov-Smirnov test, the shares of predicted classes by a permutation
    test of the chi-squared statistic, and the share out of distribution by Fisher's exact test. Holm's method keeps the
    probability of any false alarm, over all tests together, at `false_alarms`.

    Sources: Rabanser et al. 2019, arXiv:1810.11953 (tests on the outputs of a model); Holm 1979.
    """
    from scipy import stats

    confident = new.probabilities.max(axis=1)
    correct = confident if new.outlier is None else np.where(new.outlier, 0.0, confident)
    accuracy, error = float(correct.mean()), float(np.sqrt((correct * (1 - correct)).sum()) / len(new))
    interval = (max(0.0, accuracy - Z_95 * error), min(1.0, accuracy + Z_95 * error))
    classes = _classes(known, new, names)
    if min(len(known), len(new)) < FEWEST:
        return Drift([], classes, accuracy, interval, len(new), len(known))
    raw: list[tuple[str, float | None, float | None, float, float]] = []
    if known.outlier is not None and new.outlier is not None:
        counts = [[int(side.sum()), int((~side).sum())] for side in (known.outlier, new.outlier)]
        before, now = float(known.outlier.mean()), float(new.outlier.mean())
        raw.append((NAMES["outliers"], before, now, now - before, float(stats.fisher_exact(counts).pvalue)))
    values = {NAMES["confidence"]: (known.probabilities.max(axis=1), confident)}
    values |= {name: (known.looks[:, place], new.looks[:, place]) for place, name in enumerate(LOOKS)}
    for name, (olds, news) in values.items():
        method = "exact" if len(olds) * len(news) <= EXACT else "asymp"
        p = float(stats.ks_2samp(olds, news, method=method).pvalue)
        raw.append((name, float(olds.mean()), float(news.mean()), cliffs_delta(olds, news), p))
    predicted = [np.bincount(side.probabilities.argmax(axis=1), minlength=len(names)) for side in (known, new)]
    distance = float(np.abs(predicted[0] / len(known) - predicted[1] / len(new)).sum() / 2)
    raw.append((NAMES["classes"], None, None, distance, shares_p(*predicted, seed=seed)))
    adjusted = intervals.holm([p for *_, p in raw])
    tests = [Shift(*facts[:-1], p, p < false_alarms) for facts, p in zip(raw, adjusted, strict=True)]
    return Drift(tests, classes, accuracy, interval, len(new), len(known))


def _classes(known: Observed, new: Observed, names: Sequence[str]) -> list[dict[str, Any]]:
    truth = known.labels if known.labels is not None else known.probabilities.argmax(axis=1)
    prior = np.bincount(truth, minlength=len(names)) + 1.0  # one image more, so that no class is impossible
    corrected = corrected_shares(new.probabilities, prior / prior.sum())
    shares = [np.bincount(side.probabilities.argmax(axis=1), minlength=len(names)) / len(side) for side in (known, new)]
    columns = zip(names, *(share.tolist() for share in (*shares, corrected)), strict=True)
    return [dict(zip(("name", "known", "new", "corrected"), row, strict=True)) for row in columns]


def cliffs_delta(known: np.ndarray, new: np.ndarray) -> float:
    """Return the probability that a new value is above a known one, less the probability that it is below: -1 to 1."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, new, side="left")
    above = len(known) - np.searchsorted(ordered, new, side="right")
    return float((below - above).mean() / len(known))


def shares_p(known: np.ndarray, new: np.ndarray, *, seed: int) -> float:
    """Return the p-value of counts of classes int (classes,) having the same shares on both sides, by permutation."""
    rng, both, size = np.random.default_rng(seed), known + new, int(new.sum())
    kept = both > 0
    expected = both[kept] * (size / both.sum())

    def statistic(counts: np.ndarray) -> np.ndarray:
        found: np.ndarray = (np.square(counts - expected) / expected).sum(axis=-1)
        return found

    drawn = statistic(rng.multivariate_hypergeometric(both[kept], size, PERMUTATIONS))
    as_far = int((drawn >= statistic(new[kept]) - 1e-9).sum())
    return (1 + as_far) / (1 + PERMUTATIONS)


def corrected_shares(probabilities: np.ndarray, prior: np.ndarray, steps: int = 1000) -> np.ndarray:
    """Estimate the shares of the true classes among images, whose shares may differ from those of training.

    The counts of predictions are not the shares: each class loses its mistakes to others. Expectation maximization
    finds the shares under which the probabilities, corrected for them, have these shares on average.

    Args:
        probabilities: float (n, classes), calibrated.
        prior: float (classes,), the shares that they are calibrated for.

    Source: Saerens, Latinne and Decaestecker 2002, doi:10.1162/089976602753284446.
    """
    shares = prior
    for _ in range(steps):
        weighted = probabilities * (shares / prior)
        weighted /= np.maximum(weighted.sum(axis=1, keepdims=True), 1e-300)
        before, shares = shares, weighted.mean(axis=0)
        if np.abs(shares - before).max() < 1e-6:
            break
    return shares


__all__ = ["Drift", "Observed", "Shift", "cliffs_delta", "compare", "corrected_shares", "drift", "shares_p"]
