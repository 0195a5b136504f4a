"""Documents that others may have changed: JSON and NumPy archives, checked before they are used.

Whatever is in a file, reading it ends with the value or with one exception, and takes no more memory than the file has
bytes for. The validator is our own, since importing one of JSON Schema would take longer (350 ms) than `imgclf predict`
takes to start.
"""

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MOST_BYTES = 256_000_000
"""Larger documents are refused. The largest that imgclf writes are the descriptions of a data set's findings."""

MOST_ARRAY_BYTES = 4_000_000_000
"""Larger archives of arrays, unpacked, are refused."""

Shape = Callable[[Any, str], None]
"""A check of a value at a place in a document, which raises ValueError with the place, what was expected and found."""


def parse(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if it is not JSON, is nested too deeply, or has a number with thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(path: Path, shape: Shape | None = None) -> Any:
    """Read a JSON file in UTF-8, in which single bytes may be those of a path that is no UTF-8, and check its shape.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is too large, is not JSON, or has another shape.
    """
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"more than the limit of {MOST_BYTES / 1e6:,.0f} MB")
    value = parse(raw.decode("utf-8", "surrogateescape"))
    if shape:
        shape(value, "")
    return value


def arrays(source: Path | bytes, most_bytes: int = MOST_ARRAY_BYTES) -> "dict[str, np.ndarray]":
    """Read all arrays of a `.npz` archive. None of them takes more memory than the archive has bytes for it.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged or too large, or an array contains Python objects.
    """
    import zipfile

    import numpy as np

    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > most_bytes:
                raise ValueError(f"arrays of {total / 1e9:,.1f} GB, more than the limit of {most_bytes / 1e9:,.1f} GB")
            found: dict[str, np.ndarray] = {}
            for member in members:
                with archive.open(member) as file:
                    raw = file.read(member.file_size)
                name = member.filename.removesuffix(".npy")
                header = io.BytesIO(raw)
                version = np.lib.format.read_magic(header)
                read_header = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read_header = np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read_header(header)
                count = math.prod(shape)
                if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize != len(raw) - header.tell():
                    raise ValueError(f"{name}: an array of {dtype} {shape}, which its bytes are not")
                flat = np.frombuffer(raw, dtype, count, header.tell()) if count else np.zeros(0, dtype)
                found[name] = flat.reshape(shape, order="F" if fortran else "C")
            return found
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile and NumPy raise nearly anything on damaged files
        raise ValueError(str(error) or type(error).__name__) from None


def anything(value: Any, where: str) -> None:
    """Any value."""


def text(value: Any, where: str) -> None:
    """Check for a string. It may contain bytes of a path that is no text, but no half characters."""
    _require(isinstance(value, str), where, "a string", value)
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        _require(False, where, "text", value)


def flag(value: Any, where: str) -> None:
    """Check for true or false."""
    _require(isinstance(value, bool), where, "true or false", value)


def number(low: float = -math.inf, high: float = math.inf, *, whole: bool = False) -> Shape:
    """Return a finite number from `low` to `high`, both included."""
    ends = f" from {low:g}" * (low > -math.inf) + f" to {high:g}" * (high < math.inf)
    expected = f"a {'whole ' if whole else ''}number{ends}"

    def check(value: Any, where: str) -> None:
        kinds = int if whole else (int, float)
        fits = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
        _require(fits and abs(value) < math.inf and (whole or abs(value) < 1e308), where, expected, value)

    return check


def one_of(*choices: Any) -> Shape:
    """One of some values."""

    def check(value: Any, where: str) -> None:
        fits = any(type(value) is type(choice) and value == choice for choice in choices)
        _require(fits, where, f"one of {', '.join(map(str, choices))}", value)

    return check


def maybe(shape: Shape) -> Shape:
    """Null, or a value of that shape."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            shape(value, where)

    return check


def list_of(shape: Shape, *, least: int = 0, distinct: bool = False) -> Shape:
    """Return a list of at least `least` values of that shape; perhaps all of them different."""

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, list) and len(value) >= least, where, f"a list of at least {least}", value)
        for place, item in enumerate(value):
            shape(item, f"{where}[{place}]")
        if distinct:
            seen = set()
            for place, item in enumerate(value):
                _require(item not in seen, f"{where}[{place}]", "each value once", item)
                seen.add(item)

    return check


def pair_of(shape: Shape) -> Shape:
    """Return a list of two values of that shape, such as the ends of an interval."""

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, list) and len(value) == 2, where, "a list of two", value)
        for place, item in enumerate(value):
            shape(item, f"{where}[{place}]")

    return check


def map_of(shape: Shape, *, key: Shape = text) -> Shape:
    """Return an object of any keys, whose values have that shape."""

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, dict), where, "an object", value)
        for name, item in value.items():
            key(name, f"the name {_brief(name)} in {where or 'it'}")
            shape(item, f"{where}.{name}" if where else name)

    return check


def fields(required: Mapping[str, Shape], optional: Mapping[str, Shape] = {}, *, closed: bool = False) -> Shape:
    """Return an object with these fields; others are ignored, or refused where it is closed."""

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, dict), where, "an object", value)
        for name, shape in {**required, **optional}.items():
            place = f"{where}.{name}" if where else name
            if name in value:
                shape(value[name], place)
            elif name in required:
                raise ValueError(f"{place}: expected a value, found none")
        unknown = sorted(set(value) - set(required) - set(optional))
        if closed and unknown:
            raise ValueError(f"{where}: unknown field {_brief(unknown[0])}")

    return check


def _require(fits: bool, where: str, expected: str, value: Any) -> None:
    if not fits:
        place = f"{where}: " if where else ""
        raise ValueError(f"{place}expected {expected}, found {_brief(value)}")


def _brief(value: Any) -> str:
    """Return a value in a few characters, without raw control characters."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    try:
        shown = ascii(value)
    except ValueError:  # a number of thousands of digits
        return "a huge number"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
