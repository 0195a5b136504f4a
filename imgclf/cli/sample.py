"""imgclf sample"""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import options


def sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder for the images.")],
    quiet: options.Quiet = False,
) -> None:
    """Draw a sample dataset: leaves of five species, 60 images each."""
    from imgclf.cli import console
    from imgclf.data.demo import rendering

    console.err.quiet = quiet
    with console.phases() as on_progress:
        rendering.render(directory, on_progress=lambda done, total: on_progress("drawing", done, total))
    console.out.print(str(directory))
