"""What weighed in a classifier of scikit-learn: how much each feature of one image adds to the score of a class.

| classifier | score | weight of a feature |
|---|---|---|
| logistic regression | logit | coefficient x standardized value |
| linear SVM | decision value, the mean over the other classes | the same |
| SVM with another kernel | the same | change of the score if the feature were the mean of the training images |
| tree, forest | probability | change of it where the feature decides, along the path through each tree (Saabas 2014) |
| naive Bayes | log odds against the most probable other class | log ratio of the feature's densities |

But for SVMs with another kernel, the weights and a base, which no feature changes, sum to the score.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from imgclf.prediction import classical

ROWS = 1024
"""Vectors at a time that differ in one feature each."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """What the features of one image add to the score of a class.

    Args:
        measure: what the score is.
        score: of the class, before the temperature.
        weights: float64 (d,), positive for the class.
        base: what the score is without them, so that `base + weights.sum()` is `score`; None where this does not hold.
        rival: the class that the score compares with, for naive Bayes.
    """

    measure: str
    score: float
    weights: np.ndarray
    base: float | None = None
    rival: int | None = None


def find(estimator: Any, vector: np.ndarray, place: int) -> Contributions:
    """Return what each feature adds to the score of a class.

    Args:
        estimator: as `classical.read` returns it, other than k-NN.
        vector: float (d,), not standardized.
        place: of the class. Of one-vs-rest, it is the classifier of this class that is explained.
    """
    scaler, parts = classical.parts(estimator)
    values = np.asarray(vector if scaler is None else scaler.transform(vector[None])[0], np.float64)
    part, place = (parts[place], 1) if len(parts) > 1 else (parts[0], place)
    if hasattr(part, "theta_"):
        return _bayes(part, values, place)
    if hasattr(part, "tree_") or hasattr(part, "estimators_"):
        return _trees(getattr(part, "estimators_", [part]), np.asarray(vector, np.float32), place)
    if hasattr(part, "coef_"):
        return _linear(part, values, place)
    return _left_out(part, values, place)


def is_neighbors(estimator: Any) -> bool:
    """Whether nearest neighbors decide, which weigh no feature more than another."""
    return hasattr(classical.parts(estimator)[1][0], "kneighbors")


def ranked(weights: np.ndarray, count: int) -> list[int]:
    """Return the places of the largest absolute weights, the largest first."""
    order: list[int] = np.argsort(-np.abs(weights), kind="stable")[:count].tolist()
    return [place for place in order if weights[place]]


def _linear(part: Any, values: np.ndarray, place: int) -> Contributions:
    coefficients, intercepts, classes = part.coef_, part.intercept_, len(part.classes_)
    if hasattr(part, "support_"):
        measure = "decision value" if classes == 2 else "mean decision value against the other classes"
        weights, base = _by_class(coefficients.T, classes)[:, place] * values, _by_class(intercepts, classes)[place]
    elif classes == 2:
        sign = 1 if place else -1
        measure, weights, base = "log odds", sign * coefficients[0] * values, sign * intercepts[0]
    else:
        measure, weights, base = "logit", coefficients[place] * values, intercepts[place]
    return Contributions(measure, float(base + weights.sum()), weights, float(base))


def _by_class(pairs: np.ndarray, classes: int) -> np.ndarray:
    """From numbers of the pairs of classes, float (..., pairs), to those of each class, float (..., classes).

    Those of a class are the mean of its pairs. Two classes have one column, positive for the second class; of more, a
    column is positive for the first of its pair. So scikit-learn has it.
    """
    if classes == 2:
        return np.concatenate([-pairs, pairs], axis=-1)
    found = np.zeros((*pairs.shape[:-1], classes))
    for column, (one, other) in enumerate(combinations(range(classes), 2)):
        found[..., one] += pairs[..., column]
        found[..., other] -= pairs[..., column]
    mean: np.ndarray = found / (classes - 1)
    return mean


def _left_out(part: Any, values: np.ndarray, place: int) -> Contributions:
    """Set each standardized feature to 0, which is the mean of the training images, by itself."""
    by_pairs = copy.copy(part).set_params(decision_function_shape="ovo", break_ties=False)
    scores = np.empty(len(values))
    for start in range(0, len(values), ROWS):
        columns = np.arange(start, min(start + ROWS, len(values)))
        changed = np.repeat(values[None], len(columns), axis=0)
        changed[np.arange(len(columns)), columns] = 0
        scores[columns] = _scores(by_pairs, changed, place)
    [score] = _scores(by_pairs, values[None], place)
    measure = "decision value" if len(part.classes_) == 2 else "mean decision value against the other classes"
    return Contributions(measure, float(score), score - scores)


def _scores(part: Any, vectors: np.ndarray, place: int) -> np.ndarray:
    decisions = part.decision_function(vectors).reshape(len(vectors), -1)  # (n, pairs)
    found: np.ndarray = _by_class(decisions, len(part.classes_))[:, place]
    return found


def _trees(trees: Sequence[Any], vector: np.ndarray, place: int) -> Contributions:
    weights, base = np.zeros(len(vector)), 0.0
    for each in trees:
        tree = each.tree_
        left, right, feature, threshold = tree.children_left, tree.children_right, tree.feature, tree.threshold
        shares = tree.value[:, 0, place] / tree.value[:, 0].sum(axis=1)
        node = 0
        base += shares[0]
        while left[node] != right[node]:  # both are -1 at a leaf
            then = left[node] if vector[feature[node]] <= threshold[node] else right[node]
            weights[feature[node]] += shares[then] - shares[node]
            node = then
    weights, base = weights / len(trees), base / len(trees)
    return Contributions("probability", float(base + weights.sum()), weights, float(base))


def _bayes(part: Any, values: np.ndarray, place: int) -> Contributions:
    logs = -0.5 * (np.log(2 * np.pi * part.var_) + (values - part.theta_) ** 2 / part.var_)  # (classes, d)
    priors = np.log(part.class_prior_)
    totals = logs.sum(axis=1) + priors
    rival = int(np.argmax(np.where(np.arange(len(totals)) == place, -np.inf, totals)))
    return Contributions(
        "log odds",
        float(totals[place] - totals[rival]),
        logs[place] - logs[rival],
        float(priors[place] - priors[rival]),
        rival if len(totals) > 2 else None,
    )
