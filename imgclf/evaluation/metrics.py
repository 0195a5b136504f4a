"""How good the predictions are, from arrays alone: labels, probabilities and class names, no model and no files."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imgclf.evaluation import calibration, intervals
from imgclf.evaluation.intervals import wilson

PER_CLASS = ("precision", "recall", "f1", "specificity")
AVERAGED = tuple(
    f"{average}_{score}" for average in ("macro", "weighted", "micro") for score in ("precision", "recall", "f1")
)
AREAS = ("macro_roc_auc", "macro_average_precision")
SCORES = ("accuracy", "balanced_accuracy", *AVERAGED, "macro_specificity", "cohen_kappa", "matthews", *AREAS)
"""The keys of `score` that hold one number, higher is better: 0 to 1, or -1 to 1 for the two that allow for chance."""

LOSSES = ("log_loss", "brier")
"""Those that hold one number, lower is better: from 0 on."""

INTERVALS = (*SCORES, *LOSSES)
"""Those that have an entry in `intervals`: all."""

FEW = 20
"""With fewer images of a class, the 95 % interval of its recall can be 0.4 wide or more."""

_AREA_WORK = 4_000_000_000  # image draws times classes that the areas' intervals may cost: about 8 s on 2 cores
_FEWEST = 100  # replicates, however large the data

_TINY = float(np.finfo(np.float32).eps)
_LEAST = 1e-3  # below every image's weight in a draw


def score(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    top_k: int = 5,
    groups: Sequence[str] | None = None,
    replicates: int = intervals.REPLICATES,
) -> dict[str, Any]:
    """Everything that `metrics.json` holds, ready for JSON.

    The predicted class is the most probable one; of equals, the first. A class without images counts in no mean; what
    would be divided by nothing (its recall, the precision of a class that was never predicted) is 0. What is not
    defined at all (an area with one class alone) is None.

    Args:
        labels: int (n,), the true classes, as indices into `class_names`.
        probabilities: float (n, classes); rows sum to 1.
        top_k: besides 1, the k for which `top_k` tells how often the true class is among the k most probable ones; left
            out when there are fewer classes.
        groups: n names of what belongs together (a patient, a plant), "" for none. The intervals then allow for it.
        replicates: of the bootstrap; fewer for the areas where there are very many images and classes.

    Returns:
        `n`, the keys of `SCORES` and `LOSSES`, `per_class` {name: {the scores of `PER_CLASS`, `roc_auc` and
        `average_precision` (one class against the rest), support, `intervals` of precision and recall}}, `top_k`
        {"1": share, ...}, `confusion_matrix` {labels, counts} with the true classes as rows and the predicted ones as
        columns, `most_confused` (pairs of classes, most frequent first), `calibration` (see `calibration.measure`),
        `intervals` {score: [low, high]}, 95 %: Wilson's for shares of images, else of a bootstrap by class; of a
        bootstrap by class and group where there are groups; and `warnings`, sentences.

    Raises:
        ValueError: if there are no images, the shapes do not fit together, a label is not an index of a class, or a row
            is not a distribution (NaN, negative, or a sum that is not 1).
    """
    labels, probabilities = check(labels, probabilities, class_names)
    groups = groups if groups and any(groups) else None
    n, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    ranks = _ranks(labels, probabilities)
    top = {str(k): ranks < k for k in sorted({1, top_k}) if k <= classes}
    sums = _Sums(labels, probabilities, predicted)
    once = np.ones((n, 1), np.float32)
    found = {name: _number(values) for name, values in sums.scores(once).items()}
    areas = _areas(labels, probabilities)
    for key, name in zip(AREAS, ("roc_auc", "average_precision"), strict=True):
        known = [value for row in areas if (value := row[name]) is not None]
        found[key] = float(np.mean(known)) if known else None
    return {
        "n": n,
        **{key: found[key] for key in (*SCORES, *LOSSES)},
        "per_class": _per_class(sums, areas, class_names),
        "top_k": {k: float(hits.mean()) for k, hits in top.items()},
        "confusion_matrix": {"labels": list(class_names), "counts": counts.tolist()},
        "most_confused": _most_confused(counts, class_names),
        "calibration": calibration.measure(labels, probabilities),
        "intervals": _intervals(labels, probabilities, sums, found, top, groups, replicates),
        "warnings": _warnings(labels, class_names, groups),
    }


class _Sums:
    """The scores of images drawn anew, from sums over the images: all that the bootstrap needs, for many draws at once.

    scikit-learn has each of these scores for one set of images; a thousand sets would take it minutes.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray) -> None:
        from scipy import sparse

        n, classes = probabilities.shape
        rows, one = np.arange(n), np.ones(n, np.float32)
        right = predicted == labels
        self.true = sparse.csr_matrix((one, (labels, rows)), (classes, n))
        self.said = sparse.csr_matrix((one, (predicted, rows)), (classes, n))
        self.right = sparse.csr_matrix((one[right], (labels[right], rows[right])), (classes, n))
        own = probabilities[rows, labels].astype(np.float64)
        squares = (probabilities.astype(np.float64) ** 2).sum(axis=1)
        self.losses = np.stack([-np.log(np.clip(own, _TINY, 1)), squares - 2 * own + 1])

    def per_class(self, weights: np.ndarray, more: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scores of `PER_CLASS` and `support`, each (classes, b), for weights (n, b).

        Args:
            more: (2, classes, b), images of each class added: right ones, and wrong ones, shared out among the others.
        """
        right, true, said = ((matrix @ weights).astype(np.float64) for matrix in (self.right, self.true, self.said))
        if more is not None:
            hits, misses = more * (true > 0)
            right, true = right + hits, true + hits + misses
            said = said + hits + (misses.sum(axis=0) - misses) / (len(misses) - 1)
        n = true.sum(axis=0)
        return {
            "precision": _divide(right, said),
            "recall": _divide(right, true),
            "f1": _divide(2 * right, true + said),
            "specificity": _divide(n - true - said + right, n - true),
            "support": true,
            "right": right,
            "said": said,
        }

    def scores(self, weights: np.ndarray, more: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Every score of `SCORES` and `LOSSES` but the areas, each (b,), for weights (n, b); NaN where undefined.

        Args:
            more: see `per_class`; the losses are without.
        """
        own = self.per_class(weights, more)
        true, said, right = own["support"], own["said"], own["right"]
        present = true > 0
        n, hits = true.sum(axis=0), right.sum(axis=0)
        accuracy = hits / n
        found = {"accuracy": accuracy, "balanced_accuracy": _mean(own["recall"], present)}
        for key in ("precision", "recall", "f1"):
            found[f"macro_{key}"] = _mean(own[key], present)
            found[f"weighted_{key}"] = _mean(own[key], true)
            found[f"micro_{key}"] = accuracy  # of one label an image, every false alarm is another class's miss
        found["macro_specificity"] = _mean(own["specificity"], present)
        chance = (true * said).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found["cohen_kappa"] = (n * hits - chance) / (n * n - chance)
        spread = (n * n - (said**2).sum(axis=0)) * (n * n - (true**2).sum(axis=0))
        found["matthews"] = _divide(n * hits - chance, np.sqrt(np.maximum(spread, 0)))  # by rounding it can be below
        found["log_loss"], found["brier"] = self.losses @ weights / weights.sum(axis=0)
        return found


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (values * weights).sum(axis=0) / weights.sum(axis=0)


def _number(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def _areas(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float | None]]:
    """`roc_auc` and `average_precision` of every class against the rest; None where one of the two sides is empty."""
    from sklearn import metrics as sklearn_metrics  # takes a second, which whoever only needs the names is spared

    rows: list[dict[str, float | None]] = []
    for index in range(probabilities.shape[1]):
        own, values = labels == index, probabilities[:, index]
        if own.any() and not own.all():
            area = float(sklearn_metrics.roc_auc_score(own, values))
            rows.append(
                {"roc_auc": area, "average_precision": float(sklearn_metrics.average_precision_score(own, values))}
            )
        else:
            rows.append({"roc_auc": None, "average_precision": None})
    return rows


def areas_of_draws(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The macro means of the area under ROC and of the average precision, for images drawn anew.

    Average precision is the mean precision at the scores of a class's images. Here each of them is left out where the
    precision at its own score is taken: it always counts as found there, and of few images that makes too much, by more
    than a deviation with 20 classes of 10 images.

    Between two scores of a class's own images, the others need not be told apart: they are summed into bins.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        weights: float32 (n, b), what each image counts in each of b draws.

    Returns:
        Both (b,); NaN where a draw holds no class beside others.
    """
    from scipy import sparse

    n, width = weights.shape
    sums, known = np.zeros((2, width)), np.zeros(width)
    for index in range(probabilities.shape[1]):
        own, values = labels == index, probabilities[:, index]
        if not own.any() or own.all():
            continue
        rows = np.flatnonzero(own)
        rows = rows[np.argsort(values[rows])]
        levels, first, level = np.unique(values[rows], return_index=True, return_inverse=True)
        place = np.searchsorted(levels, values[~own])  # so many levels lie below
        equal = levels[np.minimum(place, len(levels) - 1)] == values[~own]
        bins = 2 * place + equal  # even: between two levels; odd: on one
        others = sparse.csr_matrix(
            (np.ones(len(bins), np.float32), (bins, np.flatnonzero(~own))), (2 * len(levels) + 1, n)
        )
        counts = others @ weights
        below = np.cumsum(counts, axis=0)
        owned = weights[rows]  # (own images, b), rising
        count, rest = owned.sum(axis=0), below[-1]
        ahead = below[:-1:2] + counts[1::2] / 2  # (levels, b): others below each level, half of those on it
        false = rest - below[:-1:2]  # others on each level or above
        true = np.cumsum(owned[::-1], axis=0)[::-1]
        if len(levels) < len(rows):
            ahead, false, true = ahead[level], false[level], true[first[level]]
        found = true - owned if len(rows) > 1 else true
        answers = found + false
        precision = np.divide(found, answers, out=np.ones_like(found), where=answers > _LEAST)
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.stack([(owned * ahead).sum(axis=0) / (count * rest), (owned * precision).sum(axis=0) / count])
        defined = (count > 0) & (rest > 0)
        sums[:, defined] += both[:, defined]
        known += defined
    with np.errstate(invalid="ignore"):
        roc, precisions = sums / known
    return roc, precisions


def _intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    sums: _Sums,
    found: dict[str, float | None],
    top: dict[str, np.ndarray],
    groups: Sequence[str] | None,
    replicates: int,
) -> dict[str, list[float] | None]:
    """Of the proportions Wilson's; of the others those of a bootstrap, see `intervals.normal`.

    Scores of right and wrong answers are drawn with one image more, half right and half wrong (with groups, one of a
    group's mean size), shared out among the classes: where a class has no mistake yet, drawing its images again cannot
    show how many it could have had. For one share that is Jeffreys's prior.
    """
    n, classes = probabilities.shape
    shares = {**{f"top_{k}": hits for k, hits in top.items() if k != "1"}, "accuracy": top["1"]}
    several = [key for key in AREAS if found[key] is not None]
    enough = int(np.clip(_AREA_WORK // (n * classes), _FEWEST, replicates)) if several else 0
    _, strata = intervals.units(labels, groups)
    present = len(np.unique(labels))
    shape, size = 0.5 / present, n / len(strata)
    rng = np.random.default_rng(0)

    def parts(weights: np.ndarray, more: np.ndarray) -> dict[str, np.ndarray]:
        drawn = sums.scores(weights, more)
        if groups is not None:
            hits, all_more = more[0].sum(axis=0), more.sum(axis=(0, 1))
            images = weights.sum(axis=0) + all_more
            drawn |= {key: (right.astype(np.float32) @ weights + hits) / images for key, right in shares.items()}
        return drawn

    once = np.ones((n, 1), np.float32)
    centres = {key: _number(value) for key, value in parts(once, np.full((2, classes, 1), shape * size)).items()}
    if several:
        centres |= {
            key: _number(value) for key, value in zip(AREAS, areas_of_draws(labels, probabilities, once), strict=True)
        }
    values: dict[str, list[np.ndarray]] = {}
    done = 0
    for weights in intervals.draws(labels, groups, replicates=replicates):
        width = weights.shape[1]
        drawn = parts(weights, rng.standard_gamma(shape, (2, classes, width)) * size)
        if done < enough:
            drawn |= dict(zip(AREAS, areas_of_draws(labels, probabilities, weights[:, : enough - done]), strict=True))
        done += width
        for key, part in drawn.items():
            values.setdefault(key, []).append(part)
    answer: dict[str, list[float] | None] = {}
    certain = _certain(strata)
    for key in (*INTERVALS, *(key for key in shares if key != "accuracy")):
        estimate = float(shares[key].mean()) if key in shares else found[key]
        if estimate is None:
            answer[key] = None
        elif groups is None and (key in shares or key.startswith("micro_") or key == "weighted_recall"):
            hits = shares.get(key, top["1"])
            answer[key] = list(wilson(int(hits.sum()), n))
        else:
            scale = "loss" if key in LOSSES else "correlation" if key in ("cohen_kappa", "matthews") else "share"
            ends = intervals.normal(np.concatenate(values[key]), estimate, certain, scale=scale, centre=centres[key])
            answer[key] = None if ends is None else list(ends)
    return answer


def _certain(strata: np.ndarray) -> tuple[float, float]:
    """How high and how low a mean over the classes can be where all answers are wrong, or right: the ends of Wilson's
    interval for as many images as tell as much of the mean, the number of classes times their harmonic mean size.

    Args:
        strata: int (units,), the class of each.
    """
    sizes = np.bincount(strata)
    sizes = sizes[sizes > 0]
    n = max(1, round(len(sizes) ** 2 / (1 / sizes).sum()))
    return wilson(0, n)[1], wilson(n, n)[0]


def _per_class(sums: _Sums, areas: list[dict[str, float | None]], class_names: Sequence[str]) -> dict[str, Any]:
    n = sums.losses.shape[1]
    own = {name: values[:, 0] for name, values in sums.per_class(np.ones((n, 1), np.float32)).items()}
    rows = {}
    for i, name in enumerate(class_names):
        right, true, said = (int(own[key][i]) for key in ("right", "support", "said"))
        rows[name] = {
            **{key: float(own[key][i]) for key in PER_CLASS},
            **areas[i],
            "support": true,
            "intervals": {
                "precision": list(wilson(right, said)) if said else None,
                "recall": list(wilson(right, true)) if true else None,
            },
        }
    return rows


def _most_confused(counts: np.ndarray, class_names: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for one another most often, both ways together: `classes`, `count`, and
    `counts`, of the first taken for the second and of the second taken for the first."""
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
    """Where there are too few images to say much."""
    found = []
    support = np.bincount(labels, minlength=len(class_names))
    few = [f"{name!r} ({n})" for name, n in zip(class_names, support.tolist(), strict=True) if 0 < n < FEW]
    if few:
        found.append(
            f"Too few images to say much of {_listed(few)}: below {FEW}, the 95 % interval of a class's recall can be "
            "0.4 wide or more."
        )
    absent = [repr(name) for name, n in zip(class_names, support.tolist(), strict=True) if not n]
    if absent:
        found.append(f"No image of {_listed(absent)}: nothing is known of it, and it counts in no mean.")
    if groups is not None:
        _, strata = intervals.units(labels, groups)
        lone = [repr(class_names[i]) for i, n in enumerate(np.bincount(strata, minlength=len(class_names))) if n == 1]
        if lone:
            found.append(f"One group alone shows {_listed(lone)}: the intervals cannot tell how groups differ there.")
    return found


def _listed(items: list[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def curves(labels: np.ndarray, probabilities: np.ndarray, index: int, *, points: int = 200) -> dict[str, np.ndarray]:
    """The ROC and precision-recall curves of one class against the rest, thinned to about so many points.

    Returns:
        `fpr`, `tpr`, `recall` and `precision`, each float (m,); empty where there is no image on one of the sides.
    """
    from sklearn import metrics as sklearn_metrics

    own, values = labels == index, probabilities[:, index]
    if not own.any() or own.all():
        return dict.fromkeys(("fpr", "tpr", "recall", "precision"), np.empty(0))
    fpr, tpr, _ = sklearn_metrics.roc_curve(own, values)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(own, values)

    def thinned(*lines: np.ndarray) -> tuple[np.ndarray, ...]:
        keep = np.unique(np.linspace(0, len(lines[0]) - 1, points).round().astype(int))
        return tuple(line[keep] for line in lines)

    (fpr, tpr), (recall, precision) = thinned(fpr, tpr), thinned(recall, precision)
    return {"fpr": fpr, "tpr": tpr, "recall": recall, "precision": precision}


def check(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The labels and probabilities as arrays, once they are known to fit together.

    Raises:
        ValueError: as told at `score`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if len(set(class_names)) != len(class_names):
        raise ValueError("class_names: expected names that differ, found a name twice.")
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


def _ranks(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes come before the true one, equals in the order of the classes: int (n,)."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks: np.ndarray = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    return ranks
