"""TIFF as microscopes, satellites and X-ray machines write it: gray with white as zero, numbers without a sign, and
what Pillow cannot read.

Source: TIFF 6.0, and the supplement for sample formats.
"""

import contextlib
import functools
import io
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first four bytes of TIFF and BigTIFF."""

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_FILL_ORDER, _SAMPLES, _PLANAR, _SAMPLE_FORMAT = 266, 277, 284, 339

_NUMBERS = {1: "whole numbers", 2: "signed numbers", 3: "floats", 5: "complex whole numbers", 6: "complex floats"}
_COLORS = {
    0: "gray",
    1: "gray",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "L*a*b*",
    32803: "raw data of a camera",
}


@dataclass(frozen=True)
class Stored:
    """What the numbers of a gray image mean: whether zero is white, whether they have no sign, and which is the
    largest that its bits can hold, at most 65535."""

    inverted: bool = False
    unsigned: bool = False
    top: int = 65535


PLAIN = Stored()
"""Numbers in which zero is black."""


@functools.cache
def prepare() -> None:
    """Teach Pillow the kinds of gray that it has a decoder for, but does not know by their tags."""
    from PIL import TiffImagePlugin

    _silence_libtiff()
    known = TiffImagePlugin.OPEN_INFO
    for order, mark in ((b"II", ""), (b"MM", "B")):
        kinds = {
            (1, 16): ("I;16" + mark, "I;16" + mark),
            (1, 32): ("I", f"I;32{mark}"),
            (2, 16): ("I", f"I;16{mark}S"),
            (2, 32): ("I", f"I;32{mark}S"),
            (3, 32): ("F", f"F;32{mark}F"),
            (3, 64): ("F", f"F;64{mark}F"),
        }
        for (form, bits), modes in kinds.items():
            for white_or_black in (0, 1):
                known.setdefault((order, white_or_black, (form,), 1, (bits,), ()), modes)
    known.setdefault((b"II", 0, (1,), 1, (12,), ()), ("I;16", "I;12"))
    known.setdefault((b"MM", 0, (1,), 1, (12,), ()), ("I;16", "I;12"))
    known.setdefault((b"MM", 1, (1,), 1, (12,), ()), ("I;16", "I;12"))


def _silence_libtiff() -> None:
    """Keep libtiff from writing what is wrong with a file to the terminal, without the name of the file.

    Pillow leaves libtiff's handler of errors as it is, which prints. Its decoder returns a number, too.
    """
    import ctypes

    from PIL import _imaging

    with contextlib.suppress(OSError, AttributeError):  # Windows, where the functions of libtiff have no names
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            function(None)


def correct(image: Image.Image) -> None:
    """Correct the decoder of an opened TIFF where Pillow chooses one for other bytes.

    libtiff returns numbers in the order of this machine, whatever their order in the file. Of a band that is stored as
    a plane of its own, Pillow takes the first letter of the decoder's name for the decoder: of one that has numbers of
    two bytes, it would take each byte for a number. Of other images with such planes than RGB and CMYK, it would read
    the first plane only, or all of them into one.

    Raises:
        UnidentifiedImageError: if Pillow cannot read such planes.
    """
    from PIL import TiffImagePlugin

    tiles: Any = image.tile  # type: ignore[attr-defined]
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    if not tiles:
        return
    if _first(tags.get(_SAMPLES), 1) != 1:
        if tags.get(_PLANAR) == 2 and image.mode not in _OF_PLANES:
            raise UnidentifiedImageError
        if tiles[0].codec_name == "raw" and tags.get(_PLANAR) == 2 and _first(tags.get(_BITS), 1) == 16:
            end = ";16L" if tags.prefix == b"II" else ";16B"
            image.tile = [tile._replace(args=(tile.args[0] + end, *tile.args[1:])) for tile in tiles]  # type: ignore[attr-defined]
        return
    raw = tiles[0].args[0]
    if tiles[0].codec_name == "libtiff":
        raw = _NATIVE.get(raw, raw)
    elif tags.get(_PLANAR) == 2:
        form, bits = _first(tags.get(_SAMPLE_FORMAT), 1), _first(tags.get(_BITS), 1)
        key = (tags.prefix, tags.get(_PHOTOMETRIC), (form,), _first(tags.get(_FILL_ORDER), 1), (bits,), ())
        raw = TiffImagePlugin.OPEN_INFO.get(key, (image.mode, raw))[1]
    image.tile = [tile._replace(args=(raw, *tile.args[1:])) for tile in tiles]  # type: ignore[attr-defined]


def cannot_read(data: bytes, error: Exception) -> bool:
    """Whether an error of Pillow means that a file is a TIFF of a kind that it has no decoder for."""
    return data[:4] in MAGIC and isinstance(error, ValueError) and "raw mode" in str(error)


def stored(image: Image.Image) -> Stored:
    """Read from the tags of an opened image what its gray means."""
    if image.format != "TIFF":
        return PLAIN
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits = _first(tags.get(_BITS), 1)
    form = _first(tags.get(_SAMPLE_FORMAT), 1)
    return Stored(tags.get(_PHOTOMETRIC) == 0, form == 1 and bits == 32, 2 ** min(bits, 16) - 1)


_NATIVE = {"I;32B": "I;32N", "I;32BS": "I;32NS", "I;16BS": "I;16NS", "F;32BF": "F;32NF", "F;64BF": "F;64NF"}
_NATIVE |= {"I;32": "I;32N", "I;32S": "I;32NS", "I;16S": "I;16NS", "F;32F": "F;32NF", "F;64F": "F;64NF"}

_OF_PLANES = ("RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes of images whose bands may be planes of their own."""


def describe(data: bytes) -> str:
    """Say what a TIFF contains that cannot be read."""
    from PIL import TiffImagePlugin

    try:
        head = data[:16]
        tags = TiffImagePlugin.ImageFileDirectory_v2(head if head[2:3] == b"+" or head[3:4] == b"+" else head[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits, form = _first(tags.get(_BITS), 1), _first(tags.get(_SAMPLE_FORMAT), 1)
        bands, width, height = tags.get(_SAMPLES, 1), tags[_WIDTH], tags[_HEIGHT]
        color = _COLORS.get(_first(tags.get(_PHOTOMETRIC), 1), "")
        numbers = f"{_NUMBERS.get(form, 'numbers')} in {bits} bits"
        if bands == 1:
            kind = f"{color or 'gray'} of {numbers}"
        else:
            kind = f"{bands} bands of {numbers}{' in separate planes' if tags.get(_PLANAR) == 2 else ''}"
            kind = f"{color} with {kind}" if color else kind
        return f"a TIFF of {width} x {height} px, {kind}, which cannot be read: convert it to gray or to RGB of 8 bits"
    except Exception:  # damaged tags: nothing to describe
        return "damaged or truncated (the begin of a TIFF image)"


def _first(value: object, default: int) -> int:
    if isinstance(value, tuple):
        value = value[0] if value else default
    return value if isinstance(value, int) else default


def with_white_as_zero(data: bytes) -> bytes:
    """Return a TIFF of Pillow's with the tag that says that zero is white."""
    result = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", result, 4)
    (count,) = struct.unpack_from(f"{order}H", result, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", result, place)[0] == _PHOTOMETRIC:
            struct.pack_into(f"{order}H", result, place + 8, 0)
    return bytes(result)
