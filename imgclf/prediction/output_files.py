"""The file that predictions go to: locked, written under another name until it is whole, and resumed.

Beside a file that can be resumed lies a small one, `.NAME.imgclf.json`: the model and the options that the predictions
were made with, and from which folder, since their paths may be relative to it.
"""

import contextlib
import csv
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TextIO

from imgclf import documents, storage
from imgclf.data import cells, content
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction import sources

log = logging.getLogger(__name__)


def part_of(path: Path) -> Path:
    """Name a file as long as it is not complete; a killed process leaves it, and `--resume` continues it."""
    return path.with_name(f".{path.name}.unfinished.part")


def record_of(path: Path) -> Path:
    """Return the file that tells how another one was made."""
    return path.with_name(f".{path.name}.imgclf.json")


@contextlib.contextmanager
def new(path: Path, option: str = "-o") -> Iterator[Path]:
    """Give a temporary path for a file that gets its name when the block ends or is interrupted.

    Raises:
        UsageError: if the file exists, cannot be made, or another process writes it.
        ImgclfError: if writing fails; the file then does not exist.
    """
    _check_absent(path, option)
    with _locked(path, option):
        _check_absent(path, option)
        part, done = part_of(path), False
        try:
            part.open("wb").close()  # what a killed process left is replaced
            record_of(path).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(path, option, error) from None
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
                part.unlink()
                record_of(path).unlink(missing_ok=True)


def _check_absent(path: Path, option: str) -> None:
    if os.path.lexists(path):
        raise UsageError(f"{path}: the file exists. Choose another {option}, or remove it.")


def _unwritable(path: Path, option: str, error: OSError) -> UsageError:
    return UsageError(f"{path}: the file cannot be written ({error.strerror}). Choose another {option}.")


