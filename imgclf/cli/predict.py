"""imgclf predict"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from imgclf.config import PredictConfig
from imgclf.errors import ArtifactError, DatasetError, UsageError

if TYPE_CHECKING:
    from imgclf.prediction import Prediction

FILE_FORMATS = ("jsonl", "csv")

TABLE_LIMIT = 100
"""So many images and more are printed as plain lines while they come, fewer as a table at the end."""


def predict(
    model: Annotated[str, typer.Argument(help="A run folder, an exported model, or a name from imgclf models.")],
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns such as 'photos/**/*.jpg', or - for a list on stdin.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A new file, .jsonl or .csv.")] = None,
    top: Annotated[int, typer.Option(help="How many of the most probable classes.")] = PredictConfig.top,
    format: Annotated[str, typer.Option(help="table, jsonl or csv.")] = PredictConfig.format,
    batch_size: Annotated[int, typer.Option(help="Images decoded ahead of the model.")] = PredictConfig.batch_size,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Take what there is of a file that is cut short.")
    ] = PredictConfig.allow_truncated,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if an image is broken.")] = PredictConfig.strict,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = PredictConfig.offline,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Say what images show."""
    from imgclf import prediction
    from imgclf.prediction import outputs, sources

    if quiet:
        from imgclf.cli import console

        console.err.quiet = True
    config = PredictConfig(top, _format(format, output), batch_size, allow_truncated, strict, offline)
    tally = _Tally()
    with outputs.create(output) if output else nullcontext(sys.stdout) as file:
        classifier = prediction.load(_artefact(model, config.offline), allow_truncated=config.allow_truncated)
        found = sources.find(images, sys.stdin.buffer if sources.STDIN in images else ())
        predictions = tally.count(classifier.stream(found, config.batch_size))
        if config.format == "table":
            _print_table(predictions, config.top)
        elif config.format == "csv":
            _write(outputs.to_csv(_watched(predictions, file), config.top), file)
        else:
            ascii_only = (file.encoding or "").lower().replace("-", "") != "utf8"
            _write(outputs.to_jsonl(_watched(predictions, file), config.top, ascii_only=ascii_only), file)
    tally.report(config.strict)


class _Tally:
    """Counts the predictions that pass, and those of broken images."""

    def __init__(self) -> None:
        self.total = self.broken = 0
        self.example = ""

    def count(self, predictions: "Iterable[Prediction]") -> "Iterator[Prediction]":
        for prediction in predictions:
            self.total += 1
            if prediction.error is not None:
                self.broken += 1
                self.example = self.example or f"{prediction.path}: {prediction.error}"
            yield prediction

    def report(self, strict: bool) -> None:
        """Say how many images were broken; with `strict`, as an error."""
        if not self.broken:
            return
        message = f"{self.broken} of {self.total} images cannot be read, such as {self.example}"
        if strict:
            raise DatasetError(f"{message}. Without --strict that is no failure.")
        from imgclf.cli import console

        console.note(message)


def _format(format: str, output: Path | None) -> str:
    """The format for a file follows from its name where it is not given: a table is for the screen."""
    if output is None:
        return format
    suffix = output.suffix.lower().removeprefix(".")
    if format != "table":
        if suffix in FILE_FORMATS and format in FILE_FORMATS and suffix != format:
            raise UsageError(f"-o {output}: expected a name that ends in .{format}, as --format says, found .{suffix}.")
        return format
    if suffix not in FILE_FORMATS:
        raise UsageError(f"-o {output}: expected a name that ends in .jsonl or .csv, or --format jsonl or csv.")
    return suffix


def _artefact(model: str, offline: bool) -> Path:
    """What exists under this name, else the backbone of this name with ImageNet's labels."""
    if Path(model).exists():
        return Path(model)
    from imgclf.models import catalog

    try:
        name = catalog.find(model).name
    except UsageError as error:
        raise ArtifactError(
            f"{model}: expected a run folder or an exported model, found nothing there; {error}"
        ) from None
    from imgclf.cli import console
    from imgclf.export import pretrained

    with console.phases() as on_progress:
        return pretrained.artifact(name, offline=offline, on_progress=on_progress)


def _print_table(predictions: "Iterator[Prediction]", top: int) -> None:
    from imgclf.cli import console
    from imgclf.prediction import outputs

    first: list[Prediction] = []
    try:
        with console.progress("predicting") as advance:
            for prediction in islice(predictions, TABLE_LIMIT):
                first.append(prediction)
                advance()
    finally:  # also when interrupted: what is finished is printed
        rows = [row for prediction in first for row in outputs.to_rows(prediction, top)]
        columns = ("path", "label", "confidence", "error")
        shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
        if 0 < len(first) < TABLE_LIMIT:
            console.table(None, columns[:shown], [row[:shown] for row in rows])
        else:
            _write((outputs.to_text(prediction, top) for prediction in first), sys.stdout)
    _write((outputs.to_text(prediction, top) for prediction in predictions), sys.stdout)


def _write(lines: Iterable[str], file: TextIO) -> None:
    for line in lines:
        file.write(line)
        file.flush()


def _watched(predictions: "Iterator[Prediction]", file: TextIO) -> "Iterator[Prediction]":
    """The same predictions, with their progress on stderr unless they show it themselves by appearing on the screen."""
    if file.isatty() or not sys.stderr.isatty():
        yield from predictions
        return
    from imgclf.cli import console

    with console.progress("predicting") as advance:
        for prediction in predictions:
            yield prediction
            advance()
