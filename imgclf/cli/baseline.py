"""imgclf baseline"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import BaselineConfig


def baseline(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, archive or table of labeled images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a report, such as baseline.html.")
    ] = None,
    *,
    settings: BaselineConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare simple classifiers with networks on the same folds: is the network worth it?"""
    from imgclf.cli import console

    console.err.quiet = quiet
    with console.phases() as on_progress:
        dataset = imgclf.read(data, settings, on_progress=partial(on_progress, "reading"))
        found = imgclf.baseline(dataset, settings, on_progress=on_progress)
        if output:
            found.write(output)
    if json:
        console.print_json({"rows": found.rows, "sentence": found.sentence})
        return
    rows = []
    for row in found.rows:
        low, high = row["interval"]
        rows.append((row["name"], f"{row['accuracy']:.3f}", f"{low:.3f} to {high:.3f}", row["seconds"], row["note"]))
    title = f"{found.images} images, each tested once in {found.folds} folds"
    console.table(title, ("classifier", "accuracy", "95% CI", "s", "note"), rows)
    console.out.print(found.sentence)
