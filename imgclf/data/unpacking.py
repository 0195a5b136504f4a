"""Cache unpacked sources: one folder for each, complete or absent."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imgclf import documents, environment, storage
from imgclf.data.dataset import Sample, Skipped
from imgclf.data.file_listing import Found, Listing, Progress
from imgclf.errors import DatasetError

VERSION = 3
"""Part of every key: raised when the same source would be unpacked into something else."""

_INDEX = "index.json"


def once(source: Path, parts: Iterable[Path], options: Sequence[object], fill: Callable[[Path], None]) -> Path:
    """Return the folder that `fill` filled for this source, calling it only if there is none yet.

    It is filled under another name and then renamed, so a crash leaves nothing that looks complete, and two processes
    do not disturb each other.

    Args:
        source: the path that the user passed, for messages.
        parts: the files that determine the result; if the size or time of one changes, it is unpacked again.
        options: everything else that determines it.

    Raises:
        DatasetError: if the cache cannot be written.
    """
    store = environment.cache_root() / "unpacked"
    try:
        folder = store / _key(parts, options)
        storage.use(folder)  # before it is looked for: the cache may be cleared at any moment
        if folder.is_dir():
            return folder
        with storage.stage(store) as temporary:
            fill(temporary)
            _protect(temporary)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster; its folder is as good
                    raise
    except OSError as error:
        raise DatasetError(
            f"{source}: it is unpacked into {store}, which failed ({error.strerror or error}). Make room there, or "
            "choose another cache with XDG_CACHE_HOME."
        ) from None
    return folder


def _protect(folder: Path) -> None:
    """Make the files read-only: whoever edits one would change the answers for the source. Windows deletes no such
    file."""
    if os.name != "nt":
        for place, _, names in os.walk(folder):
            for name in names:
                Path(place, name).chmod(0o444)


def _key(parts: Iterable[Path], options: Sequence[object]) -> str:
    key = hashlib.sha256(repr((VERSION, *options)).encode())
    for part in sorted(parts):
        status = part.stat()
        # ctime, too: cp -p and touch give another content the size and the time of the old
        facts = f"\0{part.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
        key.update(facts.encode("utf-8", "surrogateescape"))
    return key.hexdigest()[:32]


def write_index(folder: Path, samples: Iterable[Sample], skipped: Iterable[Skipped]) -> None:
    """Write the samples of an unpacked folder, and what was left out."""
    value = {
        "samples": [[s.path, s.label, s.split, s.group] for s in samples],
        "skipped": [[s.path, s.kind, s.reason] for s in skipped],
    }
    (folder / _INDEX).write_text(json.dumps(value), encoding="ascii")  # bytes that are no UTF-8 become escapes


def read_index(folder: Path) -> Listing:
    """Read what `write_index` wrote.

    Raises:
        DatasetError: if it is gone or damaged.
    """
    try:
        value = documents.parse((folder / _INDEX).read_bytes())
        samples = [Sample(*row) for row in value["samples"]]
        return Listing(folder, samples, [Skipped(*row) for row in value["skipped"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder}: damaged ({error}). Delete it; it will be recreated.") from None


@dataclass(frozen=True)
class Batch:
    """Images of one file, or pair of files, and their labels."""

    name: str
    split: str
    pixels: np.ndarray  # uint8 (n, h, w) or (n, h, w, 3)
    labels: Sequence[str]


def as_png(
    found: Found, parts: Sequence[str], kind: str, batches: Iterator[Batch], on_progress: Progress | None
) -> Listing:
    """Write arrays of images as PNG files into the cache, unless they are there.

    Args:
        parts: the files that the arrays are read from.
        kind: the name of the layout.
    """

    def fill(folder: Path) -> None:
        samples: list[Sample] = []
        for batch in batches:
            (folder / batch.name).mkdir()
            for number, (pixels, name) in enumerate(zip(batch.pixels, batch.labels, strict=True)):
                path = f"{batch.name}/{number:05}.png"
                Image.fromarray(np.ascontiguousarray(pixels)).save(folder / path, compress_level=1)
                samples.append(Sample(path, name, batch.split))
                if on_progress and number % 500 == 0:
                    on_progress(number, len(batch.labels))
        write_index(folder, samples, ())

    listing = read_index(once(found.name, [found.root / part for part in parts], [kind], fill))
    listing.skipped += found.without(parts)
    return listing
