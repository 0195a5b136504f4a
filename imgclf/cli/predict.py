"""imgclf predict"""

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from imgclf.cli import options
from imgclf.errors import ArtifactError, DatasetError, UsageError
from imgclf.settings import PredictConfig

if TYPE_CHECKING:
    from imgclf.prediction import Classifier, Prediction

FILE_FORMATS = ("jsonl", "csv", "parquet")
RESUMABLE = ("jsonl", "csv")

TABLE_LIMIT = 100
"""So many images and more are printed as plain lines while they come, fewer as a table at the end."""


def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, exported model, imagenet, or a name in imgclf models.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Files, folders, archives, patterns, or - to read a list."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="New .jsonl, .csv or .parquet file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Predict only what FILE lacks, and append it.")] = False,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Link or copy images into one folder per class.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write embeddings to a new .npz or .parquet file."), options.Rare
    ] = None,
    watch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep running and classify new files in DIR.")
    ] = None,
    *,
    settings: PredictConfig,
    quiet: options.Quiet = False,
) -> None:
    """Classify images."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads for NumPy, which has next to nothing to do, cost 20 ms
    if quiet:
        from imgclf.cli import console

        console.err.quiet = True
    config = replace(settings, format=_format(settings.format, output))
    _check(config, images, output, resume, sort_into, embeddings, watch)
    tally = _Tally()
    with ExitStack() as stack:
        stack.callback(gc.enable)
        gc.disable()  # until all is loaded: it would look again and again at modules that stay
        write, done = _open(stack, config, output, resume, live=watch is not None or "-" in (images or []))
        found, count = _find(config, images or [], watch, done)
        classifier = _load(model, config, count)
        gc.enable()
        predictions = classifier.stream(found, config.batch_size, tta=config.tta, embeddings=embeddings is not None)
        actions: list[Callable[[Prediction], None]] = [tally.add]
        if embeddings:
            from imgclf.prediction import embeddings as vectors

            actions.append(stack.enter_context(vectors.create(embeddings)))
        if sort_into:
            from imgclf.prediction import sorting

            actions.append(sorting.Sorter(sort_into, classifier.labels).place)
        write(_each(predictions, actions))
    tally.report(config.strict)


def _check(
    config: PredictConfig,
    images: list[str] | None,
    output: Path | None,
    resume: bool,
    sort_into: Path | None,
    embeddings: Path | None,
    watch: Path | None,
) -> None:
    """Refuse options that contradict each other."""
    if not images and watch is None:
        raise UsageError("expected images, or --watch, found neither. Name files, folders, a pattern, or -.")
    if config.format == "parquet" and output is None:
        raise UsageError("--format parquet: expected -o with a file, found none. Parquet is no text.")
    if resume and (output is None or config.format not in RESUMABLE):
        raise UsageError(f"--resume: expected -o with a file that ends in .jsonl or .csv, found {output}.")
    if resume and embeddings:
        raise UsageError("--resume and --embeddings: expected one of them; a file of vectors is made in one go.")
    if watch and config.engine == "ray":
        raise UsageError("--watch and --engine ray: expected one of them; a cluster gets a list that has an end.")
    if watch and sort_into and sort_into.resolve().is_relative_to(watch.resolve()):
        raise UsageError(f"--sort-into {sort_into}: expected a folder outside of {watch}, which is watched.")


def _open(
    stack: ExitStack, config: PredictConfig, output: Path | None, resume: bool, *, live: bool
) -> "tuple[Callable[[Iterator[Prediction]], None], set[str]]":
    """What writes the predictions, and the paths that are answered already.

    Args:
        live: whether each answer is wanted when it is there, so that no table can wait for the last.
    """
    from imgclf.prediction import outputs

    top, done = config.top, set[str]()
    if config.format == "parquet" and output:
        add = stack.enter_context(outputs.parquet(output, top))
        return lambda predictions: _add(predictions, add), done
    file: TextIO = sys.stdout
    if output and resume:
        file, done = stack.enter_context(outputs.resume(output, config.format, top))
    elif output:
        file = stack.enter_context(outputs.create(output))
    if config.format == "table":
        return lambda predictions: _print_table(predictions, top, live), done
    ascii_only = (file.encoding or "").lower().replace("-", "") != "utf8"

    def write(predictions: "Iterator[Prediction]") -> None:
        watched = _watched(predictions, file)
        if config.format == "jsonl":
            _write(outputs.to_jsonl(watched, top, ascii_only=ascii_only), file)
        elif resume:
            _write((outputs.to_csv_line(prediction, top) for prediction in watched), file)
        else:
            _write(outputs.to_csv(watched, top), file)

    return write, done


def _find(
    config: PredictConfig, images: list[str], watch: Path | None, done: set[str]
) -> "tuple[Iterable[Any], int | None]":
    """The images to answer, and how many they are; None where that is not known, or many."""
    from imgclf.prediction import sources
    from imgclf.prediction.classifier import Named
    from imgclf.prediction.loading import MANY

    known = sources.present(watch) if watch else set[str]()
    listed = sources.lines(sys.stdin.buffer if sys.stdin else None) if sources.STDIN in images else ()
    found: Iterator[Any] = sources.find(images, listed) if images else iter(())
    if watch:
        found = chain(_noted(found, known), sources.watch(watch, known))
    found = sources.shard(found, *config.shards)
    if done:
        found = (path for path in found if (path.name if isinstance(path, Named) else path) not in done)
    if watch or sources.STDIN in images:
        return found, None
    first = list(islice(found, MANY))
    return (first, len(first)) if len(first) < MANY else (chain(first, found), MANY)


def _noted(found: Iterator[Any], known: set[str]) -> Iterator[Any]:
    for path in found:
        if isinstance(path, str):
            known.add(path)
        yield path


def _load(model: str, config: PredictConfig, count: int | None) -> "Classifier":
    from imgclf import prediction

    return prediction.load(
        _artefact(model, config.offline),
        engine=config.engine,
        precision=config.precision,
        count=count,
        allow_truncated=config.allow_truncated,
        reject_below=config.reject_below,
    )


def _each(predictions: "Iterator[Prediction]", actions: "list[Callable[[Prediction], None]]") -> "Iterator[Prediction]":
    for prediction in predictions:
        for action in actions:
            action(prediction)
        yield prediction


class _Tally:
    """Counts the predictions that pass, and those of broken images."""

    def __init__(self) -> None:
        self.total = self.broken = 0
        self.example = ""

    def add(self, prediction: "Prediction") -> None:
        self.total += 1
        if prediction.error is not None:
            self.broken += 1
            self.example = self.example or f"{prediction.path}: {prediction.error}"

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
        raise UsageError(
            f"-o {output}: expected a name that ends in .jsonl, .csv or .parquet, or --format jsonl, csv or parquet."
        )
    return suffix


def _artefact(model: str, offline: bool) -> Path:
    """What exists under this name, else the backbone of this name with ImageNet's labels."""
    if Path(model).exists():
        return Path(model)
    from imgclf.models import catalog

    try:
        name = catalog.IMAGENET if model == catalog.IMAGENET else catalog.find(model).name
    except UsageError as error:
        raise ArtifactError(
            f"{model}: expected a run folder or an exported model, found nothing there; {error}"
        ) from None
    from imgclf.cli import console
    from imgclf.exporting import pretrained

    with console.phases() as on_progress:
        return pretrained.artifact(name, offline=offline, on_progress=on_progress)


def _print_table(predictions: "Iterator[Prediction]", top: int, live: bool) -> None:
    from imgclf.cli import console
    from imgclf.prediction import outputs

    if live:
        _write((outputs.to_text(prediction, top) for prediction in predictions), sys.stdout)
        return
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


def _add(predictions: "Iterator[Prediction]", add: "Callable[[Prediction], None]") -> None:
    from imgclf.cli import console

    with console.progress("predicting") as advance:
        for prediction in predictions:
            add(prediction)
            advance()


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
