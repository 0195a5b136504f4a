"""Predictions of one class for each image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.prediction.decision import Decision, Prediction

FIRST = ("path", "label", "confidence", "error")
LAST = ("predicted", "rejected", "argmax")
"""The columns of a table; with `top` above 1, `label_2`, `confidence_2`, `label_3`... stand between the two.

`label` is for people: the predicted class, or "unknown" for a rejected image. Programs read `predicted`, which is empty
for a rejected image, and `rejected`, since a class may be called "unknown", too. `argmax` is the most probable class,
whatever the rules say.
"""

HEADS = ("label", "confidence")


def make(output: np.ndarray | None, labels: tuple[str, ...], rules: Decision, **facts: Any) -> Prediction:
    """See `Form`."""
    return Prediction(probabilities=output, labels=labels, rules=rules, **facts)


def to_json(prediction: Prediction, top: int) -> dict[str, object]:
    """`path`, `label`, `confidence`, `rejected`, `top` [{`label`, `confidence`}] and `error`.

    An image that cannot be read has null values and an empty `top`. A rejected image has the label null and a `reason`,
    "unsure" or "outlier". Models with the rules for it give `outlier_score`, and `set`, the classes of the prediction
    set. On request there are `neighbors`, [{`path`, `distance`}] of training images.
    """
    best = [{"label": label, "confidence": confidence} for label, confidence in prediction.top(top)]
    values: dict[str, object] = {
        "path": prediction.path,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "rejected": prediction.rejected,
        "top": best,
        "error": prediction.error,
    }
    if prediction.reason:
        values["reason"] = prediction.reason
    if prediction.outlier_score is not None:
        values["outlier_score"] = round(prediction.outlier_score, 6)
    if prediction.classes is not None:
        values["set"] = list(prediction.classes)
    if prediction.neighbors is not None:
        values["neighbors"] = [near._asdict() for near in prediction.neighbors]
    return values


def columns(labels: Sequence[str], top: int) -> dict[str, type]:
    """`FIRST`, the classes from the second on, `LAST`."""
    more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "confidence")]
    kinds = {name: float if name.startswith("confidence") else str for name in (*FIRST, *more, *LAST)}
    return {**kinds, "rejected": bool}


def cells(prediction: Prediction, top: int) -> list[object]:
    """See `Form`. The label of a rejected image is "unknown"."""
    first, *others = [*prediction.ranked(top), *[(None, None)] * top][:top]
    rest = [value for pair in others for value in pair]
    last = [prediction.label, prediction.rejected, prediction.argmax]
    return [prediction.path, *first, prediction.error, *rest, *last]


def values(prediction: Prediction, top: int) -> Mapping[str, Any]:
    """See `Form`. The label of a rejected image is null, but not its confidence."""
    found: dict[str, Any] = {"path": prediction.path, "label": prediction.label, "error": prediction.error}
    found |= {"confidence": prediction.confidence, "predicted": prediction.label}
    found |= {"rejected": prediction.rejected, "argmax": prediction.argmax}
    for rank, (label, confidence) in enumerate(prediction.ranked(top)[1:], start=2):
        found |= {f"label_{rank}": label, f"confidence_{rank}": confidence}
    return found


def rows(prediction: Prediction, top: int) -> list[tuple[str, ...]]:
    """Return the best classes, and their confidence in percent."""
    best = [(label, f"{confidence:.1%}") for label, confidence in prediction.ranked(top)]
    if prediction.rejected:
        best[0] = f"{best[0][0]} ({prediction.reason})", best[0][1]
    return list(best)


def predicted(prediction: Prediction) -> str | None:
    """Return the predicted class."""
    return prediction.label


def explained(prediction: Prediction, top: int) -> list[int]:
    """Return the most probable classes; alone, the predicted one, which a threshold may have chosen."""
    assert prediction.probabilities is not None
    if top == 1 and prediction.label is not None:
        return [prediction.labels.index(prediction.label)]
    order: list[int] = np.argsort(-prediction.probabilities, kind="stable").tolist()
    return order[:top]


def stated(prediction: Prediction, place: int) -> str:
    """Return the class with its probability."""
    assert prediction.probabilities is not None
    shown = f"{prediction.labels[place]} {prediction.probabilities[place]:.1%}"
    return f"unknown ({shown})" if prediction.rejected else shown
