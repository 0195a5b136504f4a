"""Write files and folders whole or not at all, replace several in one step, and lock them against other processes.

Everything unfinished lies in a stage, a hidden folder beside its target with a lock inside. A stage whose lock is free
belongs to a killed process, and the next one to write there removes it.
"""

import atexit
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf import documents
from imgclf.errors import ImgclfError, RunError, UsageError

if TYPE_CHECKING:
    from filelock import FileLock

STAGE = ".imgclf-part"
"""How the name of a stage ends."""

READY = ".imgclf-ready"
"""A set of files that is whole and replaces files of the folder that contains it, one by one."""

USE = ".in-use"
"""How the name of a lock ends whose holder uses a folder of the cache."""

_USED: dict[Path, "FileLock"] = {}

LOCK = ".lock"
_ORDERS = ".orders.json"
_OLD = ".old"
_YOUNG_S = 60.0
"""How long a stage without a lock may be one that is being made."""

_SETTLE_S = 60.0
"""How long a reader waits for another process that moves a set of files into place."""


def refuse_existing(path: Path | None, option: str = "-o") -> None:
    """Check, before the work, that a file to write is new; None is one that is not asked for.

    Raises:
        UsageError: if it exists.
    """
    if path is not None and os.path.lexists(path):
        raise UsageError(f"{option} {path}: expected a new file, found one that exists. Choose another name.")


def refuse_suffix(path: Path, *suffixes: str, option: str = "-o") -> None:
    """Check, before the work, that the name of a file to write ends as one that is known.

    Raises:
        UsageError: if it ends otherwise.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}.")


def write_named(path: Path, data: bytes | str, option: str = "-o") -> None:
    """Write a file atomically whose name an option gave.

    Raises:
        UsageError: if it cannot be written.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}).") from None


def write_atomic(path: Path, data: bytes | str, *, parents: bool = True) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    Args:
        parents: whether to create missing folders above it.

    Raises:
        OSError: if the folder cannot be written or the disk is full; the old file stays untouched.
    """
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    with replacing(path, parents=parents) as new, new.open("wb") as file:
        file.write(raw)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, in UTF-8."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path, *, parents: bool = True) -> Iterator[Path]:
    """Give a place for a file that takes the name `path` when the block succeeds; otherwise nothing changes.

    Yields:
        A path in a stage, with the extension of the file.

    Raises:
        OSError: if it cannot be written.
    """
    with stage(path.parent, parents=parents) as folder:
        new = folder / f"new{path.suffix}"
        yield new
        _to_disk(new)
        os.replace(new, path)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that is complete when the block succeeds, and absent otherwise.

    Args:
        folder: new or empty.

    Yields:
        A stage beside it.

    Raises:
        OSError: if it cannot be written, or contains something.
    """
    target = folder.resolve()
    with stage(target.parent) as place:
        yield place
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()  # an empty one; Windows renames onto none
        place.rename(target)


