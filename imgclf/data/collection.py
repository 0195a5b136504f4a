"""Whatever holds images -> Dataset: recognise the layout, list what it says, and read each file once."""

import contextlib
import hashlib
import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from imgclf import environment
from imgclf.data import arrays, images, objects, synsets, tables
from imgclf.data.dataset import Dataset, Sample, Skipped, listed
from imgclf.data.file_listing import Found, Listing, Progress, scan
from imgclf.data.layouts import archives, folders
from imgclf.data.scan_cache import Scanner
from imgclf.errors import DatasetError, ImageError, UsageError
from imgclf.settings import ReadConfig

log = logging.getLogger(__name__)

Looked = Generator[list[Sample | Skipped], None, None]

_CHUNK = 64
_DEFAULTS = ReadConfig()


def collect(
    path: Path | str,
    settings: ReadConfig = _DEFAULTS,
    *,
    classes: Sequence[str] = (),
    min_classes: int = 2,
    on_progress: Progress | None = None,
    scanner: Scanner | None = None,
) -> Dataset:
    """Read a data set of any layout, a folder or a zip or tar archive of one.

    Class folders (also below `train/`, `val/`, `test/`); a table of paths and labels with its images; ImageNet's
    folders with a file that names the synsets; IDX files and CIFAR's batches; photographs with boxes in Pascal VOC's
    XML or COCO's JSON, whose objects become the images. `settings.layout` says which, or it is recognised.

    Each file is opened once, for its hash and its header; one whose end looks cut off is decoded to be sure. What
    cannot be used is in `Dataset.skipped` with its reason. Samples are ordered by path. Archives, arrays and objects
    are unpacked into the cache, once.

    Args:
        path: the folder, the archive, the table, or the JSON file.
        settings: how to read it.
        classes: use only these classes; all when empty.
        min_classes: fewer classes than this are an error.
        on_progress: called with (files read, files to read), in the calling thread; before that, for what has to be
            unpacked, with (done, to do).
        scanner: looks at the files instead, decodes all of each, and knows their records afterwards.

    Raises:
        DatasetError: if there is nothing at that path, it is no data set, it does not hold images in at least
            `min_classes` classes, or `classes` holds an unknown name.
        UsageError: if a column that was named is not there, or a file is not of the layout asked for.
        MissingError: if it is a Parquet table and pyarrow is not installed, or one of its images is HEIC and
            pillow-heif is not.
    """
    name = Path(path)
    source = _open(name, settings, on_progress)
    if settings.layout == "auto" and source.layout != "folders":
        tables_used = f" ({listed(source.tables)})" if source.tables else ""
        log.info("%s: read as --layout %s%s.", name, source.layout, tables_used)
    _warn_of_idle_options(name, source.layout, settings)
    listing = _named(source, _list(source, settings, on_progress), settings)
    wanted = _choose(name, listing, classes, min_classes)
    samples, unreadable = _examine_all(listing.root, wanted, settings.allow_truncated, on_progress, scanner)
    names = tuple(sorted({s.label for s in samples}))
    if len(names) < min_classes:
        broken = f"{len(unreadable)} images cannot be read, such as {listed([unreadable[0].path])}"
        raise DatasetError(
            f"{name}: expected readable images of at least {min_classes} classes, found {_count(names)}; "
            f"{broken} ({unreadable[0].reason})."
        )
    lost = {s.label for s in wanted} - set(names)
    empty = [Skipped(name, "empty-class", "none of its images can be read") for name in lost]
    skipped = sorted([*listing.skipped, *unreadable, *empty], key=lambda s: s.path)
    return Dataset(
        root=listing.root,
        samples=tuple(samples),
        class_names=names,
        skipped=tuple(skipped),
        source=None if listing.root == name else name,
        group_column=listing.group_column,
    )


def locate(path: Path | str, settings: ReadConfig = _DEFAULTS) -> Path:
    """The folder that the samples' paths are relative to, unpacked anew where the cache was emptied.

    What is gone is named as it was, so that the images can be missed by name.

    Raises:
        DatasetError: if an archive, arrays or annotations cannot be unpacked.
    """
    name = Path(path)
    if not os.path.exists(name):
        return name
    source = _open(name, settings, None)
    return _list(source, settings, None).root if source.layout in _UNPACKED else source.root


