"""Dataset: which images there are, what they show, and on which side of the split each stands.

It holds names and numbers, never pixels. `manifest.csv` is the same thing on disk.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from imgclf.errors import DatasetError
from imgclf.runs import write_atomic

TRAIN, VALIDATION, TEST, UNASSIGNED = "train", "validation", "test", ""
SPLITS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("path", "label", "split", "group", "sha256", "width", "height", "format")


@dataclass(frozen=True)
class Sample:
    """One image: where it is, what it shows, and what its header says.

    `path` is relative to the dataset's root, with forward slashes. `label` is the class name, "" where unknown.
    `sha256` is of the file's bytes. `width` and `height` are stored pixels, before EXIF orientation.
    """

    path: str
    label: str
    split: str = UNASSIGNED
    group: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""


@dataclass(frozen=True)
class Skipped:
    """A file that is not among the samples, and why: kind is `unreadable`, `not-an-image` or `hidden`."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Images with labels. `class_names` is sorted unless a reader knows better; a label's index is its place there."""

    root: Path
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...]
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): each sample's index in `class_names`, -1 where the label is unknown."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return np.array([index.get(s.label, -1) for s in self.samples], dtype=np.int64)

    @property
    def paths(self) -> list[Path]:
        """The samples' files."""
        return [self.root / s.path for s in self.samples]

    def part(self, split: str) -> "Dataset":
        """The samples on one side of the split; the class names stay whole."""
        return replace(self, samples=tuple(s for s in self.samples if s.split == split), skipped=())

    def counts(self, split: str | None = None) -> dict[str, int]:
        """Images per class, on one side or in all; every class is there, also with 0."""
        found = Counter(s.label for s in self.samples if split is None or s.split == split)
        return {name: found[name] for name in self.class_names}

    def with_splits(self, splits: Sequence[str]) -> "Dataset":
        """The same samples with new sides."""
        pairs = zip(self.samples, splits, strict=True)
        return replace(self, samples=tuple(replace(s, split=side) for s, side in pairs))

    def digest(self) -> str:
        """SHA-256 over every sample's content hash, label, split and group, whatever the order and the folder."""
        rows = sorted(f"{s.sha256}\0{s.label}\0{s.split}\0{s.group}" for s in self.samples)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def write_manifest(dataset: Dataset, path: Path) -> None:
    """Write the manifest: CSV with the columns of `COLUMNS`, UTF-8, paths relative to the dataset's root."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(s, column) for column in COLUMNS] for s in dataset.samples)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_manifest(path: Path, root: Path, class_names: Sequence[str] | None = None) -> Dataset:
    """Read a manifest that `write_manifest` wrote; its paths are taken relative to `root`.

    Raises:
        DatasetError: if the file is missing, lacks a column, or holds a row that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"{path}: the manifest cannot be read ({error.strerror}).") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise DatasetError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} not found.")
    samples = []
    for row in reader:
        try:
            numbers = {key: int(row[key] or 0) for key in ("width", "height")}
            samples.append(Sample(**{key: row[key] for key in COLUMNS if key not in numbers}, **numbers))
        except (TypeError, ValueError):
            raise DatasetError(f"{path}, line {reader.line_num}: expected a whole row, found {row!r}.") from None
    names = tuple(class_names) if class_names is not None else tuple(sorted({s.label for s in samples if s.label}))
    return Dataset(root=root, samples=tuple(samples), class_names=names)
