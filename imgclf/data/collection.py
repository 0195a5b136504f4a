"""Collect images from data of any layout: list them with their labels, and open each file once."""

import contextlib
import hashlib
import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from imgclf import environment, tasks
from imgclf.data import cells, content, images, layouts, synsets
from imgclf.data.dataset import Dataset, Sample, Skipped, listed
from imgclf.data.file_listing import Listing, Progress
from imgclf.data.layouts import Source, archives, folders, table
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
    """List the images of a folder, a zip or tar archive, a table or a file of annotations, and open each file once.

    The layout is `settings.layout`, or else recognized (`layouts`). Each file is opened for its hash and its header; if
    it looks truncated, it is decoded to be sure. Files that cannot be used are in `Dataset.skipped` with the reason.
    Samples are in the order of paths. Archives, arrays and objects are unpacked into the cache, once.

    Args:
        classes: use only these classes; all when empty.
        min_classes: fewer classes than this are an error.
        on_progress: called with (files read, files to read), in the calling thread; before that, for what has to be
            unpacked, with (done, to do).
        scanner: opens the files instead, decodes each completely, and keeps their records.

    Raises:
        DatasetError: if there is nothing at that path, it is not a dataset, it has readable images in fewer than
            `min_classes` classes, or `classes` contains an unknown name.
        UsageError: if a column that was named is missing, or a file is not of the layout asked for.
        MissingError: if it is a Parquet table and pyarrow is not installed.
    """
    name = Path(path)
    min_classes = min(min_classes, tasks.find(settings.task).FEWEST)
    source, layout = _open(name, settings, on_progress)
    _warn_of_idle_options(name, layout, settings)
    listing = layouts.find(layout).list_samples(source, settings, on_progress)
    if settings.layout == "auto" and layout != "folders":
        tables = f" ({listed(listing.tables)})" if listing.tables else ""
        log.info("%s: read as --layout %s%s.", name, layout, tables)
    if layout == "folders" and settings.layout == "auto":
        for reason in table.unusable(source.found, settings).values():
            log.info("Not used as a table of labels: %s", reason)
    if own := [skipped.path for skipped in listing.skipped if skipped.kind == "own-output"]:
        log.info("%s: left out, as output of imgclf: %s.", name, listed(own))
    if settings.class_names is not None:
        names_of = synsets.read(Path(settings.class_names))
        listing = replace(listing, samples=synsets.apply(listing.samples, names_of, settings.class_names))
    wanted = _choose(name, listing, classes, min_classes, settings.task)
    samples, unreadable = _examine_all(listing.root, wanted, settings.allow_truncated, on_progress, scanner)
    _check_hashes(name, samples, listing.hashes)
    task = tasks.find(settings.task)
    if task.UNITES:
        samples = _united(name, samples, task)
    names = task.class_names((s.label for s in samples), listing.label_columns)
    if list(names) != sorted(names) and not listing.label_columns[1:]:
        log.info("%s: the classes are ordered by number: %s.", name, listed(names))
    if not samples or len(names) < min_classes:
        broken = f"{len(unreadable)} images cannot be read, such as {listed([unreadable[0].path])}"
        raise DatasetError(
            f"{name}: expected readable images of at least {min_classes} classes, found {_count(names)}; "
            f"{broken} ({unreadable[0].reason})."
        )
    lost = {name for s in wanted for name in task.members(s.label)} - set(names)
    empty = [Skipped(name, "empty-class", "none of its images can be read") for name in lost]
    skipped = sorted([*listing.skipped, *unreadable, *empty], key=lambda s: s.path)
    return Dataset(
        root=listing.root,
        samples=tuple(samples),
        class_names=names,
        skipped=tuple(skipped),
        task=settings.task,
        source=None if listing.root == name else name,
        group_column=listing.group_column,
    )


def locate(path: Path | str, settings: ReadConfig = _DEFAULTS) -> Path:
    """Find the folder that the paths of the samples are relative to; unpack again if the cache was emptied.

    A path that is gone is returned as it is, so that the missing images can be named.

    Raises:
        DatasetError: if an archive, arrays or annotations cannot be unpacked.
    """
    name = Path(path)
    if not os.path.exists(name):
        return name
    source, layout = _open(name, settings, None)
    found = layouts.find(layout)
    return found.list_samples(source, settings, None).root if found.ABOUT.unpacks else source.root


def narrow(dataset: Dataset, *, classes: Sequence[str] = (), limit: int | None = None) -> Dataset:
    """Keep some classes, and at most `limit` images.

    Args:
        classes: the classes to keep; all when empty.
        limit: the most images in all, shared among the classes (and the splits that the data bring along) in
            proportion to their sizes, at least one each. The choice follows from content alone, so a copy of the
            folder gives the same images, and a larger limit only adds to them.

    Raises:
        DatasetError: if `classes` contains an unknown name.
        UsageError: if `limit` is smaller than the number of classes.
    """
    asked = _named(classes, dataset.class_names)
    unknown = sorted(asked - set(dataset.class_names))
    if unknown:
        known = listed(dataset.class_names)
        raise DatasetError(f"{dataset.origin}: no class {unknown[0]!r}; the classes are {known}.")
    samples = _narrowed(dataset.samples, asked, dataset.task) if asked else list(dataset.samples)
    if limit is not None:
        samples = _limited(samples, limit, tasks.find(dataset.task).strata([s.label for s in samples]))
    names = tuple(name for name in dataset.class_names if not asked or name in asked)
    return replace(dataset, samples=tuple(samples), class_names=names)


