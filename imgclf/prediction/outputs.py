"""Predictions as text (JSON Lines, CSV, short lines for people) or as Parquet."""

import contextlib
import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from imgclf import environment
from imgclf.data import cells
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction.forms import Answer, Writing
from imgclf.printable import printable, safe_json

log = logging.getLogger(__name__)

CLASSES = Writing()
"""One class for each image."""

ROWS = 1000
"""Rows written to Parquet at once."""


def to_jsonl(
    predictions: Iterable[Answer], top: int, writing: Writing = CLASSES, *, ascii_only: bool = False
) -> Iterator[str]:
    """One JSON object a line, with what the form of the task says.

    A name that is not text keeps its bytes, as JSON's escapes \\udc80 to \\udcff.
    """
    for prediction in predictions:
        line = safe_json(json.dumps(writing.form.to_json(prediction, top), ensure_ascii=ascii_only))
        yield line.encode("utf-8", "backslashreplace").decode() + "\n"


def to_csv(predictions: Iterable[Answer], top: int, writing: Writing = CLASSES) -> Iterator[str]:
    """A header and one line per prediction, in the columns of `columns`; unknown values are empty."""
    yield cells.line([*columns(top, writing)])
    yield from (to_csv_line(prediction, top, writing) for prediction in predictions)


def columns(top: int, writing: Writing = CLASSES) -> tuple[str, ...]:
    """The names of a table's columns."""
    return tuple(writing.form.columns(writing.labels, top))


def to_csv_line(prediction: Answer, top: int, writing: Writing = CLASSES) -> str:
    """Return one line of CSV in the order of `columns`."""
    return cells.line([_cell(value) for value in writing.form.cells(prediction, top)])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def heads(writing: Writing = CLASSES) -> tuple[str, ...]:
    """The columns of a table for people."""
    return ("path", *writing.form.HEADS, "error")


def to_rows(prediction: Answer, top: int, writing: Writing = CLASSES) -> list[tuple[str, ...]]:
    """Return the rows of a prediction in a table for people, in the columns of `heads`; only the first has a path."""
    path = printable(prediction.path or "")
    if prediction.error is not None:
        return [(path, *("" for _ in writing.form.HEADS), printable(prediction.error))]
    shown = [tuple(map(printable, row)) for row in writing.form.rows(prediction, top)]
    return [("" if rank else path, *row, "") for rank, row in enumerate(shown)]


def to_text(prediction: Answer, top: int, writing: Writing = CLASSES) -> str:
    """Return one line for people: the path and what is predicted, or the error, separated by tabs."""
    rows = to_rows(prediction, top, writing)
    shown = [row[-1] or " ".join(filter(None, row[1:-1])) for row in rows]
    return "\t".join([rows[0][0], *shown]) + "\n"


@contextlib.contextmanager
def new(path: Path, option: str = "-o") -> Iterator[Path]:
    """A temporary path for a file that gets its name when the block ends or is interrupted, with what is finished.

    Raises:
        UsageError: if the file exists or cannot be made.
        ImgclfError: if writing fails; the file then does not exist.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path}: the file exists. Choose another {option}, or remove it.")
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
        log.info("%s contains what was finished.", path)
        raise
    except OSError as error:
        raise ImgclfError(f"{path}: writing failed ({error.strerror}).") from None
    finally:
        if done:
            os.replace(part, path)
        else:
            os.unlink(part)


@contextlib.contextmanager
def create(path: Path) -> Iterator[TextIO]:
    """A new text file; see `new`. File names that are not text are written as their bytes."""
    with new(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file


@contextlib.contextmanager
def resume(path: Path, format: str, top: int, writing: Writing = CLASSES) -> Iterator[tuple[TextIO, set[str]]]:
    """A text file to resume, or a new one, and the paths whose predictions it contains.

    Each line is on disk as soon as it is written. A partial last line, left by a crash, is removed.

    Raises:
        UsageError: if the file contains something else, another process writes it, or it cannot be opened.
        ImgclfError: if writing fails; the file contains what was finished.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UsageError(f"{path}: the file cannot be written ({error.strerror}). Choose another -o.") from None
    with file:
        _lock(file, path)
        file.seek(0)
        end, done = _read_csv(file, path, columns(top, writing)) if format == "csv" else _read_jsonl(file, path)
        file.truncate(end)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        text.seek(0, os.SEEK_END)
        try:
            if format == "csv" and end == 0:
                text.write(cells.line([*columns(top, writing)]))
            yield text, done
            text.flush()
        except OSError as error:
            reason = f"{path}: writing failed ({error.strerror})"
            raise ImgclfError(f"{reason}. It contains what was finished: free disk space, and --resume.") from None
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
        raise UsageError(f"{path}: another imgclf process is writing this file. Wait, or choose another -o.") from None


def _read_jsonl(file: IO[bytes], path: Path) -> tuple[int, set[str]]:
    """Return where the last whole line ends, and the paths."""
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


def _read_csv(file: IO[bytes], path: Path, expected: Sequence[str]) -> tuple[int, set[str]]:
    """Do the same for CSV, where a row may span several lines of text."""
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
            if end == 0 and tuple(row) != tuple(expected):
                raise UsageError(
                    f"{path}: expected the columns {','.join(expected)}, found {','.join(row):.200}. "
                    "Choose another -o, or the --top that it was written with."
                )
            if len(row) != len(expected):
                raise _foreign(path, rows.line_num, line)
            if end:
                done.add(cells.plain(row[0]))
            end = read
    except csv.Error:  # the text ends between quotes
        if file.read(1):
            raise _foreign(path, rows.line_num, line) from None
    return end, done


def _foreign(path: Path, number: int, line: bytes) -> UsageError:
    found = line.decode("utf-8", "backslashreplace").strip()
    return UsageError(f"{path}, line {number}: expected a prediction, found {found:.100}. Choose another -o.")


@contextlib.contextmanager
def parquet(path: Path, top: int, writing: Writing = CLASSES) -> Iterator[Callable[[Answer], None]]:
    """A new Parquet file with the columns of `columns`; see `new`. A name that is not text is written with escapes.

    Unknown values are null.

    Yields:
        A function that takes predictions.

    Raises:
        MissingError: if pyarrow is not installed.
    """
    environment.require("pyarrow", "'imgclf[parquet]'")
    import pyarrow

    types = {str: pyarrow.string(), float: pyarrow.float32(), bool: pyarrow.bool_()}
    kinds = {name: types[kind] for name, kind in writing.form.columns(writing.labels, top).items()}
    with new(path) as part, parquet_rows(part, kinds) as write:

        def add(prediction: Answer) -> None:
            write(writing.form.values(prediction, top))

        yield add


@contextlib.contextmanager
def parquet_rows(path: Path, kinds: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A Parquet file, written ROWS rows at a time, that is complete when the block ends, however it ends.

    Args:
        kinds: the columns and their types in pyarrow.
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
