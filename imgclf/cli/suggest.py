"""imgclf suggest"""

from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import SuggestConfig


def suggest(
    run: options.Run,
    folder: Annotated[Path, typer.Argument(metavar="UNLABELED", help="Folder of unlabeled images.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write FILE.csv to fill in, and a page with thumbnails."),
    ] = None,
    moved: options.Moved = None,
    *,
    settings: SuggestConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose the unlabeled images whose labels would help a run's model most."""
    from imgclf.cli import console
    from imgclf.questions import pages

    console.err.quiet = quiet
    if output:
        pages.check_name(output)
    with console.phases() as on_progress:
        found = imgclf.suggest(run, folder, settings, data=moved, on_progress=on_progress)
        written = found.write(output) if output else []
    if json:
        console.print_json(found.to_dict() | {"files": [str(file) for file in written]})
        return
    console.answer(found)
    if written:
        console.note(f"Wrote {written[0]} and {written[1]}.")
