"""imgclf calibrate"""

from collections.abc import Mapping
from typing import Any

import imgclf
from imgclf.cli import options
from imgclf.settings import CalibrateConfig


def calibrate(run: options.Run, *, settings: CalibrateConfig, json: options.Json = False) -> None:
    """Set the rules by which a run's model predicts, fitted on its validation split.

    Nothing is trained or exported.
    """
    from imgclf.cli import console

    facts, measured = imgclf.calibrate(run, settings)
    rules = {"temperature": facts.temperature, **vars(facts.decision)}
    if json:
        console.print_json({"rules": rules, "validation": measured})
        return
    console.table("Rules", ("rule", "value"), _rows(rules))
    support = ", ".join(f"{name} {count}" for name, count in measured["support"].items())
    shown = {key: value for key, value in measured.items() if key not in ("rules", "support")}
    console.table(f"On the validation split ({support}), on which they were fitted", ("measure", "value"), _rows(shown))
    console.note(f"Run imgclf evaluate {run} to score them on the test split.")


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _shown(value)) for key, value in values.items() if value is not None]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{end:.3f}" for end in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number:.4g}" for name, number in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
