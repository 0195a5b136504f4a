"""Which of several runs is better on the same test images, and whether chance alone could explain it."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import storage, tasks
from imgclf.data import dataset as datasets
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import intervals, scorers
from imgclf.evaluation.outputs import Predictions
from imgclf.evaluation.sums import REJECTED
from imgclf.runs import SOME_SCORES, Run, read_json

log = logging.getLogger(__name__)

SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier")
LEVEL = 0.05


def compare(runs: Sequence[Run | Path | str], *, common: bool = False) -> dict[str, Any]:
    """Compare runs by their predictions for the same test images, after each run's rules.

    Args:
        runs: runs, their folders, or folders that `imgclf evaluate` wrote; at least two.
        common: whether to compare on the common images where the test sets differ.

    Returns:
        `n`, `runs` (one row each: `run`, and its scores on these images), `pairs` (one row for each pair: `runs`,
        `accuracy` (the difference, second minus first), `interval` (95%, paired bootstrap), `only_first` and
        `only_second` (images that one run alone predicts correctly), `p` (McNemar, exact)), and `sentence`.

    Raises:
        UsageError: if there are fewer than two runs, or one is given twice.
        RunError: if one has no predictions, the classes differ, or the test sets differ without `common`.
    """
    paths = [run.path if isinstance(run, Run) else Path(run) for run in runs]
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(f"expected at least 2 different runs to compare, found {', '.join(map(str, paths))}.")
    task = _task(paths)
    found = [_read(path, task) for path in paths]
    names = [sorted(scorers.find(task).names_of(predictions)) for predictions, _ in found]
    for path, own in zip(paths, names, strict=True):
        if own != names[0]:
            raise RunError(f"{path}: expected the classes of {paths[0]}, found others.")
    rows = _aligned(paths, found, common)
    groups = [found[0][1].get(found[0][0].paths[row], ("", ""))[1] for row in rows[0]]
    return scorers.find(task).compared(paths, [predictions for predictions, _ in found], rows, groups)


def of_classes(
    paths: Sequence[Path], found: Sequence[Predictions], rows: Sequence[np.ndarray], groups: Sequence[str]
) -> dict[str, Any]:
    """Compare predicted classes.

    Args:
        found: the predictions of each run.
        rows: for each run, the rows of the images to compare on.
        groups: of these images.

    Returns:
        As `compare`.

    Raises:
        RunError: if the labels differ.
    """
    names = found[0].class_names
    labels = np.array([names.index(found[0].class_names[i]) for i in found[0].labels[rows[0]]])
    aligned = []
    for path, predictions, own in zip(paths, found, rows, strict=True):
        order = [predictions.class_names.index(name) for name in names]
        theirs = np.array([names.index(predictions.class_names[i]) for i in predictions.labels[own]])
        if (theirs != labels).any():
            raise RunError(
                f"{path}: expected the labels of {paths[0]}, found others for {(theirs != labels).sum()} images."
            )
        places = np.array([*(names.index(name) for name in predictions.class_names), REJECTED])  # -1 is the last
        aligned.append((predictions.probabilities[own][:, order], places[predictions.predicted[own]]))
    table = [{"run": str(path), **_scores(labels, *each, names)} for path, each in zip(paths, aligned, strict=True)]
    pairs = [
        {"runs": [str(paths[i]), str(paths[j])], **pair(labels, aligned[i][1], aligned[j][1], groups)}
        for i, j in itertools.combinations(range(len(paths)), 2)
    ]
    independent = len({group or str(row) for row, group in enumerate(groups)})
    if all(not each["only_first"] and not each["only_second"] for each in pairs):
        same = all((predicted == aligned[0][1]).all() for _, predicted in aligned)
        sentence = _alike([str(path) for path in paths], len(labels), independent, same=same)
    else:
        sentence = _sentence(table, pairs)
    return {"n": len(labels), "runs": table, "pairs": pairs, "sentence": sentence}


def _alike(names: Sequence[str], n: int, independent: int, *, same: bool) -> str:
    """Return what follows from runs that are correct on the same images: not that they are equally good.

    Source: the exact binomial limit of what was seen 0 times, 1 - 0.05^(1/n), about 3/n.
    """
    most = 1 - LEVEL ** (1 / independent)
    what = "make the same predictions" if same else "are correct on the same images"
    return (
        f"{' and '.join(names)} {what}, so these {n:,} images cannot tell which is better: on others, their accuracies "
        f"may differ by up to {100 * most:.1f} percentage points (95% confidence)."
    )


def pair(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure how much better the second run is than the first, and whether chance can explain it.

    Args:
        labels: int (n,), the true classes.
        first, second: int (n,), the predicted classes.

    Source: McNemar 1947, doi:10.1007/BF02295996, as the exact binomial test of the images that one run alone predicts
    correctly.
    """
    from scipy import stats

    groups = groups if groups and any(groups) else None
    right = [(predicted == labels).astype(np.float64) for predicted in (first, second)]
    gain = right[1] - right[0]
    values = [gain @ weights / weights.sum(axis=0) for weights in intervals.draws(labels, groups)]
    low, high = np.percentile(np.concatenate(values), (2.5, 97.5))
    only_first, only_second = int((gain < 0).sum()), int((gain > 0).sum())
    differing = only_first + only_second
    return {
        "accuracy": float(gain.mean()),
        "interval": [float(low), float(high)],
        "only_first": only_first,
        "only_second": only_second,
        "p": float(stats.binomtest(only_second, differing).pvalue) if differing else 1.0,
    }


