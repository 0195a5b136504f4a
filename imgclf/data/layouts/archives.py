"""Unpack zip and tar archives into folders.

Nothing that is packed in them can be written outside the folder.

Formats: APPNOTE.TXT of PKWARE for zip; POSIX.1-1988 and 2001 (ustar, pax) and GNU tar.
"""

import contextlib
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Self

from imgclf.data import images, litter, unpacking
from imgclf.data.file_listing import Progress
from imgclf.data.split_names import is_split
from imgclf.errors import DatasetError

MOST_FILES = 20_000_000
MOST_RATIO, FREE_BYTES = 200, 1_000_000_000
"""Archives of more entries are refused, and those that unpack to more than FREE_BYTES and to more than MOST_RATIO times
their own size: photographs hardly shrink in an archive, and what does is empty."""

MOST_NAME_BYTES = 1_000_000
"""The longest header of a tar entry, such as a long name."""

SPARE_BYTES = 100_000_000
"""Space left free on the disk: an archive of a few kilobytes can unpack to many terabytes."""

_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError, NotImplementedError, ValueError),
)


@dataclass
class _Member:
    """One entry: its name, bytes, what it points to if it is a link, and how to read it; a folder has no reader."""

    name: str
    size: int
    link: str | None = None
    open: Callable[[], IO[bytes] | None] | None = None


def is_archive(path: Path) -> bool:
    """Whether a file's content, whatever its name, is a zip or a tar, compressed or not."""
    try:
        return path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path))
    except (OSError, *_BROKEN):
        return False


def _is_tar(path: Path) -> bool:
    with tarfile.open(path, tarinfo=_Entry):
        return True


def unpack(path: Path, on_progress: Progress | None = None) -> Path:
    """Unpack an archive into a folder in the cache, once, and return it.

    If the archive wraps everything in one folder, that folder is returned.

    Raises:
        DatasetError: if the archive is damaged or encrypted, does not fit on the disk, or contains something that
            would end up outside of it: a path that leads out, or a link to anything but a file in it.
    """
    return _core(unpacking.once(path, [path], ["archive"], lambda folder: _fill(path, folder, on_progress)))


def _core(folder: Path) -> Path:
    """Skip folders that contain only one folder, except class folders and folders of a split."""
    while True:
        entries = _shown(folder)
        if len(entries) != 1 or not entries[0].is_dir() or is_split(entries[0].name):
            return folder
        inside = _shown(entries[0])
        if all(entry.is_file() and entry.suffix.lower() in images.SUFFIXES for entry in inside):
            return folder
        folder = entries[0]


def _shown(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".") and not litter.is_system(entry.name)]


