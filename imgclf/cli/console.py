"""Output of the commands: results on stdout, notes and progress on stderr.

User text (class names, paths) is never interpreted as Rich markup: a folder named `[cats]` prints as `[cats]`.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imgclf import environment
from imgclf.printable import printable, safe_json

PROGRESS_AFTER_S = 2.0
LINE_AFTER_S = 7.0
TICK_S = 0.5
CHILD_AFTER_S = 1.0

LOADING = "loading libraries"
"""The phase in which Keras is imported with TensorFlow or another backend, up to 10 s, where it is needed."""

OnProgress = Callable[..., None]

WIDTH = 80  # columns


class _Console(Console):
    """Escapes what would control the terminal in all text that is printed."""

    def print(self, *objects: Any, **options: Any) -> None:
        shown = (printable(value, keep="\n") if isinstance(value, str) else value for value in objects)
        super().print(*shown, **options)

    def on_broken_pipe(self) -> None:
        """Go on without the reader of a pipe, who has seen enough: files are written and gates applied all the same."""
        environment.discard(self.file)  # type: ignore[arg-type]


out = _Console(markup=False, highlight=False, soft_wrap=True)
err = _Console(markup=False, highlight=False, soft_wrap=True, stderr=True)
"""`err.quiet = True` silences notes and progress; errors do not go through it."""


def print_json(value: Any) -> None:
    """Print one JSON document to stdout, indented; in ASCII unless stdout is UTF-8."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    try:
        print(safe_json(json.dumps(value, indent=2, ensure_ascii=ascii_only)), flush=True)
    except BrokenPipeError:
        environment.discard(sys.stdout)


def table(
    title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]], *, optional: Sequence[str] = ()
) -> list[str]:
    """Print a table to stdout, with columns of numbers aligned right.

    It fits the terminal, or WIDTH columns elsewhere, or what COLUMNS in the environment says: headings and long texts
    wrap between words. Names and numbers stay whole, for which a table outside a terminal may be wider; in a narrower
    terminal they are folded.

    Args:
        optional: columns to leave out, in this order, until the others fit.

    Returns:
        The columns that were left out.
    """
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    asked = os.environ.get("COLUMNS", "")
    width = out.width if out.is_terminal else int(asked) if asked.isdecimal() else WIDTH
    least = [
        max(
            (
                *(cell_len(word) for word in name.split()),
                *(_least(row[place], whole=not place) for row in cells),
            ),
            default=0,
        )
        for place, name in enumerate(columns)
    ]
    kept, left_out = list(range(len(columns))), []
    for name in optional:
        if _drawn([least[place] for place in kept]) <= width:
            break
        kept.remove(columns.index(name))
        left_out.append(name)
    columns, least = [columns[place] for place in kept], [least[place] for place in kept]
    cells = [[row[place] for place in kept] for row in cells]
    fits = _drawn(least) <= width
    if not out.is_terminal:
        width, fits = max(width, _drawn(least)), True
    widths = _widths(least, [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)], width)
    drawn = Table()
    for place, name in enumerate(columns):
        numeric = all(_is_number(row[place]) for row in cells)
        drawn.add_column(
            Text(name),
            justify="right" if numeric else "left",
            overflow="fold",
            width=widths[place] if fits else None,
        )
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    if title is not None:  # not as the table's own, which would wrap where the table is narrow
        out.print(title)
    console = _Console(file=out.file, width=width) if fits and not out.is_terminal else out
    console.print(drawn, soft_wrap=False)
    return left_out


def answer(found: Any) -> None:
    """Print the tables and the sentence that answer a question."""
    for title, columns, rows in found.tables():
        table(title, columns, rows)
    out.print(found.sentence)


def _drawn(widths: Sequence[int]) -> int:
    """Return the columns of the screen that a table takes, with its borders."""
    return sum(widths) + len("│  ") * len(widths) + 1


def _widths(least: Sequence[int], natural: Sequence[int], width: int) -> list[int]:
    """Narrow the widest columns until a table fits. Rich can leave it one wider, and cut off its right border."""
    widths = list(natural)
    for _ in range(_drawn(widths) - width):
        flexible = [place for place, own in enumerate(widths) if own > least[place]]
        if not flexible:
            break
        widths[max(flexible, key=widths.__getitem__)] -= 1
    return widths


LONG = 40
"""Columns from which a cell is a text, which may wrap, and no name."""


