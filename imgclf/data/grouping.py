"""Which images belong together: groups by name, and units, the sets of images that no split may divide."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from imgclf.data.dataset import Dataset, Sample, listed
from imgclf.errors import UsageError

PARENT, COLUMN = "parent", "column"


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
    matched = [_name(by, sample.path) for sample in dataset.samples]
    if dataset.samples and not any(matched):
        raise UsageError(
            f"--group-by {by}: it matches none of the paths, such as {listed([dataset.samples[0].path])}. "
            "Nor is it a column of a table of them."
        )
    names = _Sets()
    for sample, name in zip(dataset.samples, matched, strict=True):
        if sample.group and name:
            names.join("old\0" + sample.group, "new\0" + name)
    called: dict[object, str] = {}  # a set's representative -> the name of its group
    for name in sorted({name for name in matched if name}):
        called.setdefault(names.find("new\0" + name), name)

    def final(sample: Sample, name: str) -> str:
        return called.get(names.find("new\0" + name if name else "old\0" + sample.group), name or sample.group)

    pairs = zip(dataset.samples, matched, strict=True)
    result = replace(dataset, samples=tuple(replace(s, group=final(s, name)) for s, name in pairs))
    alone = [s.path for s, name in zip(dataset.samples, matched, strict=True) if not name]
    if not alone:
        return result, []
    return result, [f"--group-by {by}: it does not match {len(alone):,} of the paths, such as {listed(alone[:1])}."]


def units(samples: Sequence[Sample], related: Iterable[Sequence[int]] = ()) -> list[int]:
    """The sets of images that stand on one side together: of equal bytes, of one group, or related; and so on.

    Args:
        related: more rows that belong together, such as near-duplicates, one sequence for each set.

    Returns:
        For each sample the number of its unit, from 0 in the order of first rows.
    """
    sets = _Sets()
    for row, sample in enumerate(samples):
        sets.join(content(sample), row)
        if sample.group:
            sets.join("group\0" + sample.group, row)
    for rows in related:
        for row in rows[1:]:
            sets.join(rows[0], row)
    numbers: dict[object, int] = {}
    return [numbers.setdefault(sets.find(row), len(numbers)) for row in range(len(samples))]


def joined(samples: Sequence[Sample], numbers: Sequence[int]) -> list[list[str]]:
    """The names of groups that share a unit, sorted; only units with several."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for sample, unit in zip(samples, numbers, strict=True):
        if sample.group:
            found[unit].add(sample.group)
    return sorted(sorted(names) for names in found.values() if len(names) > 1)


def content(sample: Sample) -> str:
    """What tells equal images: the hash of the bytes, or the path where there is none."""
    return sample.sha256 or "path\0" + sample.path


def _name(by: str, path: str) -> str:
    if by == PARENT:
        return path.rpartition("/")[0].rpartition("/")[2]
    match = re.search(by, path)
    if not match:
        return ""
    return (match[1] or "") if match.re.groups else match[0]


class _Sets:
    """Disjoint sets of anything hashable: each begins alone."""

    def __init__(self) -> None:
        self._above: dict[object, object] = {}

    def find(self, item: object) -> object:
        """The item that stands for its set."""
        path = []
        while (above := self._above.get(item, item)) != item:
            path.append(item)
            item = above
        for passed in path[:-1]:
            self._above[passed] = item
        return item

    def join(self, one: object, other: object) -> None:
        first, second = self.find(one), self.find(other)
        if first != second:
            self._above[second] = first