def _fill(path: Path, folder: Path, on_progress: Progress | None) -> None:
    members = _of_zip if zipfile.is_zipfile(path) else _of_tar
    room = _Room(path, folder)
    files: set[str] = set()
    links: dict[str, str] = {}
    try:
        if members is _of_zip:  # before anything is written; a tar has no list of its entries
            _foresee(path, folder)
        for member, done, total in members(path):
            place = _place(path, member.name)
            if on_progress:
                on_progress(done, total)
            if place.split("/")[0] in ("", "__MACOSX"):  # Finder's copies of its own notes
                continue
            room.take(member.size)
            if member.link is not None:
                links[place] = member.link
                continue
            target = folder / place
            if member.open is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            if place not in files and target.exists():
                raise DatasetError(f"{path}: two paths differ only in case: {place!a}. Rename one of them.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() or _unreadable(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            files.add(place)
    except (OSError, *_BROKEN) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; a decompressor's has no number
            raise
        raise DatasetError(f"{path}: the archive is damaged, encrypted or of an unknown kind ({error}).") from None
    _follow(path, folder, files, links, room)


class _Room:
    """What an archive may still unpack to."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder
        self._free = shutil.disk_usage(folder).free - SPARE_BYTES
        self._bytes, self._entries = 0, 0
        self._most = max(FREE_BYTES, MOST_RATIO * path.stat().st_size)

    def take(self, size: int) -> None:
        """Take the bytes of one entry.

        Raises:
            DatasetError: if there are too many of them, or of entries.
        """
        self._bytes += size
        self._entries += 1
        if self._entries > MOST_FILES:
            raise DatasetError(
                f"{self._path}: refused, since it contains more than {MOST_FILES:,} entries, the limit. Unpack it "
                "yourself, and pass the folder."
            )
        if self._bytes > self._most:
            raise DatasetError(
                f"{self._path}: refused, since it unpacks to more than {self._most / 1e9:,.0f} GB, {MOST_RATIO} times "
                "its size. Unpack it yourself, check it, and pass the folder."
            )
        if self._bytes > self._free:
            raise DatasetError(
                f"{self._path}: its content does not fit on the disk of {self._folder.parent}. Free some space, or "
                "unpack it on another disk, and pass the folder."
            )


def _foresee(path: Path, folder: Path) -> None:
    """Check the sizes that a zip states, before anything is unpacked."""
    room = _Room(path, folder)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            room.take(entry.file_size)


def _unreadable(member: _Member) -> IO[bytes]:
    raise ValueError(f"{member.name!r} is neither a file nor a folder")


def _place(path: Path, name: str) -> str:
    """Return the path of a member below the folder, "" for the folder itself.

    Raises:
        DatasetError: if it leads out of the folder.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if (
        name.startswith("/")
        or _DRIVE.match(name)
        or ".." in parts
        or "\0" in name
        or (os.sep != "/" and os.sep in name)
    ):
        raise DatasetError(f"{path}: refused, since it contains a path that leads out of it: {name!a}.")
    return "/".join(parts)


def _follow(path: Path, folder: Path, files: set[str], links: dict[str, str], room: _Room) -> None:
    """Replace every link by a copy of the file in the archive that it points to, perhaps through other links.

    Raises:
        DatasetError: if a link points to anything else, or the copies take more bytes than there is room for.
    """
    pointing: defaultdict[str, list[str]] = defaultdict(list)
    for place, target in links.items():
        pointing[target].append(place)
    ready = [target for target in pointing if target in files]
    while ready:
        target = ready.pop()
        for place in pointing.pop(target, ()):
            room.take((folder / target).stat().st_size)
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / target, folder / place)
            files.add(place)
            ready.append(place)
    if pointing:
        place, target = min((place, target) for target, places in pointing.items() for place in places)
        raise DatasetError(
            f"{path}: refused, since it contains a link, {place!a}, to something that is not a file in it: "
            f"{target!a}. Unpack it yourself, check it, and pass the folder."
        )


def _of_zip(path: Path) -> Iterator[tuple[_Member, int, int]]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        for done, entry in enumerate(entries, start=1):
            name = _name_of(entry)
            mode = entry.external_attr >> 16
            if name.endswith("/"):
                member = _Member(name, 0)
            elif stat.S_ISLNK(mode):
                if entry.file_size > 10_000:
                    raise ValueError(f"{name!r} is a link without end")
                target = archive.read(entry).decode("utf-8", "surrogateescape")
                member = _Member(name, 0, posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))
            else:
                member = _Member(name, entry.file_size, None, partial(archive.open, entry))
            yield member, done, len(entries)


def _name_of(entry: zipfile.ZipInfo) -> str:
    """Return the path of a zip entry. macOS writes UTF-8 without saying so; old Windows programs write backslashes."""
    name = entry.filename
    if not entry.flag_bits & 0x800:  # the bit that says UTF-8; without it, names are in code page 437
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if entry.create_system == 0 else name


class _Entry(tarfile.TarInfo):
    """A tar entry whose damaged header is an error; `tarfile` would take it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        """Refuse headers that would be read whole into the memory, such as names of gigabytes."""
        if self.type in _HEADERS and self.size > MOST_NAME_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes, more than the limit of {MOST_NAME_BYTES:,}")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
"""Entries that only describe the next one."""


def _of_tar(path: Path) -> Iterator[tuple[_Member, int, int]]:
    with path.open("rb") as file, tarfile.open(fileobj=file, tarinfo=_Entry) as archive:
        size = os.fstat(file.fileno()).st_size
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else all entries of a large archive stay in memory
            if entry.isdir():
                member = _Member(entry.name, 0)
            elif entry.issym():
                target = posixpath.join(posixpath.dirname(entry.name), entry.linkname)
                member = _Member(entry.name, 0, posixpath.normpath(target))
            elif entry.islnk():
                member = _Member(entry.name, 0, posixpath.normpath(entry.linkname))
            else:
                member = _Member(entry.name, entry.size, None, partial(archive.extractfile, entry))
            yield member, file.tell() >> 20, max(size >> 20, 1)
        while archive.fileobj and archive.fileobj.read(1 << 20):  # to the end, where the packer's checksum is
            pass
