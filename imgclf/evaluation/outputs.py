"""`predictions.csv`: the predictions for labeled images, one row per image."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgclf.data import cells
from imgclf.errors import RunError
from imgclf.evaluation import metrics
from imgclf.evaluation.sums import REJECTED
from imgclf.storage import write_atomic

OLD_COLUMNS = ("path", "label", "predicted", "confidence")
"""Those of files that were written before rejections were recorded; they are read, too."""

COLUMNS = (*OLD_COLUMNS, "rejected", "argmax")
PREFIX = "p_"

TRUE, FALSE = "true", "false"


class Predictions(NamedTuple):
    """The content of a `predictions.csv`, in the order in which `write_predictions` takes it.

    `labels` is int64 (n,), the true classes as indices into `class_names`; `probabilities` is float32 (n, classes).
    `predicted` is int64 (n,), `sums.REJECTED` for a rejected image; `confidence`, float32 (n,), is the probability
    of the predicted class, or of the one that would be without the rejection.
    """

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]
    predicted: np.ndarray
    confidence: np.ndarray


def write_predictions(
    path: Path,
    paths: Iterable[Path | str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    predicted: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
) -> None:
    """Write CSV in UTF-8 with the columns of `COLUMNS`, then `p_<class>` for each class in order.

    `label` is the true class. `predicted` is empty and `rejected` is `true` for a rejected image. `argmax` is the most
    probable class, whatever the rules say. Probabilities have as many digits as restore the same float32.

    Args:
        paths: n paths, written as they are.
        labels: int (n,), the true classes, as indices into `class_names`.
        probabilities: float (n, classes); rows sum to 1.
        predicted: int (n,), what the rules say, `sums.REJECTED` for rejected images; by default, the argmax.
        confidence: float (n,), the probability of the class that is predicted or would be without the rejection; by
            default, that of `predicted`, or of the argmax for a rejected image.

    Raises:
        ValueError: if the lengths differ, or for the reasons of `metrics.score`.
        OSError: if the file cannot be written; an old one stays as it is.
    """
    labels, probabilities = metrics.check(labels, probabilities, class_names)
    argmax = probabilities.argmax(axis=1)
    predicted = argmax if predicted is None else metrics.check_predicted(predicted, probabilities)
    rejected = predicted == REJECTED
    if confidence is None:
        confidence = probabilities[np.arange(len(labels)), np.where(rejected, argmax, predicted)]
    lines = [cells.line([*COLUMNS, *(PREFIX + name for name in class_names)])]
    exact = confidence.astype(np.float32), argmax, probabilities.astype(np.float32)
    for file, label, said, sure, best, row in zip(paths, labels, predicted, *exact, strict=True):
        name, flag = ("", TRUE) if said == REJECTED else (class_names[said], FALSE)
        start = [str(file), class_names[label], name, str(sure), flag, class_names[best]]
        lines.append(cells.line([*start, *map(str, row)]))
    write_atomic(path, "".join(lines).encode("utf-8", "surrogateescape"))


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote, also before it recorded rejections: no image is rejected then.

    Raises:
        RunError: if the file is missing, lacks a column, or has no row, one that cannot be read, or one whose numbers
            are not probabilities.
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
        raise RunError(f"{path}: not a CSV file ({error}).") from None
    columns = COLUMNS if tuple(header[: len(COLUMNS)]) == COLUMNS else OLD_COLUMNS
    names = [column.removeprefix(PREFIX) for column in header[len(columns) :]]
    if header != [*columns, *(PREFIX + name for name in names)] or not names:
        raise RunError(f"{path}: expected the columns {', '.join(COLUMNS)}, then {PREFIX}<class>, found {header}.")
    index = {name: i for i, name in enumerate(names)}
    paths, labels, predicted, confidence, rows = [], [], [], [], []
    for row in reader:
        try:
            file, label, said, sure, *flags = map(cells.plain, row[: len(columns)])
            rejected = {TRUE: True, FALSE: False}[flags[0]] if flags else False
            rows.append(np.array(row[len(columns) :], dtype=np.float32).reshape(len(names)))
            labels.append(index[label])
            predicted.append(REJECTED if rejected else index[said])
            confidence.append(np.float32(sure))
            paths.append(file)
        except (ValueError, KeyError):
            raise RunError(f"{path}, line {reader.line_num}: expected a complete row, found {row!r:.200}.") from None
    found = Predictions(
        paths,
        np.array(labels, np.int64),
        np.array(rows, np.float32).reshape(-1, len(names)),
        names,
        np.array(predicted, np.int64),
        np.array(confidence, np.float32),
    )
    try:
        metrics.check(found.labels, found.probabilities, names)
    except ValueError as error:
        raise RunError(f"{path}: {error} Restore it, or rerun imgclf train or evaluate.") from None
    return found
