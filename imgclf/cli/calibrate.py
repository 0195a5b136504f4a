"""imgclf calibrate"""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from imgclf import runs
from imgclf.settings import CalibrateConfig


def calibrate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    reject_below: Annotated[
        str | None, typer.Option(help='Answer "unknown" below this confidence: auto, a number, or none.')
    ] = CalibrateConfig.reject_below,
    precision: Annotated[
        float, typer.Option(help="With auto: the wanted share of right answers.")
    ] = CalibrateConfig.precision,
    coverage: Annotated[
        str | None, typer.Option(help="Answer with sets that hold the true class as often as this, or none.")
    ] = CalibrateConfig.coverage,
    outliers: Annotated[
        str | None, typer.Option(help="none: answer also for images that are unlike the training images.")
    ] = CalibrateConfig.outliers,
    positive: Annotated[
        str | None, typer.Option(help="Of two classes, the one that --threshold is for.")
    ] = CalibrateConfig.positive,
    threshold: Annotated[
        str | None, typer.Option(help="precision=P, recall=R, cost=FALSE_ALARM:MISS, or none.")
    ] = CalibrateConfig.threshold,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Set the rules by which a run's model answers, fitted on its validation part. Nothing is trained or exported."""
    from imgclf.cli import console
    from imgclf.evaluation import decisions

    config = CalibrateConfig(**{field.name: context.params[field.name] for field in fields(CalibrateConfig)})
    found = runs.find(run)
    with found.lock():
        facts, measured = decisions.calibrate(found, config)
    rules = {"temperature": facts.temperature, "reject_below": facts.reject_below, **vars(facts.decision)}
    if json:
        console.print_json({"rules": rules, "validation": measured})
        return
    console.table("Rules", ("rule", "value"), [(key.replace("_", " "), _shown(v)) for key, v in rules.items()])
    rows = [(key.replace("_", " "), _shown(value)) for key, value in measured.items()]
    console.table("On the validation part, on which they were fitted", ("measure", "value"), rows)
    console.note(f"imgclf evaluate {run} tells how they do on the test part.")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{end:.3f}" for end in value)
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