@contextlib.contextmanager
def stage(parent: Path, *, parents: bool = True) -> Iterator[Path]:
    """Make a temporary folder inside `parent`, gone afterwards; what killed processes left there is removed.

    Raises:
        OSError: if it cannot be made.
    """
    from filelock import FileLock  # 15 ms, which readers do not need

    if parents:
        parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    place = parent / f".{secrets.token_hex(6)}{STAGE}"
    place.mkdir()
    lock = FileLock(place / LOCK, timeout=0)
    try:
        with contextlib.suppress(NotImplementedError):  # a file system without locks
            lock.acquire()
        content = place / "content"
        content.mkdir()
        yield content
    finally:
        lock.release()
        shutil.rmtree(place, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the stages of killed processes from a folder."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for name in [entry.name for entry in entries if entry.name.endswith(STAGE)]:
            if _is_abandoned(parent / name):
                shutil.rmtree(parent / name, ignore_errors=True)


def _is_abandoned(place: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        if not (place / LOCK).exists():
            return time.time() - place.stat().st_mtime > _YOUNG_S
        with FileLock(place / LOCK, timeout=0):
            return True
    except (OSError, NotImplementedError, Timeout):  # in use, or removed meanwhile
        return False


@contextlib.contextmanager
def locked(path: Path, timeout_s: float = 0.0, *, remove: bool = False) -> Iterator[bool]:
    """Hold a lock file while the block runs; the lock ends with its process.

    Args:
        remove: whether to delete the file afterwards.

    Yields:
        Whether it was acquired in time.

    Raises:
        OSError: if the file cannot be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        if remove and os.name != "nt":  # while it is held: whoever has opened it notices that it is gone
            path.unlink(missing_ok=True)
        lock.release()
        if remove:
            with contextlib.suppress(OSError):  # Windows refuses while another process has it open
                path.unlink(missing_ok=True)


def _plain_name(value: Any, where: str) -> None:
    """Check that a name is one in the folder itself: a folder may come from others."""
    documents.text(value, where)
    if value in ("", ".", "..") or set(value) & set("/\\:\0"):
        raise ValueError(f"{where} is not a name in this folder")


_ORDERS_SHAPE = documents.fields({"remove": documents.list_of(_plain_name), "leave": documents.list_of(_plain_name)})


def install(ready: Path, folder: Path, *, remove: Iterable[str] = (), leave: Iterable[str] = ()) -> None:
    """Replace files and folders of a folder by new ones, in one step.

    From the first rename on, the new set holds: a process that finds it half in place moves the rest, see `settle`.
    The caller holds the lock of the folder.

    Args:
        ready: the new ones, in a folder on the same disk, which is gone afterwards.
        remove: names of files that the folder has and the new set lacks.
        leave: names in `ready` that are discarded.

    Raises:
        OSError: if the disk does not allow it.
    """
    write_json(ready / _ORDERS, {"remove": list(remove), "leave": list(leave)})
    for path in ready.rglob("*"):
        if path.is_file():
            _to_disk(path)
    ready.rename(folder / READY)
    finish_install(folder)


def finish_install(folder: Path) -> None:
    """Move the rest of a new set of files into place; the caller holds the lock of the folder.

    Raises:
        RunError: if it is damaged, or would change something outside of the folder.
        OSError: if the disk does not allow it.
    """
    ready = folder / READY
    if not ready.is_dir():
        return
    try:
        orders = documents.read(ready / _ORDERS, _ORDERS_SHAPE)
    except FileNotFoundError:  # killed while the empty rest was being removed
        orders = {"remove": [], "leave": [path.name for path in ready.iterdir()]}
    except ValueError as error:
        raise RunError(f"{ready / _ORDERS}: damaged ({error}). Remove {ready}, or restore the folder.") from None
    for name in orders["remove"]:
        _remove(folder / name)
    for path in sorted(ready.iterdir()):
        if path.name in (_ORDERS, _OLD, *orders["leave"]):
            continue
        target = folder / path.name
        if target.is_dir():  # which no rename replaces
            _remove(ready / _OLD)
            target.rename(ready / _OLD)
        os.replace(path, target)
    (ready / _ORDERS).unlink(missing_ok=True)
    shutil.rmtree(ready, ignore_errors=True)


def settle(folder: Path) -> None:
    """Finish what a killed process began with `install`, before files of the folder are read.

    Raises:
        RunError: if that cannot be finished here.
    """
    if not (folder / READY).is_dir():
        return
    try:
        with locked(folder / LOCK, _SETTLE_S) as is_mine:
            if not is_mine:
                raise RunError(f"{folder}: another imgclf process is replacing its files. Wait for it.")
            finish_install(folder)
    except OSError as error:
        raise RunError(
            f"{folder}: new files are ready in {READY} and cannot be moved into place ({error.strerror}). Run this "
            "once where the folder can be written."
        ) from None


def use(folder: Path) -> None:
    """Keep a folder of the cache, present or to be made, from being cleared as long as this process lives."""
    from filelock import FileLock

    if folder not in _USED:
        lock = FileLock(folder.with_name(f".{folder.name}.{secrets.token_hex(6)}{USE}"))
        with contextlib.suppress(OSError, NotImplementedError):  # a cache that cannot be written cannot be cleared
            folder.parent.mkdir(parents=True, exist_ok=True)
            for left in folder.parent.glob(f".{folder.name}.*{USE}"):
                if not _is_held(left):
                    left.unlink()
            lock.acquire()
            _USED[folder] = lock
            atexit.register(_release, folder)


def _release(folder: Path) -> None:
    lock = _USED.pop(folder)
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def clear(root: Path) -> list[Path]:
    """Delete everything in a cache but what a running process uses or writes. Links are deleted, not their targets.

    Returns:
        What is in use.

    Raises:
        ImgclfError: if something cannot be deleted.
    """
    kept: list[Path] = []
    try:
        for entry in sorted(root.iterdir()) if root.is_dir() else ():
            if not entry.is_dir() or entry.is_symlink():
                entry.unlink()
                continue
            held = {path for path in entry.iterdir() if _is_held(path)}
            used = {path for path in entry.iterdir() if any(_names_use(lock, path) for lock in held)}
            for path in set(entry.iterdir()) - held - used:
                _remove(path)
            kept += sorted(used | {path for path in held if path.is_dir()})
            if not held:
                entry.rmdir()
    except OSError as error:
        raise ImgclfError(f"{error.filename}: cannot be deleted ({error.strerror}).") from None
    return kept


def _names_use(lock: Path, folder: Path) -> bool:
    return lock.name.endswith(USE) and lock.name.startswith(f".{folder.name}.")


def _is_held(path: Path) -> bool:
    """Whether another process, or this one, holds the lock that a file is or a folder contains."""
    from filelock import FileLock, Timeout

    lock = path if path.name.endswith(USE) else path / LOCK
    try:
        if not lock.is_file():
            return False
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: a rename may else outrun its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
