"""imgclf tune"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import TrainConfig, TuneConfig

FIXED = ("export", "time_limit", "distill", "unlabeled", "distill_temperature", "label_weight")
"""Settings of training that a search has no use for: imgclf export exports the best, and the time limit is its own."""

SHOWN = 10
"""Trials in the terminal, at most; the page and the table have all."""


def tune(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, archive or table of labeled images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="New folder, or one to continue.")
    ] = None,
    *,
    search: TuneConfig,
    settings: Annotated[TrainConfig, options.Without(FIXED)],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search the best settings of training by cross-validation.

    The best is trained on the whole training split and scored once on the test split. The same command continues a
    search that was interrupted.
    """
    from imgclf.cli import console

    console.err.quiet = quiet
    with console.phases() as on_progress:
        dataset = imgclf.read(data, settings, on_progress=partial(on_progress, "reading"))
        found = imgclf.tune(dataset, search, settings, output=output, on_progress=on_progress)
    if json:
        facts = {"sentence": found.sentence, "best": found.settings, "importance": found.importance}
        console.print_json(facts | {"trials": found.trials, "run": str(found.run.path), "metrics": found.run.scores})
        return
    names = list(found.settings)
    rows = []
    for row in found.trials[:SHOWN]:
        score = "" if row["score"] is None else f"{row['score']:.4f}"
        rows.append((row["number"], *(str(row["settings"].get(name)) for name in names), score, row["state"]))
    console.table(f"{len(found.trials)} trials, the best first", ("trial", *names, "accuracy", "state"), rows)
    console.out.print(found.sentence)
    console.note(f"Wrote {found.folder}.")