def narrow(dataset: Dataset, *, classes: Sequence[str] = (), limit: int | None = None) -> Dataset:
    """Keep some classes, and at most so many images.

    Args:
        classes: the classes to keep; all when empty.
        limit: the most images in all, shared among the classes (and the splits that the data bring along) in
            proportion to their sizes, at least one each. The choice follows from content alone, so a copy of the
            folder gives the same images, and a larger limit only adds to them.

    Raises:
        DatasetError: if `classes` holds an unknown name.
        UsageError: if `limit` is smaller than the number of classes.
    """
    asked = {unicodedata.normalize("NFC", name) for name in classes}
    unknown = sorted(asked - set(dataset.class_names))
    if unknown:
        known = listed(dataset.class_names)
        raise DatasetError(f"{dataset.origin}: no class {unknown[0]!r}; the classes are {known}.")
    samples = [s for s in dataset.samples if not asked or s.label in asked]
    if limit is not None:
        samples = _limited(samples, limit)
    names = tuple(name for name in dataset.class_names if not asked or name in asked)
    return replace(dataset, samples=tuple(samples), class_names=names)


_UNPACKED = ("idx", "cifar", "voc", "coco")


@dataclass
class _Source:
    """What the user named, and what it turned out to be: `file` is the one table or JSON file, if it is one."""

    name: Path
    root: Path
    layout: str
    found: Found | None = None
    file: Path | None = None
    tables: dict[str, str] | None = None


def _open(path: Path, settings: ReadConfig, on_progress: Progress | None) -> _Source:
    """Unpack an archive, look through the folder, and decide what layout it has."""
    if not os.path.exists(path):  # Path.exists raises for a name that is too long, or in a forbidden folder
        raise DatasetError(f"{path}: expected a folder of images, found nothing there. Check the spelling.")
    root = path
    if not path.is_dir():
        if path.suffix.lower() in tables.SUFFIXES:
            _check_layout(path, settings, "table")
            return _Source(path, path.parent, "table", file=path)
        if path.suffix.lower() == ".json":
            _check_layout(path, settings, "coco")
            home = path.parent.parent if path.parent.name == "annotations" else path.parent
            return _Source(path, home, "coco", found=scan(home, path), file=path)
        if not archives.is_archive(path):
            raise DatasetError(
                f"{path}: expected a folder with one sub-folder per class, a zip or tar archive of one, or a table of "
                "paths and labels (.csv, .tsv, .parquet), found another file, or a damaged archive."
            )
        root = archives.unpack(path, on_progress)
    found = scan(root, path)
    columns = (settings.path_column, settings.label_column, settings.split_column, settings.group_column)
    layout, beside = settings.layout, None
    if layout == "table" or (layout == "auto" and any(columns)):
        layout, beside = "table", tables.asked_for(found, settings)
    elif layout == "auto":
        layout, beside = _recognise(found, settings)
    return _Source(path, root, layout, found, tables=beside)


def _check_layout(path: Path, settings: ReadConfig, layout: str) -> None:
    if settings.layout not in ("auto", layout):
        raise UsageError(f"--layout {settings.layout}: {path} can only be read as --layout {layout}. Leave it out.")


_IN_FOLDERS, _IN_TABLES = ("depth",), ("path_column", "label_column", "split_column", "group_column")
_IN_BOXES = ("box_margin", "box_min_size")
_OPTIONS = {
    "folders": _IN_FOLDERS,
    "imagenet": _IN_FOLDERS,
    "table": _IN_TABLES,
    "voc": (*_IN_BOXES, "difficult"),
    "coco": (*_IN_BOXES, "crowd"),
}
"""The settings that matter to one layout alone."""


def _warn_of_idle_options(name: Path, layout: str, settings: ReadConfig) -> None:
    of_others = {option for options in _OPTIONS.values() for option in options} - {*_OPTIONS.get(layout, ())}
    idle = sorted(option for option in of_others if getattr(settings, option) != getattr(_DEFAULTS, option))
    if idle:
        named = listed("--" + option.replace("_", "-") for option in idle)
        log.warning("%s: read as --layout %s, which leaves these without effect: %s.", name, layout, named)


def _recognise(found: Found, settings: ReadConfig) -> tuple[str, dict[str, str] | None]:
    """The layout, and the tables where it is that. What speaks of single images stands above their folders."""
    if objects.voc_files(found):
        return "voc", None
    if objects.coco_files(found):
        return "coco", None
    if arrays.has_idx(found):
        return "idx", None
    if arrays.has_cifar(found):
        return "cifar", None
    beside = tables.beside(found, settings)
    return ("table", beside) if beside else ("folders", None)


