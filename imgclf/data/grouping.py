"""Find which images belong together: groups by name, and units, which no split may divide."""

import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from imgclf.data.dataset import Dataset, Sample, listed
from imgclf.errors import UsageError

PARENT, COLUMN = "parent", "column"

PATTERN_S, PATTERN_PATH_S = 5.0, 0.001
"""The time in which a pattern must be found in all paths, and what each path adds."""


def group(dataset: Dataset, by: str) -> tuple[Dataset, list[str]]:
    """Name every image's group by its path.

    Groups that the dataset brings along (a table's column, the photograph that objects were cut from) stay undivided:
    where `by` gives their images several names, all these names become one group, called by the first of them.

    Args:
        by: a regular expression that is searched in the path, whose first group, or whole match, is the name;
            "parent", the name of the folder that the file is in; or the table's column that the dataset's groups were
            read from, also as "column". An image whose path it does not match keeps the group that it has, or stands
            alone.

    Returns:
        The dataset with `Sample.group` set, and notes for the user.

    Raises:
        UsageError: if `by` matches no path, or there are no groups for "column" to mean.
    """
    if by == dataset.group_column:
        return dataset, []
    if by == COLUMN:
        if not any(s.group for s in dataset.samples):
            raise UsageError(
                f"--group-by column: {dataset.origin} brings no groups along. --group-column names a table's column."
            )
        return dataset, []
    matched = _names(by, [sample.path for sample in dataset.samples])
    if dataset.samples and not any(matched):
        raise UsageError(
            f"--group-by {by}: it matches none of the paths, such as {listed([dataset.samples[0].path])}. "
            "Nor is it a column of a table of them."
        )
    ours = [("new", name) if name else ("old", s.group) for s, name in zip(dataset.samples, matched, strict=True)]
    keys: list[list[Hashable]] = [
        [key, ("old", s.group)] if s.group else [key] for key, s in zip(ours, dataset.samples, strict=True)
    ]
    sets = _connected(keys)
    called: dict[int, str] = {}  # a set -> the name of its group
    for number, name in zip(sets, matched, strict=True):
        if name:
            called[number] = min(called.get(number, name), name)

    def final(sample: Sample, name: str, number: int) -> str:
        return called.get(number, sample.group) if name or sample.group else ""

    rows = zip(dataset.samples, matched, sets, strict=True)
    result = replace(dataset, samples=tuple(replace(s, group=final(s, name, n)) for s, name, n in rows))
    alone = [s.path for s, name in zip(dataset.samples, matched, strict=True) if not name]
    if not alone:
        return result, []
    return result, [f"--group-by {by}: it does not match {len(alone):,} of the paths, such as {listed(alone[:1])}."]


def units(samples: Sequence[Sample], related: Iterable[Sequence[int]] = ()) -> list[int]:
    """Give numbers to sets of images of one split: of equal bytes, of one group, related, or linked by these.

    Args:
        related: more rows that belong together, such as near-duplicates, one sequence for each set.

    Returns:
        For each sample the number of its unit, from 0 in the order of first rows.
    """
    keys: list[list[Hashable]] = [
        [("content", content(s)), ("group", s.group)] if s.group else [("content", content(s))] for s in samples
    ]
    for number, rows in enumerate(related):
        for row in rows:
            keys[row].append(number)
    return _connected(keys)


def joined(
    samples: Sequence[Sample], numbers: Sequence[int], related: Iterable[Sequence[int]] = ()
) -> list[tuple[list[str], list[list[str]]]]:
    """Find the groups that share a unit, and the files that link them.

    Args:
        numbers: the samples' units.
        related: as for `units`.

    Returns:
        For each unit of several groups their names, and the sets of files that are copies of each other or related.
    """
    groups: defaultdict[int, set[str]] = defaultdict(set)
    copies: defaultdict[str, list[int]] = defaultdict(list)
    for row, (sample, unit) in enumerate(zip(samples, numbers, strict=True)):
        copies[content(sample)].append(row)
        if sample.group:
            groups[unit].add(sample.group)
    links: defaultdict[int, list[list[str]]] = defaultdict(list)
    for rows in (*copies.values(), *related):
        if len({samples[row].group or row for row in rows}) > 1 and len(groups[numbers[rows[0]]]) > 1:
            links[numbers[rows[0]]].append(sorted(samples[row].path for row in rows))
    return sorted((sorted(groups[unit]), sorted(files)) for unit, files in links.items())


def content(sample: Sample) -> str:
    """Return what tells equal images: the hash of the bytes, or the path where there is none."""
    return sample.sha256 or "path\0" + sample.path


def _names(by: str, paths: Sequence[str]) -> list[str]:
    """Return the name of the group of each path; "" where there is none.

    Raises:
        UsageError: if the regular expression takes too long: some take a time that doubles with every letter.
    """
    if by == PARENT:
        return [path.rpartition("/")[0].rpartition("/")[2] for path in paths]
    import regex  # the standard library's has no limit of time

    pattern = regex.compile(by)
    end = time.monotonic() + PATTERN_S + PATTERN_PATH_S * len(paths)
    names = []
    for path in paths:
        try:
            match = pattern.search(path, timeout=max(end - time.monotonic(), 0.001))
        except TimeoutError:
            raise UsageError(
                f"--group-by {by}: the pattern takes too long, such as for {listed([path])}. Simplify it: nested "
                "repetitions such as (a+)+ try every way to divide a text."
            ) from None
        names.append("" if not match else (match[1] or "") if pattern.groups else match[0])
    return names


def _connected(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """Give numbers to sets of rows that share keys, directly or through others, in the order of first rows."""
    columns: dict[Hashable, int] = {}
    pairs = [(row, columns.setdefault(key, len(columns))) for row, own in enumerate(keys) for key in own]
    if len(columns) == len(pairs):  # no key twice
        return list(range(len(keys)))
    from scipy.sparse import coo_array  # here, since few datasets need it
    from scipy.sparse.csgraph import connected_components

    rows, places = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = len(keys) + len(columns)
    links = coo_array((np.ones(len(pairs)), (rows, places + len(keys))), shape=(size, size))
    numbers: dict[int, int] = {}
    return [
        numbers.setdefault(n, len(numbers))
        for n in connected_components(links, directed=False)[1][: len(keys)].tolist()
    ]
