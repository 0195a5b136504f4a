"""Find weights: first in the caches, then on the network."""

import contextlib
import hashlib
import os
import secrets
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from imgclf.environment import cache_root
from imgclf.errors import MissingError
from imgclf.models.catalog import HubFile

CONNECT_S = 2.0
STALL_S = 30.0
_CHUNK_BYTES = 1_000_000


def folders() -> tuple[Path, Path]:
    """Where files of weights are looked for: this package's own cache, then the one that Keras itself fills."""
    return cache_root() / "keras" / "models", Path.home() / ".keras" / "models"


def cached(file: HubFile) -> Path | None:
    """Return the file in one of the caches, or None; a copy with another content than the hub's does not count."""
    for folder in folders():
        path = folder / file.name
        if path.is_file() and _is_whole(path, file):
            return path
    return None


def fetch(
    file: HubFile,
    *,
    offline: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    advice: str = "",
) -> Path:
    """Return the file on this machine, downloaded if it has to be.

    Args:
        advice: another way out, for the message of the error.
        offline: never touch the network.
        on_progress: called with the MB that have arrived and the MB of the whole file (0 where the hub does not say).

    Raises:
        MissingError: if it is in no cache and cannot be had, saying where to put it by hand.
    """
    found = _get(file, offline, on_progress)
    if isinstance(found, Path):
        return found
    raise MissingError(
        f"{file.name}: these weights are not on this machine and could not be downloaded ({found}).\n"
        f"  Put into {folders()[0]}\n    {file.url}\n      as {file.name}\n  {advice}".rstrip()
    )


def _get(file: HubFile, offline: bool, on_progress: Callable[[int, int], None] | None) -> Path | str:
    """Return the file on this machine, or why it cannot be had."""
    found = cached(file)
    if found:
        return found
    reason = "--offline" if offline else why_unreachable(file.url)
    if reason is not None:
        return reason
    try:
        return _download(file, on_progress)
    except (OSError, HTTPException) as error:
        return str(getattr(error, "reason", None) or error)


def _hasher(file: HubFile) -> "hashlib._Hash":
    return hashlib.sha256() if len(file.hash or "") == 64 else hashlib.md5(usedforsecurity=False)


def _is_whole(path: Path, file: HubFile) -> bool:
    if file.hash is None:
        return path.stat().st_size > 0
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: _hasher(file)).hexdigest() == file.hash


def why_unreachable(url: str) -> str | None:
    """None if the address answers within CONNECT_S seconds, else the reason.

    In a thread, because the look-up of a host's name obeys no time-out.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_S).close()
            answers.append(None)
        except Exception as error:
            answers.append(str(getattr(error, "reason", None) or error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    return answers[0] if answers else f"no answer within {CONNECT_S:g} s"


def _download(file: HubFile, on_progress: Callable[[int, int], None] | None) -> Path:
    """Into the own cache, under its name only once it is whole.

    Raises:
        OSError, HTTPException: if the network or the disk fails, or something else than the file arrived.
    """
    folder = folders()[0]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{file.name}.{secrets.token_hex(4)}"
    try:
        hasher, done = _hasher(file), 0
        with temporary.open("xb") as target, urllib.request.urlopen(file.url, timeout=STALL_S) as source:
            total = int(source.headers.get("Content-Length") or 0)
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                hasher.update(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(done // _CHUNK_BYTES, total // _CHUNK_BYTES)
        if done < total or (file.hash and hasher.hexdigest() != file.hash):
            raise OSError("what arrived is damaged: another checksum than expected")
        os.replace(temporary, folder / file.name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return folder / file.name
