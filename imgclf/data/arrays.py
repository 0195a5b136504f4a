"""Arrays of small images with their labels: IDX files (MNIST, Fashion-MNIST, EMNIST) and CIFAR's Python batches.

IDX: http://yann.lecun.com/exdb/mnist/. CIFAR: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import pickle
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from imgclf.data import unpacking
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, Sample, listed
from imgclf.data.file_listing import Found, Listing, Progress, label, side_in
from imgclf.errors import DatasetError

_IDX_IMAGES = re.compile(r"(?P<stem>(.*[-_.])?)images(?P<dot>[-_.])idx3[-_.]ubyte(\.gz)?")
_CIFAR_BATCH = re.compile(r"data_batch_\d+|test_batch|train|test")
_CIFAR_META = ("batches.meta", "meta")
_CIFAR_SIDE_PX = 32
_MOST_PACKED = 1033  # bytes that gzip can pack into one, so that no header makes us ask for more memory than that


@dataclass(frozen=True)
class _Batch:
    """Images of one file, or pair of files, and what they show."""

    name: str
    side: str
    pixels: np.ndarray  # uint8 (n, h, w) or (n, h, w, 3)
    labels: Sequence[str]


def has_idx(found: Found) -> bool:
    """Whether there are images and labels by the names that MNIST gave them."""
    return bool(_idx_pairs(found))


def read_idx(found: Found, on_progress: Progress | None = None) -> Listing:
    """Unpack IDX files into PNG files in the cache. A label is its number; `t10k` is the test part.

    Raises:
        DatasetError: if there are none, or two data sets beside each other, a magic number is wrong, a file is shorter
            or longer than it says, or there are not as many labels as images.
    """
    pairs = _idx_pairs(found)
    if not pairs:
        raise DatasetError(
            f"{found.name}: expected IDX files by their usual names, such as train-images-idx3-ubyte and "
            f"train-labels-idx1-ubyte, found {listed(found.others, 3) or 'none'}."
        )
    sides = [side for _, _, side in pairs]
    if len(set(sides)) < len(sides):
        names = listed([images for images, _, _ in pairs])
        raise DatasetError(f"{found.name}: found more than one data set in IDX files ({names}). Keep one of them.")

    def batches() -> Iterator[_Batch]:
        for images, labels, side in pairs:
            pixels, numbers = _idx(found.root / images, dimensions=3), _idx(found.root / labels, dimensions=1)
            if len(pixels) != len(numbers):
                raise DatasetError(
                    f"{found.name}: expected as many labels as images, found {len(pixels):,} images in {images} and "
                    f"{len(numbers):,} labels in {labels}."
                )
            yield _Batch(side or "images", side, pixels, [str(number) for number in numbers])

    parts = [path for images, labels, _ in pairs for path in (images, labels)]
    return _unpacked(found, parts, "idx", batches(), on_progress)


def _idx_pairs(found: Found) -> list[tuple[str, str, str]]:
    """The paths of images and of their labels, and the side they are; the packed one of two equal files is left out."""
    there = set(found.others)
    pairs = []
    for path in found.others:
        folder, slash, name = path.rpartition("/")
        match = _IDX_IMAGES.fullmatch(name)
        if not match or (name.endswith(".gz") and path.removesuffix(".gz") in there):
            continue
        bare = name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        labels = next((f"{folder}{slash}{n}" for n in (bare, f"{bare}.gz") if f"{folder}{slash}{n}" in there), None)
        if labels:
            stem = match["stem"]
            pairs.append((path, labels, TEST if "t10k" in stem else side_in(stem) or UNASSIGNED))
    return pairs


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """uint8 array of an IDX file, plain or gzipped."""
    magic = 0x0800 + dimensions  # unsigned bytes
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _idx_content(path, file, magic, dimensions)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        reason = str(error) or "too large for the memory"
        raise DatasetError(f"{path}: the file cannot be read, or is damaged ({reason}).") from None


def _idx_content(path: Path, file: IO[bytes] | gzip.GzipFile, magic: int, dimensions: int) -> np.ndarray:
    header = file.read(4 + 4 * dimensions)
    found = int.from_bytes(header[:4], "big")
    if found != magic or len(header) < 4 + 4 * dimensions:
        raise DatasetError(
            f"{path}: expected an IDX file of unsigned bytes in {dimensions} dimensions, which begins with the magic "
            f"number 0x{magic:08x}, found 0x{found:08x}. Is it another file, or cut short?"
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


def has_cifar(found: Found) -> bool:
    """Whether there are batches and a list of classes in one folder, by the names that CIFAR gave them."""
    return bool(_cifar_files(found)[1])


def read_cifar(found: Found, on_progress: Progress | None = None) -> Listing:
    """Unpack CIFAR-10's or CIFAR-100's Python batches into PNG files in the cache; of CIFAR-100 with its fine labels.

    The batches are pickles; they are read by a reader that can build numbers, texts and arrays of bytes and knows
    nothing that could be called.

    Raises:
        DatasetError: if there are none, or a file is damaged or holds anything else.
    """
    meta, paths = _cifar_files(found)
    if not paths:
        raise DatasetError(
            f"{found.name}: expected CIFAR's data_batch_1, test_batch and batches.meta, or train, test and meta, found "
            f"{listed(found.others, 3) or 'none'}."
        )

    def batches() -> Iterator[_Batch]:
        names = _cifar_names(found.root / meta)
        for path in paths:
            stem = path.rpartition("/")[2]
            yield _cifar_batch(found.root / path, stem, TEST if stem.startswith("test") else TRAIN, names)

    return _unpacked(found, [meta, *paths], "cifar", batches(), on_progress)


def _cifar_files(found: Found) -> tuple[str, list[str]]:
    """The file with the names of the classes, and the batches beside it; nothing where one of the two is missing."""
    for meta in found.others:
        folder, slash, name = meta.rpartition("/")
        if name not in _CIFAR_META:
            continue
        beside = [path for path in found.others if path.rpartition("/")[:2] == (folder, slash)]
        batches = [path for path in beside if _CIFAR_BATCH.fullmatch(path.rpartition("/")[2])]
        if batches:
            return meta, batches
    return "", []


def _cifar_names(path: Path) -> list[str]:
    content = _unpickled(path)
    names = content.get(b"fine_label_names", content.get(b"label_names"))
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise DatasetError(f"{path}: expected the names of CIFAR's classes, found {listed(map(str, content), 3)}.")
    return [label(name.decode("utf-8", "surrogateescape"), path) for name in names]


def _cifar_batch(path: Path, name: str, side: str, names: Sequence[str]) -> _Batch:
    content = _unpickled(path)
    numbers, rows = content.get(b"fine_labels", content.get(b"labels")), content.get(b"data")
    array = rows.array() if isinstance(rows, _Array) else None
    numbers = numbers if isinstance(numbers, list) else []
    count = len(numbers)
    if array is None or not count or array.shape != (count, 3 * _CIFAR_SIDE_PX**2):
        raise DatasetError(f"{path}: expected rows of 3,072 bytes and a label for each, found something else.")
    if not all(isinstance(n, int) and 0 <= n < len(names) for n in numbers):
        raise DatasetError(f"{path}: expected labels from 0 to {len(names) - 1}, found others.")
    planes = array.reshape(count, 3, _CIFAR_SIDE_PX, _CIFAR_SIDE_PX)  # red, green, blue
    pixels = planes.transpose(0, 2, 3, 1)  # (n, 3, h, w) -> (n, h, w, 3)
    return _Batch(name, side, pixels, [names[n] for n in numbers])


@dataclass
class _Array:
    """What NumPy pickles of an array, as it stands there; NumPy's own code never sees it."""

    state: tuple[Any, ...] = field(default=())

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else ()

    def array(self) -> np.ndarray | None:
        """uint8 (rows, columns), or None if it was anything but a table of bytes."""
        match self.state:
            case (int(), (int() as rows, int() as columns), _Dtype(kind="u1"), bool() as fortran, bytes() as data):
                if rows >= 0 and columns >= 0 and rows * columns == len(data):
                    return np.frombuffer(data, np.uint8).reshape((rows, columns), order="F" if fortran else "C")
        return None


