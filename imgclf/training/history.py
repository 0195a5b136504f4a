"""The file `history.csv` of a run."""

import csv
import io
from pathlib import Path
from typing import Any

from imgclf.storage import write_atomic

COLUMNS = ("phase", "epoch", "image_size", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "outcome")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue(), parents=False)  # a run that was deleted stays deleted
