"""Read the bytes of image files: of regular files only, and no more than fit into the memory."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from imgclf.data import memory
from imgclf.errors import ImageError

NO_FILE = "a pipe, a device or a socket, not a file"


def read(path: Path | str) -> bytes:
    """Read the bytes of an image file: of a regular file only, since a pipe or a device may never end, and of no more
    bytes than half of the memory for decoding.

    Raises:
        ImageError: if it cannot be read.
    """
    with opened_file(path) as (handle, size):
        return _read(handle, size)


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of an image file, as manifests have it.

    Raises:
        ImageError: if it cannot be read.
    """
    return hashlib.sha256(read(path)).hexdigest()


@contextlib.contextmanager
def of(source: Path | str | bytes) -> Iterator[bytes]:
    """Give the bytes of an image for as long as they are needed; large files are read one at a time.

    A thread that also needs `prepared` enters that first.

    Raises:
        ImageError: if the file cannot be read.
    """
    if isinstance(source, bytes):
        yield source
        return
    with opened_file(source) as (handle, size):
        if size < memory.LARGE_FILE_BYTES:
            data = _read(handle, size)
        else:
            with memory.BUDGET.hold(memory.BUDGET.limit, "it takes"):
                yield _read(handle, size)
            return
    yield data


@contextlib.contextmanager
def opened_file(path: Path | str) -> Iterator[tuple[int, int]]:
    """Open an image file, and give its descriptor and its size in bytes.

    Raises:
        ImageError: if it cannot be opened, is not a regular file, or is larger than half of the memory for decoding.
    """
    try:  # a pipe that is opened without waiting for its writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise ImageError(_not_opened(path, error)) from None
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(NO_FILE)
        if status.st_size > memory.BUDGET.limit // 2:
            raise ImageError(
                f"{memory.TOO_LARGE}: a file of {status.st_size / 1e9:.1f} GB, more than half of the "
                f"{memory.BUDGET.limit / 1e9:.1f} GB for decoding (--memory-gb)"
            )
        yield handle, status.st_size
    finally:
        os.close(handle)


def _not_opened(path: Path | str, error: Exception) -> str:
    """Say why a file cannot be opened. Windows has no permission to open a folder; a socket has no such device."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (Path raises for a name with a NUL in it)
    except (OSError, ValueError):
        return reason(error)
    return "a folder, not a file" if stat.S_ISDIR(mode) else reason(error) if stat.S_ISREG(mode) else NO_FILE


def _read(handle: int, size: int) -> bytes:
    """Read up to `size` bytes; what is written to the file meanwhile is not read."""
    try:
        parts = []
        while size > 0 and (part := os.read(handle, min(size, 1 << 30))):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    except (OSError, MemoryError) as error:
        raise ImageError(reason(error)) from None


GONE = "no such file"
LOCKED = "no permission to read it"
UNREAD = "it cannot be read"


def may_pass(reason: str) -> bool:
    """Whether the reason why an image has no prediction lies outside the file, so that another try may succeed."""
    return reason.startswith((GONE, LOCKED, UNREAD, memory.TOO_LARGE))


def reason(error: Exception) -> str:
    """Say in a few words why a file cannot be read."""
    match error:
        case FileNotFoundError():
            return GONE
        case PermissionError():
            return LOCKED
        case IsADirectoryError():
            return "a folder, not a file"
        case MemoryError():
            return memory.TOO_LARGE
        case OSError():
            return f"{UNREAD} ({error.strerror or error})"
    return f"{UNREAD} ({error})"
