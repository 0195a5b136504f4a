"""Steps of preprocessing: against Pillow, SciPy and scikit-image, and against numbers worked out by hand."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFilter, ImageOps
from scipy import ndimage

from imgclf.data import cache, images, preprocessing
from imgclf.errors import UsageError
from imgclf.settings import AugmentConfig, Decoding, TrainConfig
from imgclf.settings.preprocessing import KINDS, parse


@pytest.fixture
def photo() -> np.ndarray:
    """Waves of color with noise, uint8 (40, 40, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:40]
    waves = np.stack([np.sin(x / 5 + y / 7 + shift) for shift in (0, 1, 2)], axis=-1)
    return np.clip(120 + 70 * waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def after(pixels: np.ndarray, chain: str) -> np.ndarray:
    """The pixels after a chain of steps, int."""
    return np.asarray(preprocessing.apply(Image.fromarray(pixels), parse(chain))).astype(int)


def gray_row(*levels: int) -> np.ndarray:
    """An image of one row of gray."""
    return np.repeat(np.array(levels, np.uint8)[None, :, None], 3, axis=2)


def level(found: np.ndarray) -> list[int]:
    """The gray levels of an image of one row."""
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


def test_brightness_and_contrast_are_those_worked_out_by_hand() -> None:
    row = gray_row(0, 50, 100, 250)  # mean 100
    assert level(after(row, "brightness=0.5")) == [0, 25, 50, 125]
    assert level(after(row, "brightness=2")) == [0, 100, 200, 255]
    assert level(after(row, "contrast=0.5")) == [50, 75, 100, 175]
    assert level(after(row, "contrast=2")) == [0, 0, 100, 255]
    assert level(after(row, "contrast=1")) == [0, 50, 100, 250]


def test_autocontrast_and_equalize_use_the_full_range() -> None:
    assert level(after(gray_row(50, 75, 100), "autocontrast")) == pytest.approx([0, 127, 255], abs=1)
    assert level(after(gray_row(*range(100), 200), "autocontrast=2"))[-1] == 255
    assert level(after(np.tile(gray_row(10, 11, 12, 13), (340, 1, 1)), "equalize")) == [0, 85, 170, 255]


def test_gray_weighs_the_colors_as_luma_does(photo: np.ndarray) -> None:
    expected = photo @ np.array([0.299, 0.587, 0.114])
    for name in ("gray", "grey"):
        found = after(photo, name)
        assert np.abs(found - expected[..., None]).max() <= 1


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(
    ("step", "reference"),
    [
        ("denoise", ndimage.median_filter),
        ("erode", ndimage.grey_erosion),
        ("dilate", ndimage.grey_dilation),
        ("open", ndimage.grey_opening),
        ("close", ndimage.grey_closing),
    ],
)
def test_median_and_morphology_are_those_of_scipy(photo: np.ndarray, step: str, reference: object, size: int) -> None:
    expected = reference(photo, size=(size, size, 1), mode="nearest")  # type: ignore[operator]
    np.testing.assert_array_equal(after(photo, f"{step}={size}"), expected)
    assert size != 3 or (after(photo, step) == expected).all()  # the default


def test_opening_removes_a_bright_dot_and_closing_a_dark_one() -> None:
    dots = np.full((9, 9, 3), 100, np.uint8)
    dots[2, 2], dots[6, 6] = 255, 0
    assert after(dots, "open").max() == 100 and after(dots, "open").min() == 0
    assert after(dots, "close").min() == 100 and after(dots, "close").max() == 255
    assert (after(dots, "denoise") == 100).all()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, st.integers(2, 60)))
def test_the_threshold_of_otsu_is_that_of_scikit_image(gray: np.ndarray) -> None:
    filters = pytest.importorskip("skimage.filters")
    if len(np.unique(gray)) > 1:
        found = preprocessing.otsu(gray)
        expected = filters.threshold_otsu(gray)
        np.testing.assert_array_equal(gray > found, gray > expected)


def test_a_threshold_makes_black_and_white() -> None:
    row = gray_row(10, 20, 30, 200, 210, 128)
    assert level(after(row, "threshold")) == [0, 0, 0, 255, 255, 255]
    assert level(after(row, "threshold=128")) == [0, 0, 0, 255, 255, 0]
    assert len(set(level(after(gray_row(7, 7), "threshold")))) == 1


