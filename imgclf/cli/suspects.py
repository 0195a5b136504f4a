"""imgclf suspects"""

from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import SuspectsConfig


def suspects(
    source: options.DataOrRun,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write FILE.csv to mark, and a page with thumbnails."),
    ] = None,
    moved: options.Moved = None,
    *,
    settings: SuspectsConfig,
    given: options.Given,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find images whose label is probably wrong, by confident learning."""
    from imgclf.cli import console
    from imgclf.questions import pages

    console.err.quiet = quiet
    if output:
        pages.check_name(output)
    with console.phases() as on_progress:
        data = options.open_source(source, settings, given, ("top", "folds", "output"), on_progress)
        found = imgclf.suspects(data, settings, data=moved, on_progress=on_progress)
        written = found.write(output) if output else []
    if json:
        console.print_json(found.to_dict() | {"files": [str(file) for file in written]})
        return
    console.answer(found)
    if written:
        console.note(f"Wrote {written[0]} and {written[1]}.")
