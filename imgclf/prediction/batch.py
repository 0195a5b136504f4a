"""Predict a batch of images: find them, skip those with a prediction, and write the predictions.

A batch may have no end: a watched folder, or a list on stdin.
"""

import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from imgclf import environment
from imgclf.errors import DatasetError, UsageError
from imgclf.printable import printable
from imgclf.settings import PredictConfig

if TYPE_CHECKING:
    from imgclf.prediction.classifier import Classifier
    from imgclf.prediction.forms import Answer, Writing
    from imgclf.prediction.output_files import Done
    from imgclf.prediction.watching import Watcher

log = logging.getLogger(__name__)

MOST_NAMED = 10
"""Classes that a summary names."""

FILE_FORMATS = ("jsonl", "csv", "parquet", "xlsx")
RESUMABLE = ("jsonl", "csv")
BINARY = ("parquet", "xlsx")


@dataclass(frozen=True)
class Batch:
    """Which images are predicted, and where the predictions go.

    Args:
        config: how to predict; the format of a file follows from its name.
        images: files, folders, archives and patterns; "-" stands for a list on stdin.
        output: a new file for the predictions.
        resume: whether `output` exists and gets the predictions that it lacks.
        sort_into: a folder that gets one folder of images per class.
        embeddings: a new file for the embeddings.
        watch: a folder whose new files are predicted until interrupted.
        explain: a new folder for each image with its class activation map.

    Raises:
        UsageError: if settings contradict each other.
    """

    config: PredictConfig
    images: tuple[str, ...] = ()
    output: Path | None = None
    resume: bool = False
    sort_into: Path | None = None
    embeddings: Path | None = None
    watch: Path | None = None
    explain: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", replace(self.config, format=_format(self.config.format, self.output)))
        output, watch, sort_into = self.output, self.watch, self.sort_into
        if not self.images and watch is None:
            raise UsageError("expected images or --watch, found neither. Name files, folders, a pattern, or -.")
        if self.config.format in BINARY and output is None:
            raise UsageError(f"--format {self.config.format}: expected -o with a file, found none. It is not text.")
        if self.resume and (output is None or self.config.format not in RESUMABLE):
            raise UsageError(f"--resume: expected -o with a file that ends in .jsonl or .csv, found {output}.")
        if self.resume and self.embeddings:
            raise UsageError("--resume: --embeddings cannot be resumed. Leave out one of them.")
        if watch and self.config.engine == "ray":
            raise UsageError("--watch: --engine ray needs a list with an end. Leave out one of them.")
        if self.explain and self.config.engine not in ("auto", "litert"):
            raise UsageError(f"--explain: expected --engine litert, found {self.config.engine}.")
        if watch and self.explain and self.explain.resolve().is_relative_to(watch.resolve()):
            raise UsageError(f"--explain {self.explain}: expected a folder outside of {watch}, which is watched.")
        if watch and sort_into and sort_into.resolve().is_relative_to(watch.resolve()):
            raise UsageError(f"--sort-into {sort_into}: expected a folder outside of {watch}, which is watched.")

    @property
    def is_live(self) -> bool:
        """Whether each prediction is wanted at once, because the images have no known end."""
        return self.watch is not None or "-" in self.images


@dataclass
class Tally:
    """Counts predictions by class, and unreadable images."""

    total: int = 0
    unreadable: int = 0
    labels: Counter[str | None] = field(default_factory=Counter)
    example: str = field(default="", repr=False)

    def add(self, prediction: "Answer") -> None:
        """Count a prediction."""
        self.total += 1
        if prediction.error is not None:
            self.unreadable += 1
            self.example = self.example or f"{prediction.path}: {prediction.error}"
        elif hasattr(prediction, "label"):  # of a task with one class for each image
            self.labels[prediction.label] += 1

    @property
    def summary(self) -> str:
        """How many images there are of each predicted class, and how many have none; empty for a single image."""
        if self.total < 2:
            return ""
        named = [(name, count) for name, count in self.labels.most_common() if name is not None]
        parts = [f"{name} {count:,}" for name, count in named[:MOST_NAMED]]
        if len(named) > MOST_NAMED:
            parts.append(f"{sum(count for _, count in named[MOST_NAMED:]):,} of other classes")
        parts += [f"{self.labels[None]:,} rejected"] * (None in self.labels)
        parts += [f"{self.unreadable:,} cannot be read"] * (self.unreadable > 0)
        return printable(f"{self.total:,} images: {', '.join(parts)}." if parts else f"{self.total:,} images.")

    @property
    def message(self) -> str:
        """How many images cannot be read; empty for none."""
        if not self.unreadable:
            return ""
        return f"{self.unreadable} of {self.total} images cannot be read, such as {self.example}"

    def check(self, strict: bool = False) -> None:
        """Refuse a batch without a single readable image, or, as `PredictConfig.strict` asks, with an unreadable one.

        Raises:
            DatasetError: if it is refused.
        """
        if self.unreadable and self.unreadable == self.total:
            many = f"none of the {self.total:,} images can be read, such as "
            raise DatasetError(f"{many if self.total > 1 else ''}{self.example}.")
        if self.unreadable and strict:
            raise DatasetError(f"{self.message}. Leave out --strict to accept this.")


