"""Find the images that the user names: files, folders, archives, patterns, stdin."""

import codecs
import glob
import hashlib
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from imgclf.data import content, images
from imgclf.errors import DatasetError, ImageError, ImgclfError, UsageError
from imgclf.prediction.classifier import Named
from imgclf.printable import printable

log = logging.getLogger(__name__)

STDIN = "-"
CHUNK_BYTES = 1 << 16
SHARD_BYTES = 1 << 14
"""The first bytes of a file and its size decide its shard. With more bytes, each machine would read all files."""

ENCODING_BYTES = 4
"""The first bytes of a list tell its encoding."""


@dataclass
class PathSet:
    """A set of images, which are told apart by what a path names, not by its spelling.

    Args:
        here: the folder in which relative paths begin.
    """

    here: str = field(default_factory=lambda: str(Path.cwd()))
    _keys: set[str] = field(default_factory=set)
    _folders: dict[str, str] = field(default_factory=dict)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self._key(path, self.here) in self._keys

    def add(self, path: str, folder: str | None = None) -> None:
        """Note an image; a relative path begins in `folder`, by default in `here`."""
        self._keys.add(self._key(path, folder or self.here))

    def _key(self, path: str, folder: str) -> str:
        """Return the folder of the image, links resolved, and the name."""
        above, name = os.path.split(os.path.join(folder, path))  # noqa: PTH118  (a name with a NUL is no Path)
        if above not in self._folders:
            try:
                self._folders[above] = os.path.normcase(os.path.realpath(above))
            except (OSError, ValueError):
                self._folders[above] = above
        return f"{self._folders[above]}{os.sep}{os.path.normcase(name)}"


def lacking(found: Iterable[str | Named], known: PathSet) -> Iterator[str | Named]:
    """Yield the images that are not known yet, each once, however often and under whatever spelling it is found."""
    for path in found:
        name = path.name if isinstance(path, Named) else path
        if name not in known:
            known.add(name)
            yield path


def find(names: Sequence[str], listed: Iterable[bytes]) -> Iterator[str | Named]:
    """Find the images, in the order of the names; one by one, so that a list may be endless. An image that several
    names mean is given once; one that a list repeats, each time, since a service may list a file whenever it changes.

    Args:
        names: files; folders, searched at any depth for files with the extensions of images, without hidden ones; zip
            and tar archives of such folders; patterns such as `photos/**/*.jpg`; and `-` for `listed`. A name that
            exists is not taken as a pattern.
        listed: the lines of a list of files, folders and archives.

    Raises:
        DatasetError: if none of the names gives an image: folders without images, patterns without a match. A missing
            file is returned as it is.
    """
    empty, known = True, PathSet()
    for name in names:
        found = _of_list(listed) if name == STDIN else _of_name(name)
        for path in found if name == STDIN or len(names) == 1 else lacking(found, known):
            empty = False
            yield path
    if empty:
        raise DatasetError(f"{', '.join(names)}: expected images, found none.")


def missing(names: Sequence[str]) -> list[str]:
    """Return the names of files and folders that do not exist."""
    return [name for name in names if name != STDIN and not glob.has_magic(name) and not os.path.exists(name)]


def no_such(names: Sequence[str]) -> DatasetError:
    """Return the error that names them."""
    return DatasetError(f"{', '.join(map(printable, names))}: no such file or folder.")


def lines(stream: IO[bytes] | None) -> Iterator[bytes]:
    """Read the lines of a stream, each as soon as it arrives.

    Raises:
        UsageError: if it cannot be read.
    """
    if stream is None:
        raise UsageError("-: expected a list of images on stdin, which is closed.")
    raw = getattr(stream, "raw", stream)  # a buffered one would hold a lock while it waits, and end no process
    try:
        yield from _divided(iter(lambda: raw.read(CHUNK_BYTES), b""))
    except OSError as error:
        raise UsageError(f"-: the list on stdin cannot be read ({error.strerror}).") from None


