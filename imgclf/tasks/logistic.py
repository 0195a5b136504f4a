"""The linear probe: multinomial logistic regression on frozen features, fitted to convergence.

One L-BFGS fits the heads of all folds at once: they share the images, so one matrix product serves them all. The
penalty sees lengths alone, so a rotation of the features changes nothing; along their principal directions a diagonal
scaling comes close to the inverse of the curvature, and some twenty steps do where hundreds were needed.
"""

import functools
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

log = logging.getLogger("imgclf")

STRENGTHS = tuple(float(c) for c in np.logspace(-5, 4, 19))
"""Inverse strengths of the L2 penalty among which cross-validation chooses, on standardized features: the C of
scikit-learn's LogisticRegression."""

START = 1e-3
"""Near which the search begins: on the strong side of most data, where fits are quick."""

GAIN = 1e-3
"""Log loss that a weaker penalty must gain: where classes are far apart, it falls forever, by less and less."""

DEFAULT = 1e-2
"""The strength where no image can be held out."""

CHOOSING = 20
"""Images of a class, on average, that cross-validation uses at most, and at least CHOOSING_LEAST in all: the strength
that suits a part of the images suits them all."""

CHOOSING_LEAST = 2000

FOLDS = 5

_CHOOSING_TOLERANCE, _TOLERANCE, _LARGE_TOLERANCE = 1e-4, 1e-8, 1e-6
"""A fit ends when a step lowers the loss by a smaller part of it: where little loss is left, the little counts. Where
steps are worth threads, the last part of the way takes minutes for 1e-5 of log loss per image."""

_ITERATIONS = 1000

_MEMORY = 5
"""Steps that L-BFGS remembers: 10 take no fewer of them, and the heads of 5 folds of 200 classes are 16 MB."""

_WORTH_THREADS = 1e9
"""Multiply-adds of one step from which linear algebra may use threads. Below, they wait for each other for longer than
they work, above all beside other processes."""

_CHUNK = 4096
"""Rows that are changed at a time: the features of 100,000 images are 0.8 GB, and are copied only once."""


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy in nats, of logits (n, classes) and labels int (n,)."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    seed: int,
    balanced: bool = False,
    level: int = logging.INFO,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the head.

    The strength of the penalty is the one with the smallest log loss in stratified cross-validation inside these
    images, FOLDS-fold or as many folds as the smallest class has images. Of many images it uses a stratified part. An
    image that is alone in its class is never held out.

    Args:
        features: float32 (n, d), or (variants, n, d): the images' own first, then those of augmentations of them. An
            image's variants stay together in cross-validation, which holds out own features alone.
        labels: int (n,); every class from 0 to classes - 1 occurs.
        balanced: whether each class weighs the same in total, however many images it has.
        level: at which the strength is logged; lower where many heads are fitted for one answer.

    Returns:
        kernel float32 (d, classes) and bias float32 (classes,), for the raw features.
    """
    return fit_each(features, [labels], classes=classes, seed=seed, balanced=balanced, level=level)[0]


def fit_each(
    features: np.ndarray,
    several: Sequence[np.ndarray],
    *,
    classes: int,
    seed: int,
    balanced: bool = False,
    level: int = logging.INFO,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit a head to each of several labelings of the same images, which share what the features alone decide.

    Args:
        several: arguments `labels` of `fit`, which also explains the others.
    """
    variants = features if features.ndim == 3 else features[np.newaxis]
    is_small = variants.size * classes * FOLDS < _WORTH_THREADS
    tolerance = _TOLERANCE if is_small else _LARGE_TOLERANCE
    with threadpool_limits(1 if is_small else None, user_api="blas"):
        scaled, mean, deviation = _standardize(variants.reshape(-1, variants.shape[-1]))
        rotated, basis = _rotate(scaled)
        del scaled
        rotated = rotated.reshape(*variants.shape[:2], -1)
        found = []
        for labels in several:
            strength, start = _choose_strength(rotated, labels, seed, balanced, level)
            head = _minimize(rotated, labels, _shares(labels, [None], balanced), strength, start, tolerance)[:, 0]
            kernel = basis @ head[:-1] / deviation[:, np.newaxis]
            found.append((kernel.astype(np.float32), (head[-1] - mean @ kernel).astype(np.float32)))
    return found


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[np.ndarray], *, classes: int, seed: int
) -> np.ndarray:
    """Return the logits of each image by a head that was not fitted to it, float32 (n, classes).

    All folds share the strength of the penalty, a single number that cross-validation chooses as in `fit`.

    Args:
        features: float32 (n, d).
        labels: int (n,); every class from 0 to classes - 1 occurs.
        folds: bool (n,) for each fold, the images that it holds out; each image is held out once.
    """
    is_small = features.size * classes * len(folds) < _WORTH_THREADS
    with threadpool_limits(1 if is_small else None, user_api="blas"):
        rotated = _rotate(_standardize(features)[0])[0][np.newaxis]
        strength, start = _choose_strength(rotated, labels, seed, False)
        start = np.repeat(start, len(folds), axis=1)
        heads = _minimize(rotated, labels, _shares(labels, list(folds), False), strength, start, _LARGE_TOLERANCE)
        logits = _logits(rotated[0], heads)
    found = np.empty((len(labels), classes), np.float32)
    for fold, held in enumerate(folds):
        found[held] = logits[held, fold]
    return found


