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
    if found.tests:
        rows = [
            (test.name, _short(test.known), _short(test.new), f"{test.effect:+.2f}", _p(test.p), _alarm(test.alarm))
            for test in found.tests
        ]
        title = f"{found.images:,} new images beside {found.known:,} held-out images of the run"
        console.table(title, ("measure", "run", "new", "effect", "p", ""), rows)
    shares = [(row["name"], *(f"{row[key]:.1%}" for key in ("known", "new", "corrected"))) for row in found.classes]
    console.table("Shares of the classes", ("class", "run", "new", "new, corrected"), shares)
    console.out.print(found.caveat)
    if found.unreadable:
        console.note(f"{found.unreadable:,} new images cannot be read and are left out.")
    if not found.alarms:
        console.out.print(found.sentence)
    found.check()


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _alarm(is_one: bool) -> str:
    return "alarm" if is_one else ""
