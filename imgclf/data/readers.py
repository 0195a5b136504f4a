"""Folders -> Dataset: find the images, the classes and the given split, and read each file once."""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imgclf import environment
from imgclf.data import images
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample, Skipped
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
            proportion to their sizes, at least one each. Which ones follows from their content alone, so that the
            same images are taken from a copy of the folder, and a larger limit only adds to a smaller one's choice
            within each class.
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
    found = _scan(root)
    tree = _layout(root, found)
    wanted = _choose(root, tree, classes, min_classes)
    samples, unreadable = _examine_all(root, wanted, on_progress)
    names = tuple(sorted({s.label for s in samples}))
    if len(names) < min_classes:
        broken = f", and {len(unreadable)} unreadable, such as {_named(unreadable[0])}" if unreadable else ""
        raise DatasetError(
            f"{root}: expected readable images of at least {min_classes} classes, found {_classes(names)}{broken}."
        )
    if limit is not None:
        samples = _limited(samples, limit)
    skipped = sorted([*found.skipped, *tree.skipped, *unreadable], key=lambda s: s.path)
    return Dataset(root=root, samples=tuple(samples), class_names=names, skipped=tuple(skipped))


@dataclass
class _Found:
    """What lies below a folder, by names alone: images to open, folders without one, files that are no images."""

    files: list[str]
    folders: list[str]
    skipped: list[Skipped]


@dataclass
class _Tree:
    """Each image's label and side, from where it lies."""

    samples: list[Sample]
    skipped: list[Skipped]
    is_split: bool


def _scan(root: Path) -> _Found:
    found = _Found([], [], [])
    _scan_folder(root, "", found, frozenset())
    return found


