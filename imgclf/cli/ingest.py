"""imgclf ingest"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from imgclf.cli import options
from imgclf.config import DataConfig
from imgclf.errors import UsageError

MOST_NAMED = 20


def ingest(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="A folder of images, a zip or tar archive of one, or a table of paths and labels.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the manifest here, a new CSV file.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Make a folder of class folders here, of hard links where possible.")
    ] = None,
    with_split: Annotated[
        bool, typer.Option("--with-split", help="With --to: in train/, validation/ and test/ as train would split.")
    ] = False,
    layout: options.Layout = DataConfig.layout,
    depth: options.Depth = DataConfig.depth,
    path_column: options.PathColumn = DataConfig.path_column,
    label_column: options.LabelColumn = DataConfig.label_column,
    split_column: options.SplitColumn = DataConfig.split_column,
    group_column: options.GroupColumn = DataConfig.group_column,
    class_names: options.ClassNames = DataConfig.class_names,
    box_margin: options.BoxMargin = DataConfig.box_margin,
    box_min_size: options.BoxMinSize = DataConfig.box_min_size,
    crowd: options.Crowd = DataConfig.crowd,
    difficult: options.Difficult = DataConfig.difficult,
    allow_truncated: options.AllowTruncated = DataConfig.allow_truncated,
    labels: options.Labels = DataConfig.labels,
    rename: options.Rename = DataConfig.rename,
    class_map: options.ClassMap = DataConfig.class_map,
    classes: options.Classes = DataConfig.classes,
    limit: options.Limit = DataConfig.limit,
    val_as: options.ValAs = DataConfig.val_as,
    validation_fraction: options.ValidationFraction = DataConfig.validation_fraction,
    test_fraction: options.TestFraction = DataConfig.test_fraction,
    group_by: options.GroupBy = DataConfig.group_by,
    test_group: options.TestGroup = DataConfig.test_group,
    split_from: options.SplitFrom = DataConfig.split_from,
    seed: Annotated[
        int, typer.Option(help="Of the split, as in imgclf train.", rich_help_panel=options.SPLITTING)
    ] = DataConfig.seed,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Look at a data set: classes, counts, sizes, formats, unreadable files, and how train would split it."""
    from imgclf.cli import console
    from imgclf.data import copying, readers, splitting
    from imgclf.data.dataset import write_manifest

    console.err.quiet = quiet
    if output and os.path.lexists(output):
        raise UsageError(f"-o {output}: expected a new file, found one that exists. Choose another -o, or remove it.")
    if with_split and not to:
        raise UsageError("--with-split says how --to makes its folders; give --to, too.")
    settings = DataConfig(**{field.name: context.params[field.name] for field in fields(DataConfig)})
    with console.phases() as report:
        found = readers.read(
            data,
            settings,
            classes=() if settings.relabels else settings.class_filter,
            on_progress=lambda done, total: report("reading", done, total),
        )
        dataset, notes = splitting.prepare(found, settings)
        for note in notes:
            console.note(note)
        if to:
            given = {s.path: s.split for s in found.samples}
            sides = [s.split if with_split else given[s.path] for s in dataset.samples]
            linked, copied = copying.copy(
                dataset.with_splits(sides), to, lambda done, total: report("copying", done, total)
            )
            console.note(f"{to}: {linked:,} files linked, {copied:,} copied.")
    if json:
        console.print_json(dataset.summary())
    else:
        _print(dataset.summary())
    if output:
        try:
            write_manifest(dataset, output)
        except OSError as error:
            raise UsageError(f"-o {output}: the manifest cannot be written ({error.strerror}).") from None
        console.note(f"The manifest is in {output}. Its data have the sha256 {dataset.digest()}.")


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
