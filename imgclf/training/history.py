"""The file `history.csv` of a run."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from imgclf.storage import write_atomic

COLUMNS = ("phase", "epoch", "image_size", "lr", "loss", "{score}", "val_loss", "val_{score}", "seconds", "outcome")
"""Their names, where `{score}` is the one that the task is judged by, such as accuracy."""


def write(path: Path, rows: list[dict[str, Any]], score: str) -> None:
    """Write all rows.

    Args:
        score: the name of the task's score.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [name.format(score=score) for name in COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue(), parents=False)  # a run that was deleted stays deleted


def title(phase: str) -> str:
    """Return a phase in words: `finetune 33%` is "Fine-tuning 33%"."""
    words = {"scratch": "Training from scratch", "full": "Training all layers"}
    return words.get(phase) or phase.replace("finetune", "fine-tuning").capitalize()


def scores(row: dict[str, Any]) -> str:
    """Return the scores of a row in words, where there are images to measure them on."""
    apart = ("phase", "epoch", "image_size", "lr", "loss", "val_loss", "seconds", "outcome")
    kept = dict.fromkeys(key.removeprefix("val_").replace("_", " ") for key in row if key not in apart)
    names: dict[str, str] = {}
    for words in kept:
        key = words.replace(" ", "_")
        names |= {key: f"training {words}", f"val_{key}": f"validation {words}"}
    return ", ".join(f"{words} {row[key]:.4f}" for key, words in names.items() if math.isfinite(row.get(key, math.nan)))
