"""Learn everything about an image file in one pass, and remember it.

A file is read once: its hash, its header, whether all of it can be decoded, and the statistics of its pixels. What was
seen stays in the cache by the file's path, size and time of change, and by its content. So a second scan opens nothing,
a scan that was interrupted goes on where it was, and a copy of a file elsewhere is not decoded again. The pairs of
near-duplicates among the same images are looked for once, too.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from imgclf import environment
from imgclf.data import content, images, similar, statistics
from imgclf.data.dataset import Dataset
from imgclf.errors import ImageError

log = logging.getLogger("imgclf")

In = TypeVar("In")
Out = TypeVar("Out")

VERSION = 3
"""Part of every key: raised when the same file may give another record, or the same thumbnails other pairs."""

SEARCHES = 50
"""Number of searches for near-duplicates that are kept; the oldest are removed first."""

LIMIT_BYTES = 2_000_000_000
"""Maximum size of the scans on disk, enough for about a million images. Above it, all are removed."""

DTYPE = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),
        ("format", "S8"),
        ("gray", "?"),
        ("turned", "?"),
        ("animated", "?"),
        ("lost", "f4"),
        ("lacks_scans", "?"),
        ("largest", "f8"),
        ("without_number", "f4"),
        *((name, statistics.DTYPE[name]) for name in statistics.DTYPE.names or ()),
    ]
)
"""The record of one content: stored pixels, Pillow's name of the format, whether it is stored as gray, has an EXIF
orientation, has more frames than one; the share of it that is lost, whether it is a progressive JPEG that ends early,
its largest gray value where it has more than 8 bits, and the share of its pixels that are NaN (`images.Look`); and
`statistics.DTYPE`."""

_PAIR = np.dtype([("first", "i8"), ("second", "i8"), ("likeness", "f4")])

CHUNK = 32
_SAVE_EVERY_S = 5.0
_DOUBT_NS = 2_000_000_000


@dataclass(frozen=True)
class Seen:
    """The SHA-256 and the record of a file, or the reason why it has none."""

    sha256: str = ""
    record: bytes = b""
    reason: str = ""

    @property
    def header(self) -> images.Header:
        row = np.frombuffer(self.record, DTYPE)[0]
        return images.Header(int(row["width"]), int(row["height"]), row["format"].decode())


class Scanner:
    """Scans files and caches what it finds. As a context manager, it saves the rest at the end.

    If the cache cannot be read or written, nothing is cached, and a warning says so.

    Args:
        allow_truncated: whether a truncated file is an image.
        folder: where the scans are kept; by default in the cache.
    """

    def __init__(self, allow_truncated: bool = False, folder: Path | None = None) -> None:
        self._allow_truncated = allow_truncated
        self._folder = folder or environment.cache_root() / "scans"
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._root = b""
        self._files: dict[bytes, tuple[int, int, int, bytes]] = {}  # path -> size, two times in ns, content
        self._contents: dict[bytes, Seen] = {}
        self._new_files: list[tuple[bytes, bytes, int, int, int, bytes]] = []
        self._new_contents: list[tuple[bytes, bytes, str]] = []
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._save()
        with self._lock:
            if self._database:
                self._database.close()
            self._database = None

    def examine(self, root: Path, paths: Sequence[str]) -> Iterator[list[Seen]]:
        """Scan files below a folder, in threads; yield lists of results in the order of the paths."""
        self._enter_root(root)
        base = str(root)
        chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
        try:
            yield from in_threads(lambda chunk: self._examine(base, chunk), chunks)
        finally:
            self._save()

    def records(self, dataset: Dataset) -> np.ndarray:
        """Return the records of a dataset's samples in their order, (n,) of DTYPE; scan those not yet known.

        A sample that can no longer be read has zeros.
        """
        wanted = [bytes.fromhex(s.sha256) for s in dataset.samples]
        missing = [s.path for s, key in zip(dataset.samples, wanted, strict=True) if key not in self._contents]
        if missing:
            for _ in self.examine(dataset.root, missing):
                pass
        blank = bytes(DTYPE.itemsize)
        found = (self._contents.get(key) for key in wanted)
        return np.frombuffer(b"".join(seen.record if seen and seen.record else blank for seen in found), DTYPE)

    def near_duplicates(self, thumbs: np.ndarray, min_likeness: float) -> similar.Pairs:
        """Find near-duplicates among thumbnails, uint8 (n, 32, 32), or return the cached pairs of the same ones."""
        rules = f"{min_likeness!r} {thumbs.shape}".encode()
        key = hashlib.sha256(rules + np.ascontiguousarray(thumbs).tobytes()).digest()
        with self._lock:
            try:
                query = "SELECT pairs FROM searches WHERE thumbs = ?"
                row = self._database.execute(query, (key,)).fetchone() if self._database else None
            except sqlite3.Error as error:
                self._give_up(error)
                row = None
        if row:
            kept = np.frombuffer(row[0], _PAIR)
            return similar.Pairs(kept["first"], kept["second"], kept["likeness"])
        pairs = similar.find(thumbs, min_likeness)
        table = np.zeros(len(pairs), _PAIR)
        table["first"], table["second"], table["likeness"] = pairs.first, pairs.second, pairs.likeness
        with self._lock:
            if self._database:
                try:
                    with self._database:
                        self._database.execute("INSERT OR REPLACE INTO searches VALUES (?, ?)", (key, table.tobytes()))
                        self._database.execute(
                            "DELETE FROM searches WHERE rowid <= (SELECT MAX(rowid) FROM searches) - ?", (SEARCHES,)
                        )
                except sqlite3.Error as error:
                    self._give_up(error)
        return pairs

    def _examine(self, base: str, paths: Sequence[str]) -> list[Seen]:
        """Scan some files, in one thread."""
        with images.prepared(self._allow_truncated):
            return self._examine_prepared(base, paths)

    def _examine_prepared(self, base: str, paths: Sequence[str]) -> list[Seen]:
        results: list[Seen | None] = []
        fresh: list[tuple[int, images.Look, bytes]] = []  # place in results; without the images, which may be large
        squares = []
        files = []
        for path in paths:
            name, key = os.fsencode(path), b""
            try:
                status = os.stat(f"{base}/{path}")  # noqa: PTH116  (a Path for each would cost more than the call)
                old = self._files.get(name)
                state = status.st_size, status.st_mtime_ns, _inode_changed(status)
                if old and old[:3] == state:
                    results.append(self._contents[old[3]])
                    continue
                with content.of(f"{base}/{path}") as data:
                    key = hashlib.sha256(data).digest()
                    if not _is_in_doubt(status.st_mtime_ns):
                        files.append((self._root, name, *state, key))
                    if known := self._contents.get(key) or self._find(key):
                        results.append(known)
                        continue
                    look, tiles = self._look(data)
                squares.append(tiles)
                fresh.append((len(results), look, key))
                results.append(None)
            except (ImageError, OSError, ValueError) as error:  # ValueError: a path with a NUL in it
                reason = str(error) if isinstance(error, ImageError) else content.reason(error)
                results.append(Seen(key.hex(), b"", reason))
        made = self._records(fresh, squares)
        for (place, _, _), seen in zip(fresh, made, strict=True):
            results[place] = seen
        seen_all = [seen for seen in results if seen]
        self._remember(files, seen_all)
        return seen_all

    def _look(self, data: bytes) -> tuple[images.Look, statistics.Tiles]:
        with images.look(data, statistics.SIDE_PX, self._allow_truncated) as (look, image):
            return look, statistics.tiles(image)

    def _find(self, key: bytes) -> Seen | None:
        """Look up a content that no known file has."""
        with self._lock:
            if not self._database:
                return None
            try:
                query = "SELECT record, reason FROM contents WHERE sha256 = ?"
                row = self._database.execute(query, (key,)).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
                return None
            if row:
                self._contents[key] = Seen(key.hex(), *row)
            return self._contents.get(key)

    def _records(
        self, fresh: Sequence[tuple[int, images.Look, bytes]], squares: Sequence[statistics.Tiles]
    ) -> list[Seen]:
        rows = np.zeros(len(fresh), DTYPE)
        measured = statistics.measure(squares)
        for name in statistics.DTYPE.names or ():
            rows[name] = measured[name]
        for row, (_, look, _) in zip(rows, fresh, strict=True):
            row["width"], row["height"], row["format"] = look.header.width, look.header.height, look.header.format
            row["gray"], row["turned"], row["animated"] = look.is_gray, look.is_turned, look.is_animated
            row["lost"], row["lacks_scans"], row["largest"] = look.lost, look.lacks_scans, look.largest
            row["without_number"] = look.without_number
        return [Seen(key.hex(), row.tobytes()) for row, (_, _, key) in zip(rows, fresh, strict=True)]

    def _remember(self, files: Sequence[tuple[bytes, bytes, int, int, int, bytes]], seen: Sequence[Seen]) -> None:
        with self._lock:
            for one in seen:
                key = bytes.fromhex(one.sha256)
                if key and key not in self._contents and images.is_lasting(one.reason):
                    self._contents[key] = one
                    self._new_contents.append((key, one.record, one.reason))
            self._new_files += [row for row in files if row[5] in self._contents]
            due = time.monotonic() - self._saved > _SAVE_EVERY_S
        if due:
            self._save()

    def _enter_root(self, root: Path) -> None:
        """Load the records of the files below a folder."""
        name = os.fsencode(root.resolve())
        if name == self._root:
            return
        self._root = name
        self._files = {}
        if not self._database:
            return
        query = (
            "SELECT path, size, changed, inode_changed, sha256, record, reason "
            "FROM files JOIN contents USING (sha256) WHERE root = ?"
        )
        try:
            for path, *state, key, record, reason in self._database.execute(query, (name,)):
                self._files[path] = (*state, key)
                if key not in self._contents:
                    self._contents[key] = Seen(key.hex(), record, reason)
        except sqlite3.Error as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        rules = f"{VERSION} {self._allow_truncated} {DTYPE.descr} {images.fingerprint()}"
        name = f"{hashlib.sha256(rules.encode()).hexdigest()[:16]}.sqlite"
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        if path.exists() and path.stat().st_size > LIMIT_BYTES:
            path.unlink()
        database = sqlite3.connect(path, timeout=30, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(
            "CREATE TABLE IF NOT EXISTS contents (sha256 BLOB PRIMARY KEY, record BLOB, reason TEXT);"
            "CREATE TABLE IF NOT EXISTS files (root BLOB, path BLOB, size INTEGER, changed INTEGER,"
            " inode_changed INTEGER, sha256 BLOB, PRIMARY KEY (root, path)) WITHOUT ROWID;"
            "CREATE TABLE IF NOT EXISTS searches (thumbs BLOB PRIMARY KEY, pairs BLOB);"
        )
        return database

    def _save(self) -> None:
        with self._lock:
            contents, self._new_contents = self._new_contents, []
            files, self._new_files = self._new_files, []
            self._saved = time.monotonic()
            if not self._database or not (contents or files):
                return
            try:
                with self._database:
                    self._database.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?, ?)", contents)
                    self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", files)
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("%s: the scan of the images cannot be cached there (%s).", self._folder, error)
        if self._database:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def in_threads(function: Callable[[In], Out], items: Sequence[In]) -> Iterator[Out]:
    """Yield results in order, computed in threads slightly ahead of the reader; stop after an error or an interrupt."""
    threads = environment.cpu_count()  # with more they wait for each other
    pool = ThreadPoolExecutor(threads)
    ahead: deque[Future[Out]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _inode_changed(status: os.stat_result) -> int:
    """Return the time that no program can set, unlike that of the content; 0 on Windows, which has none."""
    return 0 if os.name == "nt" else status.st_ctime_ns


def _is_in_doubt(changed_ns: int) -> bool:
    """Whether a file may still change within the same tick of its clock, so that its time says nothing."""
    return abs(time.time_ns() - changed_ns) < _DOUBT_NS
