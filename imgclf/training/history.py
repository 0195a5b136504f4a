"""The file `history.csv` of a run."""

import csv
import io
import math
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


def title(phase: str) -> str:
    """Return a phase in words: `finetune 33%` is "Fine-tuning 33%"."""
    words = {"scratch": "Training from scratch", "full": "Training all layers"}
    return words.get(phase) or phase.replace("finetune", "fine-tuning").capitalize()


def scores(row: dict[str, Any]) -> str:
    """Return the accuracies of a row in words, where there are images to measure them on."""
    names = {"accuracy": "training accuracy", "val_accuracy": "validation accuracy"}
    return ", ".join(f"{words} {row[key]:.4f}" for key, words in names.items() if math.isfinite(row.get(key, math.nan)))
