"""Where a model is worse than elsewhere: accuracy on slices of the test images by what is known about each image."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, storage
from imgclf.data import images, scan_cache, statistics, tables
from imgclf.data.dataset import Sample
from imgclf.errors import DatasetError, ImageError
from imgclf.evaluation import intervals
from imgclf.settings import Decoding

FILE = "slices.json"

LEAST = 5
"""Images that a slice needs, and that must remain outside of it."""

QUARTERS = 4
"""Parts of equal size into which numbers are divided."""

MOST_VALUES = 50
"""A column with more values than this names its images instead of slicing them, unless they are numbers."""

LEVEL = 0.05


SHAPE = documents.fields(
    {
        "n": documents.number(1, whole=True),
        "accuracy": documents.number(0, 1),
        "sentence": documents.text,
        "rows": documents.list_of(
            documents.fields(
                {
                    **dict.fromkeys(("by", "value"), documents.text),
                    **dict.fromkeys(("n", "accuracy", "others", "p"), documents.number(0)),
                    "interval": documents.pair_of(documents.number(0, 1)),
                }
            )
        ),
    }
)
"""The shape of `slices.json`."""


def measure(
    samples: Sequence[Sample],
    files: Mapping[str, Path],
    correct: Sequence[bool],
    *,
    rules: Decoding,
    table: Path | None = None,
) -> dict[str, Any]:
    """Compare the accuracy of each slice with that of all other images.

    Slices are quarters by size, brightness and blur, and the values of format, group and the columns of a table.

    Args:
        samples: readable test images.
        files: by the samples' paths.
        correct: whether the prediction for each is correct.
        table: with a column `path` or `file`, as the data name the images, and others to slice by.

    Returns:
        `n`, `accuracy`, `rows`, the worst slice first (`by`, `value`, `n`, `accuracy`, `interval`, `others`, `p`), and
        `sentence`. Intervals hold for all slices together with 95% (Bonferroni); `p` is that of Fisher's exact test
        against all other images, corrected for the number of slices (Holm).

    Raises:
        DatasetError: if the table has no such column, or names none of the images.
    """
    facts = _of_images(samples, files, rules)
    columns: dict[str, list[Any]] = {
        "size": [min(s.width, s.height) or None for s in samples],
        "brightness": [None if one is None else float(one["mean"]) for one in facts],
        "blur": [None if one is None else float(one["blur"]) for one in facts],
        "format": [s.format or None for s in samples],
        "group": [s.group or None for s in samples],
    }
    if table is not None:
        columns |= of_table(table, samples)
    found = {
        (name, value): member
        for name, values in columns.items()
        for value, member in _divided(values).items()
        if LEAST <= member.sum() <= len(samples) - LEAST
    }
    right = np.asarray(correct, bool)
    rows = _ranked(found, right)
    return {"n": len(samples), "accuracy": float(right.mean()), "rows": rows, "sentence": sentence(rows)}


def _of_images(samples: Sequence[Sample], files: Mapping[str, Path], rules: Decoding) -> list[Any]:
    """Return the statistics of each image; None where it cannot be read."""

    def measured(sample: Sample) -> Any:
        try:
            return statistics.measure([statistics.tiles(images.decode(files[sample.path], rules))])[0]
        except ImageError:
            return None

    return list(scan_cache.in_threads(measured, samples))


def of_table(path: Path, samples: Sequence[Sample]) -> dict[str, list[str | None]]:
    """Return the columns of a table for the images that it names; None for the others.

    Raises:
        DatasetError: if no column names the images, or none of them is among the samples.
    """
    table = tables.open_table(path)
    header = [name.strip() for name in table.header]
    names = [name for name in header if name.lower() in _PATHS]
    if not names:
        raise DatasetError(f"{path}: expected a column {' or '.join(_PATHS)}, found {', '.join(header) or 'none'}.")
    place, rows = header.index(names[0]), {}
    for _, row in table.rows:
        if len(row) > place:
            rows[row[place].strip()] = row
    known = [rows.get(sample.path) for sample in samples]
    if not any(known):
        raise DatasetError(
            f"{path}: expected rows for the scored images, such as {samples[0].path!r} in the column {names[0]}, found "
            "none."
        )
    return {
        name: [row[at].strip() or None if row and len(row) > at else None for row in known]
        for at, name in enumerate(header)
        if at != place and name.lower() not in _NOT_SLICED
    }


_PATHS = ("path", "file", "filename", "file_name", "image")
_NOT_SLICED = ("label", "split", "sha256", "width", "height", "format", "group")
"""Columns of a manifest that the samples have themselves."""


def _divided(values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Find the members of each slice, bool (n,), by its value: quarters of numbers, and each other value by itself."""
    known = np.array([value is not None for value in values])
    if not known.any():
        return {}
    numbers = _numbers(values)
    distinct = sorted({str(value) for value in values if value is not None})
    if numbers is not None and len(distinct) > QUARTERS:
        return _quarters(numbers, known)
    if len(distinct) > MOST_VALUES:
        return {}
    return {value: np.array([each is not None and str(each) == value for each in values]) for value in distinct}