@dataclass
class _Dtype:
    kind: object = None

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment: for bytes there is nothing in them."""


class _Maker:
    """What a pickle may call, and cannot change."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self.make = make

    def __call__(self, *arguments: object) -> object:
        return self.make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what it should only call")


def _dtype(kind: object = None, *_: object) -> _Dtype:
    return _Dtype(kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind)


def _encode(text: object, *_: object) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else b""


_EMPTY = _Maker(lambda *_: _Array())
_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _EMPTY for core in ("core", "_core")},
    ("numpy", "ndarray"): _EMPTY,
    ("numpy", "dtype"): _Maker(_dtype),
    ("_codecs", "encode"): _Maker(_encode),  # how Python 3 writes bytes in the protocol of Python 2
}
"""All that a pickle may name, and what it gets instead. None of these does more than to hold what it is given."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR needs") from None


def _unpickled(path: Path) -> dict[bytes, Any]:
    """A pickled dictionary with its keys as bytes."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except OSError as error:
        raise DatasetError(f"{path}: the file cannot be read ({error.strerror}).") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DatasetError(f"{path}: refused: not a batch of CIFAR, or a damaged one ({error}).") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected a dictionary as CIFAR's, found {type(content).__name__}.")
    return {
        key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key: value for key, value in content.items()
    }


def _unpacked(
    found: Found, parts: Sequence[str], kind: str, batches: Iterator[_Batch], on_progress: Progress | None
) -> Listing:
    """Write the images as PNG files into the cache, unless they are there."""

    def fill(folder: Path) -> None:
        samples: list[Sample] = []
        for batch in batches:
            (folder / batch.name).mkdir()
            for number, (pixels, name) in enumerate(zip(batch.pixels, batch.labels, strict=True)):
                path = f"{batch.name}/{number:05}.png"
                Image.fromarray(np.ascontiguousarray(pixels)).save(folder / path, compress_level=1)
                samples.append(Sample(path, name, batch.side))
                if on_progress and number % 500 == 0:
                    on_progress(number, len(batch.labels))
        unpacking.write_index(folder, samples, ())

    listing = unpacking.read_index(unpacking.once(found.name, [found.root / part for part in parts], [kind], fill))
    listing.skipped += found.without(parts)
    return listing