def _open(path: Path, settings: ReadConfig, on_progress: Progress | None) -> tuple[Source, str]:
    """Unpack an archive, and find out the layout of what the user named."""
    if not os.path.exists(path):  # Path.exists raises for a name that is too long, or in a forbidden folder
        raise DatasetError(f"{path}: expected a folder of images, found nothing there. Check the spelling.")
    if settings.layout != "auto":
        layouts.find(settings.layout)
    known = {name: layout.ABOUT for name, layout in layouts.every().items()}
    if not path.is_dir():
        of_file = next((name for name, about in known.items() if path.suffix.lower() in about.suffixes), None)
        if of_file:
            if settings.layout not in ("auto", of_file):
                raise UsageError(f"--layout {settings.layout}: {path} can only be read as --layout {of_file}.")
            return Source(path, path.parent, path), of_file
        if not archives.is_archive(path):
            suffixes = ", ".join(suffix for about in known.values() for suffix in about.suffixes)
            raise DatasetError(
                f"{path}: expected a folder with one sub-folder per class, a zip or tar archive of one, or a table or "
                f"file of annotations ({suffixes}), found another file, or a damaged archive."
            )
    source = Source(path, path if path.is_dir() else archives.unpack(path, on_progress))
    if settings.layout != "auto":
        return source, settings.layout
    asked = [name for name, about in known.items() if any(getattr(settings, option) for option in about.decisive)]
    recognized = (name for name, layout in layouts.every().items() if layout.recognize(source, settings))
    return source, asked[0] if asked else next(recognized)


def _warn_of_idle_options(name: Path, layout: str, settings: ReadConfig) -> None:
    known = {name: found.ABOUT.options for name, found in layouts.every().items()}
    of_others = {option for options in known.values() for option in options} - {*known[layout]}
    idle = sorted(option for option in of_others if getattr(settings, option) != getattr(_DEFAULTS, option))
    if idle:
        named = listed("--" + option.replace("_", "-") for option in idle)
        log.warning("%s: read as --layout %s, which leaves these without effect: %s.", name, layout, named)


def _choose(name: Path, listing: Listing, classes: Sequence[str], min_classes: int, task: str) -> list[Sample]:
    """Choose the samples of the classes asked for, before any file is opened."""
    known = {each for s in listing.samples for each in tasks.find(task).members(s.label)}
    asked = _named(classes, known)
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
    return _narrowed(listing.samples, chosen, task)


def _united(name: Path, samples: Sequence[Sample], task: tasks.Task) -> list[Sample]:
    """One sample for each content (in each split that the data bring along), with the labels of all its files."""
    files: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        files[sample.sha256, sample.split].append(sample)
    found = [replace(own[0], label=task.united([s.label for s in own])) for own in files.values()]
    if len(found) < len(samples):
        more = f"{len(samples) - len(found):,}"
        log.info("%s: %s files have the content of others; each image has the labels of all its files.", name, more)
    return found


def _narrowed(samples: Iterable[Sample], classes: Collection[str], task: str) -> list[Sample]:
    """Return the samples of some classes."""
    pairs = ((s, tasks.find(task).narrowed(s.label, classes)) for s in samples)
    return [s if s.label == label else replace(s, label=label) for s, label in pairs if label is not None]


def _named(classes: Sequence[str], known: Collection[str]) -> set[str]:
    """Return the classes that are named, in Unicode form NFC as class names are."""
    return {cells.one_of(unicodedata.normalize("NFC", name), known) for name in classes}


def _check_hashes(name: Path, samples: Sequence[Sample], hashes: Mapping[str, str]) -> None:
    """Compare the files with the hashes that a manifest states.

    Raises:
        DatasetError: if one has changed, or another file has its name.
    """
    changed = [s.path for s in samples if hashes.get(s.path, s.sha256) != s.sha256]
    if changed:
        raise DatasetError(
            f"{name}: expected the images that it describes by their SHA-256, found other content in {len(changed):,} "
            f"of {len(samples):,} files: {listed(changed)}. Restore them, or write the manifest again with imgclf "
            "ingest."
        )


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
        with images.prepared(allow_truncated), content.of(root / sample.path) as data:
            sha256, header = hashlib.sha256(data).hexdigest(), images.inspect(data, allow_truncated)
    except ImageError as error:
        return Skipped(sample.path, "unreadable", str(error))
    return _sample(sample, sha256, header)


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


def _limited(samples: Sequence[Sample], limit: int, strata_of: Sequence[tuple[str, ...]]) -> list[Sample]:
    """Take the `limit` samples that come first when every class and split deals out its own evenly, by content hash.

    Args:
        strata_of: for each sample its classes, or what stands for them; the first counts.
    """
    strata: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample, own in zip(samples, strata_of, strict=True):
        strata[own[0] if own else "", sample.split].append(sample)
    if limit < len(strata):
        raise UsageError(f"--limit: expected at least {len(strata)}, one image of each class and split, found {limit}.")
    turns = []
    for members in strata.values():
        members.sort(key=lambda s: (s.sha256, s.path))
        turns += [((i + 0.5) / len(members) if i else 0.0, s.sha256, s.path) for i, s in enumerate(members)]
    kept = {path for _, _, path in sorted(turns)[:limit]}
    return [s for s in samples if s.path in kept]


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} ({listed(names)})" if names else "none"
