"""imgclf predict"""

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from imgclf.cli import options
from imgclf.errors import ArtifactError
from imgclf.settings import PredictConfig

if TYPE_CHECKING:
    from imgclf.prediction import Classifier
    from imgclf.prediction.forms import Answer, Writing

TABLE_LIMIT = 100
"""From this number of images on, each is printed as a line at once, instead of all as a table at the end."""


def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, exported model, imagenet, or a name in imgclf models.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Files, folders, archives, patterns, or - to read a list."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="New .jsonl, .csv, .parquet or .xlsx file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Predict only what FILE lacks, and append it.")] = False,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Link or copy images into one folder per class.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write embeddings to a new .npz or .parquet file."), options.Rare
    ] = None,
    watch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep running and classify what comes into DIR.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw where the model looked, into a new folder.")
    ] = None,
    *,
    settings: PredictConfig,
    quiet: options.Quiet = False,
) -> None:
    """Classify images."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads for NumPy, which has next to nothing to do, cost 20 ms
    from imgclf import prediction
    from imgclf.prediction import batch as batches

    if quiet:  # the console costs time to import
        from imgclf.cli import console

        console.err.quiet = True
    batch = batches.Batch(settings, tuple(images or ()), output, resume, sort_into, embeddings, watch, explain)
    how = {name: getattr(settings, name) for name in ("precision", "allow_truncated", "reject_below")}
    how["engine"] = "litert" if explain else settings.engine

    def load(count: int | None) -> "Classifier":
        return prediction.load(place, count=count, **how)

    place = find_model(model, settings.offline)
    writing = _writing(place, settings, sort_into, explain)

    def table(found: "Iterator[Answer]") -> None:
        _print_table(found, settings.top, batch.is_live, writing)

    batches.run(batch, load, table=table, track=_track, writing=writing)


def _writing(model: Path, settings: PredictConfig, sort_into: Path | None, explain: Path | None) -> "Writing":
    """How the predictions of a model are written, after a check that its task can do what is asked for."""
    from imgclf import tasks
    from imgclf.prediction import loading
    from imgclf.prediction.forms import Writing

    facts = loading.describe(model)
    asked = {
        "--sort-into": sort_into,
        "--reject-below": settings.reject_below,
        "--engine ray": settings.engine == "ray",
        "--explain": explain,
    }
    for option, value in asked.items():
        if value not in (None, False):
            tasks.refuse(facts.task, option)
    return Writing(facts.task, facts.labels, settings.neighbors or 0)


def find_model(model: str, offline: bool) -> Path:
    """Return the path of a model, or the exported backbone of this name with ImageNet's classes."""
    if Path(model).exists():
        return Path(model)
    from imgclf.models import catalog

    facts = catalog.get(catalog.DEFAULT if model == catalog.IMAGENET else model)
    if facts is None:
        raise ArtifactError(
            f"{model}: expected a run, an exported model, or the name of a backbone, found none of these. "
            f"{catalog.nearest(model)}"
        )
    from imgclf.cli import console
    from imgclf.exporting import pretrained

    with console.phases() as on_progress:
        return pretrained.artifact(facts.name, offline=offline, on_progress=on_progress)


def _print_table(predictions: "Iterator[Answer]", top: int, live: bool, writing: "Writing") -> None:
    from imgclf.cli import console
    from imgclf.prediction import batch, outputs

    if live:
        batch.write_lines((outputs.to_text(prediction, top, writing) for prediction in predictions), sys.stdout)
        return
    first: list[Answer] = []
    try:
        with console.progress("predicting") as advance:
            for prediction in islice(predictions, TABLE_LIMIT):
                first.append(prediction)
                advance()
    finally:  # also when interrupted: what is finished is printed
        rows = [row for prediction in first for row in outputs.to_rows(prediction, top, writing)]
        columns = outputs.heads(writing)
        shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
        if 0 < len(first) < TABLE_LIMIT:
            console.table(None, columns[:shown], [row[:shown] for row in rows])
        else:
            batch.write_lines((outputs.to_text(prediction, top, writing) for prediction in first), sys.stdout)
    batch.write_lines((outputs.to_text(prediction, top, writing) for prediction in predictions), sys.stdout)


def _track(predictions: "Iterator[Answer]", file: TextIO | None) -> "Iterator[Answer]":
    """Show the progress on stderr, unless the predictions appear on the screen."""
    if file and (file.isatty() or not sys.stderr.isatty()):
        yield from predictions
        return
    from imgclf.cli import console

    with console.progress("predicting") as advance:
        for prediction in predictions:
            yield prediction
            advance()
