"""Multi-class classification: one class for each image."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.errors import DatasetError
from imgclf.tasks import joined_names, ordered

ABOUT = "one class for each image"
OUTPUT = "probabilities"
ACTIVATION = "softmax"
SCORE = "accuracy"
FEWEST = 2
USUAL = ("label", "class", "class_name", "category", "target", "species", "breed", "choice")
WHOLE = False
UNITES = False
LACKS: frozenset[str] = frozenset()


def columns(header: Sequence[str], free: Sequence[int]) -> list[int]:
    """See `Task`. Only a name tells the column of classes."""
    return []


def is_labeled(cells: Mapping[str, str]) -> bool:
    """See `Task`."""
    return any(map(str.strip, cells.values()))


def read(cells: Mapping[str, str], separator: str, where: str) -> str:
    """See `Task`."""
    if len(cells) > 1:
        raise DatasetError(
            f"{where}: expected one column of classes, found {', '.join(cells)}. Several labels for each image are "
            "--task multilabel."
        )
    return next(iter(cells.values()))


def members(label: str) -> tuple[str, ...]:
    """See `Task`."""
    return (label,)


def renamed(label: str, names: Mapping[str, str]) -> str:
    """See `Task`."""
    return names.get(label, label)


def narrowed(label: str, names: Iterable[str]) -> str | None:
    """See `Task`."""
    return label if label in names else None


def united(labels: Sequence[str]) -> str:
    """See `Task`. An image has a single one: the first."""
    return labels[0] if labels else ""


def class_names(labels: Iterable[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the classes in their order.

    Raises:
        DatasetError: if a table's labels look like several labels in a cell.
    """
    found = ordered(set(labels))
    if columns and (several := joined_names(found)):
        separator, name, parts = several
        raise DatasetError(
            f"expected one class for each image, found {name!r} beside {', '.join(map(repr, parts))}. Read several "
            f"labels for each image with --task multilabel --label-separator '{separator}'."
        )
    return found


def counts(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """See `Task`."""
    found = Counter(labels)
    return {name: found[name] for name in names}


def check(labels: Sequence[str], names: Sequence[str], where: str) -> None:
    """See `Task`."""
    empty = [name for name, count in counts(labels, names).items() if not count]
    if empty:
        raise DatasetError(
            f"{where}: expected training images for every class, found none for {', '.join(empty)}. "
            "Add images, or name the classes to use with --classes."
        )


def strata(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """See `Task`."""
    return [(label,) for label in labels]


def encode(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """int64 (n,): the index of each label among the names, -1 where it is none of them."""
    index = {name: i for i, name in enumerate(names)}
    return np.array([index.get(label, -1) for label in labels], dtype=np.int64)


def standardized(targets: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """See `Task`. Classes stay what they are."""
    return targets, []


def link(logits: np.ndarray, weights: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Probabilities; rows sum to 1."""
    from scipy.special import softmax

    probabilities: np.ndarray = softmax(logits, axis=1).astype(np.float32)
    return probabilities


def fit(
    features: np.ndarray, targets: np.ndarray, *, outputs: int, seed: int, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression."""
    from imgclf.tasks import logistic  # SciPy's optimizers, of which prediction needs nothing

    return logistic.fit(features, targets, classes=outputs, seed=seed, balanced=balanced)


def loss(targets: np.ndarray, outputs: int, *, label_smoothing: float, balanced: bool) -> Any:
    """Cross-entropy; balanced, each class weighs the same in total."""
    import keras

    if not balanced:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    weights = class_weights(targets, outputs)

    def weighted(truth: Any, logits: Any) -> Any:  # (b, classes) twice -> (b,)
        losses = keras.losses.categorical_crossentropy(truth, logits, from_logits=True, label_smoothing=label_smoothing)
        return losses * keras.ops.sum(keras.ops.cast(truth, losses.dtype) * weights, axis=-1)

    found: Callable[[Any, Any], Any] = weighted
    return found


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weigh images so that every class has the same total weight, and images 1 on average: float32 (classes,).

    A class without images has the weight 1.
    """
    from sklearn.utils.class_weight import compute_class_weight  # half a second, which few trainings need

    known = np.unique(labels)
    weights = np.ones(classes, np.float32)
    weights[known] = compute_class_weight("balanced", classes=known, y=labels)
    return weights


def metric() -> Any:
    """See `Task`."""
    return SCORE


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the mean cross-entropy in nats, without label smoothing, and the accuracy."""
    from imgclf.tasks import logistic

    return logistic.log_loss(logits, targets), best_score(logits, targets)


def standard_error(score: float, images: int) -> float:
    """Return the standard error of a share of images."""
    return math.sqrt(score * (1 - score) / images)


def mistakes(score: float, images: int) -> int | None:
    """See `Task`."""
    return round((1 - score) * images)


def best_score(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy."""
    return float((outputs.argmax(axis=1) == targets).mean())


def agreement(expected: np.ndarray, found: np.ndarray, tie: float) -> float:
    """Return the share of equal labels, where the two best probabilities differ by `tie` or more."""
    second, best = np.sort(expected, axis=1)[:, -2:].T
    equal = (expected.argmax(axis=1) == found.argmax(axis=1))[best - second >= tie]
    return float(equal.mean()) if len(equal) else 1.0
