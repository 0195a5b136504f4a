"""imgclf sample"""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    directory: Annotated[Path, typer.Argument(help="The folder to write to, new or empty.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Draw a small set of pictures to try imgclf on: leaves of five species, 60 of each."""
    from imgclf.cli import console
    from imgclf.data.demo import rendering

    console.err.quiet = quiet
    with console.phases() as on_progress:
        rendering.render(directory, on_progress=lambda done, total: on_progress("drawing", done, total))
    console.out.print(str(directory))
