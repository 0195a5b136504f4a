"""Text in the cells of CSV files, written so that no spreadsheet runs it, and read back unchanged."""

import csv
import io
import re
from collections.abc import Collection, Iterable

_BEGINS_FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?")
_FIRST = frozenset("'=+-@\t\r\uff1d\uff0b\uff0d\uff20")


def is_ordinary(text: str) -> bool:
    """Whether Python's csv module writes a text as `line` does."""
    return text[:1] not in _FIRST and "\r" not in text


def safe(text: str) -> str:
    """Put an apostrophe before a text that spreadsheets take for a formula, such as `=1+1`; numbers stay as they are.

    A text that begins with apostrophes and then like a formula gets one, too, so that `plain` is exact.

    Source: OWASP, CSV Injection.
    """
    if text[:1] not in _FIRST or not _BEGINS_FORMULA.match(text) or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def plain(cell: str) -> str:
    """Take back what `safe` did."""
    return cell[1:] if cell[:1] == "'" and _BEGINS_FORMULA.match(cell) else cell


def line(values: Iterable[object]) -> str:
    """Format one line of CSV, whose texts are safe in a spreadsheet.

    Python 3.11 quotes a carriage return only where it is part of the line's end.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([safe(value) if isinstance(value, str) else value for value in values])
    return text.getvalue().removesuffix("\r\n") + "\n"


def one_of(cell: str, known: Collection[str]) -> str:
    """Find the known name that a cell or an option means.

    As it is, or else whatever the spaces at its ends, and without what protects it from spreadsheets. An unknown one is
    returned without such spaces.
    """
    for form in (cell, plain(cell), cell.strip(), plain(cell.strip())):
        if form in known:
            return form
    alike = [name for name in known if name.strip() == cell.strip()]
    return alike[0] if len(alike) == 1 else cell.strip()
