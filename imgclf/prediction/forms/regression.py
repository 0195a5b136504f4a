"""Predictions of one or several numbers for each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgclf.prediction.decision import Decision
from imgclf.prediction.forms import Common

HEADS = ("name", "value", "interval")


@dataclass(frozen=True, eq=False)
class Estimate(Common):
    """What a model says of one image: the numbers, named by `labels`."""

    @property
    def values(self) -> dict[str, float]:
        """The numbers by their names; empty for an image that cannot be read."""
        if self.output is None:
            return {}
        return {name: _short(value) for name, value in zip(self.labels, self.output, strict=True)}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The prediction intervals by their names, which contain the true number as often as `rules.coverage` says;
        empty without them."""
        widths = self.rules.widths or {}
        return {name: (_short(v - widths[name]), _short(v + widths[name])) for name, v in self.values.items() if widths}


def _short(value: float | np.floating) -> float:
    """Return the float with the fewest digits that is the same float32."""
    return float(str(np.float32(value)))


def make(output: np.ndarray | None, labels: tuple[str, ...], rules: Decision, **facts: Any) -> Estimate:
    """See `Form`."""
    return Estimate(output=output, labels=labels, rules=rules, **facts)


def to_json(prediction: Estimate, top: int) -> dict[str, object]:
    """`path`, `values` (name -> number), `intervals` (name -> [low, high]) and `error`."""
    found: dict[str, object] = {"path": prediction.path, "values": prediction.values}
    if prediction.intervals:
        found["intervals"] = {name: list(ends) for name, ends in prediction.intervals.items()}
    return found | {"error": prediction.error}


def columns(labels: Sequence[str], top: int) -> dict[str, type]:
    """`path`, then for each number `value_<name>` and the ends of its interval, `low_<name>` and `high_<name>`, and
    `error`."""
    own = [f"{part}_{name}" for name in labels for part in ("value", "low", "high")]
    return {"path": str, **dict.fromkeys(own, float), "error": str}


def cells(prediction: Estimate, top: int) -> list[object]:
    """See `Form`."""
    found = values(prediction, top)
    return [found.get(name) for name in columns(prediction.labels, top)]


def values(prediction: Estimate, top: int) -> Mapping[str, Any]:
    """See `Form`."""
    found: dict[str, Any] = {"path": prediction.path, "error": prediction.error}
    found |= {f"value_{name}": value for name, value in prediction.values.items()}
    for name, (low, high) in prediction.intervals.items():
        found |= {f"low_{name}": low, f"high_{name}": high}
    return found


def rows(prediction: Estimate, top: int) -> list[tuple[str, ...]]:
    """Return the numbers with their intervals."""
    ends = {name: f"{low:.4g} to {high:.4g}" for name, (low, high) in prediction.intervals.items()}
    return [(name, f"{value:.4g}", ends.get(name, "")) for name, value in prediction.values.items()]


def predicted(prediction: Estimate) -> None:
    """Numbers are no label."""


def explained(prediction: Estimate, top: int) -> list[int]:
    """Return the first numbers, in the order of their names."""
    return list(range(min(top, len(prediction.labels))))


def stated(prediction: Estimate, place: int) -> str:
    """Return the number with its name."""
    name = prediction.labels[place]
    return f"{name} {prediction.values[name]:.4g}"
