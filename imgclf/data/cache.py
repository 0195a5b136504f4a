"""Cache arrays on disk: decoded pixels, features, activations, compiled backbones.

An entry is a folder named by a hash of everything that determines its bytes. It contains `array.npy`, which readers
map into memory, and `failed.json`, which says why a row is empty. Decoded pixels have a row for each distinct content,
in the order of SHA-256. An entry is written under another name and renamed when complete: so every entry is complete,
processes that write the same entry do not collide, and what a crash leaves behind is never read and removed later.
Entries of all kinds share one folder and one size limit.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from filelock import FileLock, Timeout

from imgclf import documents, environment
from imgclf.data import images
from imgclf.settings import Decoding

ARRAY = "array.npy"
_LOCK = ".lock"
_ENTRY = re.compile(r"[0-9a-f]{64}")
_STAGE = re.compile(r"\.[0-9a-f]{64}-.*")
_STAGE_MIN_AGE_S = 60.0
MIN_FREE_BYTES = 256 << 20


@dataclass(frozen=True)
class Entry:
    """An array, mapped from a file, and its empty rows with the reason."""

    array: np.ndarray
    failed: dict[int, str]


def default_folder() -> Path:
    """Return the folder of the entries, unless the user names one."""
    return environment.cache_root() / "arrays"


def key(hashes: Sequence[str] | np.ndarray, size_px: int, rules: Decoding) -> str:
    """Name an entry of pixels.

    Args:
        hashes: the contents' SHA-256, sorted, each once; texts, or an array of the dtype S64.
    """
    return digest([size_px, rules.to_dict(), images.fingerprint()], hashes)


def digest(facts: object, hashes: Sequence[str] | np.ndarray = ()) -> str:
    """Name an entry: SHA-256 of everything that determines its bytes.

    Args:
        facts: anything that JSON can represent.
        hashes: of contents, as `key` takes them.
    """
    total = hashlib.sha256(json.dumps(facts).encode())
    total.update(np.asarray(hashes, "S64").tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Store:
    """Stores arrays derived from pixels in the folder of `--cache`, within `--cache-limit-gb`."""

    folder: Path
    limit: int  # bytes

    @classmethod
    def of(cls, cache: str, limit_gb: float) -> Self | None:
        """Return the store of these settings; None if nothing is kept on disk."""
        if cache in ("off", "memory"):
            return None
        return cls(default_folder() if cache == "auto" else Path(cache), round(limit_gb * 1e9))

    def read(self, name: str, shape: tuple[int, ...] | None, dtype: type[np.generic]) -> np.ndarray | None:
        """Map the array of an entry; None if there is none."""
        found = read(self.folder, name, shape, dtype)
        return found.array if found else None

    def keep(self, name: str, array: np.ndarray) -> str | None:
        """Write an array for later runs.

        Returns:
            The reason if it could not be kept, else None.
        """
        try:
            no_room = make_room(self.folder, array.nbytes, self.limit)
            if no_room:
                return no_room
            with Writer(self.folder, name, array.shape, array.dtype.type) as writer:
                writer.append(array)
                writer.finish({})
        except OSError as error:
            return error.strerror or str(error)
        return None


def read(folder: Path, name: str, shape: tuple[int, ...] | None, dtype: type[np.generic] = np.uint8) -> Entry | None:
    """Read an entry and mark it as used; None if there is none. A damaged entry is removed.

    Args:
        shape: the array's; None takes any.
    """
    path = folder / name
    if not path.is_dir():
        return None
    try:
        array = np.load(path / ARRAY, mmap_mode="r")
        failed = {int(row): str(reason) for row, reason in documents.parse((path / "failed.json").read_bytes()).items()}
        if array.shape != (shape or array.shape) or array.dtype != dtype:
            raise ValueError(f"expected {np.dtype(dtype)} {shape}, found {array.dtype} {array.shape}")
    except (OSError, EOFError, ValueError, AttributeError):
        _remove(path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return Entry(array, failed)


def make_room(folder: Path, needed: int, limit: int) -> str | None:
    """Remove leftovers of crashes, and the least recently used entries, until `needed` more bytes are within the limit.

    A little disk space is always left free.

    Returns:
        The reason if there is no room, else None.

    Raises:
        OSError: if the folder cannot be made or read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stage in _matching(folder, _STAGE):
        if _is_abandoned(stage):
            shutil.rmtree(stage, ignore_errors=True)
    if needed > limit:
        return f"{needed / 1e9:.1f} GB are more than --cache-limit-gb {limit / 1e9:g}"
    entries = sorted((_last_use(path), _size(path), path) for path in _matching(folder, _ENTRY))
    held = sum(size for _, size, _ in entries)
    free = _free(folder)
    if needed > free + held:  # then removing them all would help nobody
        return f"{needed / 1e9:.1f} GB are more than the {max(free + held, 0) / 1e9:.1f} GB to spare"
    for _, size, path in entries:
        if held + needed <= limit and needed <= _free(folder):
            break
        _remove(path)
        held -= size
    return None


class Writer:
    """Writes one entry, row by row. Without `finish`, nothing remains.

    Raises:
        OSError: from any method, if the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> None:
        self._path = folder / name
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._stage = folder / f".{name}-{secrets.token_hex(8)}"
        self._lock = FileLock(self._stage / _LOCK)

    def __enter__(self) -> Self:
        self._stage.mkdir()
        try:
            self._lock.acquire()
            self._file = (self._stage / ARRAY).open("wb")
        except OSError:
            self._release()
            shutil.rmtree(self._stage, ignore_errors=True)
            raise
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._release()
        shutil.rmtree(self._stage, ignore_errors=True)

    def _release(self) -> None:
        self._lock.release()
        with contextlib.suppress(OSError):
            (self._stage / _LOCK).unlink(missing_ok=True)

    def append(self, rows: np.ndarray) -> None:
        """Write rows after those before."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def finish(self, failed: dict[int, str], *, keep: bool = True) -> Entry:
        """Move the complete entry to its place and map it.

        Args:
            keep: False if the rows do not match the name of the entry; then only this process uses them.
        """
        with (self._stage / "failed.json").open("w", encoding="utf-8") as file:
            json.dump(failed, file)
            file.flush()
            os.fsync(file.fileno())
        self._file.flush()
        os.fsync(self._file.fileno())
        array = np.load(self._stage / ARRAY, mmap_mode="r")
        if keep:
            self._release()  # a folder with an open file in it cannot be renamed on Windows
            with contextlib.suppress(OSError):  # another process was first: its entry is the same
                self._stage.rename(self._path)
        return Entry(array, failed)


def _matching(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    return (path for path in folder.iterdir() if name.fullmatch(path.name))


def _free(folder: Path) -> int:
    """Count the bytes that may be written."""
    return shutil.disk_usage(folder).free - MIN_FREE_BYTES


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process removes it
        return 0.0


def _size(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.iterdir())
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    """Take an entry out of use in one step, then delete it. A mapped entry stays readable for its reader."""
    gone = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):  # another process was first, or, on Windows, still maps it
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _is_abandoned(stage: Path) -> bool:
    """Whether no process writes here any more: a lock ends with its process."""
    if time.time() - _last_use(stage) < _STAGE_MIN_AGE_S:
        return False
    try:
        with FileLock(stage / _LOCK, timeout=0):
            return True
    except Timeout:
        return False
    except OSError:  # removed in the meantime
        return True
