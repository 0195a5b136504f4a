"""Multi-label classification: any number of classes for each image."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.errors import DatasetError
from imgclf.tasks import JOINED, joined_names, ordered

ABOUT = "any number of classes for each image"
OUTPUT = "probabilities"
ACTIVATION = "sigmoid"
SCORE = "mean_average_precision"
FEWEST = 1
USUAL = ("labels", "label", "tags", "classes", "categories", "class", "category")
WHOLE = True
UNITES = True
LACKS = frozenset(
    {
        *("--model", "--class-names", "--cutmix", "--balance sampling", "--positive", "--coverage", "--outliers"),
        *("baseline", "tune", "--embedding-map", "--to"),
        *("suspects", "curves", "suggest", "drift"),
        *("--sort-into", "--reject-below", "--engine ray", "--distill", "--robustness", "--slices"),
    }
)

YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false", ""})
"""What a cell of a class's own column may contain, in any case."""

NONE = ""
"""The stratum of images without a label."""


def columns(header: Sequence[str], free: Sequence[int]) -> list[int]:
    """Every other column is that of a class."""
    return list(free)


def is_labeled(cells: Mapping[str, str]) -> bool:
    """See `Task`. No label is an answer, too."""
    return True


def read(cells: Mapping[str, str], separator: str, where: str) -> str:
    """Return the labels that the cell of a single column lists, or those of several columns whose cell says yes."""
    if len(cells) == 1:
        [text] = cells.values()
        return joined((part.strip() for part in text.split(separator)), where)
    found = []
    for column, text in cells.items():
        if text.strip().casefold() not in YES | NO:
            raise DatasetError(
                f"{where}, column {column}: expected 0 or 1, whether the image has this class, found {text!r}. "
                "Name the columns of classes with --label-column."
            )
        if text.strip().casefold() in YES:
            found.append(column)
    return joined(found, where)


def joined(names: Iterable[str], where: str) -> str:
    """Return the label of an image with these classes, in their order.

    Raises:
        DatasetError: if a name contains what separates names in a label.
    """
    found = sorted({name for name in names if name})
    for name in found:
        if JOINED in name:
            raise DatasetError(
                f"{where}: expected names without {JOINED!r}, which separates labels here, found {name!r}. Name the "
                "separator of the table with --label-separator, or rename the class."
            )
    return JOINED.join(found)


def members(label: str) -> tuple[str, ...]:
    """See `Task`."""
    return tuple(label.split(JOINED)) if label else ()


def renamed(label: str, names: Mapping[str, str]) -> str:
    """See `Task`."""
    return joined((names.get(name, name) for name in members(label)), "--rename")


def narrowed(label: str, names: Iterable[str]) -> str:
    """See `Task`. An image without any of the classes stays, as one without a label."""
    return JOINED.join(name for name in members(label) if name in names)


def united(labels: Sequence[str]) -> str:
    """See `Task`."""
    return joined((name for label in labels for name in members(label)), "labels")


