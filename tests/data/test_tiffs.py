"""TIFF files written here byte by byte, as other programs write them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imgclf.data import images
from imgclf.errors import ImageError
from imgclf.settings import Decoding

RAMP = np.linspace(0, 1, 64)
FORMS = {"u": 1, "i": 2, "f": 3}
BYTES_OF = {"H": 2, "I": 4}


def tiff(
    pixels: np.ndarray,
    photometric: int,
    *,
    order: str = "<",
    planar: bool = False,
    tile: int = 0,
    rows_per_strip: int = 0,
    pages: int = 1,
    alpha: int | None = None,
    orientation: int = 1,
) -> bytes:
    """An uncompressed TIFF of pixels (h, w) or (h, w, bands)."""
    pixels = np.atleast_3d(pixels)
    height, width, bands = pixels.shape
    kind = pixels.dtype.newbyteorder(order)
    planes = [pixels[:, :, band : band + 1] for band in range(bands)] if planar else [pixels]
    parts = []
    for plane in planes:
        if tile:
            rows, columns = -(-height // tile), -(-width // tile)
            padded = np.zeros((rows * tile, columns * tile, plane.shape[2]), pixels.dtype)
            padded[:height, :width] = plane
            for y in range(0, rows * tile, tile):
                for x in range(0, columns * tile, tile):
                    parts.append(padded[y : y + tile, x : x + tile].astype(kind).tobytes())
        else:
            step = rows_per_strip or height
            parts += [plane[y : y + step].astype(kind).tobytes() for y in range(0, height, step)]
    colors = {2: 3, 5: 4}.get(photometric, 1)
    bits = pixels.dtype.itemsize * 8
    body = bytearray(("II" if order == "<" else "MM").encode() + struct.pack(f"{order}HI", 42, 8))
    for page in range(pages):
        entries: list[tuple[int, str, list[int]]] = [
            (256, "I", [width]),
            (257, "I", [height]),
            (258, "H", [bits] * bands),
            (259, "H", [1]),
            (262, "H", [photometric]),
            (274, "H", [orientation]),
            (277, "H", [bands]),
            (284, "H", [2 if planar else 1]),
        ]
        if tile:
            entries += [(322, "I", [tile]), (323, "I", [tile]), (324, "I", [0] * len(parts))]
            entries += [(325, "I", [len(part) for part in parts])]
        else:
            entries += [(273, "I", [0] * len(parts)), (278, "I", [rows_per_strip or height])]
            entries += [(279, "I", [len(part) for part in parts])]
        if bands > colors:
            entries.append((338, "H", [alpha or 0] * (bands - colors)))
        entries.append((339, "H", [FORMS[pixels.dtype.kind]] * bands))
        entries.sort()
        begin = len(body)
        tail_at = begin + 2 + 12 * len(entries) + 4
        size_of = {tag: BYTES_OF[code] * len(values) for tag, code, values in entries}
        data_at = tail_at + sum(size for size in size_of.values() if size > 4)
        places, place = [], data_at
        for part in parts:
            places.append(place)
            place += len(part)
        head, tail = struct.pack(f"{order}H", len(entries)), b""
        for tag, code, values in entries:
            packed = struct.pack(f"{order}{len(values)}{code}", *(places if tag in (273, 324) else values))
            where = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", tail_at + len(tail))
            tail += packed if len(packed) > 4 else b""
            head += struct.pack(f"{order}HHI", tag, 3 if code == "H" else 4, len(values)) + where
        following = place if page + 1 < pages else 0
        body += head + struct.pack(f"{order}I", following) + tail + b"".join(parts)
    return bytes(body)


def gray(data: bytes, window: str | None = None) -> np.ndarray:
    pixels = np.asarray(images.decode(data, Decoding(window=window)))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    return pixels[..., 0].astype(int)


KINDS = ["u1", "u2", "u4", "f4", "f8"]
LAYOUTS: list[dict[str, object]] = [
    {},
    {"order": ">"},
    {"tile": 16},
    {"tile": 16, "order": ">"},
    {"rows_per_strip": 3},
    {"pages": 3},
    {"planar": True},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_white_as_zero_looks_like_its_twin_with_black_as_zero(kind: str, layout: dict) -> None:
    top = {"u1": 255, "u2": 65535, "u4": 2**32 - 1, "f4": 1, "f8": 1}[kind]
    ramp = np.tile((RAMP * top).astype(kind), (40, 1))
    black = gray(tiff(ramp, 1, **layout))
    white = gray(tiff(top - ramp, 0, **layout))
    assert np.abs(black - white).max() <= 1
    assert np.abs(black[0] - RAMP * 255).max() <= 1.5
    np.testing.assert_array_equal(black, np.tile(black[:1], (40, 1)))


@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
def test_one_window_in_stored_units_fits_both(kind: str) -> None:
    stored = np.tile((RAMP * 4095).astype(kind), (8, 1))
    for window in ("0,4095", "percentile"):
        black = gray(tiff(stored, 1), window)
        np.testing.assert_array_equal(black[0][[0, -1]], [0, 255])
        assert np.abs(black + gray(tiff(stored, 0), window) - 255).max() <= 1


def test_numbers_of_32_bits_within_16_have_the_range_of_16() -> None:
    stored = np.tile((RAMP * 4095).astype("u4"), (8, 1))
    assert gray(tiff(stored, 1)).max() == 4095 // 257
    assert gray(tiff(stored, 0)).min() == (65535 - 4095) // 257


def test_numbers_beyond_half_of_32_bits_have_no_sign() -> None:
    stored = np.array([[0, 2**31 - 1, 2**31, 2**32 - 1]], "u4")
    np.testing.assert_array_equal(gray(tiff(stored, 1)), [[0, 127, 128, 255]])
    np.testing.assert_array_equal(gray(tiff(stored, 1), f"{2**31},{2**32 - 1}"), [[0, 0, 0, 255]])


def test_signed_numbers_keep_their_sign() -> None:
    stored = np.array([[-1000, 0, 1000]], "i2")
    for order in "<>":
        np.testing.assert_array_equal(gray(tiff(stored, 1, order=order), "-1000,1000"), [[0, 128, 255]])
        np.testing.assert_array_equal(gray(tiff(stored, 0, order=order), "-1000,1000"), [[255, 128, 0]])


def test_a_white_as_zero_image_is_turned_upright() -> None:
    stored = np.zeros((4, 6), "u2")
    stored[0, 0] = 65535  # black, at the top left; orientation 3 turns it to the bottom right
    turned = gray(tiff(stored, 0, orientation=3))
    assert turned[-1, -1] == 0 and turned[0, 0] == 255


def test_cmyk_and_separate_planes_are_colors() -> None:
    ink = np.zeros((8, 8, 4), "u1")
    ink[..., 1] = 255  # magenta
    np.testing.assert_array_equal(np.asarray(images.decode(tiff(ink, 5)))[0, 0], [255, 0, 255])
    color = np.zeros((8, 8, 3), "u1")
    color[...] = (200, 100, 50)
    np.testing.assert_array_equal(np.asarray(images.decode(tiff(color, 2, planar=True)))[0, 0], [200, 100, 50])


@pytest.mark.parametrize("layout", [{}, {"tile": 16}, {"rows_per_strip": 5}], ids=str)
@pytest.mark.parametrize("order", "<>")
def test_separate_planes_of_16_bits_have_numbers_of_two_bytes(order: str, layout: dict) -> None:
    color = (np.stack([RAMP, RAMP**2, 1 - RAMP], axis=-1)[None].repeat(64, 0) * 65535).astype("u2")
    found = np.asarray(images.decode(tiff(color, 2, order=order, planar=True, **layout)))
    np.testing.assert_array_equal(found, color >> 8)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tiff(np.zeros((5, 7, 13), "u2"), 1), "a TIFF of 7 x 5 px, gray with 13 bands of whole numbers in 16 bits"),
        (tiff(np.zeros((5, 7, 13), "u2"), 0, planar=True), "13 bands of whole numbers in 16 bits"),
        (tiff(np.zeros((5, 7, 3), "f4"), 2), "RGB with 3 bands of floats in 32 bits"),
        (tiff(np.zeros((5, 7), "f2"), 1), "gray of floats in 16 bits"),
        (tiff(np.zeros((5, 7), "u8"), 1), "gray of whole numbers in 64 bits"),
        (tiff(np.zeros((5, 7, 2), "u2"), 0), "gray with 2 bands of whole numbers in 16 bits"),
        (tiff(np.zeros((5, 7, 4), "u2"), 5, planar=True), "CMYK with 4 bands of whole numbers in 16 bits in separate"),
        (
            tiff(np.zeros((5, 7, 2), "u1"), 1, planar=True, alpha=2),
            "gray with 2 bands of whole numbers in 8 bits in sep",
        ),
        (
            tiff(np.zeros((5, 7, 3), "u1"), 8, planar=True),
            r"L\*a\*b\* with 3 bands of whole numbers in 8 bits in separate",
        ),
    ],
)
def test_what_cannot_be_read_is_described(data: bytes, what: str) -> None:
    for look in (images.decode, images.inspect):
        with pytest.raises(ImageError, match=what) as error:
            look(data)
        assert not str(error.value).startswith("not an image")


def test_libtiff_prints_nothing_about_a_damaged_file(capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression="tiff_lzw")
    data = bytearray(file.getvalue())
    for place in range(200, 1500):
        data[place] = 255 - data[place]
    with pytest.raises(ImageError, match="damaged or truncated"):
        images.decode(bytes(data))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["u2", "u4", "f4", "f8"])
def test_compressed_numbers_are_read_in_the_order_of_their_file(kind: str) -> None:
    ramp = np.tile((RAMP * {"u2": 65535, "u4": 2**32 - 1, "f4": 1, "f8": 1}[kind]).astype(kind), (4, 1))
    for order in "<>":
        plain = tiff(ramp, 1, order=order)
        packed = np.asarray(images.decode(deflated(ramp, order)))[..., 0]
        np.testing.assert_array_equal(packed, gray(plain))


def deflated(pixels: np.ndarray, order: str) -> bytes:
    """The same TIFF with its one strip compressed (Adobe deflate), which libtiff unpacks."""
    data = bytearray(tiff(pixels, 1, order=order))
    (start,), (count,) = struct.unpack_from(f"{order}I", data, 4), struct.unpack_from(f"{order}H", data, 8)
    strip = zlib.compress(data[-pixels.nbytes :])
    for place in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(f"{order}H", data, place)
        if tag == 259:
            struct.pack_into(f"{order}H", data, place + 8, 8)
        if tag == 279:
            struct.pack_into(f"{order}I", data, place + 8, len(strip))
    return bytes(data[: -pixels.nbytes]) + strip