class Path:
    """Heads of many parts of the same images and of many strengths, for curves: what the features alone decide is done
    once. Each fit starts where the last one of as many parts ended.

    Args:
        features: float32 (n, d).
        labels: int (n,); every class from 0 to classes - 1 occurs.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, *, classes: int) -> None:
        self._labels, self._classes = labels, classes
        self._limit = None if features.size * classes >= _WORTH_THREADS else 1
        with threadpool_limits(self._limit, user_api="blas"):
            self._rows = _rotate(_standardize(features)[0])[0]
        self._last: dict[int, np.ndarray] = {}

    def logits(self, parts: Sequence[np.ndarray], strength: float) -> np.ndarray:
        """Return the logits of all images by a head for each part, float32 (n, parts, classes).

        Args:
            parts: bool (n,) for each head, the images that it is fitted on.
        """
        used = np.flatnonzero(np.any(parts, axis=0))
        shares = np.stack(parts, axis=1)[used].astype(np.float32)
        start = self._last.get(len(parts), np.zeros((self._rows.shape[1] + 1, len(parts), self._classes)))
        with threadpool_limits(self._limit, user_api="blas"):
            rows = self._rows[used][np.newaxis]
            heads = _minimize(rows, self._labels[used], shares, strength, start, _LARGE_TOLERANCE)
            self._last[len(parts)] = heads
            return _logits(self._rows, heads)


def _standardize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a copy (n, d) whose columns have mean 0 and deviation 1, and the former means and deviations, (d,)."""
    mean, squares = rows.mean(axis=0, dtype=np.float64), np.zeros(rows.shape[1])
    scaled = np.empty_like(rows)
    for some in _chunks(len(rows)):
        scaled[some] = rows[some] - mean
        squares += np.einsum("ij,ij->j", scaled[some], scaled[some], dtype=np.float64)
    deviation = np.sqrt(squares / len(rows))
    deviation[deviation < 1e-6] = 1.0  # a dead unit stays dead instead of exploding
    scaled /= deviation.astype(scaled.dtype)
    return scaled, mean, deviation