def _list(source: _Source, settings: ReadConfig, on_progress: Progress | None) -> Listing:
    if source.layout == "table" and source.file:
        return tables.read_file(source.file, settings)
    found = source.found
    assert found is not None
    match source.layout:
        case "table":
            return tables.read(found, source.tables or {}, settings)
        case "idx":
            return arrays.read_idx(found, on_progress)
        case "cifar":
            return arrays.read_cifar(found, on_progress)
        case "voc":
            return objects.read_voc(found, settings, on_progress)
        case "coco":
            only = source.file.relative_to(source.root).as_posix() if source.file else None
            return objects.read_coco(found, settings, on_progress, only)
    return folders.read(found, settings.depth)


def _named(source: _Source, listing: Listing, settings: ReadConfig) -> Listing:
    """Give the classes the names that a file holds for them: the one asked for, or ImageNet's in the folder itself."""
    samples = listing.samples
    if settings.class_names is not None:
        samples = synsets.apply(samples, synsets.read(Path(settings.class_names)), settings.class_names)
    elif source.layout in ("folders", "imagenet") and source.found:
        automatic = settings.layout in ("auto", "imagenet")
        names = synsets.beside(source.found, {s.label for s in samples}) if automatic else None
        if names:
            samples = synsets.apply(samples, names, source.name)
            log.info("%s: classes have the names of their synsets; --layout folders keeps the synsets.", source.name)
        elif settings.layout == "imagenet":
            raise DatasetError(
                f"{source.name}: expected class folders named as synsets, such as n01440764, and a file beside them "
                "that names all of them, found none. Name the file with --class-names."
            )
    return replace(listing, samples=samples)


def _choose(name: Path, listing: Listing, classes: Sequence[str], min_classes: int) -> list[Sample]:
    """The samples of the classes asked for, before any file is opened."""
    known = {s.label for s in listing.samples}
    asked = {unicodedata.normalize("NFC", wanted) for wanted in classes}
    if asked - known:
        raise DatasetError(
            f"{name}: expected names of its classes ({listed(sorted(known))}), found {listed(sorted(asked - known))}."
        )
    chosen = asked or known
    if len(chosen) < min_classes:
        advice = folders.ADVICE if not asked else "Name more of them, or all."
        if len(known) == 1 and not asked:
            advice += f" If {name / min(known)} is the data set, give that folder."
        raise DatasetError(
            f"{name}: expected at least {min_classes} classes with images, found {_count(sorted(chosen))}. {advice}"
        )
    _warn_of_case(name, chosen)
    return [s for s in listing.samples if s.label in chosen]


def _warn_of_case(name: Path, classes: Iterable[str]) -> None:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for spelling in sorted(classes):
        spellings[spelling.casefold()].append(spelling)
    alike = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    if alike:
        log.warning("%s: classes whose names differ only in case: %s.", name, listed(alike))


def _examine_all(
    root: Path,
    samples: Sequence[Sample],
    allow_truncated: bool,
    on_progress: Progress | None,
    scanner: Scanner | None,
) -> tuple[list[Sample], list[Skipped]]:
    """Hash and open every file, in threads."""
    readable, unreadable, done = [], [], 0
    looked = _scan(root, samples, scanner) if scanner else _in_threads(root, samples, allow_truncated)
    with contextlib.closing(looked):  # an interrupt ends the threads at once
        for results in looked:
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


def _in_threads(root: Path, samples: Sequence[Sample], allow_truncated: bool) -> Looked:
    chunks = [samples[i : i + _CHUNK] for i in range(0, len(samples), _CHUNK)]
    pool = ThreadPoolExecutor(environment.cpu_count() + 2)  # two more, since some always wait for the disk
    try:
        yield from pool.map(lambda chunk: [_examine(root, s, allow_truncated) for s in chunk], chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def _scan(root: Path, samples: Sequence[Sample], scanner: Scanner) -> Looked:
    rest = iter(samples)
    for chunk in scanner.examine(root, [s.path for s in samples]):
        yield [
            _sample(sample, seen.sha256, seen.header)
            if seen.record
            else Skipped(sample.path, "unreadable", seen.reason)
            for seen, sample in zip(chunk, rest, strict=False)
        ]


def _examine(root: Path, sample: Sample, allow_truncated: bool) -> Sample | Skipped:
    try:
        data = images.read_bytes(root / sample.path)
        header = images.inspect(data, allow_truncated)
    except ImageError as error:
        return Skipped(sample.path, "unreadable", str(error))
    return _sample(sample, hashlib.sha256(data).hexdigest(), header)


def _sample(sample: Sample, sha256: str, header: images.Header) -> Sample:
    return Sample(
        path=sample.path,
        label=sample.label,
        split=sample.split,
        group=sample.group,
        sha256=sha256,
        width=header.width,
        height=header.height,
        format=header.format,
        given=sample.split,
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


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} ({listed(names)})" if names else "none"
