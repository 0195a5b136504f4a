"""Gates: the minimum scores of a model, such as `accuracy=0.9,macro_f1.low=0.85`."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imgclf.errors import GateError, UsageError
from imgclf.settings import names

ENDS = (".low", ".high")

NAME, K = "NAME", "K"
"""Stand in a key for the name of a class or of a number, and for the k of top-k accuracy."""


@dataclass(frozen=True)
class Keys:
    """What gates can be set on: keys of `metrics.json`, with dots between those of objects in one another.

    Args:
        ranges: the lowest and the highest value of each key.
        losses: the keys for which lower is better. Their gates are maxima.
        intervals: where the 95% interval of a key lies; the keys without one have no `.low` and `.high`.
    """

    ranges: Mapping[str, tuple[float, float]]
    losses: frozenset[str]
    intervals: Mapping[str, str]

    def pattern(self, key: str) -> tuple[str, Mapping[str, str]] | None:
        """Return the key with `NAME` and `K`, and what they stand for; None where it is unknown."""
        base = _base(key)
        for pattern in self.ranges:
            parts = re.escape(pattern).replace(NAME, "(?P<NAME>.+)").replace(K, r"(?P<K>\d+)")
            match = re.fullmatch(parts, base)
            if match and (base == key or pattern in self.intervals):
                return pattern, match.groupdict()
        return None


def scores_and(each: str, scores: Iterable[str], of_each: Iterable[str]) -> dict[str, str]:
    """Return the places of intervals, where `intervals` has those of some scores, and also for each name in `each`."""
    found = {key: f"intervals.{key}" for key in scores}
    return found | {f"{each}.{NAME}.{key}": f"{each}.{NAME}.intervals.{key}" for key in of_each}


def parse(text: str | None, keys: Keys) -> dict[str, float]:
    """Parse the gates of a comma-separated list of `key=value`; None has none.

    Raises:
        UsageError: if a key is unknown, or a value is not a number that the score can have.
    """
    gates = {}
    for item in names(text):
        key, _, value = (part.strip() for part in item.rpartition("="))
        known = keys.pattern(key)
        if known is None:
            near = difflib.get_close_matches(key, keys.ranges, 1)
            problem = f"unknown score {key!r}" if key else f"expected key=value, found {item!r}"
            guess = f" Did you mean {near[0]}?" if near else ""
            example = next(iter(keys.intervals))
            raise UsageError(
                f"--fail-under: {problem}.{guess} The keys are {', '.join(keys.ranges)}; .low and .high are the ends "
                f"of an interval, such as {example}.low=0.9."
            )
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        low, high = keys.ranges[known[0]]
        if not low <= number <= high or math.isinf(number):
            expected = f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g} on"
            expected = expected if low > -math.inf else f"up to {high:g}"
            raise UsageError(f"--fail-under: expected a number {expected} for {key}, found {value!r}.")
        gates[key] = number
    return gates


def check(metrics: Mapping[str, Any], gates: Mapping[str, float], keys: Keys) -> None:
    """Compare the scores of a `metrics.json` with the gates.

    Raises:
        GateError: if scores miss their gates or are unknown; it names each of them.
        UsageError: if a class or a k is unknown.
    """
    short = []
    for key, gate in gates.items():
        known = keys.pattern(key)
        if known is None:
            raise UsageError(f"--fail-under: unknown score {key!r}.")
        found = _find(metrics, key, *known, keys)
        at_most = known[0] in keys.losses
        if found is None:
            short.append(f"{key} is undefined, since the images do not suffice for it")
        elif at_most and found > gate:
            short.append(f"{key} is {found:.6g}, above {gate:g}")
        elif not at_most and found < gate:
            short.append(f"{key} is {found:.6g}, below {gate:g}")
    if short:
        raise GateError(f"--fail-under: {'; '.join(short)}.")


def _find(metrics: Mapping[str, Any], key: str, pattern: str, filled: Mapping[str, str], keys: Keys) -> float | None:
    base = _base(key)
    for stands, text in filled.items():
        known = _at(metrics, pattern.partition(f".{stands}")[0], {})
        if known and text not in known:
            expected = f"expected one of {', '.join(known)}"
            if stands == K:
                expected = f"expected k in {', '.join(known)}; --top-k adds one"
            raise UsageError(f"--fail-under: {key}: unknown {'k' if stands == K else 'name'}; {expected}.")
    own: float | None = _at(metrics, pattern, filled)
    if own is None:
        _advise(metrics, key, keys)
    if base == key:
        return own
    ends = _at(metrics, keys.intervals.get(base, keys.intervals[pattern]), filled)
    return None if ends is None else ends[ENDS.index(key.removeprefix(base))]


def _advise(metrics: Mapping[str, Any], key: str, keys: Keys) -> None:
    """Name a gate on a single number, where several have no common score."""
    for pattern in keys.ranges:
        if pattern.endswith(f".{NAME}.{_base(key)}"):
            known = list(_at(metrics, pattern.partition(f".{NAME}")[0], {}) or {})
            if len(known) > 1 and all(_at(metrics, pattern, {NAME: name}) is not None for name in known):
                example = pattern.replace(NAME, known[0])
                raise UsageError(f"--fail-under: {key}: {len(known)} numbers have no common one. Name one: {example}.")


def _base(key: str) -> str:
    return key.removesuffix(ENDS[0]).removesuffix(ENDS[1])


def _at(metrics: Mapping[str, Any], pattern: str, filled: Mapping[str, str]) -> Any:
    """Return the value at a key; None where there is none."""
    found: Any = metrics
    for part in pattern.split("."):
        for stands, text in filled.items():
            part = text if part == stands else part.replace(f"_{stands}", f"_{text}")
        found = found.get(part) if isinstance(found, dict) else None
    return found
