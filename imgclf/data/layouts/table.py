"""Tables of paths and labels: CSV, TSV, Parquet, and the `metadata.csv` of Hugging Face's image folders."""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePath

from imgclf import tasks
from imgclf.data.dataset import Sample, Skipped, listed
from imgclf.data.file_listing import Finder, Found, Listing, Progress, label, local_path, scan
from imgclf.data.layouts import About, Source
from imgclf.data.split_names import Vocabulary, is_split, split_in
from imgclf.data.tables import SUFFIXES, Table, open_table
from imgclf.errors import DatasetError, MissingError, UsageError
from imgclf.settings import DataConfig, ReadConfig, names

log = logging.getLogger(__name__)

_NAMED = ("path_column", "label_column", "split_column", "group_column")
ABOUT = About(priority=50, suffixes=SUFFIXES, options=(*_NAMED, "split_names"), decisive=_NAMED)

_FIRST_ROWS = 100
_ONE_HOT = frozenset({"0", "1", "0.0", "1.0", "true", "false", ""})
_SHA256 = re.compile(r"[0-9a-f]{64}")

NAMES = {
    "path": (
        *("path", "file_name", "filename", "file", "filepath", "file_path"),
        *("image", "image_path", "image_name", "image_id", "img", "img_path", "id"),
    ),
    "split": ("split", "subset", "partition"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id"),
}
"""Usual names of columns, in any case; the first that exists counts. Those of labels are the task's."""


@dataclass(frozen=True)
class _Places:
    """The columns of path, labels, split, group and hash; None if there is no such column."""

    path: int
    labels: list[int]
    split: int | None
    group: int | None
    sha256: int | None


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whether there is a table in the folder that labels its images."""
    return bool(_beside(source.found, settings))


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Label images by the table that the user named, or by those in the folder.

    Raises:
        DatasetError: if there is no table, one is damaged, lacks a column, has a label or a split that is impossible,
            gives one image two labels, or names no image that is there.
        UsageError: if a column that was named is missing.
        MissingError: if it is Parquet and pyarrow is not installed.
    """
    if source.file:
        return _read_file(source.file, settings)
    is_asked_for = settings.layout == "table" or any(getattr(settings, name) for name in _NAMED)
    return _read(source.found, (_asked_for if is_asked_for else _beside)(source.found, settings), settings)


def _beside(found: Found, settings: ReadConfig) -> dict[str, str]:
    """Find the tables in a folder that label its images, with their splits ("" where a column may tell).

    They are in the folder itself or in its folders of a split, have a column of paths and one of labels, and one of
    their first paths exists. Unless a table is asked for, tables that imgclf itself writes and reads do not count:
    class folders take precedence.

    Raises:
        DatasetError: if there are several that are not the parts of one split.
    """
    finder = Finder(found.files)
    usable = [path for path in found.others if _is_candidate(path) and not _obstacle(found, path, settings, finder)]
    top = [path for path in usable if "/" not in path]
    if "metadata.csv" in top:
        return {"metadata.csv": ""}
    if len(top) == 1:
        return {top[0]: ""}
    splits = {path: split_in(Path(path).stem) for path in top} or {
        path: split_in(path.split("/")[0]) for path in usable
    }
    known = {path: split for path, split in splits.items() if split}
    if len(known) < len(splits) or len(set(known.values())) < len(splits):
        raise DatasetError(
            f"{found.name}: found several tables with paths and labels ({listed(sorted(splits))}). Name the one to use "
            "as the data, instead of the folder."
        )
    return known


def _asked_for(found: Found, settings: ReadConfig) -> dict[str, str]:
    """Find the tables if the user asks for one: then a single table counts, whatever is wrong with it.

    Raises:
        DatasetError: if there is none.
    """
    usable = _beside(found, settings)
    there = [path for path in found.others if _is_candidate(path)]
    if not usable and len(there) != 1:
        raise DatasetError(
            f"{found.name}: expected a table ({', '.join(SUFFIXES)}) in it with a column of paths and one of labels, "
            f"found {f'none that names an image there ({listed(there)})' if there else 'none'}. Name the table itself "
            "as the data, or its columns with --path-column and --label-column."
        )
    return usable or {there[0]: ""}


def _is_candidate(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return Path(name).suffix.lower() in SUFFIXES and (not folder or is_split(folder))


def unusable(found: Found, settings: ReadConfig) -> dict[str, str]:
    """Say of each table in a folder why it does not label its images; imgclf's own are not meant to."""
    finder = Finder(found.files)
    obstacles = {path: _obstacle(found, path, settings, finder) for path in found.others if _is_candidate(path)}
    return {path: obstacle for path, obstacle in obstacles.items() if obstacle and obstacle != _OURS}


_OURS = "written by imgclf"


def _obstacle(found: Found, path: str, settings: ReadConfig, finder: Finder) -> str | None:
    """Why a table does not label the images of a folder; None if it does."""
    try:
        table = open_table(found.root / path)
        if settings.layout == "auto" and (table.is_own or "exclude" in table.header):
            return _OURS
        place = _places(table, settings).path
        rows = [row for _, row in islice(table.rows, _FIRST_ROWS)]
    except (DatasetError, UsageError, MissingError) as error:
        return str(error)
    names = [row[place] for row in rows if len(row) > place and row[place].strip()]
    for name in names:
        with contextlib.suppress(LookupError):
            _find(partial(finder.find, near=_near(path)), name)
            return None
    if names and finder.relocate([name.strip() for name in names], some_are_found=False):
        return None
    example = f", such as {listed(names[:1])}" if names else ""
    return f"{found.root / path}: not one of its first {len(rows):,} paths leads to an image in the folder{example}."


def _find(find: Callable[[str], str], cell: str) -> str:
    """Find the file that a cell names, with or without the spaces at its ends.

    Raises:
        LookupError: if there is none.
    """
    try:
        return find(cell)
    except LookupError:
        if cell == cell.strip():
            raise
    return find(cell.strip())


def _near(table: str) -> list[str]:
    folder = table.rpartition("/")[0]
    return [folder, ""] if folder else [""]


def list_by(found: Found, table: Path, settings: ReadConfig) -> Listing:
    """Label the images of a folder by a table that may lie elsewhere; its paths are relative to the folder.

    Raises:
        As `_read`.
    """
    return _read(found, {str(table.absolute()): ""}, settings)


def _read(found: Found, tables: dict[str, str], settings: ReadConfig) -> Listing:
    """Label the images of a folder by its tables; a path may lack its extension or its first folders.

    Args:
        tables: as `_beside` gives them.

    Raises:
        DatasetError: if a table is damaged, lacks a column, has a label or a split that is impossible, gives one image
            two labels, or names no image that exists.
        UsageError: if a column that was named is missing.
    """
    finder = Finder(found.files)
    listing = Listing(found.root, [], found.without(list(tables)), tables=list(tables))
    reader = _Reader(listing, settings, lambda: finder)
    for path, split in tables.items():
        reader.add(open_table(found.root / path), split, partial(finder.find, near=_near(path)))
    used = reader.seen.keys()
    listing.skipped += [Skipped(path, "unlisted", "not in the table") for path in found.files if path not in used]
    return listing


def _read_file(path: Path, settings: ReadConfig) -> Listing:
    """Label the images that a table names; paths are relative to its folder and may lead out of it.

    Raises:
        As `_read`.
    """
    root = path.parent

    @functools.cache
    def finder() -> Finder:
        return Finder(scan(root).files)

    def find(name: str) -> str:
        for spelling in dict.fromkeys((name, local_path(name))):
            if Path(spelling).is_absolute():
                spelling = os.path.relpath(Path(spelling).resolve(), root.resolve())
            if os.path.isfile(root / spelling):  # noqa: PTH113  (Path.is_file raises for a name that is too long)
                return PurePath(spelling).as_posix()
        return finder().find(name)

    listing = Listing(root, [], [])
    _Reader(listing, settings, finder).add(open_table(path), "", find)
    return listing


@dataclass
class _Reader:
    """Adds the rows of tables to a listing.

    Args:
        finder: finds paths that were written on another machine.
        seen: the label of each file and the line of the table that has it.
    """

    listing: Listing
    settings: ReadConfig
    finder: Callable[[], Finder]
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, table: Table, table_split: str, find: Callable[[str], str]) -> None:
        """Add the rows of a table.

        Raises:
            As `_read`.
        """
        listing, places, task = self.listing, _places(table, self.settings), tasks.find(self.settings.task)
        listing.group_column = None if places.group is None else table.header[places.group]
        listing.label_columns = tuple(table.header[place] for place in places.labels)
        width, before = len(table.header), len(listing.samples)
        lost: list[tuple[int, str, list[str], str]] = []
        for line, row in table.rows:
            if len(row) > width:
                raise DatasetError(
                    f"{table.path}, line {line}: expected {width} fields as in the first line, found {len(row)}."
                )
            cells = [*row, *[""] * (width - len(row))]
            name, given = cells[places.path], {table.header[place]: cells[place] for place in places.labels}
            if not name.strip() or not task.is_labeled(given):
                absent = "path" if not name.strip() else "label"
                name = name.strip() or f"line {line}"
                listing.skipped.append(Skipped(name, "unlabelled", f"no {absent} in line {line}"))
                continue
            try:
                path = _find(find, name)
            except (LookupError, ValueError) as error:  # ValueError: a NUL in the path
                lost.append((line, name.strip(), cells, str(error)))
            else:
                self._label(table, places, table_split, line, cells, path)
        if lost:
            self._add_relocated(table, places, table_split, lost, some_are_found=len(listing.samples) > before)
        if len(listing.samples) == before:
            found = "no path with a label"
            if lost:
                found = f"not one of its paths leads to an image, such as {listed([lost[0][1]])} ({lost[0][3]})"
            raise DatasetError(f"{table.path}: expected paths of images and their labels, found {found}.")

    def _add_relocated(
        self,
        table: Table,
        places: _Places,
        table_split: str,
        lost: Sequence[tuple[int, str, list[str], str]],
        *,
        some_are_found: bool,
    ) -> None:
        """Add the rows whose paths were written on another machine, and skip those without a file."""
        moved = self.finder().relocate([name for _, name, _, _ in lost], some_are_found=some_are_found)
        moved = {name: path for name, path in moved.items() if path not in self.seen}  # which has a row of its own
        for line, name, cells, reason in lost:
            if name in moved:
                self._label(table, places, table_split, line, cells, moved[name])
            else:
                self.listing.skipped.append(Skipped(name, "unreadable", f"{reason} (line {line})"))
        if moved:
            name, path = next(iter(moved.items()))
            log.info(
                "%s: %s of %s paths matched by their last parts, such as %s as %s.",
                *(table.path, f"{sum(name in moved for _, name, _, _ in lost):,}", f"{len(lost):,}"),
                *(listed([name]), listed([path])),
            )

    def _label(
        self, table: Table, places: _Places, table_split: str, line: int, cells: Sequence[str], path: str
    ) -> None:
        where, task = f"{table.path}, line {line}", tasks.find(self.settings.task)
        texts = {table.header[at]: cells[at] if table.is_own else cells[at].strip() for at in places.labels}
        known = label(task.read(texts, self.settings.label_separator, where), where)
        if path in self.seen and not task.UNITES:
            first, first_line = self.seen[path]
            if first != known:
                raise DatasetError(
                    f"{where}: {listed([path])} is {known!r} here and {first!r} in line {first_line}. Keep one of "
                    "them, or read several labels for each image with --task multilabel."
                )
            reason = f"line {line} names it again, after line {first_line}"
            self.listing.skipped.append(Skipped(path, "duplicate", reason))
            return
        self.seen[path] = (known, line)
        split: str | None = table_split
        if not split and places.split is not None:
            split = _split(cells[places.split], where, self.settings)
        if split is None:
            self.listing.skipped.append(Skipped(path, "excluded", "left out by --split-names"))
            return
        group = "" if places.group is None else cells[places.group]
        group = label(group if table.is_own else group.strip(), where)
        self.listing.samples.append(Sample(path, known, split, group))
        if places.sha256 is not None and _SHA256.fullmatch(sha256 := cells[places.sha256].strip().lower()):
            self.listing.hashes[path] = sha256


def _other_task(table: Table, settings: ReadConfig) -> str:
    """Return the end of an error, where another task knows the name of a column."""
    for name in tasks.names():
        found = [column for column in table.header if column.strip().lower() in tasks.find(name).USUAL]
        if found and name != settings.task:
            return f", or read {found[0]} with --task {name}"
    return ""


def _places(table: Table, settings: ReadConfig) -> _Places:
    path = _column(table, "path", settings.path_column)
    by = settings.group_by if isinstance(settings, DataConfig) else None
    group = _column(table, "group", settings.group_column or (by if by in table.header else None))
    split = _column(table, "split", settings.split_column)
    sha256 = table.header.index("sha256") if "sha256" in table.header else None
    labels = _label_columns(table, settings, {path, group, split, sha256})
    if path is not None and not labels and len(hot := _one_hot(table, path)) > 1:
        raise DatasetError(
            f"{table.path}: expected a column of labels, found a column of 0 and 1 for each of {listed(hot)}. Read it "
            "as several labels for each image with --task multilabel, or name a column of class names with "
            "--label-column."
        )
    if path is None or not labels:
        lacking = [name for name, found in (("path", path is not None), ("label", bool(labels))) if not found]
        what, option = (
            " and ".join(form.format(name) for name in lacking) for form in ("a column of {}s", "--{}-column")
        )
        missing = "" if table.has_header else " (numbered, for want of a header)"
        instead = "" if labels else _other_task(table, settings)
        raise DatasetError(
            f"{table.path}: expected {what}, found the columns {listed(table.header)}{missing}. Name "
            f"{'it' if len(lacking) == 1 else 'them'} with {option}{instead}."
        )
    return _Places(path, labels, split, group, sha256)


def _one_hot(table: Table, path: int) -> list[str]:
    """Return the columns that contain nothing but 0 and 1, as far as the first rows tell."""
    rows = [row for row in table.first if len(row) == len(table.header)]
    places = [place for place in range(len(table.header)) if place != path] if rows else []
    return [table.header[p] for p in places if {row[p].strip().casefold() for row in rows} <= _ONE_HOT]


def _label_columns(table: Table, settings: ReadConfig, others: Collection[int | None]) -> list[int]:
    """Find the columns of labels: those that were asked for, else the one with a usual name, else as the task says.

    Raises:
        UsageError: if a column that was asked for is missing, or exists twice.
    """
    task, asked = tasks.find(settings.task), settings.label_column
    if asked is None or asked in table.header:
        usual = _column(table, "label", asked, task.USUAL)
        free = [place for place in range(len(table.header)) if place not in others]
        return task.columns(table.header, free) if usual is None else [usual]
    found = (_column(table, "label", name) for name in names(asked))
    return [place for place in found if place is not None]


def _column(table: Table, what: str, asked: str | None, usual: Sequence[str] = ()) -> int | None:
    """Find the column that was asked for, else the one with a usual name.

    Raises:
        UsageError: if the column that was asked for is missing, or exists twice.
    """
    plain = [name.casefold().replace(" ", "_").replace("-", "_") for name in table.header]
    if asked is None:
        return next((plain.index(name) for name in usual or NAMES[what] if name in plain), None)
    count = table.header.count(asked)
    if count != 1:
        raise UsageError(
            f"--{what}-column {asked}: expected one column of that name in {table.path}, found {count}; the columns "
            f"are {listed(table.header)}."
        )
    return table.header.index(asked)


def _split(text: str, where: str, settings: ReadConfig) -> str | None:
    """Return the split that a cell names; None for an image to leave out."""
    meaning = Vocabulary.of(settings).of_cell(text)
    if meaning.split is None and not meaning.is_left_out:
        raise DatasetError(
            f"{where}: expected train, validation, test or nothing as the split, found {text.strip()!r}. "
            f"Say what it means with --split-names {text.strip()}=train (or =validation, =test, =any, =none), or name "
            "another column with --split-column."
        )
    return meaning.split
