"""Tables of paths and labels: CSV, TSV, Parquet, and the `metadata.csv` of Hugging Face's image folders."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePath

from imgclf import environment
from imgclf.data.dataset import COLUMNS, UNASSIGNED, Sample, Skipped, listed
from imgclf.data.file_listing import Finder, Found, Listing, Progress, label, scan
from imgclf.data.layouts import About, Source
from imgclf.data.split_names import SPLIT_NAMES, is_split, split_in
from imgclf.data.tables import SUFFIXES, Table, open_table
from imgclf.errors import DatasetError, UsageError
from imgclf.settings import DataConfig, ReadConfig

_NAMED = ("path_column", "label_column", "split_column", "group_column")
ABOUT = About(priority=50, suffixes=SUFFIXES, options=(*_NAMED, "split_names"), decisive=_NAMED)

_FIRST_ROWS = 100

NAMES = {
    "path": (
        *("path", "file_name", "filename", "file", "filepath", "file_path"),
        *("image", "image_path", "image_name", "image_id", "img", "img_path", "id"),
    ),
    "label": ("label", "class", "class_name", "category", "target", "species", "breed"),
    "split": ("split", "subset", "partition"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id"),
}
"""Usual names of columns, in any case; the first that exists counts."""

_OWN = (set(COLUMNS), {"exclude"}, {"label", "confidence", "error"}, {"label", "predicted", "confidence"})
"""Columns of imgclf's own tables: manifests, corrections, and those that predict and evaluate write."""


@dataclass(frozen=True)
class _Places:
    """The columns of path, label, split and group; None if there is no such column."""

    path: int
    label: int
    split: int | None
    group: int | None


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
    their first paths exists. Unless a table is asked for, tables that imgclf itself writes and reads do not count
    (`_OWN`): class folders take precedence.

    Raises:
        DatasetError: if there are several that are not the parts of one split.
    """
    finder = Finder(found.files)
    usable = [path for path in found.others if _is_candidate(path) and _labels(found, path, settings, finder)]
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


def _labels(found: Found, path: str, settings: ReadConfig, finder: Finder) -> bool:
    if path.lower().endswith(".parquet") and not environment.has_package("pyarrow"):
        return False
    try:
        table = open_table(found.root / path)
        if settings.layout == "auto" and any(own <= set(table.header) for own in _OWN):
            return False
        place = _places(table, settings).path
        rows = [row for _, row in islice(table.rows, _FIRST_ROWS)]
    except (DatasetError, UsageError):
        return False
    for row in rows:
        with contextlib.suppress(LookupError):
            finder.find(row[place].strip(), _near(path))
            return True
    return False


def _near(table: str) -> list[str]:
    folder = table.rpartition("/")[0]
    return [folder, ""] if folder else [""]


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
    seen: dict[str, tuple[str, int]] = {}
    for path, split in tables.items():
        _add(listing, open_table(found.root / path), split, settings, seen, partial(finder.find, near=_near(path)))
    used = seen.keys()
    listing.skipped += [Skipped(path, "unlisted", "not in the table") for path in found.files if path not in used]
    return listing


def _read_file(path: Path, settings: ReadConfig) -> Listing:
    """Label the images that a table names; paths are relative to its folder and may lead out of it.

    Raises:
        As `_read`.
    """
    root = path.parent
    finder: Finder | None = None

    def find(name: str) -> str:
        nonlocal finder
        if Path(name).is_absolute():
            name = os.path.relpath(Path(name).resolve(), root.resolve())
        if os.path.isfile(root / name):  # noqa: PTH113  (Path.is_file raises for a name that is too long)
            return PurePath(name).as_posix()
        if finder is None:
            finder = Finder(scan(root).files)
        return finder.find(name)

    listing = Listing(root, [], [])
    _add(listing, open_table(path), "", settings, {}, find)
    return listing


def _add(
    listing: Listing,
    table: Table,
    table_split: str,
    settings: ReadConfig,
    seen: dict[str, tuple[str, int]],
    find: Callable[[str], str],
) -> None:
    """Add the rows of a table to a listing; `seen` maps files to their labels and lines, and grows."""
    places = _places(table, settings)
    listing.group_column = None if places.group is None else table.header[places.group]
    width = len(table.header)
    missing, before = None, len(listing.samples)
    for line, row in table.rows:
        where = f"{table.path}, line {line}"
        if len(row) > width:
            raise DatasetError(f"{where}: expected {width} fields as in the first line, found {len(row)}.")
        cells = [*row, *[""] * (width - len(row))]
        name, text = cells[places.path].strip(), cells[places.label].strip()
        if not name or not text:
            absent = "path" if not name else "label"
            listing.skipped.append(Skipped(name or f"line {line}", "unlabelled", f"no {absent} in line {line}"))
            continue
        try:
            path = find(name)
        except (LookupError, ValueError) as error:  # ValueError: a NUL in the path
            missing = missing or f"{name} ({error})"
            listing.skipped.append(Skipped(name, "unreadable", f"{error} (line {line})"))
            continue
        known = label(text, where)
        if path in seen:
            first, first_line = seen[path]
            if first != known:
                raise DatasetError(
                    f"{where}: {listed([path])} is {known!r} here and {first!r} in line {first_line}. Keep one of them."
                )
            listing.skipped.append(Skipped(path, "duplicate", f"line {line} names it again, after line {first_line}"))
            continue
        seen[path] = (known, line)
        split = table_split or _split(cells[places.split] if places.split is not None else "", where)
        group = "" if places.group is None else label(cells[places.group].strip(), where)
        listing.samples.append(Sample(path, known, split, group))
    if len(listing.samples) == before:
        found = f"not one of its paths leads to an image, such as {missing}" if missing else "no path with a label"
        raise DatasetError(f"{table.path}: expected paths of images and their labels, found {found}.")


def _places(table: Table, settings: ReadConfig) -> _Places:
    path = _column(table, "path", settings.path_column)
    name = _column(table, "label", settings.label_column)
    if path is None or name is None:
        what, option = ("paths", "--path-column") if path is None else ("labels", "--label-column")
        raise DatasetError(
            f"{table.path}: expected a column of {what}, found the columns {listed(table.header)}. Name it with "
            f"{option}."
        )
    by = settings.group_by if isinstance(settings, DataConfig) else None
    group = _column(table, "group", settings.group_column or (by if by in table.header else None))
    return _Places(path, name, _column(table, "split", settings.split_column), group)


def _column(table: Table, what: str, asked: str | None) -> int | None:
    """Find the column that was asked for, else the one with a usual name.

    Raises:
        UsageError: if the column that was asked for is missing, or exists twice.
    """
    plain = [name.casefold().replace(" ", "_").replace("-", "_") for name in table.header]
    if asked is None:
        return next((plain.index(name) for name in NAMES[what] if name in plain), None)
    count = table.header.count(asked)
    if count != 1:
        raise UsageError(
            f"--{what}-column {asked}: expected one column of that name in {table.path}, found {count}; the columns "
            f"are {listed(table.header)}."
        )
    return table.header.index(asked)


def _split(text: str, where: str) -> str:
    name = text.strip().casefold()
    if name and name not in SPLIT_NAMES:
        raise DatasetError(
            f"{where}: expected train, validation, test or nothing as the split, found {text.strip()!r}. "
            "Name another column with --split-column."
        )
    return SPLIT_NAMES.get(name, UNASSIGNED)
