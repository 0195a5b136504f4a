"""What curves vary besides the number of training images: a parameter, and how to fit for each of its values."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from imgclf.errors import UsageError
from imgclf.questions.embedding import Embedded
from imgclf.settings import TrainConfig
from imgclf.settings.classical import NETWORK
from imgclf.settings.questions import AUTO
from imgclf.tasks import logistic

STRENGTHS = tuple(10.0**power for power in range(-6, 3))
"""Values of C for the head."""

OWN: dict[str, tuple[str, tuple[Any, ...]]] = {
    NETWORK: ("C", STRENGTHS),
    "knn": ("k", (1, 2, 3, 5, 9, 17, 33)),
    "tree": ("max-depth", (1, 2, 4, 8, 16, None)),
    "forest": ("max-depth", (1, 2, 4, 8, None)),
    "svm": ("C", tuple(10.0**power for power in range(-3, 4))),
    "logreg": ("C", tuple(10.0**power for power in range(-5, 3))),
}
"""By the model: the parameter that decides about its capacity, and its values."""

NUMBER = "features"
"""The capacity of every model: how many features it is fitted to."""

Fit = Callable[[Sequence[np.ndarray], Any], np.ndarray]
"""From parts to fit on, and a value of the capacity, to the logits of all images: float (n, parts, classes)."""


@dataclass(frozen=True)
class Capacity:
    """A capacity, its values in rising order, and how parts are fitted for each.

    Args:
        parameter: empty for a model that has none, whose value is None.
        by_loss: whether the best value is the one of the lowest log loss; otherwise the one of the highest accuracy.
    """

    parameter: str
    values: tuple[Any, ...]
    fit: Fit
    by_loss: bool


def check(model: str, name: str) -> str:
    """Return the capacity to vary.

    Raises:
        UsageError: if the model has no such capacity.
    """
    own, _ = OWN.get(model, ("", ()))
    if name in (AUTO, own):
        return own
    if name != NUMBER:
        known = " or ".join(known for known in (NUMBER, own) if known)
        raise UsageError(f"--capacity: expected {known} for the model {model}, found {name}.")
    return NUMBER


def of(found: Embedded, name: str) -> Capacity:
    """Return a capacity of a model of these features.

    Raises:
        UsageError: if the model has no such capacity.
    """
    model = found.settings.model
    parameter, is_network = check(model, name), model == NETWORK
    if parameter == NUMBER:
        return Capacity(parameter, numbers(found.vectors.shape[1]), _each_part(found, _on_some_features), is_network)
    values = OWN.get(model, ("", (None,)))[1]
    if is_network:
        path = logistic.Path(found.vectors, found.labels, classes=found.classes)
        return Capacity(parameter, values, path.logits, True)

    def with_value(found: Embedded, part: np.ndarray, value: Any) -> np.ndarray:
        changed = {parameter.replace("-", "_"): value} if parameter else {}
        return _classical(found, part, replace(found.settings, **changed))

    # the smallest C is often as accurate on as many images of each class, and then fails on fewer of some
    return Capacity(parameter, values, _each_part(found, with_value), parameter == "C")


def numbers(most: int) -> tuple[int, ...]:
    """Numbers of features: powers of 2, and all of them."""
    return (*(2**power for power in range((most - 1).bit_length())), most)


def _each_part(found: Embedded, fit: Callable[[Embedded, np.ndarray, Any], np.ndarray]) -> Fit:
    return lambda parts, value: np.stack([fit(found, part, value) for part in parts], axis=1)


def _on_some_features(found: Embedded, part: np.ndarray, count: int) -> np.ndarray:
    """Fit to the features whose means differ most between the classes of the part, so that images outside of it have
    no say."""
    from imgclf.training import classical

    vectors, labels = found.vectors, found.labels
    own = vectors[:, classical.ranked(vectors[part], labels[part])[:count]]
    if found.settings.model != NETWORK:
        return _classical(replace(found, vectors=own), part, found.settings)
    kernel, bias = logistic.fit(
        own[part], labels[part], classes=found.classes, seed=found.settings.seed, level=logging.DEBUG
    )
    logits: np.ndarray = own @ kernel + bias
    return logits


def _classical(found: Embedded, part: np.ndarray, settings: TrainConfig) -> np.ndarray:
    from imgclf.prediction import classical as stored
    from imgclf.training import classical

    count = int(part.sum())
    settings = replace(settings, k=min(settings.k, count))
    estimator = classical.make(settings, count).fit(found.vectors[part], found.labels[part])
    return stored.logits(estimator, found.vectors)
