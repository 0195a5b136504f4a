"""Predictions of any number of classes for each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from imgclf.prediction.decision import Decision
from imgclf.prediction.forms import Common
from imgclf.tasks import JOINED

HEADS = ("label", "confidence")

NOTHING = "(none)"
"""What people are shown where an image has none of the classes."""

EVEN = 0.5
"""The threshold of a class for which none was fitted."""


def thresholds(labels: Sequence[str], rules: Decision) -> np.ndarray:
    """float64 (classes,): the probability from which an image has each class."""
    fitted = rules.thresholds or {}
    return np.array([fitted.get(name, EVEN) for name in labels])


@dataclass(frozen=True, eq=False)
class Labels(Common):
    """What a model and its rules say of one image: `output` are the probabilities of the classes in `labels`."""

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """The probability of each class by itself; empty for an image that cannot be read."""
        if self.output is None:
            return {}
        return {name: float(str(value)) for name, value in zip(self.labels, self.output, strict=True)}

    @cached_property
    def predicted(self) -> tuple[str, ...] | None:
        """The classes at or above their thresholds, in their order: perhaps none; None if the image cannot be read."""
        if self.output is None:
            return None
        above = self.output >= thresholds(self.labels, self.rules)
        return tuple(name for name, has in zip(self.labels, above, strict=True) if has)

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the k most probable classes and their probabilities, falling; empty for an unreadable image."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:k]


def make(output: np.ndarray | None, labels: tuple[str, ...], rules: Decision, **facts: Any) -> Labels:
    """See `Form`."""
    return Labels(output=output, labels=labels, rules=rules, **facts)


def to_json(prediction: Labels, top: int) -> dict[str, object]:
    """`path`, `labels` (the predicted classes, perhaps none; null without an image), `top` [{`label`, `confidence`}],
    `probabilities` (name -> number) and `error`."""
    best = [{"label": label, "confidence": confidence} for label, confidence in prediction.top(top)]
    return {
        "path": prediction.path,
        "labels": None if prediction.predicted is None else list(prediction.predicted),
        "top": best,
        "probabilities": prediction.probabilities,
        "error": prediction.error,
    }


def columns(labels: Sequence[str], top: int) -> dict[str, type]:
    """`path`, `labels` (separated by |), `error`, and `p_<class>` for each class."""
    return {"path": str, "labels": str, "error": str, **{f"p_{name}": float for name in labels}}


def cells(prediction: Labels, top: int) -> list[object]:
    """See `Form`."""
    found = values(prediction, top)
    return [found.get(name) for name in columns(prediction.labels, top)]


def values(prediction: Labels, top: int) -> Mapping[str, Any]:
    """See `Form`. An image without a class has an empty text; one that cannot be read, null."""
    joined = None if prediction.predicted is None else JOINED.join(prediction.predicted)
    found: dict[str, Any] = {"path": prediction.path, "labels": joined, "error": prediction.error}
    return found | {f"p_{name}": value for name, value in prediction.probabilities.items()}


def rows(prediction: Labels, top: int) -> list[tuple[str, ...]]:
    """Return the predicted classes, the most probable first, with their probability in percent."""
    chosen = set(prediction.predicted or ())
    ranked = [pair for pair in prediction.top(len(prediction.labels)) if pair[0] in chosen]
    return [(name, f"{value:.1%}") for name, value in ranked] or [(NOTHING, "")]


def predicted(prediction: Labels) -> str | None:
    """Return the predicted classes, joined; None where the image has none of them."""
    return JOINED.join(prediction.predicted or ()) or None


def explained(prediction: Labels, top: int) -> list[int]:
    """Return the most probable classes."""
    return [prediction.labels.index(name) for name, _ in prediction.top(top)]


def stated(prediction: Labels, place: int) -> str:
    """Return the class with its probability; "not" before one that the image does not have."""
    name = prediction.labels[place]
    shown = f"{name} {prediction.probabilities[name]:.1%}"
    return shown if name in (prediction.predicted or ()) else f"not {shown}"
