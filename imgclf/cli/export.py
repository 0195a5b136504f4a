"""imgclf export"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from imgclf import runs
from imgclf.errors import UsageError
from imgclf.settings import QUANTIZATIONS, TrainConfig, names


def export(
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="litert, savedmodel, onnx, openvino, keras, backbone, or several with commas.  "
            f"[default: {TrainConfig.export}]",
            show_default=False,
        ),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Every format and precision that is possible here.")] = False,
    quantize: Annotated[str, typer.Option(help="LiteRT in fewer bits: none, float16 or int8.")] = QUANTIZATIONS[0],
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Write a run's model for use elsewhere, and prove that it answers as the trained one does."""
    from imgclf.cli import console
    from imgclf.exporting import artifacts

    console.err.quiet = quiet
    found = runs.find(run)
    formats = artifacts.everything(found) if all else _formats(format, quantize)
    with found.lock(), console.phases() as on_progress:
        rows = artifacts.export(found, formats, on_progress=on_progress)
    if json:
        console.print_json(rows)
    else:
        _print(rows)


def _formats(format: str | None, quantize: str) -> list[str]:
    """The names of `artifacts.FILES` that the options mean."""
    if quantize not in QUANTIZATIONS:
        raise UsageError(f"--quantize: expected one of {', '.join(QUANTIZATIONS)}, found {quantize!r}.")
    if quantize == "none":
        return list(names(TrainConfig.export if format is None else format))
    formats = names("litert" if format is None else format)
    if "litert" not in formats:
        raise UsageError(f"--quantize {quantize}: expected litert in --format, found {format}. Only LiteRT has it.")
    return [f"litert-{quantize}" if name == "litert" else name for name in formats]


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
    console.table(f"Compared with Keras on {rows[0]['compared']} {rows[0]['compared_on']}", columns, cells)
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
    console.table(f"On {found['images']} images of the test part", columns, cells)
