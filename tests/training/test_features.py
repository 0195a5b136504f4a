"""Frozen features: computed once, found again, the same by either path."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import SIZE_PX, recipe_of

import imgclf
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.errors import UsageError
from imgclf.exporting import litert
from imgclf.models import classifier, graph
from imgclf.training import features, loop
from imgclf.training.recipe import Recipe

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip


def network(seed: int = 0, depthwise: bool = False) -> keras.Model:
    """A convolution, perhaps a depthwise one, and a head; its weights follow from the seed."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    x = layers.Conv2D(8, 3, 2, padding="same", name="conv")(x)
    if depthwise:
        x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    return classifier.build(keras.Model(pixels, layers.ReLU(name="relu")(x)), 2)


@pytest.fixture
def data(image_folder: Callable[..., Path]) -> tuple[Dataset, loading.Pixels]:
    """Thirteen images, two of them equal files."""
    folder = image_folder(count=6)
    (folder / "bee" / "copy.png").write_bytes((folder / "bee" / "000.png").read_bytes())
    return loading.decode(imgclf.read(folder), SIZE_PX)


def config(tmp_path: Path, **options: object) -> Recipe:
    return recipe_of(**{"cache": str(tmp_path / "cache"), "batch_size": 4, "augment": "standard"} | options)


def by_keras(model: keras.Model, pixels: loading.Pixels) -> np.ndarray:
    """The embeddings that the network itself computes."""
    embedding = keras.Model(model.input, model.get_layer("embedding").output)
    return np.array(keras.ops.convert_to_numpy(embedding(pixels[:].astype(np.float32))))


def entries(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache").iterdir()))


def test_features_are_those_of_the_network_and_a_second_call_computes_nothing(data, tmp_path, monkeypatch):
    model = network()
    found = features.frozen(model, *data, config(tmp_path))
    assert found.shape == (1, 13, 8)
    np.testing.assert_allclose(found[0], by_keras(model, data[1]), atol=1e-5)
    monkeypatch.setattr(loop, "predict", None)
    np.testing.assert_array_equal(features.frozen(model, *data, config(tmp_path)), found)


def test_equal_contents_go_through_the_network_once(data, tmp_path):
    counts: list[int] = []
    features.frozen(network(), *data, config(tmp_path), on_progress=lambda phase, done, total: counts.append(total))
    assert set(counts) == {12}


def test_other_weights_contents_and_graphs_are_other_entries(data, tmp_path):
    dataset, pixels = data
    for model in (network(), network(seed=1), network(depthwise=True)):
        features.frozen(model, dataset, pixels, config(tmp_path))
    fewer = dataset.with_splits(["train"] * 13).part("train")
    features.frozen(network(), fewer, pixels, config(tmp_path))  # the same images: no other entry
    assert entries(tmp_path) == 3
    rows = np.arange(5)
    features.frozen(network(), replace(dataset, samples=dataset.samples[:5]), pixels.take(rows), config(tmp_path))
    assert entries(tmp_path) == 4


def test_the_head_is_no_part_of_what_features_depend_on(data, tmp_path):
    model = network()
    before = features.fingerprint(model)
    model.get_layer("logits").set_weights([np.ones((8, 2)), np.ones(2)])
    assert features.fingerprint(model) == before
    model.get_layer("conv").set_weights([np.ones((3, 3, 3, 8)), np.ones(8)])
    assert features.fingerprint(model) != before


def test_views_follow_the_seed_and_differ_from_the_original(data, tmp_path):
    model = network()
    one = features.frozen(model, *data, config(tmp_path), augmentations=2)
    again = features.frozen(model, *data, config(tmp_path / "elsewhere"), augmentations=2)
    other = features.frozen(model, *data, config(tmp_path, seed=1), augmentations=2)
    assert one.shape == (3, 13, 8)
    np.testing.assert_array_equal(one, again)
    assert (one[0] == other[0]).all() and (one[1:] != other[1:]).any()
    assert all((one[a] != one[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))


def test_without_a_place_on_disk_features_are_still_features(data, tmp_path, caplog):
    one = features.frozen(network(), *data, config(tmp_path, cache="off", augment="none"))
    tight = features.frozen(network(), *data, config(tmp_path, cache_limit_gb=1e-9))
    np.testing.assert_allclose(one, tight, atol=1e-6)
    assert "features are not kept" in caplog.text


def test_a_converted_network_gives_kerass_features_and_is_converted_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CONVERTING_S", -1.0)
    model = network(depthwise=True)
    found = features.frozen(model, *data, config(tmp_path))[0]
    np.testing.assert_allclose(found, by_keras(model, data[1]), atol=1e-5)
    monkeypatch.setattr(litert, "convert_unnamed", None)
    dataset, pixels = data
    more = features.frozen(model, dataset, pixels, config(tmp_path), augmentations=1)
    np.testing.assert_array_equal(more[0], found)


def test_a_converted_network_takes_a_single_image_first(data, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CONVERTING_S", -1.0)
    model = network(depthwise=True)
    found = features.frozen(model, *data, config(tmp_path, batch_size=1))[0]
    np.testing.assert_allclose(found, by_keras(model, data[1]), atol=1e-5)


def test_bfloat16_is_asked_for_and_kept_apart(data, tmp_path):
    openvino = pytest.importorskip("openvino")
    model = network()
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UsageError, match="--precision bf16: expected a processor"):
            features.frozen(model, *data, replace(config(tmp_path), precision="bf16"))
        return
    exact = features.frozen(model, *data, config(tmp_path))
    coarse = features.frozen(model, *data, replace(config(tmp_path), precision="bf16"))
    assert entries(tmp_path) == 2
    assert 1e-6 < np.abs(coarse - exact).max() / np.abs(exact).max() < 0.03


def test_few_images_are_not_worth_converting_for_and_regular_convolutions_never_are(data, tmp_path, monkeypatch):
    monkeypatch.setattr(litert, "convert_unnamed", None)
    features.frozen(network(depthwise=True), *data, config(tmp_path))
    monkeypatch.setattr(features, "CONVERTING_S", -1.0)
    features.frozen(network(), *data, config(tmp_path))


def test_multiply_adds_by_hand():
    model = network(depthwise=True)  # 8x8 maps: 27 weights for each of 8 channels, then 9 of 8, then 8 x 2
    assert graph.multiply_adds(model) == 64 * 27 * 8 + 64 * 9 * 8 + 8 * 2
    pixels = keras.Input((10, 10, 4))
    separable = keras.Model(pixels, layers.SeparableConv2D(6, 3)(pixels))
    assert graph.multiply_adds(separable) == 64 * (9 * 4 + 4 * 6)
    grouped = keras.Model(pixels, layers.Conv2D(6, 1, groups=2)(pixels))
    assert graph.multiply_adds(grouped) == 100 * 6 * 2
    with pytest.raises(ValueError, match="one fixed image size"):
        open_size = keras.Input((None, None, 3))
        graph.multiply_adds(keras.Model(open_size, layers.Conv2D(2, 1)(open_size)))
