"""Descriptions of networks: against Keras, hand-computed costs, and numerical gradients."""

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import imgclf
from imgclf.errors import RunError, UsageError
from imgclf.explanation import description, description_drawing
from imgclf.models import catalog
from imgclf.models.publications import PUBLICATIONS
from imgclf.settings.explanation import DescribeConfig

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip

SVG = "{http://www.w3.org/2000/svg}"


def lenet() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(6, 5, activation="relu", name="c1"),
            layers.AveragePooling2D(2, name="s2"),
            layers.Conv2D(16, 5, activation="relu", name="c3"),
            layers.AveragePooling2D(2, name="s4"),
            layers.Flatten(name="flat"),
            layers.Dense(120, activation="relu", name="c5"),
            layers.Dense(10, activation="softmax", name="out"),
        ],
        name="lenet",
    )


def named(found: imgclf.Description) -> dict[str, description.Layer]:
    return {layer.name: layer for layer in found.layers}


@cache
def published(name: str) -> imgclf.Description:
    return imgclf.describe(name)


def value_of(formula: str) -> int:
    return int(eval(formula.replace("x", "*"), {"__builtins__": {}}))


def test_the_example_of_the_course():
    pixels = keras.Input((32, 32, 3))
    found = imgclf.describe(keras.Model(pixels, layers.Conv2D(10, 5, name="ten")(pixels)))
    assert named(found)["ten"].parameters == 760
    assert named(found)["ten"].formula == "(5 x 5 x 3 + 1) x 10"


def test_a_small_network_by_hand():
    found = imgclf.describe(lenet())
    rows = named(found)
    assert [rows[name].output for name in ("c1", "s2", "c3", "s4", "flat", "c5", "out")] == [
        (28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (400,), (120,), (10,),
    ]  # fmt: skip
    assert [rows[name].parameters for name in ("c1", "s2", "c3", "c5", "out")] == [156, 0, 2416, 48120, 1210]
    assert rows["c5"].formula == "(400 + 1) x 120"
    # places x weights without bias: 28*28*25*6, 10*10*25*6*16, 400*120, 120*10
    assert [rows[name].multiply_adds for name in ("c1", "c3", "c5", "out")] == [117_600, 240_000, 48_000, 1_200]
    assert found.multiply_adds == 406_800
    assert (found.parameters, found.weighted_layers) == (51_902, 4)
    assert rows["c1"].memory_bytes == 28 * 28 * 6 * 4
    assert [rows[name].receptive_field for name in ("c1", "s2", "c3", "s4")] == [(5, 5), (6, 6), (14, 14), (16, 16)]
    assert rows["flat"].receptive_field is None
    assert (rows["s2"].kernel, rows["s2"].stride, rows["s2"].padding) == ((2, 2), (2, 2), "valid")


def test_formulas_of_every_kind_of_layer_give_the_parameters_that_keras_counts():
    x = pixels = keras.Input((16, 16, 4))
    x = layers.Conv2D(8, (3, 1), groups=2, use_bias=False)(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, padding="same")(x)
    x = layers.SeparableConv2D(12, 3, depth_multiplier=2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.LayerNormalization()(x)
    x = layers.PReLU(shared_axes=(1, 2))(x)
    x = layers.Conv2DTranspose(6, 3, strides=2)(x)
    x = layers.Normalization()(x)
    x = layers.Reshape((-1, 6))(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Dense(5, use_bias=False)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(pixels, x)
    found = imgclf.describe(model)
    counts = {layer.name: layer.count_params() for layer in model.layers}
    assert {layer.name: layer.parameters for layer in found.layers} == counts
    assert {layer.name: value_of(layer.formula) for layer in found.layers} == counts
    assert named(found)["attention"].receptive_field is None


def test_a_layer_that_is_used_twice_counts_its_weights_once():
    pixels, twice = keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="twice")
    found = imgclf.describe(keras.Model(pixels, twice(twice(pixels))))
    assert [layer.parameters for layer in found.layers] == [0, 84, 0]
    assert [layer.multiply_adds for layer in found.layers] == [0, 8 * 8 * 81, 8 * 8 * 81]
    assert [layer.receptive_field for layer in found.layers] == [(1, 1), (3, 3), (5, 5)]


def test_nested_models_are_described_layer_by_layer():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="inner")])
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, layers.Flatten()(inner(pixels)))
    found = imgclf.describe(model)
    assert [layer.type for layer in found.layers] == ["InputLayer", "Conv2D", "Flatten"]
    assert found.parameters == model.count_params()


