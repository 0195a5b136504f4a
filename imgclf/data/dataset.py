"""The dataset: images with their labels and splits, and where they are.

It contains names and numbers, never pixels; `manifest.csv` is the same on disk.
"""

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imgclf import tasks
from imgclf.data import cells
from imgclf.errors import DatasetError
from imgclf.settings import DataConfig
from imgclf.storage import write_atomic

if TYPE_CHECKING:
    from imgclf.data.doctor import Checkup

TRAIN, VALIDATION, TEST, UNASSIGNED = "train", "validation", "test", ""
SPLITS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("path", "label", "split", "group", "sha256", "width", "height", "format")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: its file, its label, and the facts of its header.

    `path` is relative to the dataset's root, with forward slashes. `label` is the class name, "" where unknown.
    `sha256` is of the file's bytes. `width` and `height` are stored pixels, before EXIF orientation. `given` is the
    split that the data bring along, whatever `split` is now.
    """

    path: str
    label: str
    split: str = UNASSIGNED
    group: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    given: str = field(default=UNASSIGNED, compare=False)


@dataclass(frozen=True)
class Skipped:
    """A file that is not among the samples, and the reason.

    `kind` is `unreadable`, `not-an-image` (by its name), `hidden` (its name begins with a dot, or it is
    a folder of the system), `own-output` (a folder that imgclf wrote), `unlabelled` (an image outside any class folder,
    or a row or an object without a label), `unlisted` (an image that the table does not name), `duplicate` (named
    twice), `crowd`, `difficult` or `too-small` (objects), `excluded` (by a table of corrections, or by its folder) or
    `empty-class` (a folder in the place of a class, without an image that can be read).
    """

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Images with labels. `class_names` is in the order of `ordered` unless a reader knows better.

    A label's index is its place there. What the labels are, `task` says: a class, several classes, or numbers, whose
    names are then `class_names`.

    `source` is what the user named, where the samples' files do not lie in it: an archive, a folder of arrays, or one
    of photographs whose objects were cut out. `root` is then the folder in the cache that holds them. `group_column` is
    the column of a table that the samples' groups were read from. `settings` are those it was read with, None for a
    dataset made by hand. `notes` and `split_notes` are for the user, the latter about the split. `checkup` contains the
    findings of the doctor.
    """

    root: Path
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...]
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)
    task: str = tasks.DEFAULT
    source: Path | None = field(default=None, compare=False)
    group_column: str | None = field(default=None, compare=False)
    settings: DataConfig | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    split_notes: tuple[str, ...] = field(default=(), compare=False)
    checkup: "Checkup | None" = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        found = Counter(sample.split for sample in self.samples)
        splits = ", ".join(f"{count:,} {split or 'without a split'}" for split, count in sorted(found.items()))
        return (
            f"<Dataset {self.name!r}: {len(self):,} images ({splits}) of {len(self.class_names):,} classes, "
            f"{len(self.skipped):,} files skipped>"
        )

    @property
    def origin(self) -> Path:
        """The path that the user passed, for messages and for `config.json`."""
        return self.source or self.root

    @property
    def name(self) -> str:
        """The name of its folder, or of its file without suffixes."""
        path = self.origin.resolve()
        return path.name.partition(".")[0] or path.name if path.is_file() else path.name

    @property
    def labels(self) -> np.ndarray:
        """The targets of the task: for classes int64 (n,), each sample's index in `class_names`, -1 where unknown."""
        return tasks.find(self.task).encode([s.label for s in self.samples], self.class_names)

    @property
    def paths(self) -> list[Path]:
        """The samples' files."""
        return [self.root / s.path for s in self.samples]

    @property
    def files(self) -> dict[str, Path]:
        """The samples' files by the samples' paths."""
        return {s.path: self.root / s.path for s in self.samples}

    def part(self, split: str) -> "Dataset":
        """Return the samples of one split; the class names stay complete."""
        return replace(self, samples=tuple(s for s in self.samples if s.split == split), skipped=())

    @property
    def median_side_px(self) -> float:
        """The median of the images' shorter sides, in px; inf where no header is known."""
        sides = [min(s.width, s.height) for s in self.samples if s.width and s.height]
        return float(np.median(sides)) if sides else math.inf

    def counts(self, split: str | None = None) -> dict[str, int]:
        """Count images by class, in one split or in all; every class is listed, even with 0."""
        labels = (s.label for s in self.samples if split is None or s.split == split)
        return tasks.find(self.task).counts(labels, self.class_names)

    def with_splits(self, splits: Sequence[str]) -> "Dataset":
        """Return the same samples with a new split."""
        pairs = zip(self.samples, splits, strict=True)
        return replace(self, samples=tuple(s if s.split == name else replace(s, split=name) for s, name in pairs))

    def as_given(self) -> "Dataset":
        """Return the same samples with the split that the data bring along."""
        return self.with_splits([s.given for s in self.samples])

    def summary(self) -> dict[str, Any]:
        """Summarize the dataset for JSON.

        `classes` counts images in all and by split; `sizes` are stored pixels (width, height) of the smallest, the
        median and the largest image by area; `skipped` counts every kind; `unreadable` and `empty_classes` name them.
        """
        sizes = sorted(((s.width, s.height) for s in self.samples), key=lambda size: (size[0] * size[1], size))
        places = {"smallest": 0, "median": len(sizes) // 2, "largest": -1} if sizes else {}
        counts = {"images": self.counts()} | {name: self.counts(name) for name in SPLITS}
        return {
            "root": str(self.root),
            "sha256": self.digest(),
            "images": len(self),
            "classes": {name: {what: n[name] for what, n in counts.items()} for name in self.class_names},
            "sizes": {name: list(sizes[place]) for name, place in places.items()},
            "formats": dict(Counter(s.format for s in self.samples).most_common()),
            "skipped": dict(sorted(Counter(s.kind for s in self.skipped).items())),
            "unreadable": [{"path": s.path, "reason": s.reason} for s in self.skipped if s.kind == "unreadable"],
            "empty_classes": [s.path for s in self.skipped if s.kind == "empty-class"],
        }

    def digest(self) -> str:
        """Hash content, label, split and group of every sample, whatever their order and folder: SHA-256."""
        rows = sorted(f"{s.sha256}\0{s.label}\0{s.split}\0{s.group}" for s in self.samples)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def listed(names: Iterable[str], most: int = 10) -> str:
    """List class names or paths in a message: the first ones and the number of others; control characters escaped."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:most]) + more


def write_manifest(dataset: Dataset, path: Path) -> None:
    """Write the manifest: CSV with the columns of `COLUMNS`, UTF-8, paths relative to the dataset's root."""
    text = io.StringIO(newline="")
    write = csv.writer(text, lineterminator="\n").writerow
    write(COLUMNS)
    for row in map(attrgetter(*COLUMNS), dataset.samples):
        if cells.is_ordinary(row[0]) and cells.is_ordinary(row[1]) and cells.is_ordinary(row[3]):
            write(row)  # ten times as fast
        else:
            text.write(cells.line(row))
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_manifest(path: Path, root: Path, class_names: Sequence[str] | None = None) -> Dataset:
    """Read a manifest that `write_manifest` wrote; its paths are taken relative to `root`.

    Raises:
        DatasetError: if the file is missing, is not CSV, lacks a column, or has a row that cannot be read.
    """
    try:
        # newline="": line breaks in names must stay
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            try:
                header = next(reader, [])
                missing = [column for column in COLUMNS if column not in header]
                if missing:
                    raise DatasetError(
                        f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} not found."
                    )
                samples = tuple(_samples(reader, header))
            except (csv.Error, ValueError) as error:
                raise DatasetError(f"{path}, line {reader.line_num}: not a manifest's row ({error}).") from None
    except OSError as error:
        raise DatasetError(f"{path}: the manifest cannot be read ({error.strerror}).") from None
    names = tuple(class_names) if class_names is not None else tasks.ordered({s.label for s in samples if s.label})
    return Dataset(root=root, samples=samples, class_names=names)


def _samples(rows: Iterable[list[str]], header: Sequence[str]) -> Iterator[Sample]:
    """Parse the rows of a manifest, quickly; ValueError says what is wrong with the last one."""
    fields = itemgetter(*map(header.index, COLUMNS))
    once: dict[str, str] = {name: name for name in (*SPLITS, UNASSIGNED)}  # repeated texts are kept in memory once
    for row in rows:
        if not row:
            continue
        try:
            path, label, split, group, sha256, width, height, format = fields(row)
        except IndexError:
            path = ""
        if not path:
            raise ValueError(f"expected {len(COLUMNS)} fields, beginning with a path")
        if split not in (*SPLITS, UNASSIGNED):
            raise ValueError(f"expected one of {', '.join(SPLITS)} or nothing as the split, found {split!r}")
        label, group = cells.plain(label), cells.plain(group)
        yield Sample(
            cells.plain(path),
            once.setdefault(label, label),
            once[split],
            once.setdefault(group, group),
            sha256,
            int(width or 0),
            int(height or 0),
            once.setdefault(format, format),
        )
