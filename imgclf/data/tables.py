"""Read CSV, TSV and Parquet tables as text, row by row."""

import codecs
import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from imgclf import environment
from imgclf.data import cells, images
from imgclf.data.dataset import COLUMNS
from imgclf.errors import DatasetError

SUFFIXES = (".csv", ".tsv", ".parquet")

_OWN = (
    set(COLUMNS),
    {"path", "kind"},
    {"path", "label", "confidence", "error"},
    {"path", "label", "predicted", "confidence"},
)
"""Columns of the tables that imgclf writes: manifests, quarantines, and those of predict and evaluate."""


@dataclass(frozen=True)
class Table:
    """A table's header and rows, as text; `line` of a row is where it begins in the file.

    The cells of a table of our own (`is_own`) mean exactly what they contain; others may have spaces at their ends that
    mean nothing. A table without a header gets one: `path` and `label` if it has two columns, numbers for more.
    """

    path: Path
    header: tuple[str, ...]
    rows: Iterator[tuple[int, Sequence[str]]]
    has_header: bool = True
    first: Sequence[Sequence[str]] = ()
    """Some of the first rows, which come in `rows`, too."""

    @property
    def is_own(self) -> bool:
        """Whether imgclf wrote it."""
        return is_own(self.header)


def is_own(header: Sequence[str]) -> bool:
    """Whether these are the columns of a table that imgclf writes."""
    return any(own <= set(header) for own in _OWN)


_FIRST_ROWS = 20
_QUOTED = re.compile(r'"[^"]*"')


def open_table(path: Path) -> Table:
    """Read a table's header; the rows follow one by one.

    CSV is UTF-8 or UTF-16, with commas, semicolons or tabs between the fields; a first line such as `sep=;` names the
    character. A first row with the name of an image is no header.

    Raises:
        DatasetError: if it cannot be read; also while the rows are read.
        MissingError: if it is Parquet and pyarrow is not installed.
    """
    try:
        table = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
        first = list(itertools.islice(table.rows, _FIRST_ROWS))
    except OSError as error:
        raise DatasetError(f"{path}: the table cannot be read ({error.strerror or error}).") from None
    return replace(table, rows=itertools.chain(first, table.rows), first=[row for _, row in first])


def _text(path: Path) -> Table:
    rows = _rows(path)
    line, first = next(rows, (1, []))
    names = [place for place, cell in enumerate(first) if cell.strip().lower().endswith(images.SUFFIXES)]
    if len(names) != 1:
        header = tuple(name.strip() for name in first)
        return Table(path, header, _as_meant(rows) if is_own(header) else rows)
    other = "label" if len(first) == 2 else None
    header = tuple("path" if place in names else other or str(place + 1) for place in range(len(first)))
    return Table(path, header, itertools.chain([(line, first)], rows), has_header=False)


def _as_meant(rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Return the rows of a table of our own, without the apostrophes that protect spreadsheets."""
    return ((line, [cells.plain(cell) for cell in row]) for line, row in rows)


def encoding_of(start: bytes) -> str | None:
    """Name the UTF-16 that text begins with, by its byte order mark or the zeros of Latin letters; None for UTF-8."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) >= 4 and not start[1] and not start[3] and start[0] and start[2]:
        return "utf-16-le"
    if len(start) >= 4 and not start[0] and not start[2] and start[1] and start[3]:
        return "utf-16-be"
    return None


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file that are not empty, the header among them, each with the line where it begins."""
    with path.open("rb") as raw:
        utf16 = encoding_of(raw.read(4))
    # Bytes that are no UTF-8 stay what they are: a path may hold them, a label may not.
    encoding, errors = (utf16, "strict") if utf16 else ("utf-8-sig", "surrogateescape")
    line = 1
    quotes = 0  # in the lines of one row
    try:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            first = file.readline()
            told = _told_separator(first)
            if told is None:
                file.seek(0)
            else:
                line = 2
            bare = _QUOTED.sub("", first)
            mark = told or ("\t" if path.suffix.lower() == ".tsv" else max("\t,;", key=bare.count))
            before = line - 1

            def lines() -> Iterator[str]:
                nonlocal quotes
                for text in file:
                    tight = _tight(text, mark, quotes)
                    quotes += text.count('"')
                    yield tight

            reader = csv.reader(lines(), delimiter=mark)
            for row in reader:
                if row and quotes % 2 and set(row[-1]) & set("\r\n"):  # it has swallowed all lines after it
                    raise csv.Error("a quote opens in it and is never closed")
                if row:
                    yield line, row
                line, quotes = before + reader.line_num + 1, 0
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}, line {line}: not a row of a table ({error}).") from None


def _told_separator(first: str) -> str | None:
    """Return the character that a first line such as `sep=;` names, as spreadsheets write it."""
    text = first.strip("\r\n\ufeff").strip('"').casefold()
    return text[4] if len(text) == 5 and text.startswith("sep=") else None


def _tight(text: str, mark: str, quotes: int) -> str:
    """Remove spaces before a quote that opens a cell; `quotes` have been opened and closed in the row before."""
    if ' "' not in text:
        return text
    parts = text.split('"')
    for place in range(len(parts) - 1):
        if (quotes + place) % 2 == 0:  # outside of quotes
            bare = parts[place].rstrip(" ")
            if bare.endswith(mark) or (not bare and place == 0 and quotes == 0):
                parts[place] = bare
    return '"'.join(parts)


def _parquet(path: Path) -> Table:
    environment.require("pyarrow", "'imgclf[parquet]'")
    parquet, errors = import_module("pyarrow.parquet"), import_module("pyarrow").ArrowException
    try:
        file = parquet.ParquetFile(path)
    except errors as error:
        raise DatasetError(f"{path}: not a Parquet file, or a damaged one ({error}).") from None

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 1
        try:
            for batch in file.iter_batches():
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield number, ["" if value is None else str(value) for value in values]
        except (errors, OSError) as error:
            raise DatasetError(f"{path}: a damaged Parquet file ({error}).") from None

    return Table(path, tuple(file.schema_arrow.names), rows())
