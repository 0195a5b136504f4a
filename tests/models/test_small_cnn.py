"""The layers of small-cnn as courses ask for them: shapes, parameters, and what is refused."""

import numpy as np
import pytest
from factories import recipe_of

import imgclf
from imgclf.errors import UsageError
from imgclf.models import classifier, convnets, sources
from imgclf.settings import small_cnn
from imgclf.settings.small_cnn import SmallCnn
from imgclf.training import network

import keras  # isort: skip  (imgclf chooses its backend first)


def test_the_classic_stack_has_the_shapes_and_parameters_of_the_hand_calculation():
    settings = SmallCnn(
        filters="32,64", kernel_size=3, padding="valid", batch_norm_layers="off", dense="128", flatten=True
    )
    assert convnets.shapes(settings, 28) == [(28, 3), (26, 32), (13, 32), (11, 64), (5, 64)]
    model = classifier.build(convnets.stack(settings, 28), 10)
    by_hand = (3 * 9 * 32 + 32) + (32 * 9 * 64 + 64) + (5 * 5 * 64 * 128 + 128) + (128 * 10 + 10)
    assert model.count_params() == by_hand
    assert not classifier.has_map(model)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_shapes_are_those_that_keras_finds(padding, stride):
    settings = SmallCnn(filters="4,6", kernel_size=5, stride=stride, padding=padding, pool_size=2)
    model = convnets.stack(settings, 79)
    by_name = {layer.name: layer.output.shape for layer in model.layers}
    expected = [by_name[f"{kind}_{place}"] for place in (1, 2) for kind in ("conv", "pool")]
    assert convnets.shapes(settings, 79)[1:] == [(shape[1], shape[3]) for shape in expected]


def test_every_option_changes_the_layers():
    settings = SmallCnn(filters="4", pooling="average", pool_size=3, activation="tanh", dense="7,5")
    model = convnets.stack(settings, 12)
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    assert kinds == {
        "pixels": "InputLayer", "rescale": "Rescaling", "conv_1": "Conv2D", "norm_1": "BatchNormalization",
        "activation_1": "Activation", "pool_1": "AveragePooling2D", "average": "GlobalAveragePooling2D",
        "dense_1": "Dense", "dense_2": "Dense",
    }  # fmt: skip
    assert {model.get_layer(name).activation.__name__ for name in ("activation_1", "dense_1")} == {"tanh"}
    assert model.get_layer("pool_1").pool_size == (3, 3)
    assert not model.get_layer("conv_1").use_bias
    assert model.output_shape == (None, 5)


def test_one_block_computes_what_keras_operations_compute():
    model = convnets.stack(SmallCnn(filters="2", batch_norm_layers="off", pooling="average"), 4)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype(np.float32)
    kernel, bias = model.get_layer("conv_1").get_weights()
    padded = np.pad(pixels[0] / 127.5 - 1, ((1, 1), (1, 1), (0, 0)))
    expected = np.zeros((4, 4, 2))
    for y in range(4):
        for x in range(4):
            expected[y, x] = np.einsum("yxc,yxcf->f", padded[y : y + 3, x : x + 3], kernel) + bias
    pooled = np.maximum(expected, 0).reshape(2, 2, 2, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(model.predict(pixels, verbose=0)[0], pooled, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "size", "found"),
    [
        (
            {"filters": "8,16,32", "kernel_size": 5, "padding": "valid"},
            16,
            r"kernel of convolution 3 is 5x5, larger than its map: 16x16x3 -> 12x12x8 -> 6x6x8 -> 2x2x16 -> 1x1x16\.",
        ),
        (
            {"filters": "8,16", "pool_size": 5},
            16,
            r"pooling of block 2 is 5x5, larger than its map: 16x16x3 -> 16x16x8 -> 3x3x8 -> 3x3x16\.",
        ),
    ],
)
def test_a_map_that_became_too_small_is_shown(options, size, found):
    with pytest.raises(UsageError, match=found):
        sources.find(small_cnn.backbone_name(SmallCnn(**options))).build(size, sources.NONE)


