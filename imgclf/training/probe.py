"""The linear probe: multinomial logistic regression on frozen features, solved to convergence."""

import logging
import math
import warnings

import keras
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from imgclf.training import fitting

log = logging.getLogger("imgclf")

STRENGTHS = tuple(float(c) for c in np.logspace(-4, 2, 7))
"""Inverse strengths of the L2 penalty among which cross-validation chooses, on standardised features."""

CHOOSING = 20
"""Images of a class, on average, that cross-validation asks at most, and not fewer than CHOOSING_LEAST in all: the
strength that suits a part of the images suits them all, and at 100,000 images thirty solutions would take hours."""

CHOOSING_LEAST = 2000

FOLDS = 5

_ITERATIONS = 1000

_WORTH_THREADS = 1e9
"""Multiply-adds of one step from which linear algebra may use threads. Below, they wait for each other for longer than
they work, above all beside other processes."""


def solve(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    seed: int,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the head.

    The strength of the penalty is the one with the smallest log loss in stratified cross-validation inside these
    images, FOLDS-fold or as many folds as the smallest class has images; of many images, a stratified part is asked.

    Args:
        features: float32 (n, d), or (views, n, d): the images' own first, then those of augmented views of them. An
            image's views stay together in cross-validation, in which the own features alone are asked.
        labels: int (n,); every class from 0 to classes - 1 occurs.
        balanced: whether each class weighs the same in all, however many images it has.

    Returns:
        kernel float32 (d, classes) and bias float32 (classes,), for the raw features.
    """
    views = features if features.ndim == 3 else features[np.newaxis]
    with threadpool_limits(1 if views.size * classes < _WORTH_THREADS else None, user_api="blas"):
        return _solve(views, labels, classes, seed, balanced)


def _solve(
    views: np.ndarray, labels: np.ndarray, classes: int, seed: int, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = views.mean(axis=(0, 1)), views.std(axis=(0, 1))
    deviation[deviation < 1e-6] = 1.0  # a dead unit stays dead instead of exploding
    scaled, basis = _rotate((views - mean) / deviation)
    strength = _choose_strength(scaled, labels, seed, balanced)
    model = _fit(scaled, labels, _regression(strength, len(scaled), balanced))
    weights, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    weights = weights if basis is None else weights @ basis.T
    if classes == 2:  # scikit-learn gives one row, the logit of the second class against the first
        weights, bias = np.stack([-weights[0] / 2, weights[0] / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    kernel = (weights / deviation).T
    return kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32)


def place(model: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Set the head of a classifier graph."""
    model.get_layer("logits").set_weights([kernel, bias])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (n, classes) -> probabilities, float32, rows summing to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def _rotate(views: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Fewer rows than columns, in an orthonormal basis of what they span: the penalty sees lengths alone, so the
    solution is the same, with a part of the arithmetic.

    Args:
        views: (v, n, d).

    Returns:
        (v, n, k), and the basis (d, k); the same and None where there are as many rows as columns.
    """
    rows = views.reshape(-1, views.shape[-1])
    if len(rows) >= rows.shape[1]:
        return views, None
    basis, triangle = np.linalg.qr(rows.T)  # (d, k), (k, rows)
    return triangle.T.reshape(*views.shape[:2], -1), basis


def _regression(strength: float, count: int, balanced: bool) -> LogisticRegression:
    """Of views, `count` of each image: the penalty stays that of the images alone."""
    return LogisticRegression(
        C=strength / count,
        max_iter=_ITERATIONS,
        tol=1e-5,
        class_weight="balanced" if balanced else None,
        warm_start=True,
    )


def _fit(views: np.ndarray, labels: np.ndarray, model: LogisticRegression) -> LogisticRegression:
    """Of (views, n, d)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(views.reshape(-1, views.shape[-1]), np.tile(labels, len(views)))


def _choosing(labels: np.ndarray, seed: int) -> np.ndarray:
    """The images that cross-validation asks, int (m,) in rising order: the same share of each class, at least FOLDS."""
    counts = np.bincount(labels)
    share = min(1.0, max(CHOOSING_LEAST, CHOOSING * len(counts)) / len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = (shuffled[labels[shuffled] == label] for label in range(len(counts)))
    kept = [rows[: max(FOLDS, math.ceil(share * len(rows)))] for rows in by_class]
    return np.sort(np.concatenate(kept))


def _choose_strength(views: np.ndarray, labels: np.ndarray, seed: int, balanced: bool = False) -> float:
    asked = _choosing(labels, seed)
    views, labels = views[:, asked], labels[asked]
    folds = min(FOLDS, int(np.bincount(labels).min()))
    if folds < 2:
        log.info("head: a class has a single training image, so the strength is not cross-validated")
        return 1e-2
    losses = dict.fromkeys(STRENGTHS, 0.0)
    for fitted, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(views[0], labels):
        model = _regression(STRENGTHS[0], len(views), balanced)
        for strength in STRENGTHS:  # from strong to weak: each solution is near the one before
            model = _fit(views[:, fitted], labels[fitted], model.set_params(C=strength / len(views)))
            logits = model.decision_function(views[0, held_out])
            if logits.ndim == 1:  # two classes: the logit of the second against the first
                logits = np.stack([np.zeros_like(logits), logits], axis=1)
            losses[strength] += len(held_out) * fitting.loss_and_accuracy(logits, labels[held_out])[0]
    best = min(STRENGTHS, key=lambda strength: losses[strength])
    log.info("head: C = %g, cross-validated log loss %.4f", best, losses[best] / len(labels))
    return best
