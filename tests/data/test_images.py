"""The one decoder against independent Pillow and NumPy calls, and against every kind of damaged file."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageFile, ImageOps, features

from imgclf import environment
from imgclf.data import images
from imgclf.errors import ImageError, UsageError
from imgclf.settings import Decoding, Resize

RNG = np.random.default_rng(7)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((70, 50), Image.Resampling.BICUBIC)
)


def encode(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(images.decode(data))


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"quality": 80}), ("BMP", {}), ("TIFF", {}), ("PPM", {})],
)
def test_a_plain_image_decodes_as_pillow_alone_decodes_it(format: str, options: dict[str, object]) -> None:
    data = encode(PHOTO, format, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(data), expected)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_decodes_to_nearly_the_same_pixels() -> None:
    assert np.abs(pixels(encode(PHOTO, "AVIF", quality=95)).astype(int) - PHOTO).mean() < 6


@pytest.mark.real
def test_photographs_decode_as_pillows_documented_calls_do(real_data: Path) -> None:
    files = sorted(real_data.glob("ants-bees/**/*.jpg"))[:100]
    assert len(files) == 100
    for file in files:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        np.testing.assert_array_equal(np.asarray(images.decode(file)), np.asarray(upright))
        expected = upright.resize((96, 96), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(images.load(file, 96), np.asarray(expected))


@pytest.mark.slow
@pytest.mark.real
def test_eight_orientations_of_a_real_photograph_give_equal_arrays(real_data: Path) -> None:
    photograph = images.decode(min(real_data.glob("ants-bees/**/*.jpg")))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        stored = np.ascontiguousarray(STORED[orientation](np.asarray(photograph)))
        webp = encode(stored, "WEBP", exif=exif, lossless=True, method=0)  # the quickest way to write the same pixels
        for data in (encode(stored, "PNG", exif=exif), webp):
            np.testing.assert_array_equal(pixels(data), np.asarray(photograph))
            np.testing.assert_array_equal(images.load(data, 64), images.load(np.asarray(photograph), 64))


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
STORED = {**UPRIGHT, 6: UPRIGHT[8], 8: UPRIGHT[6]}
"""What to do to an upright array so that the EXIF orientation makes it upright again."""


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_eight_orientations_of_one_photograph_give_equal_arrays(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(np.ascontiguousarray(STORED[orientation](PHOTO)), format, exif=exif, **options)
    np.testing.assert_array_equal(pixels(data), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(orientation: int) -> None:
    plain = encode(PHOTO, "JPEG", quality=90)
    exif = Image.Exif()
    exif[274] = orientation
    turned = encode(PHOTO, "JPEG", quality=90, exif=exif)
    np.testing.assert_array_equal(pixels(turned), UPRIGHT[orientation](pixels(plain)))


@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "RGBA"])
def test_other_modes_are_turned_too(mode: str) -> None:
    image = Image.new(mode, (4, 2))
    exif = Image.Exif()
    exif[274] = 6
    assert images.decode(encode(image, "TIFF", exif=exif)).size == (2, 4)


@pytest.mark.parametrize("exif", [b"", b"nonsense that is no TIFF header", b"II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_cost_the_pixels(exif: bytes) -> None:
    data = encode(PHOTO, "JPEG", exif=b"Exif\0\0" + exif)
    np.testing.assert_array_equal(pixels(data), pixels(encode(PHOTO, "JPEG")))


def test_an_unknown_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[274] = 9
    np.testing.assert_array_equal(pixels(encode(PHOTO, "PNG", exif=exif)), PHOTO)


def test_gray_palette_and_one_bit_become_rgb() -> None:
    gray = PHOTO[:, :, 0]
    np.testing.assert_array_equal(pixels(encode(gray, "PNG")), np.stack([gray] * 3, axis=-1))
    palette = Image.fromarray(PHOTO).quantize(8)
    np.testing.assert_array_equal(pixels(encode(palette, "PNG")), np.asarray(palette.convert("RGB")))
    one_bit = Image.fromarray(gray > 100)
    np.testing.assert_array_equal(pixels(encode(one_bit, "PNG"))[:, :, 1], np.where(gray > 100, 255, 0))


def test_cmyk_becomes_rgb_by_subtraction() -> None:
    inks = np.zeros((1, 4, 4), np.uint8)
    inks[0, 1, 0] = inks[0, 2, 1] = inks[0, 3, 3] = 255  # paper, cyan, magenta, black
    image = Image.frombytes("CMYK", (4, 1), inks.tobytes())
    expected = [[255, 255, 255], [0, 255, 255], [255, 0, 255], [0, 0, 0]]
    np.testing.assert_array_equal(pixels(encode(image, "TIFF"))[0], expected)


def test_a_cmyk_jpeg_decodes_as_pillow_alone_decodes_it() -> None:
    data = encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_transparency_is_laid_over_white() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    expected = [[200, 100, 0], [255, 255, 255], [244, 224, 204]]  # the last one: 0.2 of the color, 0.8 of white
    np.testing.assert_array_equal(pixels(encode(rgba, "PNG"))[0], expected)
    gray_alpha = Image.merge("LA", [Image.new("L", (1, 1), 10), Image.new("L", (1, 1), 0)])
    np.testing.assert_array_equal(pixels(encode(gray_alpha, "PNG")), [[[255, 255, 255]]])


def test_a_transparent_palette_entry_is_laid_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encode(image, "GIF", transparency=0))[0], [[255, 255, 255], [40, 50, 60]])


@pytest.mark.parametrize(("format", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")])
def test_sixteen_bits_are_scaled_and_not_clipped(format: str, dtype: str) -> None:
    gray = np.array([[0, 257, 128 * 257, 65535]], dtype)
    mode = "I;16" if dtype == "<u2" else "I;16B"
    image = Image.frombytes(mode, (4, 1), gray.tobytes())
    decoded = pixels(encode(image, format))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(decoded[:, :, 0], decoded[:, :, 2])


def test_float_gray_is_stretched_between_its_own_ends() -> None:
    gray = np.array([[-1.0, 0.0, 1.0, np.nan, np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(pixels(encode(gray, "TIFF"))[0, :, 0], [0, 128, 255, 0, 255, 0])
    assert pixels(encode(np.full((2, 2), np.nan, np.float32), "TIFF")).max() == 0


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels(data)[4, 4], [255, 0, 0])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_file_is_an_error_for_the_decoder_and_for_inspection(format: str, share: float) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, format)
    cut = data[: int(len(data) * share)]
    for look in (images.decode, images.inspect):
        with pytest.raises(ImageError, match=r"damaged or truncated|not an image"):
            look(cut)


@pytest.mark.parametrize("tail", [b"\0" * 30, b"trailing words of a camera" * 100])
def test_bytes_after_the_end_do_no_harm(tail: bytes) -> None:
    data = encode(PHOTO, "JPEG") + tail
    assert images.inspect(data) == images.Header(70, 50, "JPEG")
    assert images.decode(data).size == (70, 50)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"\0", "not an image"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff", "not an image|damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_what_is_no_image_has_a_reason(data: bytes, reason: str) -> None:
    for look in (images.decode, images.inspect):
        with pytest.raises(ImageError, match=reason):
            look(data)


def test_a_path_that_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^no such file$"):
        images.decode(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"^a folder, not a file$"):
        images.decode(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_file_has_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.touch(mode=0)
    with pytest.raises(ImageError, match=r"^no permission to read it$"):
        images.decode(file)


@pytest.mark.parametrize("window", ["0,4095", " 0 , 4095.0"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_a_window_in_stored_units_becomes_black_to_white(mode: str, window: str) -> None:
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
    gray = np.array([[0, 1, 2048, 4095, 4096, 65535]], dtype)
    data = encode(Image.frombytes(mode, (6, 1), gray.tobytes()), "TIFF")
    decoded = np.asarray(images.decode(data, Decoding(window=window)))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 0, 128, 255, 255, 255])


def test_a_percentile_window_leaves_out_one_in_a_hundred_on_either_side() -> None:
    gray = np.arange(1000, 1000 + 301, dtype="<u2").reshape(7, 43)  # 301 values: 3 below, 3 above
    gray[0, 0], gray[-1, -1] = 0, 65535
    data = encode(Image.frombytes("I;16", (43, 7), gray.tobytes()), "PNG")
    decoded = np.asarray(images.decode(data, Decoding(window="percentile")))[:, :, 0].ravel()
    np.testing.assert_array_equal(decoded[[0, 1, 3, 150, 297, 299, 300]], [0, 0, 0, 128, 255, 255, 255])
    flat = encode(Image.fromarray(np.full((4, 4), 700, np.uint16)), "PNG")
    assert np.asarray(images.decode(flat, Decoding(window="percentile"))).max() == 0


def test_a_window_leaves_eight_bits_alone() -> None:
    data = encode(PHOTO, "PNG")
    np.testing.assert_array_equal(np.asarray(images.decode(data, Decoding(window="0,9"))), PHOTO)


@pytest.mark.parametrize("window", ["", "9", "9,0", "5,5", "a,b", "1,2,3", "0,inf", "nan,1", "percentiles"])
def test_an_impossible_window_is_a_usage_error(window: str) -> None:
    with pytest.raises(UsageError, match="--window: expected two rising numbers such as 0,4095, or percentile"):
        Decoding(window=window)


WHOLE = Decoding(allow_truncated=True)


@pytest.mark.parametrize(("format", "missing"), [("JPEG", 128), ("PNG", 0), ("TIFF", 0)])
def test_what_is_there_of_a_truncated_file_is_taken_where_that_is_allowed(format: str, missing: int) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, format)
    cut = data[: len(data) // 2]
    found = np.asarray(images.decode(cut, WHOLE))
    np.testing.assert_array_equal(found[:8], pixels(data)[:8])
    assert (found[-1] == missing).all()
    assert images.inspect(cut, allow_truncated=True) == images.Header(64, 64, format)
    with pytest.raises(ImageError):
        images.decode(cut)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_whole_file_is_the_same_where_truncated_ones_are_allowed(format: str) -> None:
    data = encode(PHOTO, format)
    np.testing.assert_array_equal(np.asarray(images.decode(data, WHOLE)), pixels(data))


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xd8\xff", b"<html>not found</html>"])
def test_nothing_at_all_is_no_image_wherever(data: bytes) -> None:
    with pytest.raises(ImageError):
        images.decode(data, WHOLE)


def test_threads_with_and_without_truncated_files_do_not_disturb_each_other() -> None:
    data = encode(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG")
    cut = data[: len(data) // 2]

    def opens(rules: Decoding) -> bool:
        try:
            images.decode(cut, rules)
        except ImageError:
            return False
        return True

    asked = [WHOLE, Decoding()] * 100
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(opens, asked)) == [rules.allow_truncated for rules in asked]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("size", [(65_000, 3), (3, 65_000)])
@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
def test_an_image_65000_pixels_wide_is_an_image(size: tuple[int, int], mode: Resize) -> None:
    data = encode(Image.new("RGB", size, (9, 90, 200)), "JPEG", quality=95)
    assert images.inspect(data) == images.Header(*size, "JPEG")
    small = images.load(data, 32, Decoding(mode))
    assert small.shape == (32, 32, 3)
    assert np.abs(small[15, 15].astype(int) - [9, 90, 200]).max() <= 3


def test_an_image_of_65000_pixels_each_way_is_refused() -> None:
    huge = bytearray(encode(Image.new("L", (8, 8)), "JPEG"))
    start = huge.index(b"\xff\xc0")
    huge[start + 5 : start + 9] = (65_000).to_bytes(2, "big") * 2
    for look in (images.decode, images.inspect):
        with pytest.raises(ImageError, match="more than 178,956,970"):
            look(bytes(huge))


def heic(image: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return encode(image, "HEIF", quality=-1, chroma=444, matrix_coefficients=0, **options)


def test_heic_decodes_to_nearly_the_same_pixels() -> None:
    data = heic(Image.fromarray(PHOTO))
    assert images.inspect(data) == images.Header(70, 50, "HEIF")
    assert np.abs(pixels(data).astype(int) - PHOTO).max() <= 3
    with pytest.raises(ImageError):
        images.decode(data[: len(data) // 2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once_though_two_marks_in_it_ask_for_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = heic(Image.fromarray(np.ascontiguousarray(STORED[orientation](PHOTO))), exif=exif.tobytes())
    assert np.abs(pixels(data).astype(int) - PHOTO).max() <= 3


def test_heic_without_its_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_package", lambda name: False)
    with pytest.raises(ImageError, match=r"^a HEIC image, .*: pip install 'imgclf\[heif\]'$"):
        images.decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_the_fingerprint_names_what_shapes_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"imgclf {images.VERSION}, Pillow {PIL.__version__}, " in images.fingerprint()


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    # 30,000 x 30,000 pixels in 85 bytes: the header says so, the pixels are not there.
    bomb = bytearray(encode(Image.new("1", (8, 8)), "BMP"))
    bomb[18:26] = (30_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match="more than 178,956,970"):
        images.inspect(bytes(bomb))


def test_a_wrong_suffix_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encode(PHOTO, "PNG"))
    np.testing.assert_array_equal(np.asarray(images.decode(tmp_path / "photo.jpg")), PHOTO)
    assert images.inspect((tmp_path / "photo.jpg").read_bytes()).format == "PNG"


STRIPES = np.zeros((20, 60, 3), np.uint8)
STRIPES[:, :20, 0] = STRIPES[:, 20:40, 1] = STRIPES[:, 40:, 2] = 255  # red, green, blue, each a square of 20 px


def test_squash_keeps_every_stripe() -> None:
    small = images.load(STRIPES, 30, Decoding("squash"))
    assert small.shape == (30, 30, 3)
    np.testing.assert_array_equal(small[15, [3, 15, 26]], [[255, 0, 0], [0, 255, 0], [0, 0, 255]])


def test_crop_takes_the_central_square() -> None:
    np.testing.assert_array_equal(images.load(STRIPES, 20, Decoding("crop")), STRIPES[:, 20:40])


def test_pad_adds_black_bars_above_and_below() -> None:
    padded = images.load(STRIPES, 60, Decoding("pad"))
    np.testing.assert_array_equal(padded[20:40], STRIPES)
    assert padded[:20].max() == padded[40:].max() == 0


def test_pad_keeps_one_pixel_of_an_extreme_shape() -> None:
    assert images.load(np.full((1, 500, 3), 255, np.uint8), 16, Decoding("pad")).sum() == 16 * 3 * 255


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
def test_an_image_of_the_right_size_is_left_alone(mode: Resize) -> None:
    square = PHOTO[:50, :50]
    np.testing.assert_array_equal(images.load(square, 50, Decoding(mode)), square)


def test_shrinking_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(images.load(checks, 16)[2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_arrays_are_taken_as_they_are() -> None:
    gray = PHOTO[:, :, 0]
    for array in (gray, gray[:, :, None]):
        np.testing.assert_array_equal(images.load(array, 32), images.load(np.stack([gray] * 3, axis=-1), 32))
    opaque = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(images.load(opaque, 32), images.load(PHOTO, 32))


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_an_array_of_another_kind_is_an_error(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="expected a uint8 array"):
        images.load(array, 32)


def test_a_path_bytes_and_an_array_give_the_same_pixels(tmp_path: Path) -> None:
    data = encode(PHOTO, "PNG")
    (tmp_path / "a b[1].png").write_bytes(data)
    for source in (tmp_path / "a b[1].png", str(tmp_path / "a b[1].png"), data):
        np.testing.assert_array_equal(
            images.load(source, 24, Decoding("crop")), images.load(PHOTO, 24, Decoding("crop"))
        )


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    odd = encode(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(images.decode, [odd] * 200))
    assert warnings.filters == before
