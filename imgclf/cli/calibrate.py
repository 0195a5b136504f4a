"""imgclf calibrate"""

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
    console.table("Rules", ("rule", "value"), [(key.replace("_", " "), _shown(v)) for key, v in rules.items()])
    rows = [(key.replace("_", " "), _shown(value)) for key, value in measured.items() if key != "rules"]
    console.table("On the validation split, on which they were fitted", ("measure", "value"), rows)
    console.note(f"Run imgclf evaluate {run} to score them on the test split.")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{end:.3f}" for end in value)
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
