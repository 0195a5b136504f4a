"""Change labels without touching files: corrections from a table, renamed and merged classes."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from imgclf import tasks
from imgclf.data import cells, tables
from imgclf.data.dataset import Dataset, Sample, Skipped, listed
from imgclf.data.file_listing import label as checked
from imgclf.errors import DatasetError
from imgclf.tasks import ordered

MARKS = {"1": True, "true": True, "yes": True, "x": True, "": False, "0": False, "false": False, "no": False}
"""What may stand in the columns `accept` and `exclude`, in any case."""


def correct(dataset: Dataset, table: Path) -> tuple[Dataset, list[str]]:
    """Correct labels and leave out images by a table; no file is touched.

    Args:
        table: as `tables.open_table` reads it, with the columns `path`, as in the manifest, and `label`, and perhaps
            `exclude`: 1, true, yes or x leave the image out, and its label may then be empty. With a column `accept`,
            as `imgclf suspects` writes it, only labels whose row is marked there count.

    Returns:
        The dataset, with the images left out in `skipped` as "excluded", and notes for the user.

    Raises:
        DatasetError: if the table cannot be read, lacks a column, or has a row without a label, with too many fields,
            with a path that an earlier one has, or with one that is not among the images.
    """
    content = tables.open_table(table)
    if missing := [name for name in ("path", "label") if name not in content.header]:
        raise DatasetError(f"{table}: expected the columns path and label, found no {listed(missing)}.")
    labeled = {s.path for s in dataset.samples}
    known = labeled | {s.path for s in dataset.skipped}
    labels: dict[str, str | None] = {}  # path -> label; None is left out
    for line, fields in content.rows:
        where, row = f"{table}, line {line}", dict(zip(content.header, fields, strict=False))
        if len(fields) > len(content.header):
            raise DatasetError(
                f"{where}: expected {len(content.header)} fields as in the first line, found {len(fields)}. Put "
                "a label with a comma between quotes."
            )
        if not any(map(str.strip, fields)):
            continue
        path = cells.one_of(row.get("path", ""), known)
        label = checked(cells.one_of(row.get("label", ""), dataset.class_names), where)
        if path not in known:
            example = listed(s.path for s in dataset.samples[:1])
            raise DatasetError(
                f"{where}: expected the path of an image below {dataset.origin}, such as {example}, "
                f"found {_shown(path)}."
            )
        if path in labels:
            raise DatasetError(f"{where}: {_shown(path)} is listed in an earlier line, too. Remove one of them.")
        is_excluded = _is_marked(row, "exclude", where)
        if "accept" in content.header:
            is_accepted = _is_marked(row, "accept", where)
            if is_accepted and is_excluded:
                raise DatasetError(f"{where}: {_shown(path)} is marked in accept and in exclude. Remove one of them.")
            if not is_accepted and not is_excluded:
                continue
        if not label and not is_excluded and path not in labeled:
            continue  # not labeled yet, in a table that is all that labels these images
        labels[path] = None if is_excluded else label
        if labels[path] == "":
            raise DatasetError(f"{where}: expected a label for {_shown(path)}, found none.")
    samples, excluded, changed = [], [], 0
    for sample in dataset.samples:
        label_now = labels.get(sample.path, sample.label)
        if label_now is None:
            excluded.append(Skipped(sample.path, "excluded", f"left out by {table.name}"))
        else:
            changed += label_now != sample.label
            samples.append(sample if label_now == sample.label else replace(sample, label=label_now))
    result = _with_samples(dataset, samples, {name: name for name in dataset.class_names})
    result = replace(result, skipped=tuple(sorted([*dataset.skipped, *excluded], key=lambda s: s.path)))
    return result, [
        f"{table}: labels changed: {changed:,}; images left out: {len(excluded):,}.",
        *_differences(dataset.class_names, result.class_names),
    ]


def _is_marked(row: Mapping[str, str], column: str, where: str) -> bool:
    """Whether a row is marked in a column.

    Raises:
        DatasetError: if the cell is neither a mark nor none.
    """
    mark = row.get(column, "").strip()
    if mark.casefold() not in MARKS:
        raise DatasetError(
            f"{where}: expected 1, true, yes, x, or 0, false, no or nothing for {column}, found {_shown(mark)}."
        )
    return MARKS[mark.casefold()]


def exclude(dataset: Dataset, table: Path) -> tuple[Dataset, list[str]]:
    """Leave out the images that a list names, such as the one that `imgclf ingest --quarantine` writes.

    Args:
        table: as `tables.open_table` reads it, with a column `path`. Paths that are not among the images are counted.
            With a column `exclude`, as `imgclf suspects` writes it, only rows that are marked there count.

    Returns:
        The dataset, with the images left out in `skipped` as "excluded", and a note for the user.

    Raises:
        DatasetError: if the list cannot be read, has no such column or an impossible mark, or leaves no image.
    """
    content = tables.open_table(table)
    if "path" not in content.header:
        raise DatasetError(f"{table}: expected a column path, found {listed(content.header) or 'nothing'}.")
    known = {s.path for s in dataset.samples} | {s.path for s in dataset.skipped}
    has_marks, paths = "exclude" in content.header, set()
    for line, fields in content.rows:
        row = dict(zip(content.header, fields, strict=False))
        if row.get("path") and (not has_marks or _is_marked(row, "exclude", f"{table}, line {line}")):
            paths.add(cells.one_of(row["path"], known))
    excluded = [Skipped(s.path, "excluded", f"left out by {table.name}") for s in dataset.samples if s.path in paths]
    samples = [s for s in dataset.samples if s.path not in paths]
    if not samples:
        raise DatasetError(f"{table}: expected some images to be left, found all {len(excluded):,} in it.")
    result = _with_samples(dataset, samples, {name: name for name in dataset.class_names})
    result = replace(result, skipped=tuple(sorted([*dataset.skipped, *excluded], key=lambda s: s.path)))
    unknown = len(paths - known)
    foreign = f"; paths that are not among the images: {unknown:,}" if unknown else ""
    return result, [f"{table}: images left out: {len(excluded):,}{foreign}."]


def rename(dataset: Dataset, names: Mapping[str, str]) -> tuple[Dataset, list[str]]:
    """Rename classes, all at once; classes with the same new name are merged.

    Returns:
        The dataset, and a note for each merged class.

    Raises:
        DatasetError: if there is no such class.
    """
    known = dataset.class_names
    new_names = {
        checked(cells.one_of(old, known), "--rename"): checked(cells.one_of(new, known), "--rename")
        for old, new in names.items()
    }
    _check_known(dataset, new_names, "--rename")
    final = {name: new_names.get(name, name) for name in dataset.class_names}
    merged = [name for name, count in Counter(final.values()).items() if count > 1]
    notes = [f"Merged into {_shown(n)}: {listed(old for old, new in final.items() if new == n)}." for n in merged]
    return _with_samples(dataset, dataset.samples, final), notes


def merge(dataset: Dataset, table: Path) -> tuple[Dataset, list[str]]:
    """Rename classes by a table; classes with the same new name are merged.

    Args:
        table: as `tables.open_table` reads it, of an old and a new name in each line, with or without the header
            `old,new`. Classes that are missing keep their names; unknown classes are ignored.

    Returns:
        The dataset, and notes for the user.

    Raises:
        DatasetError: if the table cannot be read, a line is not of two names, a class is in two lines, or none of the
            classes is in it.
    """
    names: dict[str, str] = {}
    content = tables.open_table(table)
    first = [] if [name.casefold() for name in content.header] == ["old", "new"] else [(1, content.header)]
    for line, fields in itertools.chain(first, content.rows):
        row = [checked(cells.one_of(field, dataset.class_names), f"{table}, line {line}") for field in fields]
        if not any(row):
            continue
        if len(row) != 2 or not all(row):
            raise DatasetError(f"{table}, line {line}: expected an old and a new name, found {_shown(','.join(row))}.")
        old, new = row
        if names.setdefault(old, new) != new:
            raise DatasetError(f"{table}, line {line}: {_shown(old)} has another new name in an earlier line.")
    if not set(names) & set(dataset.class_names):
        raise DatasetError(
            f"{table}: expected names of the classes ({listed(dataset.class_names)}), found {listed(names) or 'none'}."
        )
    result = _with_samples(dataset, dataset.samples, {name: names.get(name, name) for name in dataset.class_names})
    before, after = len(dataset.class_names), len(result.class_names)
    notes = [f"{table}: {before:,} classes became {after:,}."]
    if others := [name for name in names if name not in dataset.class_names]:
        notes.append(f"{table}: no such classes here: {listed(others)}.")
    return result, notes


def _with_samples(dataset: Dataset, samples: Sequence[Sample], final: Mapping[str, str]) -> Dataset:
    """Apply the final names of classes; keep their order, or keep them sorted."""
    task = tasks.find(dataset.task)
    pairs = [(s, task.renamed(s.label, final)) for s in samples]
    samples = [s if s.label == label else replace(s, label=label) for s, label in pairs]
    used = set(task.class_names((s.label for s in samples), dataset.class_names))
    names = tuple(name for name in dict.fromkeys([*final.values(), *sorted(used)]) if name in used)
    if dataset.class_names == ordered(dataset.class_names):
        names = ordered(names)
    return replace(dataset, samples=tuple(samples), class_names=names)


def _differences(before: Collection[str], after: Collection[str]) -> list[str]:
    notes = []
    if new := [name for name in after if name not in before]:
        notes.append(f"New classes: {listed(new)}.")
    if gone := [name for name in before if name not in after]:
        notes.append(f"Classes without images now: {listed(gone)}.")
    return notes


def _check_known(dataset: Dataset, names: Iterable[str], option: str) -> None:
    unknown = [name for name in names if name not in dataset.class_names]
    if unknown:
        raise DatasetError(f"{option}: no class {_shown(unknown[0])}; the classes are {listed(dataset.class_names)}.")


def _shown(text: str) -> str:
    return repr(text) if text.isprintable() else ascii(text)
