"""What the commands print: results on stdout, notes and progress on stderr.

User text (class names, paths) is never read as Rich markup: a folder named `[cats]` prints as `[cats]`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PROGRESS_AFTER_S = 2.0

out = Console(markup=False, highlight=False)
err = Console(stderr=True, markup=False, highlight=False)
"""`err.quiet = True` silences notes and progress; errors are printed without it."""


def print_json(value: Any) -> None:
    """Print one JSON document to stdout, indented; outside UTF-8 in pure ASCII."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only))


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; columns of numbers are aligned right.

    In a terminal, long cells are folded, never cut. In a pipe or a file the table is as wide as its content.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    drawn = Table(title=None if title is None else Text(title), title_justify="left")
    for place, name in enumerate(columns):
        numeric = all(_is_number(row[place]) for row in cells)
        drawn.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    out.print(drawn, width=None if out.is_terminal else 100_000, crop=False)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip(" %") or "0")
    except ValueError:
        return False
    return True


def note(text: str) -> None:
    """Say something on stderr, on a line of its own, unless quiet."""
    err.print(Text(text), soft_wrap=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr for work that takes more than PROGRESS_AFTER_S seconds; none outside a terminal.

    Args:
        description: what is being done.
        total: how many steps there are; None where that is unknown.

    Yields:
        `advance(steps=1)`, to be called as work gets done.
    """
    if err.quiet or not err.is_terminal:
        yield lambda steps=1: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    label = TextColumn("{task.description}", markup=False)
    bar = Progress(label, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True)
    task = bar.add_task(description, total=total)
    begin = time.monotonic()

    def advance(steps: int = 1) -> None:
        bar.advance(task, steps)
        if not bar.live.is_started and time.monotonic() - begin > PROGRESS_AFTER_S:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
