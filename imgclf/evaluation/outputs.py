"""`predictions.csv`: what the model said of every image, one row each."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgclf.data.dataset import csv_line
from imgclf.errors import RunError
from imgclf.evaluation import metrics
from imgclf.runs import write_atomic

COLUMNS = ("path", "label", "predicted", "confidence")
PREFIX = "p_"


class Predictions(NamedTuple):
    """The content of a `predictions.csv`, in the order in which `write_predictions` takes it.

    `labels` is int64 (n,), indices into `class_names`; `probabilities` is float32 (n, classes).
    """

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]


def write_predictions(
    path: Path,
    paths: Iterable[Path | str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Write CSV with the columns `path`, `label`, `predicted`, `confidence`, and `p_<class>` for each class in order.

    UTF-8; a probability has as many digits as bring back the same float32.

    Args:
        paths: n paths, written as they are.
        labels: int (n,), the true classes, as indices into `class_names`.
        probabilities: float (n, classes); rows sum to 1.

    Raises:
        ValueError: if the lengths differ, or for the reasons of `metrics.score`.
        OSError: if the file cannot be written; an old one is then untouched.
    """
    labels, probabilities = metrics.check(labels, probabilities, class_names)
    lines = [csv_line([*COLUMNS, *(PREFIX + name for name in class_names)])]
    for file, label, row in zip(paths, labels, probabilities.astype(np.float32), strict=True):
        best = int(row.argmax())
        numbers = [str(value) for value in row]
        lines.append(csv_line([str(file), class_names[label], class_names[best], numbers[best], *numbers]))
    write_atomic(path, "".join(lines).encode("utf-8", "surrogateescape"))


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        RunError: if the file is missing, lacks a column, or holds no row, one that cannot be read, or one whose numbers
            are no probabilities.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise RunError(
            f"{path}: the predictions cannot be read ({error.strerror}). imgclf evaluate writes them."
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise RunError(f"{path}: expected CSV, found something else ({error}).") from None
    names = [column.removeprefix(PREFIX) for column in header[len(COLUMNS) :]]
    if header != [*COLUMNS, *(PREFIX + name for name in names)] or not names:
        raise RunError(f"{path}: expected the columns {', '.join(COLUMNS)}, then {PREFIX}<class>, found {header}.")
    index = {name: i for i, name in enumerate(names)}
    paths, labels, rows = [], [], []
    for row in reader:
        try:
            file, label, _, _, *numbers = row
            rows.append(np.array(numbers, dtype=np.float32).reshape(len(names)))
            labels.append(index[label])
            paths.append(file)
        except (ValueError, KeyError):
            raise RunError(f"{path}, line {reader.line_num}: expected a whole row, found {row!r:.200}.") from None
    found = Predictions(paths, np.array(labels, np.int64), np.array(rows, np.float32).reshape(-1, len(names)), names)
    try:
        metrics.check(found.labels, found.probabilities, names)
    except ValueError as error:
        raise RunError(f"{path}: {error} Restore it, or let imgclf train or evaluate write it anew.") from None
    return found
