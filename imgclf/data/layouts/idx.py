"""IDX files of MNIST, Fashion-MNIST and EMNIST: arrays of small images and of their labels.

Format: http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from imgclf.data import unpacking
from imgclf.data.dataset import TEST, UNASSIGNED, listed
from imgclf.data.file_listing import Found, Listing, Progress
from imgclf.data.layouts import About, Source
from imgclf.data.split_names import split_in
from imgclf.data.unpacking import Batch
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

ABOUT = About(priority=30, unpacks=True)

_IMAGES = re.compile(r"(?P<stem>(.*[-_.])?)images(?P<dot>[-_.])idx3[-_.]ubyte(\.gz)?")
_MOST_PACKED = 1033  # bytes that gzip can pack into one, so that no header makes us ask for more memory than that


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whether there are images and labels by the names that MNIST gave them."""
    return bool(_pairs(source.found))


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Unpack IDX files into PNG files in the cache. Labels are numbers; `t10k` is the test split.

    Raises:
        DatasetError: if there are no IDX files or two datasets, a magic number is wrong, a file is shorter or longer
            than its header says, or the numbers of labels and images differ.
    """
    found = source.found
    pairs = _pairs(found)
    if not pairs:
        raise DatasetError(
            f"{found.name}: expected IDX files by their usual names, such as train-images-idx3-ubyte and "
            f"train-labels-idx1-ubyte, found {listed(found.others, 3) or 'none'}."
        )
    splits = [split for _, _, split in pairs]
    if len(set(splits)) < len(splits):
        names = listed([images for images, _, _ in pairs])
        raise DatasetError(f"{found.name}: found more than one data set in IDX files ({names}). Keep one of them.")

    def batches() -> Iterator[Batch]:
        for images, labels, split in pairs:
            pixels, numbers = _array(found.root / images, dimensions=3), _array(found.root / labels, dimensions=1)
            if len(pixels) != len(numbers):
                raise DatasetError(
                    f"{found.name}: expected as many labels as images, found {len(pixels):,} images in {images} and "
                    f"{len(numbers):,} labels in {labels}."
                )
            yield Batch(split or "images", split, pixels, [str(number) for number in numbers])

    parts = [path for images, labels, _ in pairs for path in (images, labels)]
    return unpacking.as_png(found, parts, "idx", batches(), on_progress)


def _pairs(found: Found) -> list[tuple[str, str, str]]:
    """Find the paths of images and labels, and their split; of two equal files the packed one is left out."""
    there = set(found.others)
    pairs = []
    for path in found.others:
        folder, slash, name = path.rpartition("/")
        match = _IMAGES.fullmatch(name)
        if not match or (name.endswith(".gz") and path.removesuffix(".gz") in there):
            continue
        bare = name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        labels = next((f"{folder}{slash}{n}" for n in (bare, f"{bare}.gz") if f"{folder}{slash}{n}" in there), None)
        if labels:
            stem = match["stem"]
            pairs.append((path, labels, TEST if "t10k" in stem else split_in(stem) or UNASSIGNED))
    return pairs


def _array(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file, plain or gzipped, as a uint8 array."""
    magic = 0x0800 + dimensions  # unsigned bytes
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _content(path, file, magic, dimensions)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        reason = str(error) or "too large for the memory"
        raise DatasetError(f"{path}: the file cannot be read, or is damaged ({reason}).") from None


def _content(path: Path, file: IO[bytes] | gzip.GzipFile, magic: int, dimensions: int) -> np.ndarray:
    header = file.read(4 + 4 * dimensions)
    found = int.from_bytes(header[:4], "big")
    if found != magic or len(header) < 4 + 4 * dimensions:
        raise DatasetError(
            f"{path}: expected an IDX file of unsigned bytes in {dimensions} dimensions, which begins with the magic "
            f"number 0x{magic:08x}, found 0x{found:08x}. Is it another file, or truncated?"
        )
    shape = [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    count = int(np.prod(shape, dtype=object))
    data = file.read(count + 1) if count < _MOST_PACKED * path.stat().st_size else b""
    if len(data) != count or not count:
        size = " x ".join(map(str, shape))
        raise DatasetError(
            f"{path}: expected {size} bytes after its header, found {'more' if data[count:] else 'fewer'}."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)
