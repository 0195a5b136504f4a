"""Predictions as lines of text: JSON Lines, CSV, and short lines for people."""

import contextlib
import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction.classifier import Prediction

log = logging.getLogger(__name__)

CSV_COLUMNS = ("path", "label", "confidence", "error")
"""With `top` above 1, `label_2`, `confidence_2`, `label_3`... follow."""


def to_jsonl(predictions: Iterable[Prediction], top: int, *, ascii_only: bool = False) -> Iterator[str]:
    """One JSON object a line: `path`, `label`, `confidence`, `top` [{`label`, `confidence`}] and `error`.

    What is unknown is null; `top` is then empty. A name that is not text keeps its bytes, as JSON's escapes \\udc80
    to \\udcff.
    """
    for prediction in predictions:
        best = [{"label": label, "confidence": confidence} for label, confidence in prediction.top(top)]
        values = {
            "path": prediction.path,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "top": best,
            "error": prediction.error,
        }
        line = json.dumps(values, ensure_ascii=ascii_only)
        yield line.encode("utf-8", "backslashreplace").decode() + "\n"


def to_csv(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """A header and one line for each prediction; what is unknown is empty."""
    more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "confidence")]
    yield _csv_line([*CSV_COLUMNS, *more])
    for prediction in predictions:
        first, *others = [*prediction.top(top), *[("", "")] * top][:top]
        rest = [value for pair in others for value in pair]
        yield _csv_line([prediction.path or "", *first, prediction.error or "", *rest])


def _csv_line(values: list[object]) -> str:
    """One line of CSV. Python 3.11 quotes a carriage return only where it is part of the line's end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"


def to_rows(prediction: Prediction, top: int) -> list[tuple[str, str, str, str]]:
    """Path, label, confidence in per cent and error, for a table: one row for each of the best classes."""
    path = _printable(prediction.path or "")
    if prediction.error is not None:
        return [(path, "", "", _printable(prediction.error))]
    best = [(_printable(label), f"{confidence:.1%}") for label, confidence in prediction.top(top)]
    return [("" if rank else path, *answer, "") for rank, answer in enumerate(best)]


def to_text(prediction: Prediction, top: int) -> str:
    """One line for people: the path and the best classes, or the error, with tabs between them."""
    rows = to_rows(prediction, top)
    answers = [error or f"{label} {confidence}" for _, label, confidence, error in rows]
    return "\t".join([rows[0][0], *answers]) + "\n"


def _printable(text: str) -> str:
    """Text without line breaks and without what would command the terminal; such characters become escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def create(path: Path) -> Iterator[TextIO]:
    """A new text file, which stands under its name when the block ends, or is interrupted: then with what is done.

    Names of files that are not text are written as the bytes they are.

    Raises:
        UsageError: if the file exists or cannot be made.
        ImgclfError: if it cannot be written to its end; it is then not there.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path}: expected a new file, found one that exists. Choose another -o, or remove it.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("x", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise UsageError(f"{path}: the file cannot be written ({error.strerror}). Choose another -o.") from None
    done = False
    try:
        with file:
            yield file
        done = True
    except KeyboardInterrupt:
        done = True
        log.info("%s holds what was finished.", path)
        raise
    except OSError as error:
        raise ImgclfError(f"{path}: the file cannot be written to its end ({error.strerror}).") from None
    finally:
        if done:
            os.replace(part, path)
        else:
            os.unlink(part)