def _scores(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    from imgclf.evaluation import metrics

    scores = metrics.score(labels, probabilities, names, predicted)
    return {key: scores[key] for key in SCORES} | {"intervals": {key: scores["intervals"][key] for key in SCORES}}


def of_losses(
    paths: Sequence[Path], losses: Sequence[np.ndarray], scores: Sequence[dict[str, Any]], groups: Sequence[str]
) -> dict[str, Any]:
    """Compare what each run loses on each image.

    Args:
        losses: for each run float (n,), lower is better.
        scores: the scores of each run, with their `intervals`.

    Returns:
        As `compare`, with the loss in place of the accuracy: a pair has `loss`, the mean difference, second minus
        first; `only_first` and `only_second`, the images on which one loses less; and `p`.

    Source: Wilcoxon 1945, doi:10.2307/3001968, the signed-rank test of the differences.
    """
    from scipy import stats

    known = groups if any(groups) else None
    pairs: list[dict[str, Any]] = []
    for i, j in itertools.combinations(range(len(paths)), 2):
        change = losses[j] - losses[i]
        values = [change @ w / w.sum(axis=0) for w in intervals.draws(np.zeros(len(change), int), known)]
        pairs.append(
            {
                "runs": [str(paths[i]), str(paths[j])],
                "loss": float(change.mean()),
                "interval": [float(end) for end in np.percentile(np.concatenate(values), (2.5, 97.5))],
                "only_first": int((change > 0).sum()),
                "only_second": int((change < 0).sum()),
                "p": float(stats.wilcoxon(change).pvalue) if change.any() else 1.0,
            }
        )
    means = [float(own.mean()) for own in losses]
    best = int(np.argmin(means))
    close = [p for p in pairs if str(paths[best]) in p["runs"] and p["p"] >= LEVEL]
    names = ", ".join(next(name for name in p["runs"] if name != str(paths[best])) for p in close)
    sentence = f"{paths[best]} loses least on these images"
    sentence += f", but chance alone can explain its lead over {names}." if close else f" (each p < {LEVEL})."
    if not any(p["only_first"] or p["only_second"] for p in pairs):
        sentence = (
            f"{' and '.join(map(str, paths))} lose the same on each image, so these {len(losses[0]):,} images cannot "
            "tell which is better."
        )
    table = [{"run": str(path), "loss": mean, **own} for path, mean, own in zip(paths, means, scores, strict=True)]
    return {"n": len(losses[0]), "runs": table, "pairs": pairs, "sentence": sentence}


def _task(paths: Sequence[Path]) -> str:
    """Return the task that the scores in some folders are of."""
    found = {}
    for path in paths:
        metrics = Run(path).metrics
        scores = read_json(metrics, SOME_SCORES) if metrics.is_file() else {}
        found[path] = str(scores.get("task", tasks.DEFAULT))
    for path, task in found.items():
        if task != found[paths[0]]:
            raise RunError(f"{path}: expected the task of {paths[0]}, {found[paths[0]]}, found {task}.")
    return found[paths[0]]


def _read(path: Path, task: str) -> tuple[Any, dict[str, tuple[str, str]]]:
    """Return the predictions, and each path's hash and group where there is a manifest."""
    run = Run(path)
    storage.settle(path)
    predictions = scorers.find(task).read(run.predictions)
    known: dict[str, tuple[str, str]] = {}
    if run.manifest.is_file():
        samples = datasets.read_manifest(run.manifest, path).samples
        known = {s.path: (s.sha256, s.group) for s in samples}
    return predictions, known


def _aligned(
    paths: Sequence[Path], found: Sequence[tuple[Any, dict[str, tuple[str, str]]]], common: bool
) -> list[np.ndarray]:
    """For each run, the rows of its predictions for the same images, in the same order.

    Images are identified by their content where every run knows it, else by their path.
    """
    hashed = all(known and all(known.get(p, ("",))[0] for p in predictions.paths) for predictions, known in found)
    keys = [[known[p][0] if hashed else p for p in predictions.paths] for predictions, known in found]
    places = [{key: row for row, key in reversed(list(enumerate(own)))} for own in keys]
    shared = [key for key in dict.fromkeys(keys[0]) if all(key in own for own in places)]
    largest = max(len(own) for own in places)
    if len(shared) < largest and not common:
        raise RunError(
            f"{' and '.join(map(str, paths))}: expected the same test images, found {len(shared)} in common of up to "
            f"{largest}. Score both on one set (imgclf evaluate RUN DATA), or compare on these with --common."
        )
    if not shared:
        raise RunError(f"{' and '.join(map(str, paths))}: expected test images in common, found none.")
    return [np.array([own[key] for key in shared]) for own in places]


def _sentence(table: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> str:
    best = max(table, key=lambda row: row["accuracy"])
    others = [p for p in pairs if best["run"] in p["runs"]]
    close = [p for p in others if p["p"] >= LEVEL]
    if len(table) == 2:
        only = others[0]
        by = f"{100 * abs(only['accuracy']):.1f} percentage points"
        other = next(name for name in only["runs"] if name != best["run"])
        if not only["accuracy"]:
            count = only["only_first"]
            return (
                f"{best['run']} and {other} make equally many correct predictions: each is correct on {count} "
                f"image{'s' * (count > 1)} on which the other is not. These images cannot tell which is better."
            )
        if not close:
            return (
                f"{best['run']} is better than {other}: its accuracy is {by} higher, which chance alone hardly "
                f"explains (p = {only['p']:.2g})."
            )
        return (
            f"No significant difference: the accuracy of {best['run']} is {by} higher than that of {other}, which "
            f"chance alone can explain (p = {only['p']:.2g})."
        )
    if not close:
        return f"{best['run']} is better than every other run (each p < {LEVEL})."
    names = ", ".join(next(name for name in p["runs"] if name != best["run"]) for p in close)
    return f"{best['run']} makes the most correct predictions, but chance alone can explain its lead over {names}."
