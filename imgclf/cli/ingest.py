"""imgclf ingest"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import IngestConfig

if TYPE_CHECKING:
    from imgclf.data.doctor import Checkup

MOST_LINES = 25
MOST_CLASSES = 8


def ingest(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, archive or table of labeled images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the manifest to a new CSV file.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Link or copy the images into class folders in DIR.")
    ] = None,
    with_split: Annotated[
        bool, typer.Option("--with-split", help="Add train/, validation/ and test/ to --to.")
    ] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the findings to a new HTML file.")] = None,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a CSV file for --exclude of imgclf train.")
    ] = None,
    *,
    settings: IngestConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check a dataset: classes, image sizes, problems and the split."""
    from imgclf.cli import console
    from imgclf.data import copying, doctor, preparing, readers, scan_cache
    from imgclf.data.dataset import write_manifest

    console.err.quiet = quiet
    for option, path in (("-o", output), ("--report", report), ("--quarantine", quarantine)):
        _check_new(option, path)
    if with_split and not to:
        raise UsageError("--with-split says how --to makes its folders; give --to, too.")
    forbidden = doctor.forbidden(settings.fail_on)
    with console.phases() as show, contextlib.ExitStack() as stack:
        scanner = None if settings.quick else stack.enter_context(scan_cache.Scanner(settings.allow_truncated))
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
    if settings.quick:
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
