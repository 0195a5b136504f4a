"""Filters, feature maps, top activations and embedding maps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf.errors import ArtifactError, DatasetError, UsageError
from imgclf.explanation import units, views
from imgclf.models import classifier as classifiers

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A network whose units are known: the first responds to red, the second to blue, each at one place in four."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(2, 2, strides=2, use_bias=False, name="colors")(pixels)
    x = layers.DepthwiseConv2D(3, padding="same", name="each")(x)
    model = classifiers.build(keras.Model(pixels, layers.Conv2D(4, 1, name="mix")(x)), 2)
    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[..., 0, 0] = kernel[..., 2, 1] = 0.25
    model.get_layer("colors").set_weights([kernel])
    return model


def spot(color: tuple[int, int, int], row: int, column: int) -> np.ndarray:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = color
    return pixels


def test_the_filters_are_the_weights(network):
    found = units.filters(network.get_layer("colors"))
    assert found.shape == (2, 3, 2, 2)
    assert found[0, :, 0, 0].tolist() == [0.25, 0, 0] and found[1, :, 1, 1].tolist() == [0, 0, 0.25]
    kernel = np.asarray(network.get_layer("each").kernel)  # (3, 3, 2, 1)
    np.testing.assert_array_equal(units.filters(network.get_layer("each"))[1, 0], kernel[:, :, 1, 0])


def test_feature_maps_by_hand(network):
    maps = units.feature_maps(network, network.get_layer("colors"), spot((200, 0, 100), 1, 3)[None], "--feature-maps")
    assert maps.shape == (1, 4, 4, 2)
    assert maps[0, 1, 3].tolist() == [200, 100] and maps.sum() == 300


def test_the_images_and_places_that_excite_a_unit_most(network):
    images = [spot((50, 0, 0), 0, 0), spot((250, 0, 9), 2, 1), spot((0, 0, 200), 3, 3)]
    batches = [np.stack(images[:2]), np.stack(images[2:])]
    red, blue = units.top_activations(network, network.get_layer("colors"), batches, 2, "--top-activations")
    assert [(each.image, each.value, each.box) for each in red] == [(1, 250, (2, 4, 4, 6)), (0, 50, (0, 0, 2, 2))]
    assert [(each.image, each.value, each.box) for each in blue] == [(2, 200, (6, 6, 8, 8)), (1, 9, (2, 4, 4, 6))]


def test_a_box_is_the_receptive_field_inside_the_image(network):
    assert units.receptive_field(network, network.get_layer("each")) == (6, 6)
    [[best], *_] = units.top_activations(
        network, network.get_layer("each"), [np.zeros((1, 8, 8, 3), np.uint8)], 1, "--top-activations"
    )
    assert best.box == (0, 0, 6, 6)  # around the first place, moved inside
    assert units.receptive_field(network, network.get_layer("embedding")) is None


def test_an_unknown_layer_is_refused_and_near_ones_are_named(network):
    with pytest.raises(UsageError, match=r"--filters: .* has no layer 'color'\. Did you mean colors"):
        units.find_layer(network, "color", "--filters")


@pytest.mark.parametrize(
    ("layer", "message"),
    [("logits", "expected a convolution, found logits, which is Dense"), ("mix", "the kernels of mix are 1 x 1")],
)
def test_layers_without_kernels_to_see_are_refused(network, layer, message):
    with pytest.raises(UsageError, match=message):
        units.filters(network.get_layer(layer))


def test_a_layer_without_maps_is_refused(network):
    with pytest.raises(UsageError, match="expected a layer that gives maps, found logits"):
        units.feature_maps(network, network.get_layer("logits"), np.zeros((1, 8, 8, 3)), "--feature-maps")


def test_signs_have_colors():
    assert views.signed(np.array([[0.0, 2, -2]]), 2).tolist() == [[[255, 255, 255], [178, 24, 43], [33, 102, 172]]]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_drawings_of_a_run(trained_run, tmp_path: Path):
    files = [str(path) for path in sorted((trained_run.path.parent / "images").rglob("*.png"))]
    views.draw_filters(trained_run.path, "stage_1_1_conv", tmp_path / "rgb.png")
    views.draw_filters(trained_run.path, "stage_1_2_conv", tmp_path / "deep.png")
    views.draw_feature_maps(trained_run.path, "stage_1_2_relu", files[0], tmp_path / "maps.png")
    views.draw_top_activations(trained_run.path, "stage_2_1_relu", files, tmp_path / "top.png")
    step = views.TILE_PX + views.GAP_PX
    titles = {"rgb": 1, "deep": 2, "maps": 2, "top": 2}  # lines
    heights = {
        name: size(tmp_path / f"{name}.png")[1] - views.TEXT_PX * lines - 2 * views.GAP_PX
        for name, lines in titles.items()
    }
    assert heights == {
        "rgb": 4 * step,  # 24 filters in rows of 6
        "deep": 16 * step,  # 16 filters with 8 slices each
        "maps": 5 * (step + views.TEXT_PX),  # 24 channels and the image in rows of 6
        "top": views.UNITS * step,
    }


@pytest.mark.slow
def test_the_embedding_map_counts_what_is_correct(trained_run, tmp_path: Path):
    dataset = imgclf.read(trained_run.path.parent / "images", imgclf.DataConfig(limit=12))
    predictions = imgclf.load(trained_run.path).predict(dataset.paths)
    expected = sum(p.argmax == sample.label for p, sample in zip(predictions, dataset.samples, strict=True))
    assert views.draw_embedding_map(trained_run.path, dataset, tmp_path / "map.png") == (12, expected)
    assert size(tmp_path / "map.png")[0] > 900


def test_bad_input_is_refused(trained_run, tmp_path: Path):
    with pytest.raises(UsageError, match=r"ends in \.png"):
        views.draw_filters(trained_run.path, "stage_1_1_conv", tmp_path / "a.jpg")
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="expected a new file"):
        views.draw_filters(trained_run.path, "stage_1_1_conv", tmp_path / "a.png")
    with pytest.raises(DatasetError, match="cannot be read"):
        views.draw_feature_maps(trained_run.path, "stage_1_1_conv", str(tmp_path / "a.png"), tmp_path / "b.png")
    with pytest.raises(DatasetError, match="none that can be read"):
        views.draw_top_activations(trained_run.path, "stage_1_1_conv", [str(tmp_path / "a.png")], tmp_path / "b.png")
    (tmp_path / "alone").mkdir()
    with pytest.raises(ArtifactError, match=r"expected a run with its model\.keras"):
        views.draw_filters(tmp_path / "alone", "stage_1_1_conv", tmp_path / "b.png")
