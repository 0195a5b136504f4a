"""List the files of a folder by name: images, other files, and files that cannot be used.

No file is opened here.
"""

import heapq
import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from imgclf.data import images, litter
from imgclf.data.dataset import Sample, Skipped, listed
from imgclf.errors import DatasetError

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do, in the calling thread."""


@dataclass
class Found:
    """The files below `root`; paths are relative to it, with forward slashes.

    `name` is the path that the user passed: `root` itself, or the archive that was unpacked there. `files` are those to
    open, sorted; `folders` those that could be listed; `skipped` is neither.
    """

    root: Path
    name: Path
    files: list[str]
    folders: list[str]
    skipped: list[Skipped]

    @cached_property
    def others(self) -> list[str]:
        """The files without the name of an image, such as tables and annotations; sorted."""
        return sorted(s.path for s in self.skipped if s.kind == "not-an-image")

    def without(self, paths: Sequence[str]) -> list[Skipped]:
        """Return what is skipped, without files that a layout used after all."""
        used = set(paths)
        return [s for s in self.skipped if s.path not in used]


@dataclass
class Listing:
    """The samples of a layout, their files not yet opened, and what is left out.

    `group_column` is the column of a table that the groups are from, `label_columns` those of the labels, and `tables`
    are those found in the folder. `hashes` are the SHA-256 that a table states for its files.
    """

    root: Path
    samples: list[Sample]
    skipped: list[Skipped]
    group_column: str | None = None
    tables: Sequence[str] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    label_columns: tuple[str, ...] = ()


def scan(root: Path, name: Path | None = None) -> Found:
    """List a folder at any depth, links to folders included. Each folder is read once, by its own path first.

    Raises:
        DatasetError: if the folder cannot be read.
    """
    found = Found(root, name or root, [], [], [])
    ahead, links = [""], list[str]()
    seen: set[tuple[int, int]] = set()
    while ahead or links:
        folder = ahead.pop() if ahead else heapq.heappop(links)
        try:
            status = (root / folder).stat()
            with os.scandir(root / folder) as listing:
                entries = list(listing)
        except OSError as error:
            if not folder:
                raise DatasetError(f"{found.name}: the folder cannot be read ({error.strerror}).") from None
            found.skipped.append(Skipped(folder, "unreadable", f"the folder cannot be read ({error.strerror})"))
            continue
        here = (status.st_dev, status.st_ino)
        if here in seen:  # following it would go round for ever, or give one image two labels
            found.skipped.append(Skipped(folder, "unreadable", "a folder that is read already, by another path"))
            continue
        seen.add(here)
        if folder and litter.is_own_output(root / folder, {entry.name for entry in entries}):
            found.skipped.append(Skipped(folder, "own-output", _WHY_NOT["own-output"]))
            continue
        if folder:
            found.folders.append(folder)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            kind = _kind(entry)
            if kind == "folder" and not entry.is_symlink():
                ahead.append(path)
            elif kind == "folder":
                heapq.heappush(links, path)
            elif kind == "image":
                found.files.append(path)
            else:
                found.skipped.append(Skipped(path, kind, _WHY_NOT[kind]))
    found.files.sort()
    _forget_parents_of_output(found)
    return found


def _forget_parents_of_output(found: Found) -> None:
    """Do not list folders in which there is nothing but output of imgclf, such as `runs`: they are no empty classes."""
    output = [skipped.path for skipped in found.skipped if skipped.kind == "own-output"]
    if not output:
        return
    above = {parent.as_posix() for path in output for parent in PurePosixPath(path).parents}
    filled = {path.rpartition("/")[0] for path in found.files}
    filled |= {parent.as_posix() for folder in filled for parent in PurePosixPath(folder).parents}
    found.folders = [folder for folder in found.folders if folder in filled or folder not in above]


_WHY_NOT = {
    "hidden": "hidden, or a folder of the system",
    "own-output": "written by imgclf, so no data",
    "not-an-image": "its name does not end as an image's does",
    "unreadable": "not a file, or a link to nowhere",  # or a pipe, which would block whoever opens it
}


def _kind(entry: os.DirEntry[str]) -> str:
    """Return `folder`, `image`, or the reason why it is neither."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        if entry.is_dir():
            return "hidden" if litter.is_system(entry.name) else "folder"
        if not entry.is_file():
            return "unreadable"
        return "image" if Path(entry.name).suffix.lower() in images.SUFFIXES else "not-an-image"
    except OSError:  # a link to itself
        return "unreadable"