def gated() -> keras.Model:
    """Strides, dilation, asymmetric kernels, pooling, a residual, and a gate, with positive weights."""
    x = pixels = keras.Input((65, 65, 1))
    options = {"padding": "same", "kernel_initializer": "ones", "use_bias": False}
    x = layers.Conv2D(2, 3, strides=2, **options)(x)
    x = layers.AveragePooling2D(2)(x)
    y = layers.Conv2D(2, (1, 5), **options)(x)
    y = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depthwise_initializer="ones", use_bias=False)(y)
    x = layers.Add(name="sum")([x, y])
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply(name="gate")([x, keras.ops.stop_gradient(gate)])
    x = layers.SeparableConv2D(3, (3, 1), depthwise_initializer="ones", pointwise_initializer="ones", name="last")(x)
    return keras.Model(pixels, x)


def test_the_receptive_field_is_where_the_numerical_gradient_is_not_zero():
    import tensorflow as tf

    model = gated()
    rows = named(imgclf.describe(model))
    image = tf.ones((1, 65, 65, 1))
    for name in ("sum", "gate", "last"):
        part = keras.Model(model.input, model.get_layer(name).output)
        with tf.GradientTape() as tape:
            tape.watch(image)
            found = part(image)
            middle = found[0, found.shape[1] // 2, found.shape[2] // 2, 0]
        touched = tape.gradient(middle, image)[0, ..., 0] != 0
        sides = [int(np.ptp(np.flatnonzero(np.any(touched, axis=axis)))) + 1 for axis in (1, 0)]
        assert rows[name].receptive_field == tuple(sides), name


@pytest.mark.parametrize("name", ["efficientnet-lite0", "mobilenetv2"])
def test_totals_of_published_networks_with_their_heads(name):
    found = published(name)
    assert found.parameters == catalog.MODELS[name].parameters_with_top
    assert found.layers[-1].output == (1000,)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.MODELS)
def test_every_network_of_the_catalog_is_described_with_the_totals_of_keras(name):
    found = imgclf.describe(name)
    model, _ = description.find(name, DescribeConfig())
    assert found.parameters == model.count_params()
    assert sum(value_of(layer.formula) for layer in found.layers) == found.parameters
    assert {layer.name: layer.output for layer in found.layers} == {
        layer.name: tuple(side for side in layer.output.shape[1:]) for layer in model.operations
    }
    ElementTree.fromstring(description_drawing.draw(found))


@pytest.mark.parametrize(("name", "multiply_adds"), [("resnet50", 3.8e9), ("mobilenetv2", 300e6)])
def test_multiply_adds_are_those_of_the_papers(name, multiply_adds):
    # He et al. 2015, table 1: 3.8 billion; Sandler et al. 2018, table 4: 300 million
    assert published(name).multiply_adds == pytest.approx(multiply_adds, rel=0.02)


def test_published_facts():
    assert published("resnet50").published == {
        "top1_error": 25.1,
        "top5_error": 7.9,
        "source": "https://keras.io/api/applications/",
        "year": 2015,
        "paper": "https://arxiv.org/abs/1512.03385",
        "layers": 50,
    }


def test_every_published_network_has_a_paper_and_no_other():
    textbook = {"lenet5", "alexnet", "googlenet"}
    scored = {name for name, facts in catalog.MODELS.items() if facts.top1 is not None}
    assert set(PUBLICATIONS) == scored | textbook and textbook <= set(catalog.MODELS)
    for name, paper in PUBLICATIONS.items():
        assert paper.top5 is None or paper.top5 > catalog.MODELS[name].top1, name


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "layers"), [("lenet5", 10, 61_706, 7), ("alexnet", 1000, 60_965_224, 8)]
)
def test_textbook_networks_have_the_head_of_their_paper(name, classes, parameters, layers):
    found = imgclf.describe(name)
    assert (found.layers[-1].output, found.parameters) == ((classes,), parameters)
    assert found.published["layers"] == layers and found.published["top1_error"] is None
    assert description_drawing.blocks(found)[1].layers[0].multiply_adds > 0


def test_windows_on_permuted_axes_see_no_more_pixels():
    rows = [layer.receptive_field for layer in published("lenet5").layers if layer.kernel and layer.multiply_adds]
    assert rows == [(5, 5), (14, 14)]


def test_another_size_and_another_head():
    found = imgclf.describe("mobilenetv2", DescribeConfig(image_size=96, classes=5))
    assert found.input == (96, 96, 3)
    assert found.parameters == catalog.MODELS["mobilenetv2"].parameters + (1280 + 1) * 5


