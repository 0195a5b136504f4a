"""imgclf card"""

from pathlib import Path
from typing import Annotated

import typer

from imgclf import runs
from imgclf.cli import options


def card(
    run: options.Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Model card; by default README.md in RUN.")
    ] = None,
) -> None:
    """Write a model card in Markdown with Hugging Face metadata."""
    from imgclf.cli import console
    from imgclf.evaluation import card as cards

    console.out.print(str(cards.write(runs.find(run), output)))