Predictions = Iterator["Answer"]


def run(
    batch: Batch,
    load: "Callable[[int | None], Classifier]",
    *,
    table: Callable[[Predictions], None],
    track: Callable[[Predictions, TextIO | None], Predictions],
    writing: "Writing | None" = None,
) -> None:
    """Predict a batch.

    Args:
        load: returns the classifier for a number of images; None for an unknown number.
        table: shows predictions in the format "table".
        track: passes predictions on and shows the progress of writing them to a file.
        writing: how the model's predictions are written; None is one class for each image.

    Raises:
        UsageError: if a file cannot be written, or cannot be resumed, or the task cannot do what is asked for.
        ImgclfError: if writing fails.
        DatasetError: if no image can be read, one cannot and the settings are strict, or a name is that of nothing;
            what can be predicted is.
        BrokenPipeError: if the reader of stdout is gone, and there is nothing else to write.
    """
    from imgclf.prediction import sources

    tally, config = Tally(), batch.config
    gone = sources.missing(batch.images)
    if gone and len(gone) == len(batch.images) and config.format == "table" and not batch.watch:
        raise sources.no_such(gone)  # a program gets its line for each image
    with ExitStack() as stack:
        stack.callback(gc.enable)
        gc.disable()  # while modules are loaded, whose objects stay
        from imgclf.data import memory

        memory.BUDGET.set_limit(config.memory_gb)
        write, done = _open(stack, batch, table, track, writing)
        watcher = None
        if batch.watch:
            from imgclf.prediction import watching

            watcher = watching.Watcher(batch.watch, done)
        found, count = _find(batch, done if batch.resume else None, watcher)
        classifier = load(count)
        if done:
            done.claim(_how(classifier, config))
        gc.enable()
        overlays: Callable[[Any], None] | None = None
        if batch.explain:
            from imgclf.prediction import heatmaps

            overlays = heatmaps.Overlays(batch.explain, classifier).draw
        predictions = classifier.stream(
            found,
            config.batch_size,
            tta=config.tta,
            embeddings=batch.embeddings is not None,
            maps=overlays is not None,
            neighbors=config.neighbors,
        )
        actions: list[Callable[[Answer], None]] = [tally.add]
        if batch.embeddings:
            from imgclf.prediction import embeddings

            actions.append(stack.enter_context(embeddings.create(batch.embeddings)))
        if batch.sort_into:
            from imgclf.prediction import sorting

            within = [Path(name) for name in batch.images if name != "-" and Path(name).is_dir()]
            actions.append(sorting.Sorter(batch.sort_into, classifier.labels, within).place)
        if overlays:
            actions.append(overlays)
        each = _each(filter(watcher.accepts, predictions) if watcher else predictions, actions)
        try:
            write(each)
        except BrokenPipeError:
            environment.discard(sys.stdout)
            if len(actions) == 1:
                raise
            for _ in each:  # the files are wanted without a reader of the lines, too
                pass
    tally.check(config.strict)
    if tally.message:
        log.warning("%s", tally.message)
    if tally.summary:
        log.info("%s", tally.summary)
    if batch.sort_into:
        log.info(
            "%s: %s images linked or copied into a folder for each class.", batch.sort_into, f"{tally.labels.total():,}"
        )
        if tally.labels[None]:
            log.info(
                "%s contains the rejected images: the model is unsure, or they are unlike the training images.",
                batch.sort_into / sorting.REJECTED,
            )
    if gone:
        raise sources.no_such(gone)