def _least(cell: str, *, whole: bool) -> int:
    """Return the columns that a cell needs so that no name is broken."""
    if whole or cell_len(cell) < LONG:
        return cell_len(cell)
    return max(LONG // 2, *map(cell_len, cell.split()))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip(" %") or "0")
    except ValueError:
        return False
    return True


def note(text: str) -> None:
    """Print a line to stderr, unless quiet."""
    _Silence.broken()
    try:
        err.print(printable(text))
    except (OSError, ValueError):  # full or closed: a note stops no work
        environment.discard(sys.stderr)
        quiet, err.quiet = err.quiet, True
        err.print()  # a quiet console forgets what it could not write; else Rich writes it with the next note
        err.quiet = quiet


def notes(texts: Iterable[str]) -> None:
    """Print lines to stderr, unless quiet."""
    for text in texts:
        note(text)


class _Silence:
    """When stderr was last written to, of `time.monotonic`: by notes of any origin, so it is one for the process.

    `ticker` breaks it where no thread can, once it has been started.
    """

    since = 0.0
    ticker: "_Ticker | None" = None

    @classmethod
    def broken(cls) -> None:
        cls.since = time.monotonic()
        if cls.ticker is not None:
            cls.ticker.tell("")


class _Ticker:
    """A small process that writes to our stderr while a call into TensorFlow stops the threads here: `cli/ticker.py`.

    Raises:
        OSError: if stderr is no file, or the process cannot be started.
    """

    def __init__(self, age_s: float) -> None:
        import subprocess

        from imgclf.cli import ticker

        times = (age_s, time.monotonic() - _Silence.since, LINE_AFTER_S)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(ticker.__file__)), str(os.getpid()), *map(str, times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=sys.stderr.fileno(),
            start_new_session=True,  # Ctrl-C is not for it
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        with suppress(OSError, AttributeError):  # of Windows before Python 3.12
            os.set_blocking(self._pipe, False)

    def tell(self, line: str) -> None:
        """Say what is being done, or by an empty line that something was just written."""
        with suppress(OSError):  # it is gone, or is stopped: a line of progress is not worth waiting for
            os.write(self._pipe, printable(line).encode(sys.stderr.encoding or "utf-8", "backslashreplace") + b"\n")

    def stop(self) -> None:
        import subprocess

        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # it is stopped
            self._process.kill()
            self._process.wait()


@contextmanager
def phases(first: str = "starting") -> Iterator[OnProgress]:
    """Show progress of work in phases on stderr.

    In a terminal: one bar, for the current phase, after PROGRESS_AFTER_S seconds. Elsewhere: a line after LINE_AFTER_S
    seconds without any other, also during a call that stops all threads. Nothing when quiet.

    Args:
        first: the phase before the first call.

    Yields:
        `on_progress(phase, done, total, status="")`, to be called during the work; `total` is None if unknown, and
        `status` replaces the two numbers behind the bar.
    """
    if err.quiet:
        yield lambda phase, done, total, status="": None
        return
    shown = _Bar() if err.is_terminal else _Lines()
    shown.update(first, 0, None)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK_S):
            shown.tick()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield shown.update
    finally:
        ended.set()
        thread.join()
        shown.stop()


def _numbers(done: int, total: int | None) -> str:
    if total is None:
        return f"{done:,}" if done else ""
    return f"{done:,}/{total:,}"


class _Bar:
    """A bar in a terminal, which vanishes at the end."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        label, how = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[status]}"))
        columns = (label, BarColumn(12), how, TimeRemainingColumn(compact=True))
        redirect = sys.stdout.isatty()  # Rich would else send what goes into a pipe to stderr
        self._bar = Progress(*columns, console=err, transient=True, redirect_stdout=redirect)
        self._tasks: dict[str, TaskID] = {}
        self._begin = time.monotonic()

    def update(self, phase: str, done: int, total: int | None, status: str = "") -> None:
        status = status or _numbers(done, total)
        if phase not in self._tasks:
            for earlier in self._tasks.values():
                self._bar.update(earlier, visible=False)
            self._tasks[phase] = self._bar.add_task(phase, total=total, status=status)
        self._bar.update(self._tasks[phase], completed=done, total=total, visible=True, status=status)
        self.tick()

    def tick(self) -> None:
        if not self._bar.live.is_started and time.monotonic() - self._begin > PROGRESS_AFTER_S:
            self._bar.start()

    def stop(self) -> None:
        if self._bar.live.is_started:
            self._bar.stop()


class _Lines:
    """Plain lines, when nothing else has been said for a while."""

    def __init__(self) -> None:
        self._begin = _Silence.since = time.monotonic()
        self._now: tuple[str, str] = ("", "")
        self._told: tuple[float, str] = (0.0, "")
        self._ticker: _Ticker | None = None
        self._has_tried = _Silence.ticker is not None  # of work around this

    def update(self, phase: str, done: int, total: int | None, status: str = "") -> None:
        begins = self._now[0] not in ("", phase)
        self._now = phase, status or _numbers(done, total)
        self._tell()
        if begins and self._ticker is None:  # it may be a call into TensorFlow, which stops the thread that ticks
            self._break(LINE_AFTER_S / 2)

    def tick(self) -> None:
        if not self._has_tried and time.monotonic() - self._begin > CHILD_AFTER_S:
            self._has_tried = True  # quick work needs no other process
            with suppress(OSError, ValueError):
                self._ticker = _Silence.ticker = _Ticker(time.monotonic() - self._begin)
                self._tell()
        if self._ticker is None:
            self._break(LINE_AFTER_S)

    def _text(self) -> str:
        return " ".join(filter(None, self._now))

    def _tell(self) -> None:
        """Tell the other process what is being done: at once where it is another phase, else twice a second."""
        now, (at, phase) = time.monotonic(), self._told
        if self._ticker is not None and (phase != self._now[0] or now - at > TICK_S):
            self._told = now, self._now[0]
            self._ticker.tell(self._text())

    def _break(self, after_s: float) -> None:
        now = time.monotonic()
        if now - _Silence.since > after_s:
            note(f"{self._text()} ({now - self._begin:.0f} s)")

    def stop(self) -> None:
        if self._ticker is not None:
            _Silence.ticker = None
            self._ticker.stop()


@contextmanager
def nothing_written() -> Iterator[None]:
    """Say so when the user interrupts before the library has begun a folder, which it notes in the exception."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if not getattr(stop, "__notes__", ()):
            note("Nothing was written yet.")
        raise


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[OnProgress]:
    """Show progress of work in one phase.

    Yields:
        `advance(steps=1)`, to be called during the work.
    """
    done = 0
    with phases(description) as on_progress:

        def advance(steps: int = 1) -> None:
            nonlocal done
            done += steps
            on_progress(description, done, total)

        yield advance
