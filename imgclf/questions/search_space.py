"""Search spaces: settings of training with the values to try, as in `backbone=a|b, lr=1e-5..1e-2:log, k=1|3|5`."""

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints

from imgclf.errors import UsageError
from imgclf.settings import DataConfig, TrainConfig
from imgclf.settings.base import items

EXAMPLE = '--search "model=knn|logreg, k=1|3|5, C=1e-3..1e2:log"'

_FIXED = {f.name for f in fields(DataConfig)} | {
    *("export", "cache", "cache_limit_gb", "device", "offline", "tensorboard", "mlflow", "time_limit"),
    *("distill", "unlabeled", "distill_temperature", "label_weight"),
}
"""Settings that say what the images are, or that change no score."""


@dataclass(frozen=True)
class Choice:
    """Some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both ends are `int`."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int)


Space = Mapping[str, Choice | Range]


def parse(text: str | None, base: TrainConfig) -> Space:
    """Read a search space.

    Args:
        base: the settings that the space changes; each value must be possible among them.

    Raises:
        UsageError: if a setting is unknown or not one of training, is named twice, or has no or impossible values.
    """
    found: dict[str, Choice | Range] = {}
    kinds = get_type_hints(TrainConfig)
    names = [f.name for f in fields(TrainConfig) if f.name not in _FIXED]
    for item in items(text):
        name, equals, values = (part.strip() for part in item.partition("="))
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--search: expected SETTING=VALUES, found {item.strip()!r}. Example: {EXAMPLE}")
        if name in _FIXED:
            raise UsageError(f"--search: {name} is not a setting to search. Give it as an option.")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"--search: expected a setting of imgclf train, found {name!r}.{hint}")
        if name in found:
            raise UsageError(f"--search: {name} is named twice.")
        own = get_args(kinds[name]) or (kinds[name],)
        found[name] = _range(name, values, own) if ".." in values else _choice(name, values, own)
        ends = found[name]
        for value in ends.values if isinstance(ends, Choice) else (ends.low, ends.high):
            replace(base, **{name: value})  # raises
    if not found:
        raise UsageError(f"--search: expected settings to try, found none. Example: {EXAMPLE}")
    return found


def _range(name: str, text: str, kinds: tuple[Any, ...]) -> Range:
    ends, _, scale = text.partition(":")
    low, high = (part.strip() for part in ends.split("..", 1))
    if scale.strip() not in ("", "log"):
        raise UsageError(f"--search: {name}: expected LOW..HIGH or LOW..HIGH:log, found {text!r}.")
    if int not in kinds and float not in kinds:
        raise UsageError(f"--search: {name} has no numbers; expected values such as a|b, found {text!r}.")
    try:
        first, last = (int(low), int(high)) if float not in kinds else (float(low), float(high))
    except ValueError:
        what = "whole numbers" if float not in kinds else "numbers"
        raise UsageError(f"--search: {name}: expected {what} as LOW..HIGH, found {text!r}.") from None
    if not first < last or not math.isfinite(last - first):
        raise UsageError(f"--search: {name}: expected a range from a lower to a higher number, found {text!r}.")
    if scale.strip() and first <= 0:
        raise UsageError(f"--search: {name}: a logarithmic range begins above 0, found {text!r}.")
    return Range(first, last, bool(scale.strip()))


def _choice(name: str, text: str, kinds: tuple[Any, ...]) -> Choice:
    values = [part.strip() for part in text.split("|")]
    if not all(values):
        raise UsageError(f"--search: {name}: expected values such as a|b or a range LOW..HIGH, found {text!r}.")
    found = tuple(_value(name, value, kinds) for value in values)
    if len(set(found)) < len(found):
        raise UsageError(f"--search: {name}: a value is there twice in {text!r}.")
    return Choice(found)


def _value(name: str, text: str, kinds: tuple[Any, ...]) -> Any:
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                pass
    if text == "none" and type(None) in kinds and str not in kinds:
        return None
    if str in kinds or not {int, float, bool} & set(kinds):
        return text
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    expected = " or ".join(word for kind, word in words.items() if kind in kinds)
    raise UsageError(f"--search: {name}: expected {expected}, found {text!r}.")


def grid(space: Space) -> list[dict[str, Any]]:
    """All combinations, in the order of the space.

    Raises:
        UsageError: if there is a range, which has no end of values.
    """
    return list(_combinations(space))


def _combinations(space: Space) -> Iterator[dict[str, Any]]:
    columns = []
    for name, own in space.items():
        if isinstance(own, Range):
            raise UsageError(f"--search: {name}: a grid takes values such as 1|3|5, found a range.")
        columns.append(own.values)
    for row in itertools.product(*columns):
        yield dict(zip(space, row, strict=True))
