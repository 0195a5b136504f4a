"""imgclf ingest"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import DataConfig

if TYPE_CHECKING:
    from imgclf.data.doctor import Checkup

MOST_LINES = 25
MOST_CLASSES = 8


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
    report: Annotated[
        Path | None, typer.Option(help="Write what the doctor found here, a new HTML file with thumbnails.")
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Write the files to leave out here, a new CSV file for train --exclude.")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(help="Exit with 6 if there are such findings: kinds or severities, such as leakage,error."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at names, hashes and headers alone: at no pixels, for no look-alikes.")
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
    exclude: options.Exclude = DataConfig.exclude,
    near_duplicates: options.NearDuplicates = DataConfig.near_duplicates,
    thresholds: options.Thresholds = DataConfig.thresholds,
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
    """Look at a data set: classes, counts, sizes, what is wrong with which files, and how train would split it."""
    from imgclf.cli import console
    from imgclf.data import copying, doctor, preparing, readers, scans
    from imgclf.data.dataset import write_manifest

    console.err.quiet = quiet
    for option, path in (("-o", output), ("--report", report), ("--quarantine", quarantine)):
        _check_new(option, path)
    if with_split and not to:
        raise UsageError("--with-split says how --to makes its folders; give --to, too.")
    forbidden = doctor.forbidden(fail_on)
    settings = DataConfig(**{field.name: context.params[field.name] for field in fields(DataConfig)})
    with console.phases() as show, contextlib.ExitStack() as stack:
        scanner = None if quick else stack.enter_context(scans.Scanner(settings.allow_truncated))
        found = readers.read(
            data,
            settings,
            classes=() if settings.relabels else settings.class_filter,
            on_progress=lambda done, total: show("reading", done, total),
            scanner=scanner if settings.limit is None else None,
        )
        prepared = preparing.prepare(found, settings, scanner)
        dataset, checkup = prepared.dataset, prepared.checkup
        for note in prepared.notes:
            console.note(note)
        if to:
            given = {s.path: s.split for s in found.samples}
            sides = [s.split if with_split else given[s.path] for s in dataset.samples]
            linked, copied = copying.copy(
                dataset.with_splits(sides), to, lambda done, total: show("copying", done, total)
            )
            console.note(f"{to}: {linked:,} files linked, {copied:,} copied.")
        if report:
            from imgclf.evaluation import doctor_report

            doctor_report.write(prepared.chosen, checkup, report)
            console.note(f"The report is in {report}.")
    if json:
        console.print_json(dataset.summary() | {"doctor": checkup.to_dict()})
    else:
        _print(dataset.summary(), checkup)
    if quick:
        console.note("The pixels were not looked at: blank, blurred and look-alike images, for example, are not named.")
    if output:
        _write("-o", output, lambda path: write_manifest(dataset, path))
        console.note(f"The manifest is in {output}. Its data have the sha256 {dataset.digest()}.")
    if quarantine:
        out = doctor.quarantine(prepared.chosen, checkup)
        _write("--quarantine", quarantine, lambda path: doctor.write_quarantine(out, path))
        console.note(f"{quarantine}: {len(out):,} files to leave out.")
    doctor.check(checkup, forbidden)


def _check_new(option: str, path: Path | None) -> None:
    if path and os.path.lexists(path):
        raise UsageError(f"{option} {path}: expected a new file, found one that exists. Choose another, or remove it.")


def _write(option: str, path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: it cannot be written ({error.strerror}).") from None


def _print(summary: dict[str, Any], checkup: "Checkup") -> None:
    """The summary of a dataset and of what the doctor found, in MOST_LINES lines."""
    from imgclf.cli import console

    names = list(summary["classes"])
    names = names if len(names) <= MOST_CLASSES else sorted(names, key=lambda n: -summary["classes"][n]["images"])
    shown = names if len(names) <= MOST_CLASSES else [*names[: MOST_CLASSES // 2], *names[-MOST_CLASSES // 2 + 1 :]]
    rows = [(name, *summary["classes"][name].values()) for name in shown]
    every = [list(counts.values()) for counts in summary["classes"].values()]
    if len(shown) < len(names):
        hidden = [list(summary["classes"][name].values()) for name in names if name not in shown]
        rows.insert(MOST_CLASSES // 2, (f"{len(hidden):,} more", *map(sum, zip(*hidden, strict=True))))
    console.table(
        None,
        ("class", "images", "train", "validation", "test"),
        [*rows, ("all", *map(sum, zip(*every, strict=True)))],
    )
    sizes = ", ".join(f"{name} {width} x {height}" for name, (width, height) in summary["sizes"].items())
    lines = [f"sizes: {sizes} px", f"formats: {_counted(summary['formats'])}"]
    if summary["skipped"]:
        lines.append(f"skipped: {_counted(summary['skipped'])}")
    room = MOST_LINES - (len(rows) + 5) - len(lines)
    found = checkup.lines()
    fits = len(found) if len(found) <= room else room - 1
    lines += found[:fits] or ["nothing wrong was found"]
    if len(found) > fits:
        lines.append(f"{len(found) - fits} more kinds of findings; --json and --report name all of them")
    for line in lines:
        console.out.print(line, soft_wrap=True)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())
