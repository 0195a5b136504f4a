"""Feature vectors by hand, against hand calculations, scikit-image and SciPy."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import hog, local_binary_pattern
from skimage.filters import gabor_kernel

from imgclf import environment
from imgclf.descriptors import extraction, texture
from imgclf.descriptors.kinds import EMBEDDING, KINDS, Descriptor, parse
from imgclf.errors import UsageError
from imgclf.settings.classical import FEATURES

SIZE_PX = 48
NOISE = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def vector(text, pixels=NOISE):
    return Descriptor(text, len(pixels)).vectors(pixels[None])[0]


def thirds():
    """Red above green above blue."""
    pixels = np.zeros((48, 48, 3), np.uint8)
    for third in range(3):
        pixels[16 * third : 16 * third + 16, :, third] = 30 * (third + 1)
    return pixels


def test_the_settings_name_every_kind():
    assert set(FEATURES) == {*KINDS, EMBEDDING}


def test_the_mean_color_of_three_stripes():
    assert vector("mean-color", thirds()).tolist() == [10, 20, 30]


def test_the_grid_has_the_color_of_each_stripe():
    assert vector("color-grid:3x1", thirds()).tolist() == [30, 0, 0, 0, 60, 0, 0, 0, 90]
    assert vector("color-grid:1x2", thirds()).tolist() == [10, 20, 30] * 2
    assert Descriptor("color-grid:3x1", 48).names()[4] == "color-grid:green_row1_column0"


def test_the_histogram_of_a_ramp_is_flat():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    np.testing.assert_allclose(vector("intensity-histogram:8", ramp), 1 / 8)
    np.testing.assert_allclose(vector("color-histogram:4", ramp), 1 / 4)


def test_the_color_histogram_counts_each_channel():
    expected = [np.histogram(NOISE[..., channel], 16, (0, 256))[0] / SIZE_PX**2 for channel in range(3)]
    np.testing.assert_allclose(vector("color-histogram"), np.concatenate(expected), rtol=1e-6)


def test_the_spatial_histogram_says_where_the_light_is():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0:2, 4:6] = 200  # the uppermost quarter, the third from the left
    np.testing.assert_allclose(vector("spatial-histogram:4", pixels), [0, 0, 1, 0, 1, 0, 0, 0], atol=1e-6)


def test_pixels_are_means_of_blocks():
    np.testing.assert_allclose(
        vector("pixels:3", thirds()).reshape(3, 3, 3)[:, 0], [[30, 0, 0], [0, 60, 0], [0, 0, 90]]
    )


def test_lbp_has_the_shares_of_scikit_image():
    gray = np.round(NOISE @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    codes = local_binary_pattern(gray, 8, 1, "uniform")
    np.testing.assert_allclose(vector("lbp"), [np.mean(codes == code) for code in range(10)], atol=1e-3)


def test_hog_is_that_of_scikit_image():
    expected = hog(NOISE, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=-1)
    np.testing.assert_allclose(vector("hog:8"), expected, atol=1e-6)


def test_hog_of_a_step_has_one_direction():
    step = np.zeros((32, 32, 3), np.uint8)
    step[:, 12:] = 255  # inside the left cells; its gradient is horizontal, the first direction
    found = dict(zip(Descriptor("hog", 32).names(), vector("hog", step), strict=True))
    lit = {name for name, value in found.items() if value > 0.01}
    assert lit == {"hog:block0_0_cell0_0_0deg", "hog:block0_0_cell1_0_0deg"}


def test_texture_is_the_convolution_of_scipy():
    names = dict(zip(Descriptor("texture", SIZE_PX).names(), vector("texture"), strict=True))
    green = NOISE[..., 1].astype(np.float64) / 255
    for degrees, frequency in ((0, 0.25), (45, 0.1), (135, 0.25)):
        kernel = gabor_kernel(frequency, np.deg2rad(degrees))
        parts = [ndimage.convolve(green, part, mode="reflect") for part in (kernel.real, kernel.imag)]
        response = np.hypot(*parts)
        assert names[f"texture:gabor_{degrees}deg_{frequency}_green_mean"] == pytest.approx(response.mean(), rel=1e-3)
        assert names[f"texture:gabor_{degrees}deg_{frequency}_green_std"] == pytest.approx(response.std(), rel=1e-3)
    response = ndimage.gaussian_laplace(green, 2.0)
    assert names["texture:log_2px_green_std"] == pytest.approx(response.std(), rel=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_every_column_has_its_own_name(name):
    descriptor = Descriptor(name, SIZE_PX)
    names = descriptor.names()
    assert len(names) == len(set(names)) == len(vector(name))
    assert all(column.startswith(f"{name}:") for column in names)


def test_kinds_stand_behind_one_another():
    embeddings = np.array([[7.0, 8.0]], np.float32)
    joined = Descriptor("mean-color+embedding+lbp", 48)
    found = joined.vectors(thirds()[None], embeddings)[0]
    assert found[:5].tolist() == [10, 20, 30, 7, 8]
    np.testing.assert_array_equal(found[5:], vector("lbp", thirds()))
    assert joined.names(2)[3:5] == ["embedding:0", "embedding:1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hogg", "found 'hogg'. Did you mean hog"),
        ("hog+colour-grid", "Did you mean color-grid"),
        ("", "The kinds are mean-color, "),
        ("hog:8x8", "expected hog:CELL_PX, a whole number from 1 to 9999, found 'hog:8x8'"),
        ("color-grid:0x3", "expected color-grid:RxC, two whole numbers from 1 to 9999, found 'color-grid:0x3'"),
        ("mean-color:3", "expected mean-color, found 'mean-color:3'"),
        ("embedding:3", "expected embedding, found 'embedding:3'"),
    ],
)
def test_an_unknown_kind_is_refused(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size_px", "smallest"),
    [("hog", 31, 32), ("hog:32", 48, 64), ("texture", 34, 35), ("color-grid:9x2", 8, 9)],
)
def test_an_image_smaller_than_the_cell_or_kernel_is_refused(text, size_px, smallest):
    with pytest.raises(UsageError, match=f"expected images of at least {smallest} px, found --image-size {size_px}"):
        Descriptor(text, size_px)
    Descriptor(text, smallest)


def test_processes_compute_what_one_computes():
    count = (2 * extraction.SLOTS * environment.cpu_count() + 2) * extraction.CHUNK + 5  # so that slots are used again
    pixels = np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    embeddings = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    descriptor, seen = Descriptor("embedding+pixels:4", 16), []
    found = extraction.of_pixels(descriptor, pixels, embeddings, lambda *args: seen.append(args), start_s=-1)
    np.testing.assert_array_equal(found, descriptor.vectors(pixels, embeddings))
    assert seen[-1] == ("features", count, count)


def test_the_bank_has_four_orientations_at_two_scales():
    assert len(texture.gabors()) == 8
    assert len(texture.response_names()) == (8 + 2) * 2 * 3
