"""Predictions as lines of text, which is JSON Lines, CSV, and short lines for people, or as Parquet."""

import contextlib
import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TextIO

from imgclf import environment
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction.classifier import Prediction

log = logging.getLogger(__name__)

CSV_COLUMNS = ("path", "label", "confidence", "error")
"""With `top` above 1, `label_2`, `confidence_2`, `label_3`... follow."""

ROWS = 1000
"""So many are written to Parquet together."""


def to_jsonl(predictions: Iterable[Prediction], top: int, *, ascii_only: bool = False) -> Iterator[str]:
    """One JSON object a line: `path`, `label`, `confidence`, `rejected`, `top` [{`label`, `confidence`}] and `error`.

    What is unknown is null; `top` is then empty. Of a rejected image the label is null and `top` is not; `reason` is
    "unsure" or "outlier". Where the model has rules for it, there are `outlier_score`, too, and `set`, the classes of
    the prediction set. A name that is not text keeps its bytes, as JSON's escapes \\udc80 to \\udcff.
    """
    for prediction in predictions:
        best = [{"label": label, "confidence": confidence} for label, confidence in prediction.top(top)]
        values: dict[str, object] = {
            "path": prediction.path,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "rejected": prediction.rejected,
            "top": best,
            "error": prediction.error,
        }
        if prediction.reason:
            values["reason"] = prediction.reason
        if prediction.outlier_score is not None:
            values["outlier_score"] = round(prediction.outlier_score, 6)
        if prediction.classes is not None:
            values["set"] = list(prediction.classes)
        line = json.dumps(values, ensure_ascii=ascii_only)
        yield line.encode("utf-8", "backslashreplace").decode() + "\n"


def to_csv(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """A header and one line for each prediction; what is not known is empty, a rejected label "unknown"."""
    yield _csv_line([*columns(top)])
    yield from (to_csv_line(prediction, top) for prediction in predictions)


def columns(top: int) -> tuple[str, ...]:
    """The names of a table's columns."""
    more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "confidence")]
    return (*CSV_COLUMNS, *more)


def to_csv_line(prediction: Prediction, top: int) -> str:
    """One line of CSV in the order of `columns`."""
    first, *others = [*prediction.answers(top), *[("", "")] * top][:top]
    rest = [value for pair in others for value in pair]
    return _csv_line([prediction.path or "", *first, prediction.error or "", *rest])


def _csv_line(values: list[object]) -> str:
    """One line of CSV. Python 3.11 quotes a carriage return only where it is part of the line's end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"


def to_rows(prediction: Prediction, top: int) -> list[tuple[str, str, str, str]]:
    """Path, label, confidence in per cent and error, for a table: one row for each of the best classes."""
    path = _printable(prediction.path or "")
    if prediction.error is not None:
        return [(path, "", "", _printable(prediction.error))]
    best = [(_printable(label), f"{confidence:.1%}") for label, confidence in prediction.answers(top)]
    return [("" if rank else path, *answer, "") for rank, answer in enumerate(best)]


def to_text(prediction: Prediction, top: int) -> str:
    """One line for people: the path and the best classes, or the error, with tabs between them."""
    rows = to_rows(prediction, top)
    answers = [error or f"{label} {confidence}" for _, label, confidence, error in rows]
    return "\t".join([rows[0][0], *answers]) + "\n"


def _printable(text: str) -> str:
    """Text without line breaks and without what would command the terminal; such characters become escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def new(path: Path, option: str = "-o") -> Iterator[Path]:
    """The place of a file that stands under its name when the block ends, or is interrupted: then with what is done.

    Raises:
        UsageError: if the file exists or cannot be made.
        ImgclfError: if it cannot be written to its end; it is then not there.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path}: expected a new file, found one that exists. Choose another {option}, or remove it.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.open("x").close()
    except OSError as error:
        raise UsageError(f"{path}: the file cannot be written ({error.strerror}). Choose another {option}.") from None
    done = False
    try:
        yield part
        done = True
    except KeyboardInterrupt:
        done = True
        log.info("%s holds what was finished.", path)
        raise
    except OSError as error:
        raise ImgclfError(f"{path}: the file cannot be written to its end ({error.strerror}).") from None
    finally:
        if done:
            os.replace(part, path)
        else:
            os.unlink(part)


@contextlib.contextmanager
def create(path: Path) -> Iterator[TextIO]:
    """A new text file; see `new`. Names of files that are not text are written as the bytes they are."""
    with new(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file


@contextlib.contextmanager
def resume(path: Path, format: str, top: int) -> Iterator[tuple[TextIO, set[str]]]:
    """A text file to go on with, or a new one, and the paths that it holds answers for.

    Each line is there as soon as it is written, and a half line, which a crash leaves, is taken off.

    Raises:
        UsageError: if the file holds something else, another process writes it, or it cannot be opened.
        ImgclfError: if it cannot be written to its end; it holds what was finished.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UsageError(f"{path}: the file cannot be written ({error.strerror}). Choose another -o.") from None
    with file:
        _lock(file, path)
        file.seek(0)
        end, done = (_read_csv if format == "csv" else _read_jsonl)(file, path, top)
        file.truncate(end)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        text.seek(0, os.SEEK_END)
        try:
            if format == "csv" and end == 0:
                text.write(_csv_line([*columns(top)]))
            yield text, done
            text.flush()
        except OSError as error:
            reason = f"{path}: the file cannot be written to its end ({error.strerror})"
            raise ImgclfError(f"{reason}. It holds what was finished: make room and go on with --resume.") from None
        finally:
            with contextlib.suppress(OSError):
                text.close()


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows has no flock
        pass
    except OSError:
        raise UsageError(f"{path}: another imgclf process writes this file. Wait, or choose another -o.") from None


