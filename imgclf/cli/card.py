"""imgclf card"""

from pathlib import Path
from typing import Annotated

import typer

from imgclf import runs


def card(
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; else README.md in the run.")] = None,
) -> None:
    """Write a run's model card: Markdown, with the metadata that Hugging Face reads."""
    from imgclf.cli import console
    from imgclf.evaluation import card as cards

    console.out.print(str(cards.write(runs.find(run), output)))