def _scan_folder(root: Path, folder: str, found: _Found, above: frozenset[tuple[int, int]]) -> None:
    try:
        status = (root / folder).stat()
        with os.scandir(root / folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        if not folder:
            raise DatasetError(f"{root}: the folder cannot be read ({error.strerror}).") from None
        found.skipped.append(Skipped(folder, "unreadable", f"the folder cannot be read ({error.strerror})"))
        return
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder above itself would go round for ever
        found.skipped.append(Skipped(folder, "unreadable", "a link to a folder that holds it"))
        return
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith("."):
            found.skipped.append(Skipped(path, "hidden", "its name begins with a dot"))
        elif entry.is_dir():
            found.folders.append(path)
            _scan_folder(root, path, found, above | {here})
        elif Path(entry.name).suffix.lower() not in images.SUFFIXES:
            found.skipped.append(Skipped(path, "not-an-image", "its name does not end as an image's does"))
        elif entry.is_file():
            found.files.append(path)
        else:  # a broken link, or a pipe, which would block whoever opens it
            found.skipped.append(Skipped(path, "unreadable", "not a file, or a link to nowhere"))


def _layout(root: Path, found: _Found) -> _Tree:
    """Decide between class folders and split folders, and label every image by its place."""
    if not found.files:
        raise DatasetError(f"{root}: expected images, found {_what_is_there(found)}. {_ADVICE}")
    depth: defaultdict[str, set[bool]] = defaultdict(set)  # top folder -> whether images lie in folders below it
    for path in found.files:
        top, _, rest = path.partition("/")
        if rest:
            depth[top].add("/" in rest)
    if not depth:
        raise DatasetError(f"{root}: found {len(found.files)} images directly in it and no class folders. {_ADVICE}")
    sides = {top for top in depth if top.casefold() in SPLIT_FOLDERS}
    others = sorted(set(depth) - sides)
    is_split = any(True in depth[top] for top in sides)
    if is_split and others:
        raise DatasetError(
            f"{root}: found folders of a split ({_listed(sorted(sides))}) beside other folders with images "
            f"({_listed(others)}). Move or rename one of the two kinds."
        )
    if sides and not others and not is_split:
        raise DatasetError(
            f"{root}: expected class folders in {_listed([f'{side}/' for side in sorted(sides)])}, "
            f"found images directly there. {_ADVICE}"
        )
    tree = _Tree([], [], is_split)
    for path in found.files:
        parts = path.split("/")
        side = SPLIT_FOLDERS[parts[0].casefold()] if is_split and len(parts) > 1 else UNASSIGNED
        if len(parts) < (3 if is_split else 2):
            tree.skipped.append(Skipped(path, "unlabelled", "an image outside any class folder"))
        else:
            tree.samples.append(Sample(path, _label(root, parts[1 if is_split else 0]), side))
    filled = {"/".join(s.path.split("/")[: 2 if is_split else 1]) for s in tree.samples}
    for folder in found.folders:
        if folder.count("/") == int(is_split) and folder not in filled and not _inside_skipped(folder, found):
            tree.skipped.append(Skipped(folder, "empty-folder", "a folder in the place of a class, without images"))
    return tree


def _inside_skipped(folder: str, found: _Found) -> bool:
    return any(s.path == folder for s in found.skipped)


def _label(root: Path, name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DatasetError(
            f"{root}: the class folder {name.encode('utf-8', 'surrogateescape')!r} has a name that is not UTF-8, "
            "and class names go into JSON. Rename it."
        ) from None
    return unicodedata.normalize("NFC", name)


def _choose(root: Path, tree: _Tree, classes: Sequence[str], min_classes: int) -> list[Sample]:
    """The samples of the classes asked for, before any file is opened."""
    known = sorted({s.label for s in tree.samples})
    asked = {unicodedata.normalize("NFC", name) for name in classes}
    unknown = sorted(asked - set(known))
    if unknown:
        raise DatasetError(f"{root}: no class {_named(unknown[0])}; the classes are {_listed(known)}.")
    chosen = sorted(asked) or known
    if len(chosen) < min_classes:
        inner = f" If {root / chosen[0]} is the data set, give that folder." if len(chosen) == len(known) == 1 else ""
        raise DatasetError(
            f"{root}: expected at least {min_classes} class folders with images, found {_classes(chosen)}. "
            f"{_ADVICE}{inner}"
        )
    return [s for s in tree.samples if s.label in set(chosen)]


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
    """At most `limit` samples: shares by largest remainder, at least one each; within a share the lowest hashes."""
    strata: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        strata[sample.label, sample.split].append(sample)
    if limit < len(strata):
        raise UsageError(f"--limit: expected at least {len(strata)}, one image of each class and side, found {limit}.")
    if limit >= len(samples):
        return list(samples)
    exact = {key: limit * len(members) / len(samples) for key, members in strata.items()}
    share = {key: max(1, int(value)) for key, value in exact.items()}
    by_need = sorted(strata, key=lambda key: (share[key] - exact[key], key))
    for key in by_need[: max(0, limit - sum(share.values()))]:
        share[key] += 1
    while sum(share.values()) > limit:  # the minimum of one took more than the proportion gave
        share[max(share, key=lambda key: (share[key] - exact[key] if share[key] > 1 else -1.0, key))] -= 1
    kept: set[str] = set()
    for key, members in strata.items():
        kept.update(s.path for s in sorted(members, key=lambda s: (s.sha256, s.path))[: share[key]])
    return [s for s in samples if s.path in kept]


def _what_is_there(found: _Found) -> str:
    suffixes = Counter(Path(s.path).suffix or "without a suffix" for s in found.skipped if s.kind == "not-an-image")
    hidden = sum(s.kind == "hidden" for s in found.skipped)
    parts = [f"{n} {suffix}" for suffix, n in suffixes.most_common(5)]
    parts += [f"{hidden} hidden"] if hidden else []
    folders = f"{len(found.folders)} empty folders" if found.folders else "an empty folder"
    return f"other files ({', '.join(parts)})" if parts else folders


def _named(item: str | Skipped) -> str:
    return repr(item.path if isinstance(item, Skipped) else item)


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} ({_listed(names)})" if names else "none"


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