def _read_jsonl(file: IO[bytes], path: Path, top: int) -> tuple[int, set[str]]:
    """Where the last whole line ends, and the paths."""
    done: set[str] = set()
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            done.add(json.loads(line.decode("utf-8", "surrogateescape"))["path"])
        except (ValueError, KeyError, TypeError):
            raise _foreign(path, number, line) from None
        end += len(line)
    return end, done


def _read_csv(file: IO[bytes], path: Path, top: int) -> tuple[int, set[str]]:
    """The same of CSV, where a line may lie over several lines of text."""
    read = end = 0
    line = b""

    def lines() -> Iterator[str]:
        nonlocal read, line
        for line in file:
            read += len(line)
            yield line.decode("utf-8", "surrogateescape")

    done: set[str] = set()
    rows = csv.reader(lines(), strict=True)
    try:
        for row in rows:
            if not line.endswith(b"\n"):
                break
            if end == 0 and tuple(row) != columns(top):
                raise UsageError(f"{path}: expected the columns {','.join(columns(top))}, found {','.join(row):.200}.")
            if len(row) != len(columns(top)):
                raise _foreign(path, rows.line_num, line)
            if end:
                done.add(row[0])
            end = read
    except csv.Error:  # the text ends between quotes
        if file.read(1):
            raise _foreign(path, rows.line_num, line) from None
    return end, done


def _foreign(path: Path, number: int, line: bytes) -> UsageError:
    found = line.decode("utf-8", "backslashreplace").strip()
    return UsageError(f"{path}, line {number}: expected a prediction, found {found:.100}. Choose another -o.")


@contextlib.contextmanager
def parquet(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    """A new Parquet file with the columns of `columns`; see `new`. A name that is not text is written with escapes.

    What is unknown is null; so is a rejected label, as in JSON Lines, and its confidence is not.

    Yields:
        A function that takes predictions.

    Raises:
        MissingError: if pyarrow is not installed.
    """
    environment.require("pyarrow", "'imgclf[parquet]'")
    import pyarrow

    number = pyarrow.float32()
    kinds = {name: number if name.startswith("confidence") else pyarrow.string() for name in columns(top)}
    with new(path) as part, parquet_rows(part, kinds) as write:

        def add(prediction: Prediction) -> None:
            values: dict[str, Any] = {"path": prediction.path, "label": prediction.label, "error": prediction.error}
            values["confidence"] = prediction.confidence
            for rank, (label, confidence) in enumerate(prediction.answers(top)[1:], start=2):
                values |= {f"label_{rank}": label, f"confidence_{rank}": confidence}
            write(values)

        yield add


@contextlib.contextmanager
def parquet_rows(path: Path, kinds: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A Parquet file that is written ROWS rows at a time, and is whole when the block ends, however it ends.

    Args:
        kinds: pyarrow's types of the columns.
    """
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(list(kinds.items()))
    held: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            if held:
                writer.write_table(pyarrow.Table.from_pylist(held, schema))
                held.clear()

        def write(row: Mapping[str, Any]) -> None:
            held.append({name: _text(row.get(name)) for name in kinds})
            if len(held) == ROWS:
                flush()

        try:
            yield write
        finally:
            flush()


def _text(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
