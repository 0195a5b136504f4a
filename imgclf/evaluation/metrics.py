"""How good the predictions are, from arrays alone: labels, probabilities and class names, no model and no files."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

AVERAGED = tuple(f"{average}_{score}" for average in ("macro", "weighted") for score in ("precision", "recall", "f1"))
SCORES = ("accuracy", "balanced_accuracy", *AVERAGED)
"""The keys of `score` that hold one number from 0 to 1."""

INTERVALS = ("accuracy",)
"""Those of `SCORES` that have an entry in `intervals`."""

Z_95 = 1.959963984540054  # the 97.5 % point of the normal distribution: 95 % lie within it on both sides


def score(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], *, top_k: int = 5
) -> dict[str, Any]:
    """Everything that `metrics.json` holds, ready for JSON.

    The predicted class is the most probable one; of equals, the first. A class without images counts in no mean; what
    would be divided by nothing (its recall, the precision of a class that was never predicted) is 0.

    Args:
        labels: int (n,), the true classes, as indices into `class_names`.
        probabilities: float (n, classes); rows sum to 1.
        top_k: besides 1, the k for which `top_k` tells how often the true class is among the k most probable ones; left
            out when there are fewer classes.

    Returns:
        `n`, the keys of `SCORES` (each in [0, 1], higher is better), `per_class` {name: {precision, recall, f1,
        support}}, `top_k` {"1": share, ...}, `confusion_matrix` {labels, counts} with the true classes as rows and the
        predicted ones as columns, and `intervals` {"accuracy": [low, high]}, 95 %.

    Raises:
        ValueError: if there are no images, the shapes do not fit together, a label is not an index of a class, or a row
            is not a distribution (NaN, negative, or a sum that is not 1).
    """
    from sklearn import metrics as sklearn_metrics  # takes a second, which whoever only needs the names is spared

    labels, probabilities = check(labels, probabilities, class_names)
    n, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    every = np.arange(classes)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    present = support > 0
    scores = {"precision": precision, "recall": recall, "f1": f1}
    correct = int((predicted == labels).sum())
    counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=every)
    return {
        "n": n,
        "accuracy": correct / n,
        "balanced_accuracy": float(recall[present].mean()),
        **{f"macro_{name}": float(values[present].mean()) for name, values in scores.items()},
        **{f"weighted_{name}": float(np.average(values, weights=support)) for name, values in scores.items()},
        "per_class": {
            name: {**{key: float(values[i]) for key, values in scores.items()}, "support": int(support[i])}
            for i, name in enumerate(class_names)
        },
        "top_k": {str(k): _top_k(labels, probabilities, k) for k in sorted({1, top_k}) if k <= classes},
        "confusion_matrix": {"labels": list(class_names), "counts": counts.tolist()},
        "intervals": {"accuracy": list(wilson(correct, n))},
    }


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, in [0, 1].

    Args:
        successes: how many of the `n` trials succeeded, 0 to n.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953 (without continuity correction).
    """
    share, z2 = successes / n, Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the bounds are 0 and 1 exactly; in floating point they would miss by a hair.
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


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


def _top_k(labels: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """The share of rows whose true class is among the k most probable, equals in the order of the classes."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    return float((rank < k).mean())
