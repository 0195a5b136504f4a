"""imgclf ingest"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from imgclf.config import TrainConfig
from imgclf.errors import UsageError

MOST_NAMED = 20


def ingest(
    data: Annotated[Path, typer.Argument(help="A folder with one sub-folder of images per class.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the manifest here, a new CSV file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, as in imgclf train.")] = TrainConfig.seed,
    val_as: Annotated[
        str, typer.Option(help="What a given val/ without a test/ is for: test or validation.")
    ] = TrainConfig.val_as,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Look at a folder of images: classes, counts, sizes, formats, unreadable files, and how train would split it."""
    from imgclf.cli import console
    from imgclf.data import readers, splitting
    from imgclf.data.dataset import write_manifest

    console.err.quiet = quiet
    if output and os.path.lexists(output):
        raise UsageError(f"-o {output}: expected a new file, found one that exists. Choose another -o, or remove it.")
    settings = TrainConfig(seed=seed, val_as=val_as)
    with console.phases() as report:
        found = readers.read(data, on_progress=lambda done, total: report("reading", done, total))
    dataset, notes = splitting.split(
        found,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        val_as=settings.val_as,
        seed=settings.seed,
    )
    for note in notes:
        console.note(note)
    if json:
        console.print_json(dataset.summary())
    else:
        _print(dataset.summary())
    if output:
        try:
            write_manifest(dataset, output)
        except OSError as error:
            raise UsageError(f"-o {output}: the manifest cannot be written ({error.strerror}).") from None
        console.note(f"The manifest is in {output}.")


def _print(summary: dict[str, Any]) -> None:
    """The summary of a dataset as a table and a few lines."""
    from imgclf.cli import console
    from imgclf.data.dataset import listed

    rows = [(name, *counts.values()) for name, counts in summary["classes"].items()]
    total = ("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True)))
    console.table(None, ("class", "images", "train", "validation", "test"), [*rows, total])
    sizes = ", ".join(f"{name} {width} x {height}" for name, (width, height) in summary["sizes"].items())
    lines = [f"sizes: {sizes} px", f"formats: {_counted(summary['formats'])}"]
    if summary["skipped"]:
        lines.append(f"skipped: {_counted(summary['skipped'])}")
    if summary["empty_classes"]:
        lines.append(f"classes without images: {listed(summary['empty_classes'])}")
    unreadable = summary["unreadable"]
    lines += [f"unreadable: {listed([file['path']])}: {file['reason']}" for file in unreadable[:MOST_NAMED]]
    if len(unreadable) > MOST_NAMED:
        lines.append(f"unreadable: {len(unreadable) - MOST_NAMED} more; --json names all")
    for line in lines:
        console.out.print(line, soft_wrap=True)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())