def _divided(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Divide a list into its lines, as UTF-8 or the bytes of file names: it may be UTF-16, as PowerShell writes it, or
    divided by zeros, as `find -print0` writes it."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= ENCODING_BYTES or (len(start) > 1 and min(start[:2]) and start[0] < min(codecs.BOM_UTF8)):
            break
    text: Iterable[bytes] = itertools.chain([start], chunks) if start else ()
    if encoding := _utf16_of(start):
        decode = codecs.getincrementaldecoder(encoding)("replace").decode
        text = (decode(chunk).encode("utf-8", "surrogatepass") for chunk in text)
    rest, mark = b"", b""
    for number, chunk in enumerate(text):
        rest += chunk if number else chunk.removeprefix(codecs.BOM_UTF8)
        if not mark:  # where zeros divide, line breaks belong to names
            mark = b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else b""
        if mark:
            *whole, rest = rest.split(mark)
            yield from whole
    if rest:
        yield rest


def _utf16_of(start: bytes) -> str | None:
    """Name the UTF-16 that a list begins with, by its byte order mark or the zeros of Latin letters, or None."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = "".join("0" if not byte else "x" for byte in start[:ENCODING_BYTES])
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros)


def shard(found: Iterable[str | Named], part: int, parts: int) -> Iterator[str | Named]:
    """Select the images of shard number `part` of `parts`, counted from 1.

    The first bytes of a file and its size decide, not its path: machines that see the same files under other paths
    divide them alike. For a file that cannot be read, its name decides.
    """
    for path in found:
        if parts == 1 or _number(path.path if isinstance(path, Named) else path) % parts == part - 1:
            yield path


def outside(found: Iterable[str | Named], folder: Path) -> Iterator[str | Named]:
    """Leave out the images in a folder: those that are sorted into a folder inside the one that they come from."""
    above = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  (a slash at its end)
    left_out = 0
    for path in found:
        if isinstance(path, str) and os.path.realpath(path).startswith(above):
            left_out += 1
        else:
            yield path
    if left_out:
        log.info("%s: left out %d images that lie there already.", folder, left_out)


def _number(path: str) -> int:
    try:
        with content.opened_file(path) as (handle, size):
            seen = os.read(handle, SHARD_BYTES) + size.to_bytes(8, "big")
    except (ImageError, OSError):
        seen = os.fsencode(os.path.basename(path))  # noqa: PTH119  (a name with a NUL is no Path)
    return int.from_bytes(hashlib.blake2b(seen, digest_size=8).digest(), "big")


def _of_list(lines: Iterable[bytes]) -> Iterator[str | Named]:
    for line in lines:
        path = _listed(os.fsdecode(line.rstrip(b"\r\n")))
        if path:
            yield from _of_path(path)


def _listed(text: str) -> str:
    """Return the path in a line of a list: as it is, if it exists, or without quotes and spaces at its ends."""
    bare = text.strip()
    unquoted = bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'" else bare
    forms = dict.fromkeys((text, bare, unquoted))
    return next((form for form in forms if form and os.path.lexists(form)), bare)


def _of_name(name: str) -> Iterator[str | Named]:
    places = [name]
    if glob.has_magic(name) and not os.path.lexists(name):
        places = _matches(name)
        if not places:
            log.warning("%s: no file matches this pattern.", name)
    return (path for place in places for path in _of_path(place))


def _matches(pattern: str) -> list[str]:
    """List the paths that match a pattern, sorted.

    A part of it that exists by that name, such as `photos [2020]`, means what it says.
    """
    drive, rest = os.path.splitdrive(pattern)
    parts = re.split(r"[/\\]" if os.sep == "\\" else "/", rest)
    places = [drive + os.sep if not parts[0] else drive]
    for number, part in enumerate(parts):
        if part == "**":
            after = parts[number + 1 :]
            plain = [glob.escape(name) for name in after]
            tails = {(*after,), (*plain[:-1], *after[-1:]), (*plain,)}
            places = [p for place in places for tail in tails for p in _glob(glob.escape(place), "**", *tail)]
            break
        if part:
            places = [path for place in places for path in _inside(place, part)]
    return sorted(set(places))


def _inside(place: str, part: str) -> list[str]:
    literal = os.path.join(place, part)  # noqa: PTH118  (a drive alone is no folder)
    if os.path.lexists(literal):
        return [literal]
    return _glob(glob.escape(place), part) if glob.has_magic(part) else []


def _glob(*parts: str) -> list[str]:
    return glob.glob(os.path.join(*parts), recursive=True)  # noqa: PTH118, PTH207  (Path.glob takes no absolute pattern)


def _of_path(path: str) -> Iterator[str | Named]:
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises where a folder above may not be entered)
        yield from in_folder(Path(path), names_output=True)
    elif path.lower().endswith(images.SUFFIXES):
        yield path
    else:
        yield from _of_file(path)


def _of_file(path: str) -> Iterator[str | Named]:
    """Yield the images in an archive; any other file as it is."""
    from imgclf.data.layouts import (
        archives,
    )  # here, since most sources are images and should start at once

    try:
        if archives.is_archive(Path(path)):
            folder = archives.unpack(Path(path))
            for file in in_folder(folder):
                yield Named(f"{path}/{Path(file).relative_to(folder).as_posix()}", file)
            return
    except ValueError:  # a NUL in the path
        pass
    except ImgclfError as error:  # one broken archive does not stop the other images
        log.warning("%s", error)
    yield path


def in_folder(folder: Path, *, names_output: bool = False) -> Iterator[str]:
    """Find the images in a folder, at any depth.

    Args:
        names_output: whether a note names what is left out since imgclf wrote it.

    Raises:
        DatasetError: if the folder is missing or cannot be read.
    """
    from imgclf.data import file_listing

    found = file_listing.scan(folder)
    for skipped in found.skipped:
        if skipped.kind == "unreadable":
            log.warning("%s: %s", folder / skipped.path, skipped.reason)
        elif skipped.kind == "own-output" and names_output:
            log.info("%s: left out, as output of imgclf.", folder / skipped.path)
    yield from (str(folder / file) for file in found.files)