def _numbers(values: Sequence[Any]) -> np.ndarray | None:
    try:
        found = np.array([math.nan if value is None else float(value) for value in values])
    except ValueError:
        return None
    return found


def _quarters(numbers: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Quarters by rank of the value; equal values stay together."""
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, QUARTERS + 1)))
    found = {}
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        last = place == len(edges) - 2
        member = known & (numbers >= low) & ((numbers <= high) if last else (numbers < high))
        if member.any():
            own = numbers[member]
            found[f"{own.min():.4g} to {own.max():.4g}"] = member
    return found


def _ranked(found: Mapping[tuple[str, str], np.ndarray], right: np.ndarray) -> list[dict[str, Any]]:
    """Make a row for each slice, the one whose accuracy is surely lowest first: by the upper end of its interval."""
    from scipy import stats

    rows: list[dict[str, Any]] = []
    for (by, value), member in found.items():
        inside, outside = right[member], right[~member]
        counts = [[int(part.sum()), int((~part).sum())] for part in (inside, outside)]
        level = 1 - LEVEL / len(found)
        low, high = stats.binomtest(counts[0][0], len(inside)).proportion_ci(level, method="wilson")
        rows.append(
            {
                "by": by,
                "value": value,
                "n": len(inside),
                "accuracy": float(inside.mean()),
                "interval": [float(low), float(high)],
                "others": float(outside.mean()),
                "p": float(stats.fisher_exact(counts, alternative="less").pvalue),
            }
        )
    for row, p in zip(rows, intervals.holm([row["p"] for row in rows]), strict=True):
        row["p"] = p
    return sorted(rows, key=lambda row: (row["interval"][1], row["accuracy"]))


def sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the worst slice is, and whether chance explains it."""
    if not rows:
        return f"There are no slices of at least {LEAST} images."
    row = rows[0]
    low, high = row["interval"]
    what = (
        f"{row['by']} {row['value']} ({row['n']} images): accuracy {row['accuracy']:.3f} "
        f"({low:.3f} to {high:.3f}), {row['others']:.3f} elsewhere"
    )
    if row["p"] >= LEVEL:
        return f"No slice is worse than the rest by more than chance explains. The lowest is {what}."
    return f"Worst slice: {what}."


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `slices.json`.

    Raises:
        OSError: if the file cannot be written.
    """
    storage.write_json(folder / FILE, facts)


COLUMNS = ("by", "value", "images", "accuracy", "interval", "elsewhere", "p")
SHOWN = 20


def table(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the worst slices, as the columns `COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for row in facts["rows"][:SHOWN]:
        low, high = row["interval"]
        scores = (f"{row['accuracy']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['others']:.3f}", f"{row['p']:.3g}")
        rows.append((row["by"], row["value"], str(row["n"]), *scores))
    return rows
