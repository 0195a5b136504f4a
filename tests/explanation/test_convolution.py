"""Convolutions: hand-computed numbers, SciPy's correlation, and drawings."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal

import imgclf
from imgclf.errors import DatasetError, UsageError
from imgclf.explanation import convolution, convolution_drawing
from imgclf.settings.explanation import KERNELS, ConvolveConfig, rows_of

FIVE = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]], float)
OF_FIVE = ConvolveConfig(kernel="0,1,2;2,2,0;0,1,2")


def test_the_worked_example_of_the_course():
    found = imgclf.convolve(FIVE, OF_FIVE)
    assert found.feature_map.tolist() == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
    assert found.sizes == "rows: (5 + 0 - 3) / 1 + 1 = 3\ncolumns: (5 + 0 - 3) / 1 + 1 = 3"


def test_the_arithmetic_of_a_place_is_written_out():
    found = imgclf.convolve(FIVE, ConvolveConfig(kernel="0,1,2;2,2,0;0,1,2", at="0,0"))
    assert found.arithmetic == "  3 x 0 + 3 x 1 + 2 x 2\n+ 0 x 2 + 0 x 2 + 1 x 0\n+ 3 x 0 + 1 x 1 + 2 x 2\n= 12"
    assert imgclf.convolve(FIVE, OF_FIVE).place == (1, 2)  # the strongest response, 19


def test_relu_shows_in_map_and_arithmetic():
    found = imgclf.convolve(FIVE, ConvolveConfig(kernel="-1", relu=True, at="0,0"))
    assert found.feature_map.max() == 0
    assert found.arithmetic == "  3 x (-1)\n= -3\nReLU: 0"


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("flip", [False, True])
def test_it_agrees_with_scipy(mode, flip):
    image, kernel = np.random.default_rng(0).normal(size=(9, 12)), "1,2,3;4,5,6;-7,8,9"
    found = imgclf.convolve(image, ConvolveConfig(kernel=kernel, padding=mode, flip=flip))
    reference = (signal.convolve2d if flip else signal.correlate2d)(image, rows_of(kernel), mode)
    np.testing.assert_allclose(found.feature_map, reference, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_smoothing_keeps_a_flat_image_and_edge_kernels_remove_it(name):
    found = imgclf.convolve(np.full((6, 6), 10.0), ConvolveConfig(kernel=name))
    expected = 10 if name in ("sharpen", "box", "gaussian", "emboss") else 0
    np.testing.assert_allclose(found.feature_map, expected, atol=1e-12)


def test_sobel_is_that_of_scipy():
    image = np.random.default_rng(0).normal(size=(8, 8))
    for name, axis in (("sobel-x", 1), ("sobel-y", 0)):
        found = imgclf.convolve(image, ConvolveConfig(kernel=name)).feature_map
        np.testing.assert_allclose(found, ndimage.sobel(image, axis)[1:-1, 1:-1], atol=1e-12)


@pytest.mark.parametrize(
    ("length", "side", "stride", "mode", "before", "after"),
    [
        (5, 3, 1, "same", 1, 1),
        (6, 3, 2, "same", 0, 1),  # Keras puts the odd zero at the end
        (7, 2, 1, "same", 0, 1),
        (5, 3, 1, "full", 2, 2),
        (5, 3, 1, "1", 1, 1),
        (5, 3, 1, "valid", 0, 0),
    ],
)
def test_padding_as_in_keras(length, side, stride, mode, before, after):
    found = convolution.padding((length, length), (side, side), stride, mode)
    assert found == ((before, before), (after, after))


def test_stride_and_padding_give_the_size_of_the_formula():
    found = imgclf.convolve(np.zeros((224, 224)), ConvolveConfig(kernel="gaussian", stride=2, padding="1"))
    assert found.feature_map.shape == (112, 112)
    assert "(224 + 2 - 3) / 2 + 1 = 112, rounded down" in found.sizes


def test_pooling_by_hand():
    values = np.array([[1.0, 2, 5], [3, 4, 6], [7, 8, 9]])
    assert convolution.pool(values, 2, "max").tolist() == [[4]]
    assert convolution.pool(values, 2, "average").tolist() == [[2.5]]
    found = imgclf.convolve(np.arange(16.0).reshape(4, 4), ConvolveConfig(kernel="1", pooling="max"))
    assert found.pooled.tolist() == [[5, 7], [13, 15]]


def test_a_signal_of_one_row(tmp_path: Path):
    (tmp_path / "signal.csv").write_text("0,0,1,2,2,5\n")
    found = imgclf.convolve(tmp_path / "signal.csv", ConvolveConfig(kernel="-1,0,1", padding="same", pooling="max"))
    assert found.feature_map.tolist() == [[0, 1, 2, 1, 3, -2]]
    assert found.pooled.tolist() == [[1, 2, 3]]


def test_flipping_a_symmetric_kernel_changes_nothing():
    plain, flipped = (imgclf.convolve(FIVE, ConvolveConfig(kernel="laplacian", flip=flip)) for flip in (False, True))
    assert plain.feature_map.tolist() == flipped.feature_map.tolist()


def test_channels_of_an_image(tmp_path: Path):
    Image.new("RGB", (4, 4), (10, 20, 40)).save(tmp_path / "flat.png")
    for channel, value in (("red", 10), ("blue", 40), ("gray", 19.29), ("1,1,1", 70)):
        found = imgclf.convolve(tmp_path / "flat.png", ConvolveConfig(kernel="1", channel=channel))
        np.testing.assert_allclose(found.feature_map, value)


def drawn(**settings: object) -> list[list[str]]:
    """The title of each panel, and the numbers written into its cells."""
    found = imgclf.convolve(FIVE, ConvolveConfig(kernel="0,1,2;2,2,0;0,1,2", **settings))
    axes = convolution_drawing.draw(found).axes
    return [[axis.get_title(), *(text.get_text() for text in axis.texts)] for axis in axes]


def test_the_drawing_has_a_panel_for_each_step():
    image, kernel, feature_map = drawn()
    assert image[0] == "image\n5 x 5\n0 to 3"
    assert kernel == ["kernel\n3 x 3", *"012220012"]
    assert feature_map == ["feature map\n3 x 3\n6 to 19", "12", "12", "17", "10", "17", "19", "9", "6", "14"]
    *_, pooled = drawn(pooling="average", pool_size=3)
    assert pooled == ["average pooling 3 x 3\n1 x 1\n12.8889 to 12.8889", "12.8889"]


def test_a_drawing_of_a_signal(tmp_path: Path):
    imgclf.convolve(np.array([[0.0, 1, 5, 1]]), ConvolveConfig(kernel="1,-1"), output=tmp_path / "signal.png")
    with Image.open(tmp_path / "signal.png") as image:
        assert image.height > 400


@pytest.mark.parametrize("text", ["1,2;3", "", "1,x", "1/0", "nan", "1e308", "1,,2", "sobel"])
def test_kernels_that_are_no_rectangle_of_numbers_are_refused(text):
    with pytest.raises(UsageError, match="--kernel: expected sobel-x"):
        ConvolveConfig(kernel=text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "1,1,1,1,1,1"}, "--kernel: expected at most 5 rows x 5 columns.* found 1 row x 6 columns"),
        ({"at": "3,0"}, "--at: expected a place in the feature map of 3 rows x 3 columns, found '3,0'"),
        ({"pooling": "max", "pool_size": 4}, "--pool-size: expected at most"),
        ({"pool_size": 3}, "--pool-size: no effect without --pooling"),
        ({"channel": "red"}, "--channel: an array .* without channels"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        imgclf.convolve(FIVE, ConvolveConfig(**settings))


def test_a_signal_refuses_a_square_kernel_and_says_what_it_needs():
    with pytest.raises(UsageError, match="A 1-D signal needs a kernel of one row"):
        imgclf.convolve(np.zeros((1, 9)), ConvolveConfig(kernel="box"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 0}, "--stride: expected a whole number of at least 1"),
        ({"padding": "-1"}, "--padding"),
        ({"padding": "100000"}, "--padding: expected valid, same, full or a number of pixels from 0 to 1000"),
        ({"padding": "vald"}, "Did you mean 'valid'"),
        ({"kernel": "sobelx"}, "Did you mean 'sobel-x'"),
        ({"channel": "1,1"}, "--channel"),
        ({"channel": "0,0,0"}, "--channel"),
        ({"at": "1"}, "--at"),
        ({"pooling": "median"}, "--pooling"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        ConvolveConfig(**settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2\n3\n", "line 2: expected 2 numbers as in the first row, found 1"),
        ("1,b\n", "line 1: expected numbers, found 'b'"),
        ("1e300,2\n", "expected rows of finite numbers up to 1e12"),
        ("\n", "expected rows of finite numbers, found none"),
        ("1,inf\n", "expected rows of finite numbers"),
    ],
)
def test_damaged_files_of_numbers_are_refused(tmp_path: Path, content, message):
    (tmp_path / "numbers.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        imgclf.convolve(tmp_path / "numbers.csv")


@pytest.mark.parametrize("content", ["1;2,5\n", "1\t2.5\n", "1 2.5\n", "1, 2.5\n"])
def test_separators_of_files_of_numbers(tmp_path: Path, content):
    (tmp_path / "numbers.txt").write_text(content)
    assert convolution.pixels(tmp_path / "numbers.txt").tolist() == [[1, 2.5]]


def test_other_files_and_existing_drawings_are_refused(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"none")
    with pytest.raises(DatasetError, match=r"a\.jpg: not an image"):
        imgclf.convolve(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"expected a name that ends in \.png"):
        imgclf.convolve(FIVE, OF_FIVE, output=tmp_path / "five.jpg")
    (tmp_path / "old.png").write_bytes(b"none")
    with pytest.raises(UsageError, match="expected a new file"):
        imgclf.convolve(FIVE, OF_FIVE, output=tmp_path / "old.png")
    with pytest.raises(UsageError, match="cannot be written"):
        imgclf.convolve(FIVE, OF_FIVE, output=tmp_path / "a.jpg" / "five.png")
