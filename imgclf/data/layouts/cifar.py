"""CIFAR-10 and CIFAR-100: Python batches of images of 32 x 32 pixels.

Format: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.data import unpacking
from imgclf.data.dataset import TEST, TRAIN, listed
from imgclf.data.file_listing import Found, Listing, Progress, label
from imgclf.data.layouts import About, Source
from imgclf.data.unpacking import Batch
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

ABOUT = About(priority=40, unpacks=True)

_BATCH = re.compile(r"data_batch_\d+|test_batch|train|test")
_META = ("batches.meta", "meta")
_SIZE_PX = 32


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whether there are batches and a list of classes in one folder, by the names that CIFAR gave them."""
    return bool(_files(source.found)[1])


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Unpack the batches into PNG files in the cache; CIFAR-100 with its fine labels.

    The batches are pickles; they are read by an unpickler that builds only numbers, texts and arrays of bytes, and can
    call nothing else.

    Raises:
        DatasetError: if there are none, or a file is damaged or contains anything else.
    """
    found = source.found
    meta, paths = _files(found)
    if not paths:
        raise DatasetError(
            f"{found.name}: expected CIFAR's data_batch_1, test_batch and batches.meta, or train, test and meta, found "
            f"{listed(found.others, 3) or 'none'}."
        )

    def batches() -> Iterator[Batch]:
        names = _names(found.root / meta)
        for path in paths:
            stem = path.rpartition("/")[2]
            yield _batch(found.root / path, stem, TEST if stem.startswith("test") else TRAIN, names)

    return unpacking.as_png(found, [meta, *paths], "cifar", batches(), on_progress)


def _files(found: Found) -> tuple[str, list[str]]:
    """Find the file with the class names and the batches beside it; nothing if one of them is missing."""
    for meta in found.others:
        folder, slash, name = meta.rpartition("/")
        if name not in _META:
            continue
        beside = [path for path in found.others if path.rpartition("/")[:2] == (folder, slash)]
        batches = [path for path in beside if _BATCH.fullmatch(path.rpartition("/")[2])]
        if batches:
            return meta, batches
    return "", []


def _names(path: Path) -> list[str]:
    content = _unpickled(path)
    names = content.get(b"fine_label_names", content.get(b"label_names"))
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise DatasetError(f"{path}: expected the names of CIFAR's classes, found {listed(map(str, content), 3)}.")
    return [label(name.decode("utf-8", "surrogateescape"), path) for name in names]


def _batch(path: Path, name: str, split: str, names: Sequence[str]) -> Batch:
    content = _unpickled(path)
    numbers, rows = content.get(b"fine_labels", content.get(b"labels")), content.get(b"data")
    array = rows.array() if isinstance(rows, _Array) else None
    numbers = numbers if isinstance(numbers, list) else []
    count = len(numbers)
    if array is None or not count or array.shape != (count, 3 * _SIZE_PX**2):
        raise DatasetError(f"{path}: expected rows of 3,072 bytes and a label for each, found something else.")
    if not all(isinstance(n, int) and 0 <= n < len(names) for n in numbers):
        raise DatasetError(f"{path}: expected labels from 0 to {len(names) - 1}, found others.")
    planes = array.reshape(count, 3, _SIZE_PX, _SIZE_PX)  # red, green, blue
    pixels = planes.transpose(0, 2, 3, 1)  # (n, 3, h, w) -> (n, h, w, 3)
    return Batch(name, split, pixels, [names[n] for n in numbers])


@dataclass
class _Array:
    """The pickled state of a NumPy array; NumPy's own code never sees it."""

    state: tuple[Any, ...] = field(default=())

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else ()

    def array(self) -> np.ndarray | None:
        """Return uint8 (rows, columns), or None if the array is anything but a table of bytes."""
        match self.state:
            case (int(), (int() as rows, int() as columns), _Dtype(kind="u1"), bool() as fortran, bytes() as data):
                if rows >= 0 and columns >= 0 and rows * columns == len(data):
                    return np.frombuffer(data, np.uint8).reshape((rows, columns), order="F" if fortran else "C")
        return None


@dataclass
class _Dtype:
    kind: object = None

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment, which mean nothing for bytes."""


class _Maker:
    """A function that a pickle may call and cannot change."""

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
"""Everything that a pickle may name, and its replacement. Each only stores what it is given."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR needs") from None


def _unpickled(path: Path) -> dict[bytes, Any]:
    """Read a pickled dictionary, with its keys as bytes."""
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
