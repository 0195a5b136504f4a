"""imgclf export"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import ExportConfig


def export(
    run: options.Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="New or empty folder; by default RUN.")
    ] = None,
    *,
    settings: ExportConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a run's model and verify its predictions against the trained model."""
    from imgclf.cli import console

    console.err.quiet = quiet
    refused = None
    with console.phases(console.LOADING) as on_progress:
        try:
            rows = imgclf.export(run, settings, output=output, on_progress=on_progress)
        except imgclf.ExportError as error:
            rows, refused = error.rows, error
    if json:
        console.print_json(rows)
    elif rows:
        _print(rows)
    if refused:
        raise refused


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from imgclf.cli import console

    columns = ("file", "in", "MiB", "s", "max diff", "from bytes", "labels")
    cells = []
    for row in rows:
        from_bytes = row["max_difference_from_bytes"]
        cells.append(
            (
                row["file"],
                row["precision"],
                f"{row['bytes'] / 2**20:.1f}",
                f"{row['seconds']:.1f}",
                f"{row['max_difference']:.1e}",
                None if from_bytes is None else f"{from_bytes:.1e}",
                f"{row['label_agreement']:.0%}",
            )
        )
    console.table(f"Compared with the trained model on {rows[0]['compared']} {rows[0]['compared_on']}", columns, cells)
    for row in rows:
        if row["quality"]:
            _print_quality(row, row["quality"])


def _print_quality(row: dict[str, Any], found: dict[str, Any]) -> None:
    from imgclf.cli import console

    columns = (row["file"], "accuracy", "same labels", "images/s", "MiB")
    before = ("float32", f"{found['accuracy_before']:.4f}", None, f"{found['images_per_s_before']:.0f}")
    after = (
        row["precision"],
        f"{found['accuracy']:.4f}",
        f"{found['label_agreement']:.1%}",
        f"{found['images_per_s']:.0f}",
    )
    cells = [(*before, f"{found['bytes_before'] / 2**20:.1f}"), (*after, f"{row['bytes'] / 2**20:.1f}")]
    console.table(f"On {found['images']} images of the test split", columns, cells)
