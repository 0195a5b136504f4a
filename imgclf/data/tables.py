"""Read CSV, TSV and Parquet tables as text, row by row."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from imgclf import environment
from imgclf.errors import DatasetError

SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Table:
    """A table's header and rows, as text; `line` of a row is where it begins in the file."""

    path: Path
    header: tuple[str, ...]
    rows: Iterator[tuple[int, Sequence[str]]]


def open_table(path: Path) -> Table:
    """Read a table's header; the rows follow one by one.

    CSV is UTF-8 or UTF-16 with a byte order mark, with commas, semicolons or tabs between the fields.

    Raises:
        DatasetError: if it cannot be read; also while the rows are read.
        MissingError: if it is Parquet and pyarrow is not installed.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _parquet(path)
        rows = _rows(path)
        _, header = next(rows, (1, []))
    except OSError as error:
        raise DatasetError(f"{path}: the table cannot be read ({error.strerror or error}).") from None
    return Table(path, tuple(name.strip() for name in header), rows)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, the header among them, each with the line where it begins; empty lines are left out."""
    with path.open("rb") as raw:
        utf16 = raw.read(2) in (b"\xff\xfe", b"\xfe\xff")
    # Bytes that are no UTF-8 stay what they are: a path may hold them, a label may not.
    encoding, errors = ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")
    line = 1
    quotes = 0  # in the lines of one row
    try:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            first = file.readline()
            file.seek(0)
            mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)

            def lines() -> Iterator[str]:
                nonlocal quotes
                for text in file:
                    quotes += text.count('"')
                    yield text

            reader = csv.reader(lines(), delimiter=mark, skipinitialspace=True)
            for row in reader:
                if row and quotes % 2 and set(row[-1]) & set("\r\n"):  # it has swallowed all lines after it
                    raise csv.Error("a quote opens in it and is never closed")
                if row:
                    yield line, row
                line, quotes = reader.line_num + 1, 0
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}, line {line}: not a row of a table ({error}).") from None


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
