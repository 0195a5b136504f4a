"""Gates: the minimum scores of a model, such as `accuracy=0.9,macro_f1.low=0.85`."""

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

from imgclf.errors import GateError, UsageError
from imgclf.evaluation.metrics import INTERVALS, LOSSES, SCORES
from imgclf.evaluation.sums import PER_CLASS
from imgclf.settings import names

ENDS = (".low", ".high")

_RULES = (
    *("answered", "unsure", "outlier", "precision", "set_coverage", "set_size"),
    *("positive_precision", "positive_recall", "positive_specificity"),
)
"""What the rules make of the images: shares, and the mean size of a prediction set."""

_RULE_ENDS = {
    "precision": "interval",
    "set_coverage": "set_interval",
    **{key: f"{key}_interval" for key in ("positive_precision", "positive_recall", "positive_specificity")},
}

_AT_MOST = (
    *(*LOSSES, "calibration.ece", "calibration.mce"),
    *("decision.unsure", "decision.outlier", "decision.set_size"),
)
"""Lower is better here: the gate is a maximum."""

_OF_CLASS = (*PER_CLASS, "roc_auc", "average_precision", "support")
_END = "(?P<end>[.]low|[.]high)?"
_KEY = re.compile(
    rf"(?P<plain>{'|'.join((*SCORES, *LOSSES))}|top_k[.]\d+){_END}|n|calibration[.][em]ce"
    rf"|decision[.](?:(?P<rule>{'|'.join(_RULES)})|(?P<share>{'|'.join(_RULE_ENDS)}){_END.replace('end', 'rule_end')})"
    rf"|per_class[.](?P<class>.+)[.](?P<score>{'|'.join(_OF_CLASS)}){_END.replace('end', 'class_end')}"
)

KEYS = (
    *("n", *INTERVALS, "top_k.K", "calibration.ece", "calibration.mce"),
    *(f"per_class.NAME.{score}" for score in _OF_CLASS),
    *(f"decision.{rule}" for rule in _RULES),
)
"""What a gate can be set on; `.low` and `.high` are the ends of a score's 95% interval."""


def parse(text: str | None) -> dict[str, float]:
    """Parse the gates of a comma-separated list of `key=value`; None has none.

    Raises:
        UsageError: if a key is unknown, or a value is not a number that the score can have.
    """
    gates = {}
    for item in names(text):
        key, _, value = (part.strip() for part in item.rpartition("="))
        if not _KEY.fullmatch(key):
            near = difflib.get_close_matches(key, KEYS, 1)
            problem = f"unknown score {key!r}" if key else f"expected key=value, found {item!r}"
            guess = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"--fail-under: {problem}.{guess} The keys are {', '.join(KEYS)}; .low and .high are the ends of an "
                "interval, such as accuracy.low=0.9."
            )
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        low, high = _range(key)
        if not low <= number <= high or math.isinf(number):
            expected = f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g} on"
            raise UsageError(f"--fail-under: expected a number {expected} for {key}, found {value!r}.")
        gates[key] = number
    return gates


def _range(key: str) -> tuple[float, float]:
    base = key.removesuffix(".low").removesuffix(".high")
    if base in (*LOSSES, "n", "decision.set_size") or base.endswith(".support"):
        return 0.0, math.inf
    return (-1.0 if base in ("cohen_kappa", "matthews") else 0.0), 1.0


def check(metrics: dict[str, Any], gates: Mapping[str, float]) -> None:
    """Compare the scores of `metrics.score` with the gates.

    Raises:
        GateError: if scores miss their gates or are unknown; it names each of them.
        UsageError: if a class or a k is unknown.
    """
    short = []
    for key, gate in gates.items():
        found = _find(metrics, key)
        at_most = key.removesuffix(".low").removesuffix(".high") in _AT_MOST
        if found is None:
            short.append(f"{key} is undefined, since the images do not suffice for it")
        elif at_most and found > gate:
            short.append(f"{key} is {found:.6g}, above {gate:g}")
        elif not at_most and found < gate:
            short.append(f"{key} is {found:.6g}, below {gate:g}")
    if short:
        raise GateError(f"--fail-under: {'; '.join(short)}.")


def _find(metrics: dict[str, Any], key: str) -> float | None:
    match = _KEY.fullmatch(key)
    if match is None:
        raise UsageError(f"--fail-under: unknown score {key!r}.")
    if name := match["class"]:
        if name not in metrics["per_class"]:
            raise UsageError(f"--fail-under: {key}: unknown class; expected one of {', '.join(metrics['per_class'])}.")
        row = metrics["per_class"][name]
        if match["class_end"]:
            return _end(row["intervals"], match["score"], match["class_end"])
        return row[match["score"]]
    rules = metrics.get("decision", {})
    if rule := match["rule"]:
        return rules.get(rule)
    if share := match["share"]:
        return _end(rules, _RULE_ENDS[share], match["rule_end"])
    if plain := match["plain"]:
        if plain.startswith("top_k."):
            k = plain.removeprefix("top_k.")
            if k not in metrics["top_k"]:
                raise UsageError(f"--fail-under: {key}: expected k in {', '.join(metrics['top_k'])}; --top-k adds one.")
            if not match["end"]:
                return metrics["top_k"][k]
            if k == "1":
                return _end(metrics["argmax"]["intervals"], "accuracy", match["end"])
            plain = f"top_{k}"
        return _end(metrics["intervals"], plain, match["end"]) if match["end"] else metrics[plain]
    return metrics["n"] if key == "n" else metrics["calibration"][key.removeprefix("calibration.")]


def _end(entries: dict[str, Any], name: str, end: str) -> float | None:
    ends = entries.get(name)
    return None if ends is None else ends[ENDS.index(end)]
