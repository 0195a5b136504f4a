"""Regression: one or several numbers for each image."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.errors import DatasetError
from imgclf.tasks import JOINED

ABOUT = "one or several numbers for each image"
OUTPUT = "values"
ACTIVATION = "linear"
SCORE = "r2"
FEWEST = 0
USUAL = ("value", "target", "label", "score", "rating", "grade", "age", "count")
WHOLE = True
UNITES = False
LACKS = frozenset(
    {
        *("--model", "--classes", "--rename", "--class-map", "--class-names", "--balance", "--mixup", "--cutmix"),
        *("--positive", "--threshold", "--outliers"),
        *("baseline", "tune", "--embedding-map", "--to"),
        *("suspects", "curves", "suggest", "drift"),
        *("--sort-into", "--reject-below", "--engine ray", "--distill", "--robustness", "--slices"),
    }
)

BINS = 10
"""A split distributes this many quantiles of the first number evenly."""

PENALTIES = tuple(float(a) for a in np.logspace(-3, 6, 19))
"""Strengths of the L2 penalty, on standardized features, among which leave-one-out cross-validation chooses: the alpha
of scikit-learn's RidgeCV."""

_FLAT = 1e-12


def columns(header: Sequence[str], free: Sequence[int]) -> list[int]:
    """Return the only column that is left; of several, only a name tells which to predict."""
    return list(free) if len(free) == 1 else []


def is_labeled(cells: Mapping[str, str]) -> bool:
    """See `Task`. An empty cell leaves the image out."""
    return all(map(str.strip, cells.values()))


def read(cells: Mapping[str, str], separator: str, where: str) -> str:
    """Return the numbers, joined."""
    return JOINED.join(repr(_number(text, f"{where}, column {name}")) for name, text in cells.items())


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise DatasetError(f"{where}: expected a number for --task regression, found {text!r}.") from None
    if not math.isfinite(number):
        raise DatasetError(
            f"{where}: expected a finite number, found {text!r}. Leave the cell empty where the number is unknown."
        )
    return number


def members(label: str) -> tuple[str, ...]:
    """See `Task`. Numbers name no class."""
    return ()


def renamed(label: str, names: Mapping[str, str]) -> str:
    """See `Task`."""
    return label


def narrowed(label: str, names: Iterable[str]) -> str | None:
    """See `Task`."""
    return label


def united(labels: Sequence[str]) -> str:
    """See `Task`. An image has a single one: the first."""
    return labels[0] if labels else ""


def class_names(labels: Iterable[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns; `value` where the data are no table."""
    found = tuple(columns) or ("value",)
    for label in labels:
        texts = label.split(JOINED)
        if len(texts) != len(found):
            raise DatasetError(f"expected {len(found)} numbers for each image, found {label!r}.")
        for text in texts:
            _number(text, "a label")
    return found


def counts(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Every image has every number."""
    return dict.fromkeys(names, sum(1 for _ in labels))


def check(labels: Sequence[str], names: Sequence[str], where: str) -> None:
    """See `Task`. A number that is always the same cannot be learned."""
    for name, own in zip(names, encode(labels, names).T, strict=True):
        if len(np.unique(own)) < 2:
            found = f"{own[0]:g} alone" if len(own) else "none"
            raise DatasetError(f"{where}: expected different values of {name} to train on, found {found}.")


def strata(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the quantile of the first number, among BINS or as many as leave 3 images in each."""
    values = np.array([float(label.split(JOINED)[0]) for label in labels])
    bins = max(1, min(BINS, len(values) // 3))
    inner = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]) if len(values) else values
    return [(f"quantile {place}",) for place in np.searchsorted(inner, values, side="right").tolist()]


def encode(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """float64 (n, numbers)."""
    return np.array([[float(text) for text in label.split(JOINED)] for label in labels]).reshape(-1, len(names))


def standardized(targets: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Mean 0 and deviation 1 among the training images."""
    mean, deviation = targets[train].mean(axis=0), targets[train].std(axis=0)
    deviation = np.where(deviation > _FLAT, deviation, 1.0)
    weights = [np.diag(deviation).astype(np.float32), mean.astype(np.float32)]
    return ((targets - mean) / deviation).astype(np.float32), weights


def link(logits: np.ndarray, weights: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Return the numbers in their own units."""
    values = logits @ weights[0] + weights[1] if weights else logits
    return values.astype(np.float32)


def fit(
    features: np.ndarray, targets: np.ndarray, *, outputs: int, seed: int, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression on standardized features; the penalty has the smallest error in leave-one-out cross-validation.

    Augmentations of an image are rows of their own, and the penalty is then chosen on the images alone.
    """
    import logging

    from sklearn.linear_model import Ridge, RidgeCV

    own = features[0].astype(np.float64)
    mean, deviation = own.mean(axis=0), own.std(axis=0)
    deviation = np.where(deviation > _FLAT, deviation, 1.0)
    found = RidgeCV(PENALTIES).fit((own - mean) / deviation, targets)
    logging.getLogger("imgclf").info(
        "Head: alpha = %g has the smallest squared error in leave-one-out cross-validation on %d images",
        found.alpha_,
        len(own),
    )
    if len(features) > 1:
        every = (features.reshape(-1, features.shape[-1]) - mean) / deviation
        found = Ridge(found.alpha_ * len(features)).fit(every, np.tile(targets, (len(features), 1)))
    coefficients = found.coef_.reshape(outputs, -1) / deviation  # (outputs, d)
    bias = np.reshape(found.intercept_, outputs) - coefficients @ mean
    return coefficients.T.astype(np.float32), bias.astype(np.float32)


def loss(targets: np.ndarray, outputs: int, *, label_smoothing: float, balanced: bool) -> Any:
    """Squared error of standardized numbers."""
    import keras

    return keras.losses.MeanSquaredError()


def metric() -> Any:
    """See `Task`."""
    import keras

    return keras.metrics.R2Score(name=SCORE)


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the mean squared error of standardized numbers, and R2."""
    return float(np.square(logits - targets).mean()), best_score(logits, targets)


def standard_error(score: float, images: int) -> float:
    """Return that of R2 (Olkin and Finn 1995, doi:10.1037/0033-2909.118.1.155), for one feature."""
    return math.sqrt(4 * max(score, 0.0) * (1 - score) ** 2 / images)


def mistakes(score: float, images: int) -> int | None:
    """See `Task`. The score counts no images."""
    return None


def best_score(outputs: np.ndarray, targets: np.ndarray) -> float:
    """R2, the mean over the numbers: 1 for no error, 0 for the mean of these targets."""
    errors = np.square(outputs - targets).sum(axis=0)
    spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    return float(np.mean(1 - errors / np.maximum(spread, _FLAT)))


def agreement(expected: np.ndarray, found: np.ndarray, tie: float) -> float:
    """Return the share of images whose numbers differ by less than a tenth, or `tie`, of their deviation."""
    allowed = max(tie, 0.1) * expected.std(axis=0) + 1e-3 * np.abs(expected).max()
    return float((np.abs(expected - found) <= allowed).all(axis=1).mean())
