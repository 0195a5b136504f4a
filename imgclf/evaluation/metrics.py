"""How good predictions are, from arrays alone: labels, probabilities and class names, no model and no files.

Scores follow the predictions after the rules. A rejected image counts as not predicted as any class: it is a miss in
accuracy, recall and everything made of them, over all images, and no false positive of any class. Coverage, and the
accuracy over the covered images, stand under `decision` (see `decisions.measure`). `top_k`, the areas, the losses and
the calibration are about the probabilities and do not depend on the rules; scores of the bare argmax are under
`argmax`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imgclf.evaluation import areas, calibration, intervals
from imgclf.evaluation.intervals import wilson
from imgclf.evaluation.sums import PER_CLASS, REJECTED, Sums, number, undefined

AVERAGED = tuple(
    f"{average}_{score}" for average in ("macro", "weighted", "micro") for score in ("precision", "recall", "f1")
)
AREAS = ("macro_roc_auc", "macro_average_precision")
SCORES = ("accuracy", "balanced_accuracy", *AVERAGED, "macro_specificity", "cohen_kappa", "matthews", *AREAS)
"""The keys of `score` with one number, higher is better: 0 to 1, or -1 to 1 for the two that correct for chance."""

LOSSES = ("log_loss", "brier")
"""Those with one number, lower is better: from 0."""

INTERVALS = (*SCORES, *LOSSES)
"""Those with an entry in `intervals`: all."""

FEW = 20
"""With fewer images of a class, the 95% interval of its recall can be 0.4 wide or more."""

FEW_GROUPS = 10
"""With fewer groups, they alone decide how wide the intervals are."""

OF_CLASSES = ("balanced_accuracy", "macro_recall", "macro_f1", "macro_specificity", *AREAS)
"""Means over the classes: they have no interval where a class has a single image, or group."""

OF_PRECISION = ("macro_precision", "weighted_precision")
"""They have none where a class has fewer than FEWEST_PRECISION."""

FEWEST_PRECISION = 8

_AREA_WORK = 4_000_000_000  # image draws times classes that the areas' intervals may cost: about 8 s on 2 cores
_FEWEST = 100  # replicates, however large the data


def score(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    predicted: np.ndarray | None = None,
    *,
    top_k: int = 5,
    groups: Sequence[str] | None = None,
    replicates: int = intervals.REPLICATES,
) -> dict[str, Any]:
    """Compute everything that `metrics.json` contains, ready for JSON.

    What is undefined is None: a score that is 0/0, such as the recall of a class without images or the precision of a
    class that was never predicted, and an area with one class alone. Macro means are over the classes in the truth or
    the predictions, where such a score counts as 0, as with scikit-learn's `zero_division=0`.

    Args:
        labels: int (n,), the true classes, as indices into `class_names`.
        probabilities: float (n, classes); rows sum to 1.
        predicted: int (n,), what the rules say, REJECTED for rejected images; by default, the most probable class, the
            first of equals.
        top_k: besides 1, the k of top-k accuracy; left out unless there are more classes.
        groups: n names of groups (a patient, a plant), "" for none. The intervals then account for them.
        replicates: of the bootstrap; fewer for the areas with very many images and classes.

    Returns:
        The content of `metrics.json` but `decision`, as docs/files.md describes it. Intervals are Wilson's for shares
        of images, else of a bootstrap by class, and by group where there are groups.

    Raises:
        ValueError: if there are no images, the shapes do not fit together, an index is not one of a class, or a row is
            not a distribution (NaN, negative, or a sum other than 1).
    """
    labels, probabilities = check(labels, probabilities, class_names)
    argmax = probabilities.argmax(axis=1)
    predicted = argmax if predicted is None else check_predicted(predicted, probabilities)
    groups = groups if groups and any(groups) else None
    n, classes = probabilities.shape
    counts = np.zeros((classes, classes), int)
    known = predicted != REJECTED
    np.add.at(counts, (labels[known], predicted[known]), 1)
    ranks = _ranks(labels, probabilities)
    top = {str(k): ranks < k for k in sorted({1, top_k}) if k < classes}
    sums, bare = Sums(labels, probabilities, predicted), Sums(labels, probabilities, argmax)
    own_areas = areas.per_class(labels, probabilities)
    found = sums.numbers() | {key: _mean_of(own_areas, name) for key, name in zip(AREAS, areas.NAMES, strict=True)}
    ends = _intervals(labels, probabilities, sums, found, top, groups, replicates)
    return {
        "n": n,
        **{key: found[key] for key in INTERVALS},
        "per_class": _per_class(sums, own_areas, class_names),
        "top_k": {k: float(hits.mean()) for k, hits in top.items()},
        "confusion_matrix": {"labels": list(class_names), "counts": counts.tolist()},
        "most_confused": _most_confused(counts, class_names),
        "argmax": _bare(bare, class_names) | {"intervals": {"accuracy": ends.pop("top_1")}},
        "calibration": calibration.measure(labels, probabilities),
        "intervals": ends,
        "groups": len({name for name in groups or () if name}),
        "warnings": [*_warnings(labels, class_names, groups), *_by_chance(labels, class_names, found, ends)],
    }


def _mean_of(rows: list[dict[str, float | None]], name: str) -> float | None:
    """Return the mean over the rows that define a score; None if none does."""
    defined = [value for row in rows if (value := row[name]) is not None]
    return float(np.mean(defined)) if defined else None


def _intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    sums: Sums,
    found: dict[str, float | None],
    top: dict[str, np.ndarray],
    groups: Sequence[str] | None,
    replicates: int,
) -> dict[str, list[float] | None]:
    """Compute Wilson's intervals for shares of images, and bootstrap intervals for other scores.

    Bootstrap draws of all scores but the losses and areas get one more image, half correct and half incorrect (with
    groups, one of a group's mean size), distributed over the classes: where a class has no mistake yet, resampling
    cannot show how many it could have had. For a single share that is Jeffreys's prior. See `intervals.normal`.
    """
    shares = {**{f"top_{k}": hits for k, hits in top.items()}, "accuracy": sums.hits}
    _, strata = intervals.units(labels, groups)
    resampled = _resample(labels, probabilities, sums, shares, groups, replicates)
    ends: dict[str, list[float] | None] = {}
    certain = _certain(strata)
    proportions = {} if groups else _proportions(shares, sums)
    too_few = _without_interval(strata)
    for key in (*INTERVALS, *(key for key in shares if key != "accuracy")):
        estimate = float(shares[key].mean()) if key in shares else found[key]
        if estimate is None or (key in too_few and key not in proportions):
            ends[key] = None
        elif key in proportions:
            hits, of = proportions[key]
            ends[key] = list(wilson(hits, of)) if of else None
        else:
            scale = "loss" if key in LOSSES else "correlation" if key in ("cohen_kappa", "matthews") else "share"
            values, center = resampled[key]
            normal = intervals.normal(values, estimate, certain, scale=scale, center=center)
            ends[key] = None if normal is None else list(normal)
    return ends


def _without_interval(strata: np.ndarray) -> tuple[str, ...]:
    """Name the scores for which there are too few images, or groups, of a class.

    What one alone could have been instead cannot be known, and precision over few is not centered.

    Args:
        strata: int (units,), the class of each.
    """
    sizes = np.bincount(strata)
    least = sizes[sizes > 0].min()
    return () if least >= FEWEST_PRECISION else OF_PRECISION if least > 1 else (*OF_CLASSES, *OF_PRECISION)


def _proportions(shares: dict[str, np.ndarray], sums: Sums) -> dict[str, tuple[int, int]]:
    """Return the scores that are shares of images: how many of how many."""
    n, covered = len(sums.hits), int(sums.said.sum())
    counts = {key: (int(hits.sum()), n) for key, hits in shares.items()}
    counts |= {"micro_recall": counts["accuracy"], "weighted_recall": counts["accuracy"]}
    counts["micro_precision"] = counts["accuracy"][0], covered
    return counts if covered < n else counts | {"micro_f1": counts["accuracy"]}


def _resample(
    labels: np.ndarray,
    probabilities: np.ndarray,
    sums: Sums,
    shares: dict[str, np.ndarray],
    groups: Sequence[str] | None,
    replicates: int,
) -> dict[str, tuple[np.ndarray, float | None]]:
    """Return every score over bootstrap draws, and the value that they are drawn around; see `_intervals`."""
    n, classes = probabilities.shape
    known = np.unique(labels)
    enough = int(np.clip(_AREA_WORK // (n * classes), _FEWEST, replicates)) if len(known) > 1 else 0
    _, strata = intervals.units(labels, groups)
    shape, size = 0.5 / len(known), n / len(strata)
    rng = np.random.default_rng(0)

    def draw(weights: np.ndarray, more: np.ndarray) -> dict[str, np.ndarray]:
        drawn = sums.scores(weights, more)
        if groups is not None:
            hits, all_more = more[0].sum(axis=0), more.sum(axis=(0, 1))
            images = weights.sum(axis=0) + all_more
            drawn |= {key: (right.astype(np.float32) @ weights + hits) / images for key, right in shares.items()}
        return drawn

    def both_areas(weights: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(AREAS, areas.of_draws(labels, probabilities, weights), strict=True)) if enough else {}

    once = draw(sums.once, np.full((2, classes, 1), shape * size)) | both_areas(sums.once)
    values: dict[str, list[np.ndarray]] = {}
    done = 0
    sizes = np.bincount(strata, minlength=classes)
    lone = np.flatnonzero(sizes == 1)  # what is alone in its class is drawn among its like: else it would never vary
    together = np.where(np.isin(labels, lone), lone.min(initial=classes), labels)
    for weights in intervals.draws(together, groups, replicates=replicates):
        width = weights.shape[1]
        drawn = draw(weights, rng.standard_gamma(shape, (2, classes, width)) * size)
        if done < enough:
            drawn |= both_areas(weights[:, : enough - done])
        done += width
        for key, part in drawn.items():
            values.setdefault(key, []).append(part)
    return {key: (np.concatenate(parts), number(once[key])) for key, parts in values.items()}


def _certain(strata: np.ndarray) -> tuple[float, float]:
    """How high and how low a mean over the classes can be where all predictions are incorrect, or correct: the ends of
    Wilson's interval for the effective number of images, the number of classes times their harmonic mean size.

    Args:
        strata: int (units,), the class of each.
    """
    sizes = np.bincount(strata)
    sizes = sizes[sizes > 0]
    n = max(1, round(len(sizes) ** 2 / (1 / sizes).sum()))
    return wilson(0, n)[1], wilson(n, n)[0]


def _bare(sums: Sums, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the scores of the argmax, as told at `score`."""
    found, own = sums.numbers(), sums.per_class(sums.once)
    scores = _defined({key: values[:, 0] for key, values in own.items()})
    rows = {name: {key: scores[key][i] for key in PER_CLASS} for i, name in enumerate(class_names)}
    return {**{key: found[key] for key in SCORES if key not in AREAS}, "per_class": rows}


def _defined(own: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Return the scores of `PER_CLASS` of every class, None where 0/0."""
    found = {}
    for key in PER_CLASS:
        gaps = undefined(key, own["support"], own["said"])
        found[key] = [None if gap else float(value) for value, gap in zip(own[key], gaps, strict=True)]
    return found


def _per_class(sums: Sums, own_areas: list[dict[str, float | None]], class_names: Sequence[str]) -> dict[str, Any]:
    own = {name: values[:, 0] for name, values in sums.per_class(sums.once).items()}
    scores = _defined(own)
    covered = sums.true @ np.asarray(sums.said.sum(axis=0)).ravel()  # images of each class that are not rejected
    rows = {}
    for i, name in enumerate(class_names):
        right, true, said = (int(own[key][i]) for key in ("right", "support", "said"))
        rows[name] = {
            **{key: scores[key][i] for key in PER_CLASS},
            **own_areas[i],
            "support": true,
            "tp": right,
            "fp": said - right,
            "fn": true - right,
            "tn": sums.true.shape[1] - true - said + right,
            "rejected": true - int(covered[i]),
            "intervals": {
                "precision": list(wilson(right, said)) if said else None,
                "recall": list(wilson(right, true)) if true else None,
            },
        }
    return rows


def _most_confused(counts: np.ndarray, class_names: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """List the pairs of classes confused most often, in both directions together.

    Each has `classes`, `count`, and `counts`: of the first predicted as the second, and of the second as the first.
    """
    both = np.triu(counts + counts.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order if both.flat[place]]
    return [
        {
            "classes": [class_names[i], class_names[j]],
            "count": int(both[i, j]),
            "counts": [int(counts[i, j]), int(counts[j, i])],
        }
        for i, j in pairs
    ]


def _warnings(labels: np.ndarray, class_names: Sequence[str], groups: Sequence[str] | None) -> list[str]:
    """Say where there are too few images for reliable scores."""
    found = []
    support = np.bincount(labels, minlength=len(class_names))
    few = [f"{name!r} ({n})" for name, n in zip(class_names, support.tolist(), strict=True) if 0 < n < FEW]
    if few:
        found.append(
            f"Few images of {_listed(few)}: below {FEW}, the 95% interval of a class's recall can be 0.4 wide or more."
        )
    alone = [repr(class_names[i]) for i, n in enumerate(support.tolist()) if n == 1]
    if alone and groups is None:
        found.append(
            f"No interval for means over the classes, since a single image tells nothing of: {_listed(alone)}."
        )
    absent = [repr(name) for name, n in zip(class_names, support.tolist(), strict=True) if not n]
    if absent:
        found.append(
            f"Without images: {_listed(absent)}. Means leave them out; if the model predicts one, it counts as 0 in "
            "macro precision, recall and F1."
        )
    if groups is not None:
        _, strata = intervals.units(labels, groups)
        lone = [repr(class_names[i]) for i, n in enumerate(np.bincount(strata, minlength=len(class_names))) if n == 1]
        if len(strata) < FEW_GROUPS:
            found.append(
                f"Only {len(strata)} groups: images of one group are alike, so the intervals count groups, and few "
                "groups make them wide."
            )
        if lone:
            found.append(f"Only one group each, so means over the classes have no interval: {_listed(lone)}.")
    return found


def _by_chance(
    labels: np.ndarray,
    class_names: Sequence[str],
    found: dict[str, float | None],
    ends: dict[str, list[float] | None],
) -> list[str]:
    """Say where a model that always predicts the largest class could be as good."""
    support = np.bincount(labels, minlength=len(class_names))
    shares = {"accuracy": support.max() / len(labels), "balanced_accuracy": 1 / np.count_nonzero(support)}
    if any((low_high := ends[key]) is None or low_high[0] > share for key, share in shares.items()):
        return []
    accuracy, share = found["accuracy"], shares["accuracy"]
    verdict = "is not above" if accuracy is None or accuracy <= share else "is not clearly above"
    return [
        f"Accuracy {verdict} {share:.3f}, which predicting {class_names[int(support.argmax())]!r} for every image "
        "gives: check the labels, add images, or try another --method."
    ]


def _listed(items: list[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def outcomes(scores: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Return the confusion matrix as people read it, and the names of its columns: rejected images, if there are any,
    have a last column of their own.

    Args:
        scores: what `score` returned.
    """
    counts, names = np.array(scores["confusion_matrix"]["counts"]), scores["confusion_matrix"]["labels"]
    rejected = np.array([row.get("rejected", 0) for row in scores["per_class"].values()])
    if not rejected.any():
        return counts, list(names)
    return np.column_stack([counts, rejected]), [*names, "(rejected)"]


def check(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and probabilities as arrays, after checking that they fit together.

    Raises:
        ValueError: as told at `score`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if len(set(class_names)) != len(class_names):
        raise ValueError("class_names: expected different names, found one twice.")
    if len(class_names) < 2:
        raise ValueError(f"class_names: expected at least 2, found {len(class_names)}.")
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        raise ValueError(f"probabilities: expected (n, {len(class_names)}), found {probabilities.shape}.")
    if labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(f"labels: expected ({len(probabilities)},) and at least one, found {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(f"labels: expected whole numbers from 0 to {len(class_names) - 1}, found others.")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    wrong = np.flatnonzero(~((np.abs(sums - 1) < 1e-3) & (probabilities >= 0).all(axis=1)))  # NaN is wrong, too
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"probabilities: expected rows of numbers from 0 to 1 that sum to 1, found {len(wrong)} of {len(sums)} "
            f"that do not; row {row} is {probabilities[row]} and sums to {sums[row]:g}."
        )
    return labels, probabilities


def check_predicted(predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the predicted classes as an array, after checking that they fit the probabilities.

    Raises:
        ValueError: as told at `score`.
    """
    predicted, (n, classes) = np.asarray(predicted), probabilities.shape
    if predicted.shape != (n,) or predicted.min() < REJECTED or predicted.max() >= classes:
        raise ValueError(f"predicted: expected ({n},), from {REJECTED} to {classes - 1}, found {predicted.shape}.")
    return predicted


def _ranks(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes rank before the true one, equals in the order of the classes: int (n,)."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks: np.ndarray = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    return ranks
