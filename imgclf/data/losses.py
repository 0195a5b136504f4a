"""Signs that part of a file is lost, although it decodes without an error.

A download that broke off is often closed with an end mark, or filled with zeros to its size. Decoders then draw one
flat block, or garbage, and say nothing.
"""

from typing import Any

from PIL import Image

from imgclf.data import deep_gray

_FILLED = {"JPEG": (127, 128), "MPO": (127, 128), "BMP": (0, 0), "DIB": (0, 0), "TIFF": (0, 0), "PPM": (0, 0)}
"""The values that a decoder draws where data are missing: the middle of the range in JPEG, elsewhere the zeros that are
in the file. Lossless PNG and GIF have checksums or lengths, by which their decoders notice."""

_COMPRESSED = ("WEBP", "AVIF", "HEIF")
_LEAST_ZEROS = 64


def share(image: Image.Image, data: bytes) -> float:
    """Estimate the share of a decoded image that is lost, 0 to 1.

    Args:
        image: as stored, before it is turned or converted; a JPEG may be reduced.
        data: its file.
    """
    if image.format in _COMPRESSED:
        # An arithmetic coder never writes a long row of zeros.
        zeros = len(data) - len(data.rstrip(b"\0"))
        return zeros / len(data) if zeros >= _LEAST_ZEROS else 0.0
    fill = _FILLED.get(image.format or "")
    if fill is None or image.mode not in ("L", "RGB", "CMYK", "RGBA", "I;16", "I;16B", "I", "F"):
        return 0.0
    ends = (image.height - 1,) if fill[0] else (image.height - 1, 0)  # the rows of a BMP are stored from below
    if not any(_is_flat(image, row, row + 1, fill) for row in ends):
        return 0.0
    return max(_rows(image, fill, from_below=end > 0) for end in ends) / image.height


def _rows(image: Image.Image, fill: tuple[int, int], from_below: bool) -> int:
    """Count the flat rows at one end, by halving: a block is flat if both of its halves are."""
    known, unknown = 0, image.height
    while known < unknown:
        rows = (known + unknown + 1) // 2
        first, last = (image.height - rows, image.height - known) if from_below else (known, rows)
        if _is_flat(image, first, last, fill):
            known = rows
        else:
            unknown = rows - 1
    return known


def _is_flat(image: Image.Image, top: int, bottom: int, fill: tuple[int, int]) -> bool:
    """Whether some rows, without the alpha channel, have the values of `fill` only."""
    rows = image.crop((0, top, image.width, bottom))
    ends: list[Any]
    if rows.mode in deep_gray.MODES:
        ends = [deep_gray.extrema(rows)]
    else:
        ends = [band.getextrema() for band in rows.split()[:4]]
    if rows.mode == "RGBA":
        ends = ends[:3]
    return all(fill[0] <= low and high <= fill[1] for low, high in ends)


def lacks_scans(data: bytes) -> bool:
    """Whether a progressive JPEG ends before the scan that would give some coefficients their last bit.

    Source: ITU-T T.81, G.1.1.1 and B.2.3.
    """
    coarse: dict[tuple[int, bool], int] = {}  # component, whether AC -> the lowest bit that came
    place = data.find(b"\xff\xda")
    while 0 <= place < len(data) - 8:
        count = data[place + 4]
        if not 1 <= count <= 4 or int.from_bytes(data[place + 2 : place + 4], "big") != 6 + 2 * count:
            place = data.find(b"\xff\xda", place + 2)
            continue
        begin = place + 5 + 2 * count
        if begin + 3 > len(data):
            break
        is_ac, bits = data[begin] > 0, data[begin + 2] & 15
        for component in range(count):
            coarse[data[place + 5 + 2 * component], is_ac] = bits
        place = data.find(b"\xff\xda", begin)
    components = {component for component, _ in coarse}
    return any(coarse.get((component, is_ac), 1) > 0 for component in components for is_ac in (False, True))
