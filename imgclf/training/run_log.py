"""The log files of a run, and what it says when it cannot end."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from imgclf.errors import RunError
from imgclf.printable import printable
from imgclf.runs import Run

log = logging.getLogger("imgclf")


@contextmanager
def explained(run: Run, *, alone: bool = True) -> Iterator[None]:
    """Say what is kept when the disk is full or the user interrupts.

    Args:
        alone: whether the run is no fold, of which the cross-validation speaks.
    """
    again = f"imgclf train --resume {run.path} resumes from there."
    try:
        yield
    except OSError as error:
        if not run.path.is_dir():
            raise RunError(f"{run.path}: the run folder was deleted during training, so training stopped.") from None
        kept = f" Finished epochs are kept: {again}" if _is_kept(run) else ""
        raise RunError(f"{run.path}: the run cannot be written ({error.strerror or error}).{kept}") from None
    except KeyboardInterrupt as stop:
        stop.add_note(f"{run.path} was begun")  # without which `imgclf train` says that nothing was written
        if alone and _is_kept(run):
            log.info("Finished epochs are kept: %s", again)
        elif alone:
            log.info("%s: interrupted before an epoch was finished. Delete the folder and start over.", run.path)
        raise


def _is_kept(run: Run) -> bool:
    return run.checkpoint.exists() or run.extension.checkpoint.exists()


class _JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": when, "level": record.levelname, "message": record.getMessage()})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


@contextmanager
def log_to(run: Run) -> Iterator[None]:
    """Write imgclf's own log lines to the run as well, as text and as JSON Lines."""
    handlers = [
        logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") for path in (run.log, run.events)
    ]
    handlers[0].setFormatter(_Text("%(asctime)s %(levelname)s %(message)s"))
    handlers[1].setFormatter(_JSONLines())
    level = log.level
    log.setLevel(logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
