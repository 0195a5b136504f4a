"""Predictions as text (JSON Lines, CSV, short lines for people) or as Parquet."""

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
from imgclf.data import cells
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction.decision import Prediction
from imgclf.printable import printable, safe_json

log = logging.getLogger(__name__)

FIRST = ("path", "label", "confidence", "error")
LAST = ("predicted", "rejected", "argmax")
"""The columns of a table; with `top` above 1, `label_2`, `confidence_2`, `label_3`... stand between the two.

`label` is for people: the predicted class, or "unknown" for a rejected image. Programs read `predicted`, which is empty
for a rejected image, and `rejected`, since a class may be called "unknown", too. `argmax` is the most probable class,
whatever the rules say.
"""

ROWS = 1000
"""Rows written to Parquet at once."""


def to_jsonl(predictions: Iterable[Prediction], top: int, *, ascii_only: bool = False) -> Iterator[str]:
    """One JSON object a line: `path`, `label`, `confidence`, `rejected`, `top` [{`label`, `confidence`}] and `error`.

    An image that cannot be read has null values and an empty `top`. A rejected image has the label null and a `reason`,
    "unsure" or "outlier". Models with the rules for it give `outlier_score`, and `set`, the classes of the prediction
    set. A name that is not text keeps its bytes, as JSON's escapes \\udc80 to \\udcff.
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
        line = safe_json(json.dumps(values, ensure_ascii=ascii_only))
        yield line.encode("utf-8", "backslashreplace").decode() + "\n"


def to_csv(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """A header and one line per prediction, in the columns of `columns`; unknown values are empty."""
    yield cells.line([*columns(top)])
    yield from (to_csv_line(prediction, top) for prediction in predictions)


def columns(top: int) -> tuple[str, ...]:
    """The names of a table's columns: `FIRST`, the classes from the second on, `LAST`."""
    more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "confidence")]
    return (*FIRST, *more, *LAST)


def to_csv_line(prediction: Prediction, top: int) -> str:
    """Return one line of CSV in the order of `columns`."""
    first, *others = [*prediction.ranked(top), *[("", "")] * top][:top]
    rest = [value for pair in others for value in pair]
    last = [prediction.label or "", "true" if prediction.rejected else "false", prediction.argmax or ""]
    return cells.line([prediction.path or "", *first, prediction.error or "", *rest, *last])


def to_rows(prediction: Prediction, top: int) -> list[tuple[str, str, str, str]]:
    """Return path, label, confidence in percent and error for a table: one row for each of the best classes."""
    path = printable(prediction.path or "")
    if prediction.error is not None:
        return [(path, "", "", printable(prediction.error))]
    best = [(printable(label), f"{confidence:.1%}") for label, confidence in prediction.ranked(top)]
    if prediction.rejected:
        best[0] = f"{best[0][0]} ({prediction.reason})", best[0][1]
    return [("" if rank else path, *shown, "") for rank, shown in enumerate(best)]


def to_text(prediction: Prediction, top: int) -> str:
    """Return one line for people: the path and the best classes, or the error, separated by tabs."""
    rows = to_rows(prediction, top)
    shown = [error or f"{label} {confidence}" for _, label, confidence, error in rows]
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
def resume(path: Path, format: str, top: int) -> Iterator[tuple[TextIO, set[str]]]:
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
        end, done = (_read_csv if format == "csv" else _read_jsonl)(file, path, top)
        file.truncate(end)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        text.seek(0, os.SEEK_END)
        try:
            if format == "csv" and end == 0:
                text.write(cells.line([*columns(top)]))
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


def _read_jsonl(file: IO[bytes], path: Path, top: int) -> tuple[int, set[str]]:
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


def _read_csv(file: IO[bytes], path: Path, top: int) -> tuple[int, set[str]]:
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
            if end == 0 and tuple(row) != columns(top):
                raise UsageError(
                    f"{path}: expected the columns {','.join(columns(top))}, found {','.join(row):.200}. "
                    "Choose another -o, or the --top that it was written with."
                )
            if len(row) != len(columns(top)):
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
def parquet(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    """A new Parquet file with the columns of `columns`; see `new`. A name that is not text is written with escapes.

    Unknown values are null; so is the `label` of a rejected image, as in JSON Lines, but not its `confidence`.

    Yields:
        A function that takes predictions.

    Raises:
        MissingError: if pyarrow is not installed.
    """
    environment.require("pyarrow", "'imgclf[parquet]'")
    import pyarrow

    number = pyarrow.float32()
    kinds = {name: number if name.startswith("confidence") else pyarrow.string() for name in columns(top)}
    kinds["rejected"] = pyarrow.bool_()
    with new(path) as part, parquet_rows(part, kinds) as write:

        def add(prediction: Prediction) -> None:
            values: dict[str, Any] = {"path": prediction.path, "label": prediction.label, "error": prediction.error}
            values |= {"confidence": prediction.confidence, "predicted": prediction.label}
            values |= {"rejected": prediction.rejected, "argmax": prediction.argmax}
            for rank, (label, confidence) in enumerate(prediction.ranked(top)[1:], start=2):
                values |= {f"label_{rank}": label, f"confidence_{rank}": confidence}
            write(values)

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