def test_a_run_an_artifact_and_a_file_are_the_same_network(trained_run, tmp_path: Path):
    found = imgclf.describe(trained_run)
    assert found.input == (32, 32, 3)
    assert found.layers[-1].output == (2,)
    assert imgclf.describe(str(trained_run.path)).layers == found.layers
    assert imgclf.describe(trained_run.model).layers == found.layers
    for name in ("artifact.json", "model.tflite"):  # no Keras model: from the name of its backbone
        (tmp_path / name).write_bytes((trained_run.path / name).read_bytes())
    rebuilt = imgclf.describe(tmp_path / "model.tflite").layers
    assert [replace(layer, name="") for layer in rebuilt if layer.type != "Dropout"] == [
        replace(layer, name="") for layer in found.layers if layer.type != "Dropout"
    ]


def test_the_json_is_complete(tmp_path: Path):
    found = json.loads(json.dumps(imgclf.describe(lenet()).to_dict()))
    assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"]) == 51_902
    assert found["layers"][1]["formula"] == "(5 x 5 x 1 + 1) x 6"


def texts(path: Path) -> list[str]:
    return [text.text for text in ElementTree.parse(path).iter(f"{SVG}text")]


def test_the_drawing_of_a_small_network_has_a_slab_for_each_layer(tmp_path: Path):
    imgclf.describe(lenet(), output=tmp_path / "lenet.svg")
    found = texts(tmp_path / "lenet.svg")
    assert "(5 x 5 x 1 + 1) x 6 = 156 parameters" in found
    sizes = [text for text in found if text.replace(" x ", "").isdecimal()]
    assert sizes == ["32 x 32 x 1", "28 x 28 x 6", "14 x 14 x 6", "10 x 10 x 16", "5 x 5 x 16", "400", "120", "10"]


def test_the_drawing_of_a_large_network_has_a_slab_for_each_size():
    found = published("mobilenetv2")
    slabs = description_drawing.blocks(found)
    assert [slab.output[0] for slab in slabs] == [224, 112, 56, 28, 14, 7, 1280, 1000]
    assert sum(layer.parameters for slab in slabs for layer in slab.layers) == found.parameters


def test_what_text_a_name_contains_is_drawn_as_text(tmp_path: Path):
    found = replace(imgclf.describe(lenet()), name="<b>&")
    assert ElementTree.fromstring(description_drawing.draw(found)).get("aria-label") == "<b>&"


def test_tokens_are_drawn():
    pixels = keras.Input((32, 32, 3))
    x = layers.Reshape((-1, 8))(layers.Conv2D(8, 8, strides=8)(pixels))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(pixels, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    found = imgclf.describe(model)
    assert [slab.kind for slab in description_drawing.blocks(found)] == ["image", "map", "tokens", "vector", "vector"]
    assert math.isfinite(len(description_drawing.draw(found)))


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("resnet5", {}, "Did you mean"),
        ("resnet50", {"image_size": 8}, "--image-size: resnet50 expects at least 32"),
    ],
)
def test_unknown_names_and_sizes_are_refused(model, settings, message):
    with pytest.raises(UsageError, match=message):
        imgclf.describe(model, DescribeConfig(**settings))


def test_settings_without_an_effect_are_refused(trained_run):
    with pytest.raises(UsageError, match="--classes"):
        imgclf.describe(trained_run, DescribeConfig(classes=3))
    with pytest.raises(UsageError, match="--image-size"):
        imgclf.describe(trained_run, DescribeConfig(image_size=64))


def test_other_files_and_folders_are_refused(tmp_path: Path):
    (tmp_path / "other.keras").write_bytes(b"none")
    with pytest.raises(RunError, match="expected a model in Keras's"):
        imgclf.describe(tmp_path / "other.keras")
    with pytest.raises(RunError, match="found neither"):
        imgclf.describe(tmp_path)
    with pytest.raises(UsageError, match=r"gone\.tflite: expected a run, .* found no such file"):
        imgclf.describe(tmp_path / "gone.tflite")


def test_drawings_need_a_new_svg_file(tmp_path: Path):
    with pytest.raises(UsageError, match=r"ends in \.svg"):
        imgclf.describe(lenet(), output=tmp_path / "net.png")
    (tmp_path / "net.svg").touch()
    with pytest.raises(UsageError, match="expected a new file"):
        imgclf.describe(lenet(), output=tmp_path / "net.svg")


def test_a_network_of_an_open_size_needs_one():
    pixels = keras.Input((None, None, 3))
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(pixels)))
    with pytest.raises(UsageError, match="--image-size: expected a size"):
        imgclf.describe(model)
    assert imgclf.describe(model, DescribeConfig(image_size=16)).layers[1].output == (14, 14, 4)