def label(name: str, where: object) -> str:
    """Return a class name in Unicode form NFC, so that the same name written by two systems is one class.

    Raises:
        DatasetError: if its bytes are not UTF-8; `where` names its place.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        half = any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in name)  # of a character in JSON
        shown = ascii(name) if half else repr(os.fsencode(name))
        raise DatasetError(
            f"{where}: the class name {shown} is not UTF-8, and class names go into JSON. Rename it, or "
            "save the file as UTF-8."
        ) from None
    return unicodedata.normalize("NFC", name)


def contents(found: Found) -> str:
    """Describe the other files of a folder, for a message."""
    suffixes = Counter(Path(path).suffix or "without a suffix" for path in found.others)
    parts = [f"{n} {suffix}" for suffix, n in suffixes.most_common(5)]
    kinds = Counter(s.kind for s in found.skipped)
    parts += [f"{kinds[kind]} {kind}" for kind in ("hidden", "unreadable") if kinds[kind]]
    if parts:
        return f"other files ({', '.join(parts)})"
    return f"{len(found.folders)} folders without files" if found.folders else "an empty folder"


class Finder:
    """Finds the files that a table or an annotation names."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = frozenset(files)

    def find(self, name: str, near: Sequence[str] = ("",)) -> str:
        """Find the file of that path below one of the folders `near`, else the only one whose path ends so.

        The suffix may be missing from the name, backslashes count as slashes, and Unicode forms do not matter.

        Raises:
            LookupError: if there is none, or more than one; the message is a reason for a table.
        """
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            for folder in near:
                path = os.path.normpath(f"{folder}/{spelling}" if folder else spelling).replace(os.sep, "/")
                if path in self._files:
                    return path
        parts = [part for part in _plain(name.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
        for index, ending in ((self._by_name, parts), (self._by_stem, parts)):
            matches = [path for path in index.get(ending[-1] if ending else "", ()) if _ends(path, ending)]
            inside = [path for path in matches if any(folder and path.startswith(f"{folder}/") for folder in near)]
            if len(matches) > 1 and len(inside) != 1:
                raise LookupError(f"more than one file ends so: {listed(matches, 3)}")
            if matches:
                return (inside or matches)[0]
        raise LookupError("no such file")

    def relocate(self, names: Sequence[str], *, some_are_found: bool) -> dict[str, str]:
        """Find the files of paths that were written on another machine, by as many of their last parts as agree.

        Paths of Windows, of URLs, of Colab and of Label Studio begin with folders that do not exist here. Where the
        folder of a file agrees, too, all that comes before it is the same for others, whose folder must then agree as
        well: `/there/ants/1.jpg` does not become `bees/1.jpg` because there is no `ants/1.jpg`.

        Args:
            names: paths that `find` did not find.
            some_are_found: whether it found others beside them. Relative paths are then correct as they are.

        Returns:
            The files of those that lead to exactly one.
        """
        ways = {name: way for name in names if (way := self._way(name, some_are_found))}
        trusted = {way.before for way in ways.values() if way.agreeing and len(way.files) == 1}
        moved = {}
        for name, way in ways.items():
            shorter = any(way.before[:count] in trusted for count in range(len(way.before)))
            if len(way.files) == 1 and not shorter:
                moved[name] = way.files[0]
        return moved

    def _way(self, name: str, some_are_found: bool) -> "_Way | None":
        parts, is_foreign = _parts_elsewhere(name)
        if not parts or (some_are_found and not is_foreign):
            return None
        *folders, last = parts
        for index, key in itertools.product((self._by_name, self._by_stem), dict.fromkeys(_file_names(last))):
            agreeing = {path: _agreeing(path, folders) for path in index.get(key, ())}
            if agreeing:
                most = max(agreeing.values())
                files = [path for path, count in agreeing.items() if count == most]
                return _Way(tuple(folders[: len(folders) - most]), most, files)
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._index(lambda path: path.rpartition("/")[2])

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._index(lambda path: PurePosixPath(path).stem)

    def _index(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        index: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(self._files):
            index[_plain(key(path))].append(path)
        return index


@dataclass(frozen=True)
class _Way:
    """How a path of another machine leads to files here: the folders before those that agree, and their number."""

    before: tuple[str, ...]
    agreeing: int
    files: Sequence[str]


_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ELSEWHERE = re.compile(r"/|[A-Za-z]:|\\\\|~")
_LOCAL_FILES = re.compile(r"[?&]d=([^&]+)")  # of Label Studio: /data/local-files/?d=folder/1.jpg
_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)  # Label Studio puts eight digits before the names of uploads


def local_path(name: str) -> str:
    """Return the path of a `file:` address; another text as it is."""
    if not name.casefold().startswith("file:/"):
        return name
    return unquote(urlsplit(name).path, errors="surrogateescape")


def _parts_elsewhere(name: str) -> tuple[list[str], bool]:
    """Return the folders and the file of a path of any machine, and whether it begins at a root."""
    is_url = bool(_URL.match(name))
    if found := _LOCAL_FILES.search(name):
        text, is_foreign = unquote(found[1]), True
    elif is_url:
        text, is_foreign = unquote(re.split("[?#]", _URL.sub("", name))[0], errors="surrogateescape"), True
    else:
        text, is_foreign = name, bool(_ELSEWHERE.match(name))
    parts = _plain(text.replace("\\", "/")).split("/")
    return [part for part in parts if part not in ("", ".", "..", "~") and not part.endswith(":")], is_foreign


def _file_names(last: str) -> Iterator[str]:
    """Yield what a file may be called here."""
    yield last
    yield _plain(unquote(last, errors="surrogateescape"))
    if upload := _UPLOAD.fullmatch(last):
        yield upload[1]


def _agreeing(path: str, folders: Sequence[str]) -> int:
    """How many of the last folders of a path are the same."""
    here = _plain(path).split("/")[-2::-1]
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(here, reversed(folders), strict=False))
    return sum(1 for _ in pairs)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _ends(path: str, ending: Sequence[str]) -> bool:
    """Whether the folders of a path end like those of a name; the last parts are known to match."""
    folders = _plain(path).split("/")[:-1]
    wanted = list(ending[:-1])
    return not wanted or folders[-len(wanted) :] == wanted
