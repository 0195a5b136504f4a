"""Find what is wrong with a dataset, file by file; each kind of finding has a severity and says what training does.

Nothing is rendered here and no file is opened: all facts are those of the scan.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from imgclf import tasks
from imgclf.data import cells, grouping, images, signatures, similar
from imgclf.data.dataset import TRAIN, VALIDATION, Dataset, Skipped, listed
from imgclf.data.scan_cache import Scanner
from imgclf.errors import GateError, UsageError
from imgclf.settings import DataConfig, Decoding, Thresholds, names
from imgclf.settings.doctor import FORMER
from imgclf.storage import write_atomic

ERROR, WARNING, NOTE = "error", "warning", "note"

MIN_KEPT_APART = 10
"""Number of images up to which a group of near-duplicates is kept together, whatever its share."""

BLUR_MIN_PX = 64
"""Shorter edge in px below which sharpness means nothing."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its severity, what it is, what `imgclf train` does, and which files a quarantine lists.

    `quarantine` is "all", "all but one", "training" (those outside the test split), or "" for none.
    """

    severity: str
    what: str
    action: str
    quarantine: str = ""


KINDS = {
    "conflict": Kind(ERROR, "the same image in two classes", "one label must be wrong; used in one split only", "all"),
    "leakage": Kind(ERROR, "the same image in two given splits", "kept; scores are too good", "training"),
    "unreadable": Kind(ERROR, "damaged, truncated or not readable", "left out", "all"),
    "empty": Kind(ERROR, "0 bytes", "left out", "all"),
    "not-an-image": Kind(ERROR, "an image by its name only", "left out", "all"),
    "empty-class": Kind(WARNING, "a class without images", "left out"),
    "small-class": Kind(WARNING, "a class with few different images", "split as far as possible"),
    "similar-names": Kind(WARNING, "class names that differ only in case or spaces", "treated as different classes"),
    "imbalance": Kind(WARNING, "classes of very different sizes", "used as they are"),
    "duplicate": Kind(WARNING, "identical bytes", "kept in one split", "all but one"),
    "near-duplicate": Kind(WARNING, "the same image, encoded, scaled or cropped differently", "kept in one split"),
    "large-group": Kind(WARNING, "many near-duplicates in one group", "not kept together"),
    "wrong-extension": Kind(WARNING, "the content is of another format than the name says", "read by content"),
    "flat-block": Kind(WARNING, "part of the image is one flat block, as where data are lost", "used", "all"),
    "lost-detail": Kind(WARNING, "a progressive JPEG that ends early", "used", "all"),
    "nan": Kind(WARNING, "pixels of a float image that are not a number", "used, NaN as black"),
    "near-blank": Kind(WARNING, "nearly one color", "used", "all"),
    "blurry": Kind(NOTE, "blurred", "used"),
    "very-dark": Kind(NOTE, "nearly black", "used"),
    "very-bright": Kind(NOTE, "nearly white", "used"),
    "low-information": Kind(NOTE, "few shades", "used"),
    "very-small": Kind(NOTE, "few pixels", "used, enlarged"),
    "very-large": Kind(NOTE, "many pixels", "used, reduced"),
    "size-outlier": Kind(NOTE, "a size far from the others'", "used"),
    "odd-aspect": Kind(NOTE, "long and narrow", "used, resized to a square"),
    "narrow-range": Kind(NOTE, "gray of 16 bits that uses few of its values", "used; train --window spreads it"),
    "odd-format": Kind(NOTE, "a format or extension that few files have", "used"),
    "gray": Kind(NOTE, "gray among color images", "used"),
    "turned": Kind(NOTE, "an EXIF orientation", "turned upright"),
    "animated": Kind(NOTE, "several frames", "first frame used"),
    "other-file": Kind(NOTE, "not named as an image", "left out"),
}
"""In the order of the report."""


EXPLAINED = ("conflict", "leakage")
"""Kinds whose names alone do not say what they are."""

MOST_NAMED = 20
"""Files that are left out for one reason, each with a line of its own."""

LEFT_OUT = ("unreadable", "empty", "not-an-image", "empty-class")
"""Kinds of what reading left out: `Dataset.skipped` has the reason for each file."""


@dataclass(frozen=True)
class Finding:
    """One problem of some files or classes; `text` gives the facts."""

    kind: str
    text: str
    paths: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """Return error, warning or note."""
        return KINDS[self.kind].severity

    def to_dict(self) -> dict[str, Any]:
        """Return the finding for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "text": self.text,
            "paths": list(self.paths),
            "classes": list(self.classes),
        }


