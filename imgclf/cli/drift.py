"""imgclf drift"""

from typing import Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import DriftConfig


def drift(
    run: options.Run,
    images: Annotated[
        list[str], typer.Argument(metavar="NEW-IMAGES", help="Folders, archives, files or patterns of new images.")
    ],
    moved: options.Moved = None,
    *,
    settings: DriftConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell whether new images are still like those of a run; exit with 6 if not.

    No labels are needed.
    """
    from imgclf.cli import console

    console.err.quiet = quiet
    with console.phases() as on_progress:
        found = imgclf.drift(run, images, settings, data=moved, on_progress=on_progress)
    if json:
        console.print_json(found.to_dict())
        return found.check()
    for title, columns, rows in found.tables():
        console.table(title, columns, rows)
    console.out.print(found.caveat)
    if found.unreadable:
        console.note(f"{found.unreadable:,} new images cannot be read and are left out.")
    if not found.alarms:
        console.out.print(found.sentence)
    found.check()
