"""Watch a folder: give each image once it is whole, again when it is replaced, and again when an error may pass."""

import contextlib
import errno
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from imgclf.data import content
from imgclf.prediction import sources

log = logging.getLogger(__name__)

STABLE_S = 0.5
"""How long size and time of a file must stay the same before it is taken for whole."""

GRACE_S = 10.0
"""How long an image with an error is taken for one that is still being written."""

RETRY_S = 1.0
LATE_RETRY_S = 30.0
"""How often an error that may pass is tried again, before and after it is written to the output."""

RESCAN_S = 10.0
"""How often the folder is listed where the system tells of changes: on network drives it does not tell all."""

State = tuple[int, int, int]
"""Size, time and number of a file."""


class Known(Protocol):
    """What an output has predictions for, and when it was last written to, in ns since 1970."""

    changed_ns: int

    def __contains__(self, path: object) -> bool: ...


@dataclass
class _Failure:
    """An image that has an error: since when, in what state, when it is tried again, and whether that was told."""

    state: State
    since: float
    again: float
    is_told: bool = False


class Watcher:
    """The images of a folder, at any depth, that an output lacks, and all that come. It never ends.

    An image in the output is given again if the file is newer than the output. `accepts` decides which predictions are
    written, and must be asked for each.

    Raises:
        DatasetError: if the folder is missing or can no longer be read.
    """

    def __init__(self, folder: Path, known: Known | None = None) -> None:
        self._folder, self._known = folder, known
        self._given: dict[str, State] = {}
        self._seen: dict[str, tuple[State, float]] = {}
        self._failed: dict[str, _Failure] = {}
        self._lock = threading.Lock()  # images are taken in another thread than predictions are written
        for path in sources.in_folder(folder):
            if known and path in known and (state := state_of(path)) and state[1] <= known.changed_ns:
                self._given[path] = state

    def note(self, path: str) -> None:
        """Leave out an image that is predicted already, unless it changes."""
        if state := state_of(path):
            with self._lock:
                self._given[path] = state

    def __iter__(self) -> Iterator[str]:
        wake = changes(self._folder)
        while True:
            now = {path: state for path in sources.in_folder(self._folder) if (state := state_of(path))}
            with self._lock:
                for gone in [path for path in self._given if path not in now]:
                    del self._given[gone]
                self._failed = {path: failure for path, failure in self._failed.items() if path in now}
            yield from (path for path, state in now.items() if self._is_due(path, state))
            began = time.monotonic()
            while not next(wake) and time.monotonic() - began < RESCAN_S and not self._is_pending(now):
                pass
            self._seen = {path: seen for path, seen in self._seen.items() if path in now}

    def _is_due(self, path: str, state: State) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._given.get(path) == state:
                failure = self._failed.get(path)
                if failure is None or now < failure.again:
                    return False
                failure.again = math.inf  # until it is predicted
                return True
            seen, since = self._seen.get(path, (None, now))
            if seen != state:
                self._seen[path] = state, now
                return False
            if now - since < STABLE_S or is_being_written(path):
                return False
            self._given[path] = state
            return True

    def _is_pending(self, listed: dict[str, State]) -> bool:
        """Whether an image is to be looked at soon: it may have become whole, or its error have passed."""
        soon = time.monotonic()
        with self._lock:
            if any(failure.again <= soon for failure in self._failed.values()):
                return True
            return any(self._given.get(path) != state for path, state in listed.items())

    def accepts(self, answer: Any) -> bool:
        """Whether a prediction is written: not an error that may pass, or that the file has since it is half."""
        with self._lock:
            state = self._given.get(answer.path)
            if state is None:  # not of this folder, or gone
                return answer.error is None or state_of(answer.path or "") is not None
            if answer.error is None:
                self._failed.pop(answer.path, None)
                return True
            now = time.monotonic()
            failure = self._failed.get(answer.path)
            if failure is None or failure.state != state:
                failure = self._failed[answer.path] = _Failure(state, now, now)
            may_pass, was_told = content.may_pass(answer.error), failure.is_told
            failure.is_told = was_told or now - failure.since >= GRACE_S
            if failure.is_told:
                failure.again = now + LATE_RETRY_S if may_pass else math.inf
            else:
                failure.again = min(failure.since + GRACE_S, now + (RETRY_S if may_pass else GRACE_S))
            return failure.is_told and not was_told


def state_of(path: str) -> State | None:
    """Return the state of a file; None for one that is empty or missing."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a name with a NUL is no Path)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ino) if status.st_size else None


def is_being_written(path: str) -> bool:
    """Whether another process has the file open for writing, where the system says so: Windows, and Linux for files of
    one's own on local disks."""
    if os.name == "nt":
        try:
            os.rename(path, path)  # noqa: PTH104  (refused while another process has the file open)
        except PermissionError:
            return True
        except OSError:
            return False
        return False
    import fcntl

    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored, if a writer comes in the meantime
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # a lease is given to a reader without writers
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(handle)
    return False


def changes(folder: Path) -> Iterator[bool]:
    """Whether something has changed since, each after STABLE_S at most; always, where the system does not tell."""
    with contextlib.suppress(ImportError, OSError):  # not installed here, too many folders, or none
        import watchfiles  # 30 ms that only a watched folder needs

        milliseconds = round(1000 * STABLE_S)
        told = watchfiles.watch(
            folder,
            watch_filter=None,
            debounce=50,
            step=20,
            rust_timeout=milliseconds,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        yield from (bool(changes) for changes in told)
    while True:
        time.sleep(STABLE_S)
        yield True