@dataclass(frozen=True)
class Checkup:
    """All findings of a dataset, the worst first, and the rows of near-duplicates that must share a split."""

    findings: tuple[Finding, ...]
    related: tuple[tuple[int, ...], ...]
    thresholds: Thresholds

    def of(self, kind: str) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    @property
    def kinds(self) -> list[dict[str, Any]]:
        """Summarize each kind that occurs: name, severity, what it is, what training does, findings and files."""
        return [
            {
                "kind": name,
                "severity": kind.severity,
                "what": kind.what,
                "action": kind.action,
                "findings": len(found),
                "files": len({path for finding in found for path in finding.paths}),
            }
            for name, kind in KINDS.items()
            if (found := self.of(name))
        ]

    def lines(self, most: int = 2, *, without: Collection[str] = ()) -> list[str]:
        """Write a line for each kind that occurs: severity, files or classes, what training does, the first names.

        Args:
            without: kinds to leave out.
        """
        lines = []
        for kind in self.kinds:
            if kind["kind"] in without:
                continue
            named = [name for found in self.of(kind["kind"]) for name in found.paths or found.classes]
            named = list(dict.fromkeys(named))
            action = f"{kind['what']}; {kind['action']}" if kind["kind"] in EXPLAINED else kind["action"]
            lines.append(f"{kind['severity']}: {kind['kind']} {len(named):,}, {action}: {listed(named, most)}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return thresholds, kinds that occur and findings for JSON."""
        return {
            "thresholds": asdict(self.thresholds),
            "kinds": self.kinds,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def examine(dataset: Dataset, settings: DataConfig, scanner: Scanner | None = None) -> Checkup:
    """Check a dataset: for everything with a scanner, without one for what needs no pixels.

    Args:
        dataset: the images with the split that the data bring along, not one made here.
    """
    limits = settings.doctor_thresholds
    found = [*_of_files(dataset), *_of_classes(dataset, limits), *_of_headers(dataset, limits)]
    related: list[tuple[int, ...]] = []
    contents = _Contents(dataset)
    found += _copies(dataset, contents.copies(), "identical bytes", "duplicate")
    if scanner:
        records = scanner.records(dataset)
        has_window = isinstance(settings, Decoding) and settings.window is not None
        found += _of_pixels(dataset, records, limits, has_window)
        pairs = scanner.near_duplicates(records["thumb"][contents.firsts], limits.near)
        for rows, likeness in _near(contents, pairs):
            share = len(rows) / len(dataset)
            if len(rows) > MIN_KEPT_APART and share > limits.near_group:
                text = f"{len(rows):,} images alike, {share:.1%} of all; more than {limits.near_group:.1%}"
                found.append(Finding("large-group", text, tuple(dataset.samples[row].path for row in rows)))
            else:
                related.append(rows)
                found += _copies(dataset, [rows], f"alike, {likeness:.2f} of 1", "near-duplicate")
    order = {kind: place for place, kind in enumerate(KINDS)}
    found.sort(key=lambda finding: (order[finding.kind], finding.paths, finding.classes))
    return Checkup(tuple(found), tuple(related), limits)


class _Contents:
    """The distinct contents of a dataset's files, and the rows of each."""

    def __init__(self, dataset: Dataset) -> None:
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row, sample in enumerate(dataset.samples):
            rows[grouping.content(sample)].append(row)
        self.rows = list(rows.values())
        self.firsts = np.array([members[0] for members in self.rows], np.int64)

    def copies(self) -> list[tuple[int, ...]]:
        return [tuple(members) for members in self.rows if len(members) > 1]


def _near(contents: _Contents, pairs: similar.Pairs) -> Iterator[tuple[tuple[int, ...], float]]:
    """Find groups of rows of different contents that show the same image, and their lowest likeness."""
    least: dict[int, float] = {}
    groups = similar.groups(len(contents.firsts), pairs)
    group_of = {row: number for number, rows in enumerate(groups) for row in rows}
    for row, likeness in zip(pairs.first.tolist(), pairs.likeness.tolist(), strict=True):
        number = group_of[row]
        least[number] = min(likeness, least.get(number, 1.0))
    for number, rows in enumerate(groups):
        yield tuple(sorted(row for content in rows for row in contents.rows[content])), least[number]


def _copies(dataset: Dataset, groups: Iterable[Sequence[int]], text: str, harmless: str) -> Iterator[Finding]:
    """Report sets of rows of the same image as conflicts and leaks, or else as the kind `harmless`."""
    task = tasks.find(dataset.task)
    for rows in groups:
        samples = [dataset.samples[row] for row in rows]
        paths = tuple(sample.path for sample in samples)
        named = {frozenset(task.members(sample.label)) for sample in samples}
        labels = tuple(sorted(set().union(*named))) if len(named) > 1 else ()
        splits = sorted({sample.split for sample in samples if sample.split})
        if labels:
            yield Finding("conflict", text, paths, labels)
        if len(splits) > 1:
            yield Finding("leakage", f"{text}, in {' and '.join(splits)}", paths)
        if not labels and len(splits) < 2:
            yield Finding(harmless, text, paths)


def _of_files(dataset: Dataset) -> Iterator[Finding]:
    """Report what reading left out."""
    for skipped in dataset.skipped:
        if skipped.kind == "empty-class":
            yield Finding("empty-class", skipped.reason, classes=(skipped.path,))
        elif skipped.kind == "not-an-image":
            yield Finding("other-file", skipped.reason, (skipped.path,))
        elif skipped.kind == "unreadable":
            yield Finding(_unreadable(skipped), skipped.reason, (skipped.path,))


def told(dataset: Dataset) -> list[str]:
    """Return what a training says of its data: findings, notes on reading and split, and the files left out with the
    reason, each once."""
    found = dataset.checkup.lines(without=LEFT_OUT) if dataset.checkup else []
    left_out = [s for s in dataset.skipped if s.kind in ("unreadable", "unlabelled", "empty-class", "excluded")]
    lines = [*found, *dataset.notes, *dataset.split_notes]
    for reason, count in Counter(skipped.reason for skipped in left_out).items():
        paths = [skipped.path for skipped in left_out if skipped.reason == reason]
        if count > MOST_NAMED:
            lines.append(f"Left out {count:,} files, such as {listed(paths[:3])}: {reason}")
        else:
            lines += [f"Left out {path}: {reason}" for path in paths]
    return lines


def _unreadable(skipped: Skipped) -> str:
    if skipped.reason.startswith(signatures.NO_IMAGE):
        return "not-an-image"
    return "empty" if skipped.reason == images.EMPTY else "unreadable"


def _of_classes(dataset: Dataset, limits: Thresholds) -> Iterator[Finding]:
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for sample in dataset.samples:
        for name in tasks.find(dataset.task).members(sample.label):
            contents[name].add(grouping.content(sample))
    if not contents:  # numbers
        return
    for name in dataset.class_names:
        if len(contents[name]) < limits.small_class:
            text = f"{len(contents[name])} different images, fewer than {limits.small_class:g}"
            yield Finding("small-class", text, classes=(name,))
    counts = dataset.counts()
    if counts:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[most] >= limits.imbalance * max(counts[least], 1):
            text = f"{counts[most]:,} images and {counts[least]:,}, {limits.imbalance:g} times as many or more"
            yield Finding("imbalance", text, classes=(most, least))
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in dataset.class_names:
        spellings["".join(name.split()).casefold()].append(name)
    for alike in spellings.values():
        if len(alike) > 1:
            yield Finding("similar-names", "they differ only in case or spaces", classes=tuple(alike))


def _of_headers(dataset: Dataset, limits: Thresholds) -> Iterator[Finding]:
    samples = dataset.samples
    if not samples:
        return
    median = float(np.median([(s.width * s.height) ** 0.5 for s in samples]))
    formats = Counter(s.format for s in samples)
    endings = Counter(PurePosixPath(s.path).suffix.lower() for s in samples)
    for sample in samples:
        short, long = sorted((sample.width, sample.height))
        paths, size = (sample.path,), f"{sample.width} x {sample.height} px"
        if short < limits.small_px:
            yield Finding("very-small", f"{size}, below {limits.small_px:g}", paths)
        if short * long > limits.large_mp * 1e6:
            yield Finding("very-large", f"{size}, more than {limits.large_mp:g} megapixels", paths)
        times = (short * long) ** 0.5 / median if median else 1.0
        if short and max(times, 1 / times) > limits.outlier:
            than = f"{times:.1f} times" if times > 1 else f"a {1 / times:.1f}th of"
            yield Finding("size-outlier", f"{size}, {than} the median", paths)
        if short and long / short > limits.aspect:
            yield Finding("odd-aspect", f"{size}, more than {limits.aspect:g} to 1", paths)
        ending = PurePosixPath(sample.path).suffix.lower()
        format = "JPEG" if sample.format == "MPO" else "BMP" if sample.format == "DIB" else sample.format
        if ending and format in images.ENDINGS and ending not in images.ENDINGS[format]:
            yield Finding("wrong-extension", f"{ending} with the content of a {format} file", paths)
        for name, count in ((sample.format, formats[sample.format]), (ending, endings[ending])):
            if count <= limits.rare * len(samples):
                yield Finding("odd-format", f"{name or 'no ending'}, as {count:,} of {len(samples):,} files", paths)
                break


def _of_pixels(dataset: Dataset, records: np.ndarray, limits: Thresholds, has_window: bool) -> Iterator[Finding]:
    gray = records["gray"] | (records["chroma"] <= limits.gray)
    blank = records["flat"] >= limits.blank
    sharpness_counts = np.minimum(records["width"], records["height"]) >= BLUR_MIN_PX
    is_narrow = (not has_window) & (records["largest"] > 0) & (records["largest"] < limits.narrow * 65535)
    measures = (
        ("lost-detail", None, "its last scans are missing", records["lacks_scans"]),
        ("near-blank", "flat", "of the pixels are alike", blank),
        ("very-dark", "high", "is the 95th percentile of gray", ~blank & (records["high"] <= limits.dark)),
        ("very-bright", "low", "is the 5th percentile of gray", ~blank & (records["low"] >= limits.bright)),
        ("blurry", "blur", "of 1", ~blank & sharpness_counts & (records["blur"] >= limits.blurry)),
        ("low-information", "entropy", "bits", ~blank & (records["entropy"] <= limits.information)),
        ("gray", "chroma", "between the channels", gray & (gray.mean() <= limits.gray_share)),
        ("turned", None, "an EXIF orientation", records["turned"]),
        ("animated", None, "more than one frame", records["animated"]),
    )
    seen = records["width"] > 0
    for kind, measure, text, where in measures:
        for row in np.flatnonzero(where & seen).tolist():
            value = f"{records[measure][row]:.3g} " if measure else ""
            yield Finding(kind, f"{value}{text}", (dataset.samples[row].path,))
    for row in np.flatnonzero((records["lost"] >= limits.flat_block) & seen).tolist():
        text = f"about {records['lost'][row]:.0%} of the image is one flat block: data are lost"
        yield Finding("flat-block", text, (dataset.samples[row].path,))
    for row in np.flatnonzero((records["without_number"] > 0) & seen).tolist():
        text = f"{records['without_number'][row]:.2%} of the pixels are NaN, and become black"
        yield Finding("nan", text, (dataset.samples[row].path,))
    for row in np.flatnonzero(is_narrow & seen).tolist():
        largest = int(records["largest"][row])
        full = 2 ** largest.bit_length() - 1
        text = f"values up to {largest:,} of 65,535, nearly black: imgclf train --window 0,{full} makes {full:,} white"
        yield Finding("narrow-range", text, (dataset.samples[row].path,))


def forbidden(text: str | None) -> tuple[str, ...]:
    """Parse a comma-separated list of kinds and severities; a severity means all its kinds, None means none.

    Raises:
        UsageError: if a name is neither.
    """
    kinds: list[str] = []
    for name in (FORMER.get(name, name) for name in names(text)):
        of_severity = [kind for kind, facts in KINDS.items() if facts.severity == name]
        if name not in KINDS and not of_severity:
            raise UsageError(
                f"--fail-on: expected kinds among {', '.join(KINDS)}, or error, warning or note; found {name!r}."
            )
        kinds += of_severity or [name]
    return tuple(dict.fromkeys(kinds))


def check(checkup: Checkup, kinds: Sequence[str]) -> None:
    """Refuse findings of some kinds.

    Raises:
        GateError: if there are any, with their number by kind.
    """
    there = [f"{kind} {len(found):,}" for kind in kinds if (found := checkup.of(kind))]
    if there:
        raise GateError(f"--fail-on: found {', '.join(there)}.")


def quarantine(dataset: Dataset, checkup: Checkup) -> dict[str, str]:
    """List the files that are better left out, by path, with the kind of finding that says so.

    One of each set of copies stays. An image in two splits stays in the last of training, validation and test. An image
    in two classes is left out altogether, since it is unknown which class is correct.
    """
    split = {sample.path: sample.split for sample in dataset.samples}
    out: dict[str, str] = {}
    for finding in checkup.findings:
        paths: Sequence[str] = finding.paths
        match KINDS[finding.kind].quarantine:
            case "":
                continue
            case "all but one":
                paths = paths[1:]
            case "training":
                order = (TRAIN, VALIDATION)
                latest = max((order.index(split[p]) if split[p] in order else len(order)) for p in paths)
                paths = [p for p in paths if split[p] in order and order.index(split[p]) < latest]
        for path in paths:
            out.setdefault(path, finding.kind)
    return out


def write_quarantine(files: dict[str, str], path: Path) -> None:
    """Write the result of `quarantine` as CSV with the columns path and kind, for `imgclf train --exclude`.

    Raises:
        OSError: if it cannot be written.
    """
    lines = [cells.line(("path", "kind")), *(cells.line(item) for item in sorted(files.items()))]
    write_atomic(path, "".join(lines))
