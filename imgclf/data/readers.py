"""Folders -> Dataset: find the images, the classes and the given split, and read each file once."""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from imgclf import environment
from imgclf.data import images
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample, Skipped, listed
from imgclf.errors import DatasetError, ImageError, UsageError

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""Names of folders, in any case, that hold one side of a split rather than one class."""

_CHUNK = 64
_ADVICE = "Put each class's images in its own sub-folder."

Progress = Callable[[int, int], None]


def read(
    path: Path | str,
    *,
    classes: Sequence[str] = (),
    limit: int | None = None,
    min_classes: int = 2,
    on_progress: Progress | None = None,
) -> Dataset:
    """Read a folder with one sub-folder per class, or with `train/`, `val/`, `test/` and class folders in those.

    A class's images are found at any depth below its folder. Each file is opened once, for its hash and its header;
    one whose end looks cut off is decoded to be sure. What cannot be used is in `Dataset.skipped` with its reason.
    Samples are ordered by path. A class name is the folder's name in Unicode form NFC, so that the same name written
    by two systems is one class.

    Args:
        path: the folder.
        classes: use only these classes; all when empty.
        limit: use at most this many images in all, shared among the classes (and sides of a given split) in
            proportion to their sizes, at least one each. Which ones follows from their content alone, so a copy
            of the folder gives the same ones, and a larger limit only adds to them.
        min_classes: fewer classes than this are an error.
        on_progress: called with (files read, files to read), in the calling thread.

    Raises:
        DatasetError: if there is no such folder, or it does not hold images in at least `min_classes` classes, or
            `classes` holds an unknown name.
        UsageError: if `limit` is smaller than the number of classes.
    """
    root = Path(path)
    if not root.exists():
        raise DatasetError(f"{root}: expected a folder of images, found nothing there. Check the spelling.")
    if not root.is_dir():
        raise DatasetError(f"{root}: expected a folder with one sub-folder per class, found a file.")
    found = scan(root)
    tree = _layout(root, found)
    wanted = _choose(root, tree, classes, min_classes)
    samples, unreadable = _examine_all(root, wanted, on_progress)
    names = tuple(sorted({s.label for s in samples}))
    if len(names) < min_classes:
        broken = f"{len(unreadable)} images cannot be read, such as {listed([unreadable[0].path])}"
        raise DatasetError(
            f"{root}: expected readable images of at least {min_classes} classes, found {_count(names)}; "
            f"{broken} ({unreadable[0].reason})."
        )
    if limit is not None:
        samples = _limited(samples, limit)
    lost = {s.label for s in wanted} - set(names)
    empty = [Skipped(name, "empty-class", "none of its images can be read") for name in lost]
    skipped = sorted([*found.skipped, *tree.skipped, *unreadable, *empty], key=lambda s: s.path)
    return Dataset(root=root, samples=tuple(samples), class_names=names, skipped=tuple(skipped))


def narrow(dataset: Dataset, *, classes: Sequence[str] = (), limit: int | None = None) -> Dataset:
    """What `read` with these `classes` and this `limit` would have given, from a dataset that is read already.

    Raises:
        DatasetError: if `classes` holds an unknown name.
        UsageError: if `limit` is smaller than the number of classes.
    """
    asked = {unicodedata.normalize("NFC", name) for name in classes}
    unknown = sorted(asked - set(dataset.class_names))
    if unknown:
        known = listed(dataset.class_names)
        raise DatasetError(f"{dataset.root}: no class {unknown[0]!r}; the classes are {known}.")
    samples = [s for s in dataset.samples if not asked or s.label in asked]
    if limit is not None:
        samples = _limited(samples, limit)
    names = tuple(name for name in dataset.class_names if not asked or name in asked)
    return replace(dataset, samples=tuple(samples), class_names=names)


@dataclass
class Found:
    """What lies below a folder, by names alone: files to open, folders that could be listed, and what is neither."""

    files: list[str]
    folders: list[str]
    skipped: list[Skipped]


@dataclass
class _Tree:
    """The images with the label and the side that follow from their place, and those that have none."""

    samples: list[Sample]
    skipped: list[Skipped]


def scan(root: Path) -> Found:
    """Look through a folder at any depth, links to folders included; no file is opened. `files` is sorted.

    Raises:
        DatasetError: if the folder cannot be read.
    """
    found = Found([], [], [])
    ahead: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]  # folder, and those that hold it
    while ahead:
        folder, above = ahead.pop()
        try:
            status = (root / folder).stat()
            with os.scandir(root / folder) as listing:
                entries = list(listing)
        except OSError as error:
            if not folder:
                raise DatasetError(f"{root}: the folder cannot be read ({error.strerror}).") from None
            found.skipped.append(Skipped(folder, "unreadable", f"the folder cannot be read ({error.strerror})"))
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:  # following it would go round for ever
            found.skipped.append(Skipped(folder, "unreadable", "a link to a folder that holds it"))
            continue
        if folder:
            found.folders.append(folder)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                found.skipped.append(Skipped(path, "hidden", "its name begins with a dot"))
            elif entry.is_dir():
                ahead.append((path, above | {here}))
            elif Path(entry.name).suffix.lower() not in images.SUFFIXES:
                found.skipped.append(Skipped(path, "not-an-image", "its name does not end as an image's does"))
            elif entry.is_file():
                found.files.append(path)
            else:  # a broken link, or a pipe, which would block whoever opens it
                found.skipped.append(Skipped(path, "unreadable", "not a file, or a link to nowhere"))
    found.files.sort()
    return found


def _layout(root: Path, found: Found) -> _Tree:
    """Decide between class folders and split folders, and label every image by its place."""
    if not found.files:
        raise DatasetError(f"{root}: expected images, found {_what_else(found)}. {_ADVICE}")
    flat = {top for top, _, rest in (path.partition("/") for path in found.files) if rest and "/" not in rest}
    deep = {top for top, _, rest in (path.partition("/") for path in found.files) if "/" in rest}
    if not flat | deep:
        raise DatasetError(f"{root}: found {len(found.files)} images directly in it and no class folders. {_ADVICE}")
    sides = {top for top in flat | deep if top.casefold() in SPLIT_FOLDERS}
    others = (flat | deep) - sides
    is_split = bool(sides & deep)
    if is_split and others:
        raise DatasetError(
            f"{root}: found folders of a split ({listed(sorted(sides))}) beside other folders with images "
            f"({listed(sorted(others))}). Move or rename one of the two kinds."
        )
    if sides and not others and not is_split:
        raise DatasetError(
            f"{root}: expected class folders in {' and '.join(sorted(sides))}, found images directly there. {_ADVICE}"
        )
    level = int(is_split)  # of the class folder in a path
    tree = _Tree([], [])
    filled = set()
    for path in found.files:
        parts = path.split("/")
        if len(parts) < level + 2:
            tree.skipped.append(Skipped(path, "unlabelled", "an image outside any class folder"))
            continue
        side = SPLIT_FOLDERS[parts[0].casefold()] if is_split else UNASSIGNED
        tree.samples.append(Sample(path, _label(root, parts[level]), side))
        filled.add("/".join(parts[: level + 1]))
    empty = [folder for folder in found.folders if folder.count("/") == level and folder not in filled]
    tree.skipped += [Skipped(folder, "empty-class", "a folder without images") for folder in empty]
    return tree


def _label(root: Path, name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DatasetError(
            f"{root}: the class folder {os.fsencode(name)!r} has a name that is not UTF-8, and class names go into "
            "JSON. Rename it."
        ) from None
    return unicodedata.normalize("NFC", name)


def _choose(root: Path, tree: _Tree, classes: Sequence[str], min_classes: int) -> list[Sample]:
    """The samples of the classes asked for, before any file is opened."""
    known = {s.label for s in tree.samples}
    asked = {unicodedata.normalize("NFC", name) for name in classes}
    if asked - known:
        raise DatasetError(
            f"{root}: expected names of its classes ({listed(sorted(known))}), found {listed(sorted(asked - known))}."
        )
    chosen = asked or known
    if len(chosen) < min_classes:
        advice = _ADVICE if not asked else "Name more of them, or all."
        if len(known) == 1 and not asked:
            advice += f" If {root / min(known)} is the data set, give that folder."
        raise DatasetError(
            f"{root}: expected at least {min_classes} classes with images, found {_count(sorted(chosen))}. {advice}"
        )
    return [s for s in tree.samples if s.label in chosen]


def _examine_all(
    root: Path, samples: Sequence[Sample], on_progress: Progress | None
) -> tuple[list[Sample], list[Skipped]]:
    """Hash and open every file, in threads; the order stays."""
    readable, unreadable, done = [], [], 0
    for results in _in_threads(root, samples):
        for result in results:
            if isinstance(result, Sample):
                readable.append(result)
            else:
                unreadable.append(result)
        done += len(results)
        if on_progress:
            on_progress(done, len(samples))
    readable.sort(key=lambda s: s.path)
    return readable, unreadable


def _in_threads(root: Path, samples: Sequence[Sample]) -> Iterator[list[Sample | Skipped]]:
    chunks = [samples[i : i + _CHUNK] for i in range(0, len(samples), _CHUNK)]
    pool = ThreadPoolExecutor(environment.cpu_count() + 2)  # two more, since some always wait for the disk
    try:
        yield from pool.map(lambda chunk: [_examine(root, sample) for sample in chunk], chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def _examine(root: Path, sample: Sample) -> Sample | Skipped:
    try:
        data = images.read_bytes(root / sample.path)
        header = images.inspect(data)
    except ImageError as error:
        return Skipped(sample.path, "unreadable", str(error))
    return Sample(
        path=sample.path,
        label=sample.label,
        split=sample.split,
        sha256=hashlib.sha256(data).hexdigest(),
        width=header.width,
        height=header.height,
        format=header.format,
    )


def _limited(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """The `limit` samples that come first when every class and side deals its own out evenly, by content hash."""
    strata: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        strata[sample.label, sample.split].append(sample)
    if limit < len(strata):
        raise UsageError(f"--limit: expected at least {len(strata)}, one image of each class and side, found {limit}.")
    turns = []
    for members in strata.values():
        members.sort(key=lambda s: (s.sha256, s.path))
        turns += [((i + 0.5) / len(members) if i else 0.0, s.sha256, s.path) for i, s in enumerate(members)]
    kept = {path for _, _, path in sorted(turns)[:limit]}
    return [s for s in samples if s.path in kept]


def _what_else(found: Found) -> str:
    suffixes = Counter(Path(s.path).suffix or "without a suffix" for s in found.skipped if s.kind == "not-an-image")
    parts = [f"{n} {suffix}" for suffix, n in suffixes.most_common(5)]
    kinds = Counter(s.kind for s in found.skipped)
    parts += [f"{kinds[kind]} {kind}" for kind in ("hidden", "unreadable") if kinds[kind]]
    if parts:
        return f"other files ({', '.join(parts)})"
    return f"{len(found.folders)} folders without files" if found.folders else "an empty folder"


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} ({listed(names)})" if names else "none"