def write_lines(lines: Iterable[str], file: TextIO) -> None:
    """Write each line at once."""
    for line in lines:
        file.write(line)
        file.flush()


def _format(format: str, output: Path | None) -> str:
    """Return the format of a file, by its name where none is given: tables are for the screen."""
    if output is None:
        return format
    suffix = output.suffix.lower().removeprefix(".")
    if format != "table":
        if suffix in FILE_FORMATS and format in FILE_FORMATS and suffix != format:
            raise UsageError(f"-o {output}: expected a name that ends in .{format}, as --format says, found .{suffix}.")
        return format
    if suffix not in FILE_FORMATS:
        raise UsageError(
            f"-o {output}: expected a name that ends in .jsonl, .csv, .parquet or .xlsx, or --format with one of these."
        )
    return suffix


def _open(
    stack: ExitStack,
    batch: Batch,
    table: Callable[[Predictions], None],
    track: Callable[[Predictions, TextIO | None], Predictions],
    writing: "Writing | None",
) -> tuple[Callable[[Predictions], None], "Done | None"]:
    """Return the function that writes predictions, and the images that have one in a file of text."""
    from imgclf.prediction import outputs

    writing = writing or outputs.CLASSES
    config, top = batch.config, batch.config.top
    done: Done | None = None
    file: TextIO = sys.stdout
    if batch.output:
        from imgclf.prediction import output_files

        if config.format in BINARY:
            part = stack.enter_context(output_files.new(batch.output))
            make = outputs.parquet if config.format == "parquet" else outputs.excel
            add = stack.enter_context(make(part, top, writing))
            return lambda predictions: _drain(map(add, track(predictions, None))), done
        if batch.resume:
            columns = outputs.columns(top, writing)
            file, done = stack.enter_context(output_files.resume(batch.output, config.format, columns))
        else:
            file, done = stack.enter_context(output_files.create(batch.output))
    if config.format == "table":
        return table, done
    ascii_only = (file.encoding or "").lower().replace("-", "") != "utf8"

    def write(predictions: Predictions) -> None:
        tracked = track(predictions, file)
        if config.format == "jsonl":
            write_lines(outputs.to_jsonl(tracked, top, writing, ascii_only=ascii_only), file)
        elif file.isatty():
            write_lines((printable(line, keep="\n") for line in outputs.to_csv(tracked, top, writing)), file)
        elif batch.resume:
            write_lines((outputs.to_csv_line(prediction, top, writing) for prediction in tracked), file)
        else:
            write_lines(outputs.to_csv(tracked, top, writing), file)

    return write, done


def _how(classifier: "Classifier", config: PredictConfig) -> dict[str, Any]:
    """Return what shapes predictions, by the options that a user knows; JSON gives it back as it is."""
    options = ("top", "tta", "neighbors", "precision", "allow_truncated")
    made_by: dict[str, Any] = {"model": classifier.identity}
    made_by |= {f"--{name.replace('_', '-')}": getattr(config, name) for name in options}
    return made_by | {"rules": {key: value for key, value in asdict(classifier.rules).items() if value is not None}}


def _drain(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def _find(batch: Batch, done: "Done | None", watcher: "Watcher | None") -> tuple[Iterable[Any], int | None]:
    """Return the images to predict, and their number; None where it is unknown, and MANY for many."""
    from imgclf.prediction import sources
    from imgclf.prediction.loading import MANY

    listed = sources.lines(sys.stdin.buffer if sys.stdin else None) if sources.STDIN in batch.images else ()
    found: Iterator[Any] = sources.find(batch.images, listed) if batch.images else iter(())
    if batch.sort_into:
        found = sources.outside(found, batch.sort_into)
    found = sources.shard(found, *batch.config.shards)
    if done:
        found = sources.lacking(found, done.known)
    if watcher:
        found = chain(_noted(found, watcher), sources.shard(watcher, *batch.config.shards))
    if batch.is_live:
        return found, None
    first = list(islice(found, MANY))
    return (first, len(first)) if len(first) < MANY else (chain(first, found), MANY)


def _noted(found: Iterable[Any], watcher: "Watcher") -> Iterator[Any]:
    for path in found:
        if isinstance(path, str):
            watcher.note(path)
        yield path


def _each(predictions: Predictions, actions: "list[Callable[[Answer], None]]") -> Predictions:
    for prediction in predictions:
        for action in actions:
            action(prediction)
        yield prediction
