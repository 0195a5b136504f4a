"""imgclf ingest"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import IngestConfig

if TYPE_CHECKING:
    from imgclf.data.doctor import Checkup

FOUND = ("empty-class", "not-an-image", "unreadable")
"""The kinds of skipped files that the findings name."""

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

    console.err.quiet = quiet
    with console.phases() as on_progress:
        places: dict[str, Path | None] = {"output": output, "to": to, "report": report, "quarantine": quarantine}
        result = imgclf.ingest(data, settings, **places, with_split=with_split, on_progress=on_progress)
    if json:
        console.print_json(result.to_dict())
    else:
        _print(result.dataset.summary(), result.checkup)
    result.check()


def _print(summary: dict[str, Any], checkup: "Checkup") -> None:
    """Print the summary of a dataset and of the findings in at most MOST_LINES lines."""
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
    others = {kind: count for kind, count in summary["skipped"].items() if kind not in FOUND}
    if others:
        lines.append(f"left out besides: {_counted(others)}")
    room = MOST_LINES - (len(rows) + 5) - len(lines)
    found = checkup.lines()
    fits = len(found) if len(found) <= room else room - 1
    lines += found[:fits] or ["no problems found"]
    if len(found) > fits:
        lines.append(f"{len(found) - fits} more kinds of findings; --json and --report list all")
    for line in lines:
        console.out.print(line, soft_wrap=True)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())
