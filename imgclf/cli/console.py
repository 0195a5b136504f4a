"""Output of the commands: results on stdout, notes and progress on stderr.

User text (class names, paths) is never interpreted as Rich markup: a folder named `[cats]` prints as `[cats]`.
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
UNLIMITED = 100_000  # columns

out = Console(markup=False, highlight=False, soft_wrap=True)
err = Console(markup=False, highlight=False, soft_wrap=True, stderr=True)
"""`err.quiet = True` silences notes and progress; errors do not go through it."""


def print_json(value: Any) -> None:
    """Print one JSON document to stdout, indented; in ASCII unless stdout is UTF-8."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only))


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout, with columns of numbers aligned right.

    In a terminal, long cells wrap; in a pipe or a file, the table is as wide as its content.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    drawn = Table(title=None if title is None else Text(title), title_justify="left")
    for place, name in enumerate(columns):
        numeric = all(_is_number(row[place]) for row in cells)
        drawn.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console = out if out.is_terminal else Console(file=out.file, width=UNLIMITED)
    console.print(drawn, soft_wrap=False)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip(" %") or "0")
    except ValueError:
        return False
    return True


def note(text: str) -> None:
    """Print a line to stderr, unless quiet."""
    err.print(text)


@contextmanager
def phases() -> Iterator[Callable[..., None]]:
    """Show progress of work in phases on stderr: one bar, for the current phase, after PROGRESS_AFTER_S seconds.

    Nothing is shown outside a terminal, or when quiet.

    Yields:
        `on_progress(phase, done, total, status="")`, to be called during the work; `total` is None if unknown, and
        `status` replaces the two numbers behind the bar.
    """
    if err.quiet or not err.is_terminal:
        yield lambda phase, done, total, status="": None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    label, how = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[status]}"))
    columns = (label, BarColumn(12), how, TimeRemainingColumn(compact=True))
    redirect = sys.stdout.isatty()  # Rich would else send what goes into a pipe to stderr
    bar = Progress(*columns, console=err, transient=True, redirect_stdout=redirect)
    tasks: dict[str, TaskID] = {}
    begin = time.monotonic()

    def on_progress(phase: str, done: int, total: int | None, status: str = "") -> None:
        status = status or (f"{done:,}" if total is None else f"{done:,}/{total:,}")
        if phase not in tasks:
            for earlier in tasks.values():
                bar.update(earlier, visible=False)
            tasks[phase] = bar.add_task(phase, total=total, status=status)
        shown = total is None or done < total
        bar.update(tasks[phase], completed=done, total=total, visible=shown, status=status)
        if not bar.live.is_started and time.monotonic() - begin > PROGRESS_AFTER_S:
            bar.start()

    try:
        yield on_progress
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show progress of work in one phase.

    Yields:
        `advance(steps=1)`, to be called during the work.
    """
    done = 0
    with phases() as on_progress:

        def advance(steps: int = 1) -> None:
            nonlocal done
            done += steps
            on_progress(description, done, total)

        yield advance
