"""Recognize what is not data in a folder of data: folders of systems, and what imgclf wrote."""

import json
from collections.abc import Collection
from pathlib import Path

from imgclf import documents
from imgclf.storage import write_atomic

SYSTEM = frozenset(
    {
        *("@eadir", "@tmp", "@sharebin", "@synoresource", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb", "@__qini", "@transcode"),  # QNAP
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "$windows.~bt"),  # Windows
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", "icon\\r"),  # macOS
        *("lost+found", "__pycache__"),
    }
)
"""Folders of operating systems, network storage and tools, in lower case; others begin with a dot."""

_OWN = (
    frozenset({"artifact.json"}),  # an export, or a run that ended
    frozenset({"config.json", "manifest.csv"}),  # a run
    frozenset({"log.jsonl", "log.txt"}),  # one that just began
    frozenset({"config.json", "folds.json"}),  # a cross-validation
    frozenset({"metrics.json", "predictions.csv"}),  # an evaluation
)
"""Files that imgclf writes side by side, and nobody else."""

SORTED = ".imgclf-sorted.json"
"""Marks a folder that `predict --sort-into` filled and that lies in the folder whose images it sorts."""


def is_system(name: str) -> bool:
    """Whether a folder belongs to an operating system or a tool, whose images are no data."""
    return name.casefold() in SYSTEM


def is_own_output(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder with files of these names contains a run, an export or scores of imgclf, or images sorted out of
    a folder above it."""
    return any(marks.issubset(names) for marks in _OWN) or (SORTED in names and _is_sorted_from_above(folder))


def mark_sorted(folder: Path, source: Path) -> None:
    """Mark a folder of sorted images as no data of `source`, in which it lies; elsewhere it is data like any other.

    Raises:
        OSError: if it cannot be written.
    """
    place, above = folder.resolve(), source.resolve()
    if place != above and place.is_relative_to(above) and not (place / SORTED).exists():
        value = {"sorted_from": above.name, "levels_above": len(place.relative_to(above).parts)}
        write_atomic(place / SORTED, json.dumps(value, ensure_ascii=True) + "\n")


def _is_sorted_from_above(folder: Path) -> bool:
    """Whether the folder still lies where it was marked: a folder that was moved elsewhere is data."""
    try:
        value = documents.parse((folder / SORTED).read_bytes())
        levels, name = value["levels_above"], value["sorted_from"]
        return bool(folder.resolve().parents[levels - 1].name == name)
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return False
