"""imgclf explain"""

import os
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings.explanation import ExplainConfig


def explain(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, exported model, imagenet, or a name in imgclf models.")
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Files, folders, archives, patterns, or - to read a list.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="New folder for the images with their maps.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class, not the predicted one.")
    ] = None,
    *,
    settings: ExplainConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show which part of each image decided."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in imgclf predict
    import sys

    from imgclf.cli import console
    from imgclf.cli.predict import find_model
    from imgclf.prediction import sources

    console.err.quiet = quiet
    listed = sources.lines(sys.stdin.buffer if sys.stdin else None) if sources.STDIN in images else ()
    path, found = find_model(model, settings.offline), list(sources.find(images, listed))
    with console.progress("explaining", len(found)) as advance:
        rows = imgclf.explain(path, found, settings, label=label, output=output, on_progress=lambda _: advance())
    if json:
        console.print_json({"images": [row.to_dict() for row in rows]})
        return
    columns = ("path", "label", "class", "confidence", "method", "peak x", "peak y", "drawing" if output else "error")
    cells = [
        (
            *(row.path, row.label, row.target, None if row.probability is None else f"{row.probability:.4f}"),
            *(row.method, *(row.peak or (None, None)), row.drawing or row.error),
        )
        for row in rows
    ]
    shown = len(columns) if any(row[-1] for row in cells) else len(columns) - 1
    console.table(None, columns[:shown], [row[:shown] for row in cells])