@contextlib.contextmanager
def _locked(path: Path, option: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_mine = stack.enter_context(storage.locked(path.with_name(f".{path.name}.lock"), remove=True))
        except OSError as error:
            raise _unwritable(path, option, error) from None
        if not is_mine:
            raise UsageError(f"{path}: another imgclf process is writing this file. Wait, or choose another {option}.")
        yield


@dataclass
class Done:
    """The images that a file has predictions for.

    Args:
        record: what `record_of` contains.
        rows: predictions in the file.
        changed_ns: when the file was last written to, in ns since 1970.
        known: the images.
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    changed_ns: int = 0
    known: sources.PathSet = field(default_factory=sources.PathSet)

    def __contains__(self, path: object) -> bool:
        return path in self.known

    def claim(self, made_by: Mapping[str, Any]) -> None:
        """Record what the predictions are made with.

        Raises:
            UsageError: if the file was begun with something else.
            OSError: if it cannot be recorded.
        """
        if self.rows and "made_by" not in self.record:
            log.warning("%s: no record of the model it was begun with; this one predicts the rest.", self.path)
        for name, value in made_by.items():
            before = self.record.get("made_by", made_by).get(name)
            if self.rows and before != value:
                differs = "another model" if name == "model" else f"{name} {_shown(before)}"
                now = "" if name == "model" else f", found {_shown(value)}"
                raise UsageError(f"{self.path}: --resume: it was begun with {differs}{now}. Choose another -o.")
        sessions = self.record.get("sessions", []) if self.rows else []
        if not sessions or sessions[-1][1] != self.known.here:
            sessions = [*sessions, [self.rows, self.known.here]]
        storage.write_json(record_of(self.path), {"made_by": dict(made_by), "sessions": sessions})


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "none"
    return "none" if value is None else str(value)


@contextlib.contextmanager
def create(path: Path) -> Iterator[tuple[TextIO, Done]]:
    """Open a new text file; see `new`. File names that are not text are written as their bytes."""
    with new(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file, Done(path)


@contextlib.contextmanager
def resume(path: Path, format: str, columns: Sequence[str]) -> Iterator[tuple[TextIO, Done]]:
    """Open a text file to resume, or a new one, and name the images whose predictions it contains.

    Each line is on disk as soon as it is written. A partial last line, left by a crash, is removed, and so are lines
    with errors that may have passed, such as a missing file. The part that a killed process left without a file of this
    name becomes the file.

    Raises:
        UsageError: if the file contains something else, another process writes it, or it cannot be opened.
        ImgclfError: if writing fails; the file contains what was finished.
    """
    with _locked(path, "-o"):
        try:
            if not path.exists() and part_of(path).is_file():
                os.replace(part_of(path), path)
            done = _read(path, format, columns)
            file = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise _unwritable(path, "-o", error) from None
        try:
            if format == "csv" and not file.tell():
                file.write(cells.line(columns))
            yield file, done
            file.flush()
        except OSError as error:
            reason = f"{path}: writing failed ({error.strerror})"
            raise ImgclfError(f"{reason}. It contains what was finished: free disk space, and --resume.") from None
        finally:
            with contextlib.suppress(OSError):
                file.close()


def _read(path: Path, format: str, columns: Sequence[str]) -> Done:
    """Read which images a file has predictions for, and rewrite it without the lines that are to be predicted again."""
    done = Done(path)
    if not path.exists():
        return done
    done.record, done.changed_ns = _read_record(path), path.stat().st_mtime_ns
    sessions = done.record.get("sessions", [])
    again: list[tuple[int, int, int]] = []
    end = 0
    with path.open("rb") as file:
        rows = _read_csv(file, path, columns) if format == "csv" else _read_jsonl(file, path)
        for number, (begin, end, name, error) in enumerate(rows, start=-1 if format == "csv" else 0):
            if number < 0:  # the header
                continue
            if error and content.may_pass(error):
                again.append((number, begin, end))
            else:
                done.known.add(name, next((folder for first, folder in reversed(sessions) if first <= number), None))
                done.rows += 1
    if again:
        _rewrite(path, [(begin, stop) for _, begin, stop in again], end)
    elif end < path.stat().st_size:
        os.truncate(path, end)
    if sessions:
        done.record["sessions"] = [
            [first - sum(row < first for row, _, _ in again), place] for first, place in sessions
        ]
    return done


def _session(value: Any, where: str) -> None:
    documents.pair_of(documents.anything)(value, where)
    documents.number(-(2**63), 2**63, whole=True)(value[0], f"{where}[0]")
    documents.text(value[1], f"{where}[1]")


_RECORD = documents.fields({"made_by": documents.map_of(documents.anything), "sessions": documents.list_of(_session)})
_LINE = documents.fields({"path": documents.text}, {"error": documents.maybe(documents.text)})
"""What `--resume` relies on in a record, and in a line of JSON."""


def _read_record(path: Path) -> dict[str, Any]:
    """Return what `Done.claim` wrote; empty if it is gone, or something else."""
    try:
        found: dict[str, Any] = documents.read(record_of(path), _RECORD)
        return {"made_by": found["made_by"], "sessions": found["sessions"]}
    except (OSError, ValueError):
        return {}


def _rewrite(path: Path, without: Sequence[tuple[int, int]], end: int) -> None:
    """Rewrite a file up to `end`, without some ranges of bytes."""
    with storage.replacing(path) as new, path.open("rb") as old, new.open("wb") as file:
        for begin, stop in (*without, (end, end)):
            file.write(old.read(begin - old.tell()))
            old.seek(stop)


Row = tuple[int, int, str, str | None]
"""Where a row begins and ends, in bytes, the path and the error."""


def _read_jsonl(file: IO[bytes], path: Path) -> Iterator[Row]:
    """Read the whole lines."""
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return
        try:
            values = documents.parse(line.decode("utf-8", "surrogateescape"))
            _LINE(values, "")
            row = end, end + len(line), values["path"], values.get("error")
        except ValueError:
            raise _foreign(path, number, line) from None
        end += len(line)
        yield row


def _read_csv(file: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Do the same for CSV, the header first, where a row may span several lines of text."""
    read = end = 0
    line = b""

    def lines() -> Iterator[str]:
        nonlocal read, line
        for line in file:
            read += len(line)
            yield line.decode("utf-8", "surrogateescape")

    rows = csv.reader(lines(), strict=True)
    try:
        for row in rows:
            if not line.endswith(b"\n"):
                return
            if end == 0 and tuple(row) != tuple(columns):
                raise UsageError(
                    f"{path}: expected the columns {','.join(columns)}, found {','.join(row):.200}. "
                    "Choose another -o, or the --top that it was written with."
                )
            if len(row) != len(columns):
                raise _foreign(path, rows.line_num, line)
            name, error = (cells.plain(row[columns.index(key)]) for key in ("path", "error"))
            yield end, read, name, error
            end = read
    except csv.Error:  # the text ends between quotes
        if file.read(1):
            raise _foreign(path, rows.line_num, line) from None


def _foreign(path: Path, number: int, line: bytes) -> UsageError:
    found = line.decode("utf-8", "backslashreplace").strip()
    return UsageError(f"{path}, line {number}: expected a prediction, found {found:.100}. Choose another -o.")