def _rotate(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn rows (n, d) to their principal directions.

    Returns:
        The rows (n, k), k the smaller of n and d, in place where it is d; and the orthonormal basis (d, k).
    """
    basis = None
    if len(rows) < rows.shape[1]:
        basis, triangle = np.linalg.qr(rows.T)  # (d, n), (n, n)
        rows = np.ascontiguousarray(triangle.T)
    _, directions = eigh(rows.T @ rows, driver="evd", overwrite_a=True)
    for some in _chunks(len(rows)):
        rows[some] = rows[some] @ directions
    return rows, directions if basis is None else basis @ directions


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, start + _CHUNK)


def _shares(labels: np.ndarray, held_out: list[np.ndarray | None], balanced: bool) -> np.ndarray:
    """Return what each image weighs in each head, float32 (n, heads): nothing where it is held out, else 1 on average.

    Args:
        held_out: for each head bool (n,), or None.
    """
    columns = []
    for held in held_out:
        fitted = np.ones(len(labels), bool) if held is None else ~held
        counts = np.bincount(labels[fitted], minlength=labels.max() + 1)
        shares = fitted.sum() / (len(counts) * counts) if balanced else np.ones(len(counts))
        columns.append(np.where(fitted, shares[labels], 0.0))
    return np.stack(columns, axis=1).astype(np.float32)


def _minimize(
    variants: np.ndarray, labels: np.ndarray, shares: np.ndarray, strength: float, start: np.ndarray, tolerance: float
) -> np.ndarray:
    """Fit heads that differ in the images they are fitted on.

    Args:
        variants: float32 (v, n, k), centered, along their principal directions.
        shares: what each image weighs in each head, (n, heads).
        start: where the descent starts, (k + 1, heads, classes): the weights, and the bias as the last row.

    Returns:
        float64 (k + 1, heads, classes).
    """
    rows, labels = variants.reshape(-1, variants.shape[-1]), np.tile(labels, len(variants))
    shares = np.tile(shares / len(variants), (len(variants), 1))  # the penalty stays that of the images alone
    total = float(shares.sum(dtype=np.float64))
    # For two classes scikit-learn fits the difference of both columns, whose square is twice theirs.
    penalty = (2.0 if start.shape[2] == 2 else 1.0) / strength
    _, residuals = _loss(rows, labels, shares, start)
    doubt = -residuals[np.arange(len(rows)), :, labels].sum(dtype=np.float64) / total  # mean of 1 - p(label)
    curvature = max(doubt, 1e-6) / start.shape[2] * total / start.shape[1]
    variances = np.einsum("ij,ij->j", rows, rows, dtype=np.float64) / len(rows)
    scale = 1 / np.sqrt(np.append(curvature * variances + penalty, curvature))[:, np.newaxis, np.newaxis]

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        heads = point.reshape(start.shape) * scale
        loss, residuals = _loss(rows, labels, shares, heads)
        flat = residuals.reshape(len(rows), -1)
        slope = np.concatenate([rows.T @ flat, flat.sum(axis=0, keepdims=True)]).reshape(start.shape) * scale
        slope[:-1] += penalty * heads[:-1] * scale[:-1]
        return loss + penalty / 2 * np.square(heads[:-1]).sum(), slope.ravel()

    options = {"ftol": tolerance, "gtol": 0.0, "maxiter": _ITERATIONS, "maxcor": _MEMORY}
    found = minimize(objective, (start / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape) * scale


def _loss(rows: np.ndarray, labels: np.ndarray, shares: np.ndarray, heads: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum the cross-entropies by their shares; also return the derivatives by the logits (n, heads, classes)."""
    found, each = log_softmax(_logits(rows, heads), axis=2), np.arange(len(rows))
    losses = -found[each, :, labels]  # (n, heads)
    np.exp(found, out=found)
    found *= shares[..., np.newaxis]
    found[each, :, labels] -= shares
    return float((losses * shares).sum(dtype=np.float64)), found


def _logits(rows: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Float32 (n, heads, classes)."""
    flat = heads.reshape(len(heads), -1).astype(np.float32)
    return (rows @ flat[:-1] + flat[-1]).reshape(-1, *heads.shape[1:])


def subset(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the images that cross-validation uses, int (m,) rising: the same share of each class, at least FOLDS."""
    counts = np.bincount(labels)
    share = min(1.0, max(CHOOSING_LEAST, CHOOSING * len(counts)) / len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = (shuffled[labels[shuffled] == label] for label in range(len(counts)))
    kept = [rows[: max(FOLDS, math.ceil(share * len(rows)))] for rows in by_class]
    return np.sort(np.concatenate(kept))


def folds(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Deal the images that each fold holds out, bool (n,): equally many of each class, never the only one of it."""
    counts = np.bincount(labels)
    several = counts[labels] > 1
    count = min(FOLDS, int(counts[counts > 1].min())) if several.any() else 0
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(several))
    number = np.full(len(labels), -1)
    number[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(len(shuffled)) % max(count, 1)
    return [number == fold for fold in range(count)]


def _choose_strength(
    variants: np.ndarray, labels: np.ndarray, seed: int, balanced: bool, level: int = logging.INFO
) -> tuple[float, np.ndarray]:
    """Search STRENGTHS from START outwards, by decades and then by halves of one, as long as the log loss falls.

    Args:
        variants: float32 (v, n, k), centered, along their principal directions.

    Returns:
        The strength, and a head from which the descent on all images may start: the mean of the folds' heads.
    """
    classes = int(labels.max()) + 1
    used = subset(labels, seed)
    variants, labels = variants[:, used], labels[used]
    held_out = folds(labels, seed)
    if not held_out:
        log.log(level, "Every class has a single training image, so the head's C is not cross-validated: %g", DEFAULT)
        return DEFAULT, np.zeros((variants.shape[2] + 1, 1, classes))
    shares = _shares(labels, list(held_out), balanced)
    fitted: dict[int, np.ndarray] = {}

    @functools.cache
    def loss(place: int) -> float:
        nearest = min(fitted, key=lambda other: abs(other - place), default=None)
        start = np.zeros((variants.shape[2] + 1, len(held_out), classes)) if nearest is None else fitted[nearest]
        heads = fitted[place] = _minimize(variants, labels, shares, STRENGTHS[place], start, _CHOOSING_TOLERANCE)
        logits = _logits(variants[0], heads)
        sums = [held.sum() * log_loss(logits[held, fold], labels[held]) for fold, held in enumerate(held_out)]
        return float(sum(sums) / np.sum(held_out))

    best = int(np.argmin(np.abs(np.log(STRENGTHS) - math.log(START))))
    for step in (2, 1):
        while best + step < len(STRENGTHS) and loss(best + step) < loss(best) - GAIN:
            best += step
        while best - step >= 0 and loss(best - step) < loss(best) + GAIN:
            best -= step
    log.log(
        level,
        "Fitted the head with C = %g, the regularization with the lowest log loss in %d-fold cross-validation on %d "
        "images, %.4f.",
        STRENGTHS[best],
        len(held_out),
        len(labels),
        loss(best),
    )
    return STRENGTHS[best], fitted[best].mean(axis=1, keepdims=True)
