"""imgclf curves"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import CurvesConfig

if TYPE_CHECKING:
    from imgclf.questions.curves import Point


def curves(
    source: options.DataOrRun,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw the curves: FILE.png.")
    ] = None,
    moved: options.Moved = None,
    *,
    settings: CurvesConfig,
    given: options.Given,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show accuracy by training size and by capacity: would more data help?"""
    from imgclf.cli import console
    from imgclf.questions import curves as question

    console.err.quiet = quiet
    if output:
        question.check_name(output)
    with console.phases() as on_progress:
        data = options.open_source(source, settings, given, ("sizes", "repeats", "output"), on_progress)
        found = imgclf.curves(data, settings, data=moved, on_progress=on_progress)
        if output:
            found.write(output)
    if json:
        console.print_json(found.to_dict())
        return
    columns = ("training", "95% CI", "validation", "95% CI")
    console.table("Accuracy by training size", ("images", *columns), map(_row, found.sizes))
    if found.capacity:
        name = found.parameter.replace("_", " ")
        console.table(f"Accuracy by {name}", (name, *columns), map(_row, found.capacity))
    console.out.print(found.sentence)
    if output:
        console.note(f"Wrote {output}.")


def _row(point: "Point") -> tuple[str, ...]:
    value = "no limit" if point.value is None else f"{point.value:g}"
    pairs = ((point.training, point.training_interval), (point.validation, point.validation_interval))
    cells = ((f"{score:.3f}", f"{low:.3f} to {high:.3f}") for score, (low, high) in pairs)
    return (value, *(text for pair in cells for text in pair))