def test_a_flattened_stack_takes_one_size():
    source = sources.find("small-cnn:filters=4+flatten")
    assert not source.facts.any_size
    with pytest.raises(UsageError, match="--flatten: expected one --image-size, found several sizes"):
        source.build(None, sources.NONE)
    assert sources.find("small-cnn:filters=4").build(None, sources.NONE).output_shape == (None, None, None, 4)


def test_a_name_gives_the_same_stack_again():
    settings = SmallCnn(
        filters="8, 16", kernel_size=5, stride=2, padding="valid", pooling="average", pool_size=1, activation="gelu",
        batch_norm_layers="off", dense="32", flatten=True,
    )  # fmt: skip
    name = small_cnn.backbone_name(settings)
    assert name.startswith("small-cnn:filters=8,16+kernel-size=5+stride=2+")
    again = small_cnn.parse(name)
    assert (again.widths, again.layer_options) == ((8, 16), settings.layer_options | {"filters": "8,16"})
    assert sources.portable(name)
    assert sources.find(name).facts.name == name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("small-cnn:filter=3", "expected NAME=VALUE with a name among filters, kernel-size, .*, found 'filter=3'"),
        ("small-cnn:flatten=1", "found 'flatten=1'"),
        ("small-cnn:kernel-size=x", "--kernel-size: expected int or nothing, found 'x'"),
        ("small-cnn:flatten+global-pooling", "--flatten and --global-pooling exclude one another"),
        ("small-cnn:filters=0", "--filters: expected 1 to 20 whole numbers such as 32,64"),
        ("small-cnn:padding=full", "--padding: expected one of same, valid, found 'full'"),
        ("small-cnn:stride=0", "--stride: expected 1 to 64 pixels, found 0"),
    ],
)
def test_an_impossible_stack_is_refused(name, found):
    with pytest.raises(UsageError, match=found):
        sources.find(name)


def test_the_options_name_the_backbone_and_are_refused_for_others():
    recipe = recipe_of(backbone="auto", filters="4", dense="6")
    assert (recipe.backbone, recipe.method, recipe.weights) == ("small-cnn:filters=4+dense=6", "scratch", "none")
    assert recipe_of(backbone=recipe.backbone, kernel_size=5).backbone == "small-cnn:filters=4+kernel-size=5+dense=6"
    assert recipe_of(backbone="small-cnn").backbone == "small-cnn"
    found = r"--filters, --flatten: expected --backbone small-cnn, which alone has .*, found --backbone mlp\."
    with pytest.raises(UsageError, match=found):
        recipe_of(backbone="mlp", filters="4", flatten=True)


def test_several_sizes_share_the_weights_of_a_stack():
    recipe = recipe_of(filters="4,4", image_size=24, image_sizes="16,24")
    model = network.build(recipe, 2)
    open_size = network.for_steps(model, recipe)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 24, 24, 3)).astype(np.float32)
    np.testing.assert_allclose(open_size(pixels), model(pixels), atol=1e-6)
    assert keras.ops.shape(open_size(pixels[:, :16, :16])) == (1, 2)


@pytest.mark.slow
def test_a_stack_trains_resumes_exports_and_gives_its_weights(image_folder, tmp_path):
    config = imgclf.TrainConfig(
        filters="4,8", dense="8", flatten=True, image_size=16, epochs=1, batch_size=8, export="litert", augment="none"
    )
    run = imgclf.train(imgclf.read(image_folder(), config), config, output=tmp_path / "run")
    name = "small-cnn:filters=4,8+dense=8+flatten"
    assert run.read_config()["config"]["backbone"] == name
    longer = imgclf.resume(run, epochs=2)
    assert len(longer.history) == 2
    more = imgclf.TrainConfig(weights=str(run.path), method="finetune", epochs=1, batch_size=8, export="none")
    second = imgclf.train(imgclf.read(image_folder(), more), more, output=tmp_path / "second")
    assert second.read_config()["config"]["backbone"] == name
