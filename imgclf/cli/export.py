"""imgclf export"""

from pathlib import Path
from typing import Annotated, Any

import typer

from imgclf import runs
from imgclf.config import TrainConfig, names


def export(
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    format: Annotated[
        str, typer.Option(help="litert, savedmodel, backbone, or several with commas.")
    ] = TrainConfig.export,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Write a run's model for use elsewhere, and prove that it answers as the trained one does."""
    from imgclf.cli import console
    from imgclf.export import artifacts

    console.err.quiet = quiet
    found = runs.find(run)
    with found.lock(), console.phases() as on_progress:
        rows = artifacts.export(found, names(format), on_progress=on_progress)
    if json:
        console.print_json(rows)
    else:
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from imgclf.cli import console

    columns = ("format", "file", "MiB", "s", "max diff", "from bytes", "labels")
    cells = []
    for row in rows:
        from_bytes = row["max_difference_from_bytes"]
        cells.append(
            (
                row["format"],
                row["file"],
                f"{row['bytes'] / 2**20:.1f}",
                f"{row['seconds']:.1f}",
                f"{row['max_difference']:.1e}",
                None if from_bytes is None else f"{from_bytes:.1e}",
                f"{row['label_agreement']:.0%}",
            )
        )
    console.table(f"Compared with Keras on {rows[0]['compared']} {rows[0]['compared_on']}", columns, cells)