def class_names(labels: Iterable[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that images have; a table's columns of classes, too, where no image has them.

    Raises:
        DatasetError: if a name in a table looks like several.
    """
    found = {name for label in labels for name in members(label)}
    if columns and (several := joined_names(found)):
        separator, name, parts = several
        raise DatasetError(
            f"expected a name of one class, found {name!r} beside {', '.join(map(repr, parts))}. Name what separates "
            f"the labels with --label-separator '{separator}'."
        )
    return ordered(found | set(columns if len(columns) > 1 else ()))


def counts(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """See `Task`."""
    found = Counter(name for label in labels for name in members(label))
    return {name: found[name] for name in names}


def check(labels: Sequence[str], names: Sequence[str], where: str) -> None:
    """See `Task`. A class that all images have, or none, cannot be learned."""
    found = counts(labels, names)
    for what, lacking in (("with", 0), ("without", len(labels))):
        wrong = [name for name, count in found.items() if count == lacking]
        if wrong:
            raise DatasetError(
                f"{where}: expected training images {what} every class, found none {what} {', '.join(wrong)}. Add "
                "images, or name the classes to use with --classes."
            )


def strata(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the classes of each image, or that it has none."""
    return [members(label) or (NONE,) for label in labels]


def encode(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """float32 (n, classes): 1 for the classes of an image."""
    index = {name: place for place, name in enumerate(names)}
    targets = np.zeros((len(labels), len(names)), np.float32)
    for row, label in enumerate(labels):
        for name in members(label):
            if name in index:
                targets[row, index[name]] = 1
    return targets


def standardized(targets: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """See `Task`. Classes stay what they are."""
    return targets, []


def link(logits: np.ndarray, weights: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Return the probability of each class by itself."""
    from scipy.special import expit

    probabilities: np.ndarray = expit(logits).astype(np.float32)
    return probabilities


def fit(
    features: np.ndarray, targets: np.ndarray, *, outputs: int, seed: int, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a logistic regression for each class, each with the penalty that suits it."""
    from imgclf.tasks import logistic

    each = [own.astype(np.int64) for own in targets.T]
    heads = logistic.fit_each(features, each, classes=2, seed=seed, balanced=balanced)
    kernel = np.stack([kernel[:, 1] - kernel[:, 0] for kernel, _ in heads], axis=1)  # (d, classes)
    return kernel, np.array([bias[1] - bias[0] for _, bias in heads], np.float32)


def loss(targets: np.ndarray, outputs: int, *, label_smoothing: float, balanced: bool) -> Any:
    """Binary cross-entropy; balanced, positives and negatives of a class weigh the same in total."""
    import keras

    if not balanced:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    positives = np.clip(targets.sum(axis=0), 1, len(targets) - 1)
    weights = np.stack([len(targets) / 2 / (len(targets) - positives), len(targets) / 2 / positives]).astype(np.float32)

    def weighted(truth: Any, logits: Any) -> Any:  # (b, classes) twice -> (b,)
        truth = keras.ops.cast(truth, logits.dtype)
        smooth = truth * (1 - label_smoothing) + label_smoothing / 2
        losses = keras.ops.softplus(logits) - smooth * logits
        return keras.ops.mean(losses * (weights[0] * (1 - truth) + weights[1] * truth), axis=-1)

    return weighted


def metric() -> Any:
    """See `Task`."""
    import keras

    return keras.metrics.AUC(curve="PR", multi_label=True, from_logits=True, name=SCORE)


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the mean binary cross-entropy in nats, and the mean average precision."""
    losses = np.logaddexp(0, logits.astype(np.float64)) - targets * logits
    return float(losses.mean()), best_score(logits, targets)


def standard_error(score: float, images: int) -> float:
    """Return that of a share of images, which a mean of average precisions is close to."""
    return math.sqrt(score * (1 - score) / images)


def mistakes(score: float, images: int) -> int | None:
    """See `Task`. The score counts no images."""
    return None


def best_score(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Average the average precision over the classes with positives and negatives; 0 where there are none."""
    known = (targets > 0).any(axis=0) & (targets == 0).any(axis=0)
    own = average_precisions(outputs, targets, np.ones((len(outputs), 1)))
    return float(np.mean(own[known])) if known.any() else 0.0


def average_precisions(outputs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 (classes, b): the average precision of each class for weights of the images (n, b).

    It is NaN where a class has no positive. Equal outputs count at once, as in scikit-learn.
    """
    found = np.empty((outputs.shape[1], weights.shape[1]))
    for place, (own, truth) in enumerate(zip(outputs.T, targets.T, strict=True)):
        order = np.argsort(-own, kind="stable")
        last = np.append(own[order][1:] != own[order][:-1], True)  # the last of equals
        predicted = np.cumsum(weights[order], axis=0)[last]
        hits = np.cumsum(weights[order] * truth[order, None], axis=0)[last]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(predicted > 0, hits / predicted, 0.0)
            steps = np.diff(hits, axis=0, prepend=0.0)
            found[place] = (steps * precision).sum(axis=0) / hits[-1]
    return found


def agreement(expected: np.ndarray, found: np.ndarray, tie: float) -> float:
    """Return the share of equal answers to whether an image has a class, where its probability is not near a half."""
    equal = ((expected >= 0.5) == (found >= 0.5))[np.abs(expected - 0.5) >= tie / 2]
    return float(equal.mean()) if len(equal) else 1.0
