"""imgclf curves"""

from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf import storage
from imgclf.cli import options
from imgclf.settings import CurvesConfig


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
        storage.refuse_suffix(output, question.SUFFIX)
    with console.phases() as on_progress:
        data = options.open_source(source, settings, given, ("sizes", "repeats", "capacity", "output"), on_progress)
        found = imgclf.curves(data, settings, data=moved, on_progress=on_progress)
        if output:
            found.write(output)
    if json:
        console.print_json(found.to_dict())
        return
    console.answer(found)
    if output:
        console.note(f"Wrote {output}.")
