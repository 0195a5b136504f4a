"""Predictions as text (JSON Lines, CSV, short lines for people), as Parquet or as an Excel workbook."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from imgclf import environment
from imgclf.data import cells
from imgclf.prediction.forms import Answer, Writing
from imgclf.printable import printable, safe_json

log = logging.getLogger(__name__)

CLASSES = Writing()
"""One class for each image."""

ROWS = 1000
"""Rows written to Parquet at once."""

SHEET_ROWS = 1_048_576
"""Rows of a sheet in Excel, at most."""


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
    """Yield a header and one line per prediction, in the columns of `columns`; unknown values are empty."""
    yield cells.line([*columns(top, writing)])
    yield from (to_csv_line(prediction, top, writing) for prediction in predictions)


def columns(top: int, writing: Writing = CLASSES) -> tuple[str, ...]:
    """Return the names of a table's columns."""
    return tuple(_kinds(top, writing))


def _kinds(top: int, writing: Writing) -> dict[str, type]:
    """Return the columns and what they contain; those of neighbors come last."""
    near = range(1, writing.neighbors + 1)
    more = {name: kind for rank in near for name, kind in ((f"neighbor_{rank}", str), (f"distance_{rank}", float))}
    return writing.form.columns(writing.labels, top) | more


def _near(prediction: Answer, writing: Writing) -> list[object]:
    """Return the values of the columns of neighbors; None for an image that cannot be read."""
    found = [value for near in getattr(prediction, "neighbors", None) or () for value in near]
    return found or [None] * (2 * writing.neighbors)


def _values(prediction: Answer, top: int, writing: Writing) -> dict[str, Any]:
    near = _near(prediction, writing)
    names = columns(top, writing)[-len(near) :] if near else ()
    return {**writing.form.values(prediction, top), **dict(zip(names, near, strict=True))}


def to_csv_line(prediction: Answer, top: int, writing: Writing = CLASSES) -> str:
    """Return one line of CSV in the order of `columns`."""
    return cells.line([_cell(value) for value in [*writing.form.cells(prediction, top), *_near(prediction, writing)]])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def heads(writing: Writing = CLASSES) -> tuple[str, ...]:
    """Return the columns of a table for people."""
    return ("path", *writing.form.HEADS, "error")


def to_rows(prediction: Answer, top: int, writing: Writing = CLASSES) -> list[tuple[str, ...]]:
    """Return the rows of a prediction in a table for people, in the columns of `heads`; only the first has a path."""
    path = printable(prediction.path or "")
    if prediction.error is not None:
        return [(path, *("" for _ in writing.form.HEADS), printable(prediction.error))]
    shown = [tuple(map(printable, row)) for row in writing.form.rows(prediction, top)]
    if writing.neighbors:
        for rank, near in enumerate(getattr(prediction, "neighbors", None) or (), start=1):
            shown.append((f"neighbor {rank}: {printable(near.path)}", f"distance {near.distance:.3g}"))
    return [("" if rank else path, *row, "") for rank, row in enumerate(shown)]


def to_text(prediction: Answer, top: int, writing: Writing = CLASSES) -> str:
    """Return one line for people: the path and what is predicted, or the error, separated by tabs."""
    rows = to_rows(prediction, top, writing)
    shown = [row[-1] or " ".join(filter(None, row[1:-1])) for row in rows]
    return "\t".join([rows[0][0], *shown]) + "\n"


@contextlib.contextmanager
def parquet(path: Path, top: int, writing: Writing = CLASSES) -> Iterator[Callable[[Answer], None]]:
    """Write a Parquet file with the columns of `columns`. A name that is not text is written with escapes.

    Unknown values are null.

    Yields:
        A function that takes predictions.

    Raises:
        MissingError: if pyarrow is not installed.
    """
    environment.require("pyarrow", "'imgclf[parquet]'")
    import pyarrow

    types = {str: pyarrow.string(), float: pyarrow.float32(), bool: pyarrow.bool_()}
    kinds = {name: types[kind] for name, kind in _kinds(top, writing).items()}
    with parquet_rows(path, kinds) as write:

        def add(prediction: Answer) -> None:
            write(_values(prediction, top, writing))

        yield add


@contextlib.contextmanager
def excel(path: Path, top: int, writing: Writing = CLASSES) -> Iterator[Callable[[Answer], None]]:
    """Write an Excel workbook with the columns of `columns`, one sheet for each SHEET_ROWS rows.

    Texts are never formulas; what a cell cannot contain is escaped. Unknown values are empty cells.

    Yields:
        A function that takes predictions.

    Raises:
        MissingError: if openpyxl is not installed.
    """
    environment.require("openpyxl", "'imgclf[excel]'")
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    workbook, names, count = Workbook(write_only=True), columns(top, writing), 0

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        made = WriteOnlyCell(workbook.worksheets[-1], printable(_text(value)))
        made.data_type = "s"  # also where it begins with =
        return made

    def add(prediction: Answer) -> None:
        nonlocal count
        if count % (SHEET_ROWS - 1) == 0:
            workbook.create_sheet("predictions").append([cell(name) for name in names])
        values = _values(prediction, top, writing)
        workbook.worksheets[-1].append([cell(values.get(name)) for name in names])
        count += 1

    try:
        yield add
    finally:
        if not count:
            workbook.create_sheet("predictions").append(names)
        workbook.save(path)


@contextlib.contextmanager
def parquet_rows(path: Path, kinds: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write a Parquet file ROWS rows at a time; it is complete when the block ends, however it ends.

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
