"""The file `history.csv` of a run."""

import csv
import io
from pathlib import Path
from typing import Any

from imgclf.storage import write_atomic

COLUMNS = ("phase", "epoch", "image_size", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "outcome")
_WHOLE, _TEXT = ("epoch", "image_size"), ("phase", "outcome")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows, numbers as numbers, without the empty cells."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _value(name, text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def _value(name: str, text: str) -> str | int | float:
    return text if name in _TEXT else int(text) if name in _WHOLE else float(text)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue(), parents=False)  # a run that was deleted stays deleted
