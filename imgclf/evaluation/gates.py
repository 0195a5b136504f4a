"""Gates: the least scores with which a model passes, such as `accuracy=0.9,macro_f1=0.85`."""

from typing import Any

from imgclf.config import names
from imgclf.errors import GateError, UsageError
from imgclf.evaluation.metrics import INTERVALS, SCORES

KEYS = (*SCORES, *(f"{name}.low" for name in INTERVALS))
"""What a gate can be set on; `.low` is the lower end of a score's 95 % interval."""


def parse(text: str | None) -> dict[str, float]:
    """The gates of a comma-separated list of `key=value`; none for None.

    Raises:
        UsageError: if a key is unknown, or a value is no number from 0 to 1.
    """
    gates = {}
    for item in names(text):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in KEYS:
            raise UsageError(f"--fail-under: expected key=value with a key among {', '.join(KEYS)}; found {item!r}.")
        try:
            gates[key] = float(value)
        except ValueError:
            gates[key] = -1.0
        if not 0 <= gates[key] <= 1:
            raise UsageError(f"--fail-under: expected a number from 0 to 1 for {key}, found {value!r}.")
    return gates


def check(metrics: dict[str, Any], gates: dict[str, float]) -> None:
    """Compare the scores of `metrics.score` with the gates.

    Raises:
        GateError: if a score is below its gate, naming each such.
    """
    found = {key: metrics["intervals"][key[:-4]][0] if key.endswith(".low") else metrics[key] for key in gates}
    short = [f"{key} is {found[key]:.6g}, below {least:g}" for key, least in gates.items() if found[key] < least]
    if short:
        raise GateError(f"--fail-under: {'; '.join(short)}.")
