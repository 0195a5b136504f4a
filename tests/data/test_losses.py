"""Files of which a part is lost, though they decode."""

import io

import numpy as np
import pytest
from PIL import Image

from imgclf.data import images, losses

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((200, 160))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def seen(data: bytes) -> images.Look:
    with images.look(data, 64) as (look, _):
        return look


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"quality": 95}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str)
def test_half_a_jpeg_with_an_end_mark_ends_in_a_flat_block(mode: str, options: dict) -> None:
    data = encode(PHOTO.convert(mode), "JPEG", **options)
    assert seen(data).lost == 0
    half = data[: len(data) // 2] + b"\xff\xd9"
    with images.look(half, 160) as (look, image):
        rows = np.asarray(image)
    flat = (np.ptp(rows, axis=1) == 0).all(axis=1).mean()  # an independent count, of rows of one color
    assert look.lost == pytest.approx(flat, abs=0.02)
    assert 0.2 < look.lost < 0.8


@pytest.mark.parametrize("format", ["BMP", "TIFF", "PPM"])
def test_zeros_to_the_end_of_an_uncompressed_file_are_found(format: str) -> None:
    data = encode(PHOTO, format)
    assert seen(data).lost == 0
    assert seen(data[: len(data) // 2] + bytes(len(data) - len(data) // 2)).lost == pytest.approx(0.5, abs=0.01)


def test_zeros_at_the_end_of_gray_with_alpha_and_of_16_bits_are_found() -> None:
    deep = encode(Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257 + 1), "TIFF")
    clear = encode(PHOTO.convert("RGBA"), "BMP")
    for data in (deep, clear):
        assert seen(data).lost == 0
        cut = data[: -(len(data) // 4)] + bytes(len(data) // 4)
        assert seen(cut).lost == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("options", [{}, {"lossless": True}], ids=str)
def test_zeros_to_the_end_of_a_webp_are_found(options: dict) -> None:
    data = encode(PHOTO, "WEBP", **options)
    assert seen(data).lost == 0
    assert seen(data[: len(data) // 2] + bytes(len(data) - len(data) // 2)).lost == pytest.approx(0.5, abs=0.01)


def test_a_progressive_jpeg_that_ends_early_lacks_scans() -> None:
    data = encode(PHOTO, "JPEG", progressive=True)
    assert not seen(data).lacks_scans
    assert seen(data[: len(data) // 2] + b"\xff\xd9").lacks_scans
    assert not losses.lacks_scans(encode(PHOTO.convert("L"), "JPEG", progressive=True))


def test_black_and_gray_images_of_lossless_formats_are_whole() -> None:
    for color in (0, 128):
        image = Image.new("RGB", (64, 64), (color,) * 3)
        for format in ("PNG", "GIF", "WEBP"):
            assert seen(encode(image, format)).lost == 0