def test_edges_are_white_where_black_meets_white_and_black_elsewhere() -> None:
    step = np.zeros((6, 8, 3), np.uint8)
    step[:, 4:] = 255
    np.testing.assert_array_equal(after(step, "edges")[..., 0], np.tile([0, 0, 0, 255, 255, 0, 0, 0], (6, 1)))
    half = step // 2  # 127: the response is that high, too
    assert set(np.unique(after(half, "edges"))) == {0, 127}
    np.testing.assert_array_equal(after(step.swapaxes(0, 1).copy(), "edges"), after(step, "edges").swapaxes(0, 1))


def test_sharpening_adds_what_a_blur_removes(photo: np.ndarray) -> None:
    blurred = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(2))).astype(int)
    for amount in (0.5, 1.5):
        expected = np.clip(photo + amount * (photo.astype(int) - blurred), 0, 255)
        assert np.abs(after(photo, f"sharpen={amount}") - expected).max() <= 1
    np.testing.assert_array_equal(after(photo, "sharpen"), after(photo, "sharpen=1.5"))


def test_jpeg_is_what_a_file_of_that_quality_contains(photo: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=20)
    np.testing.assert_array_equal(after(photo, "jpeg=20"), np.asarray(Image.open(file)))
    errors = [np.abs(after(photo, f"jpeg={quality}") - photo).mean() for quality in (5, 50, 95)]
    assert errors == sorted(errors, reverse=True)


def test_steps_follow_one_another_as_they_are_given(photo: np.ndarray) -> None:
    one_by_one = after(after(photo, "gray").astype(np.uint8), "edges")
    np.testing.assert_array_equal(after(photo, "gray, edges"), one_by_one)
    assert (after(photo, "edges,dilate") != after(photo, "dilate,edges")).any()


@pytest.mark.parametrize("name", KINDS)
def test_every_step_gives_rgb_of_the_same_size(photo: np.ndarray, name: str) -> None:
    chain = name if KINDS[name].default is not None else f"{name}={KINDS[name].high:g}"
    assert after(photo[:, :30], chain).shape == (40, 30, 3)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_an_image_is_preprocessed_after_it_was_made_square(photo: np.ndarray, resize: str, tmp_path: Path) -> None:
    Image.fromarray(photo[:24]).save(tmp_path / "photo.png")
    rules = Decoding(resize, preprocess="autocontrast,denoise=3")  # type: ignore[arg-type]
    plain = images.load(tmp_path / "photo.png", 16, Decoding(resize))  # type: ignore[arg-type]
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(plain)).filter(ImageFilter.MedianFilter(3)))
    for source in (tmp_path / "photo.png", photo[:24], (tmp_path / "photo.png").read_bytes()):
        np.testing.assert_array_equal(images.load(source, 16, rules), expected)


def test_cached_pixels_are_those_of_their_chain() -> None:
    keys = {cache.key(["a"], 16, Decoding(preprocess=chain)) for chain in (None, "gray", "edges", "jpeg=5", "jpeg=6")}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("denoize", r"--preprocess: unknown step 'denoize'\. Did you mean 'denoise'\? The steps are autocontrast, eq"),
        ("gray,treshold", "unknown step 'treshold'. Did you mean 'threshold'"),
        ("flipped", r"unknown step 'flipped'\. The steps are"),
        ("denoise=4", "denoise: expected an odd number from 3 to 15, found '4'"),
        ("erode=17", "erode: expected an odd number from 3 to 15, found '17'"),
        ("open=3.5", "open: expected an odd number from 3 to 15, found '3.5'"),
        ("gray=1", "gray: expected no value, found '1'"),
        ("brightness", "brightness: expected a number from 0 to 10, found none"),
        ("contrast=-1", "contrast: expected a number from 0 to 10, found '-1'"),
        ("contrast=nan", "contrast: expected a number from 0 to 10, found 'nan'"),
        ("jpeg=100", "jpeg: expected a whole number from 1 to 95, found '100'"),
        ("jpeg=40.5", "jpeg: expected a whole number from 1 to 95, found '40.5'"),
        ("threshold=", "threshold: expected a number from 0 to 254, found ''"),
        ("autocontrast=50", "autocontrast: expected a number from 0 to 49, found '50'"),
        ("sharpen=much", "sharpen: expected a number from 0.1 to 10, found 'much'"),
        ("", "expected 1 to 16 steps such as denoise,autocontrast, found 0"),
        (",".join(["gray"] * 17), "expected 1 to 16 steps .* found 17"),
    ],
)
def test_what_is_no_step_is_named(chain: str, message: str) -> None:
    for config in (TrainConfig, AugmentConfig):
        with pytest.raises(UsageError, match=message):
            config(preprocess=chain)
