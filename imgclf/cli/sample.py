"""imgclf sample"""

from pathlib import Path
from typing import Annotated

import typer

from imgclf import tasks
from imgclf.cli import options


def sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder for the images.")],
    task: Annotated[
        str, typer.Option(metavar="TASK", help=f"What the images are for: {', '.join(tasks.names())}.")
    ] = tasks.DEFAULT,
    quiet: options.Quiet = False,
) -> None:
    """Draw a sample dataset, by default leaves of five species, 60 images each.

    For multilabel: images with several shapes. For regression: leaves with a share of damage.
    """
    from imgclf.cli import console
    from imgclf.data import demo

    console.err.quiet = quiet
    with console.phases() as on_progress:
        demo.render(directory, task, on_progress=lambda done, total: on_progress("drawing", done, total))
    console.out.print(str(directory))
