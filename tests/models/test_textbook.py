"""Networks of textbooks: the published counts of parameters, one step of training, and LeNet-5 on digits."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import imgclf
from imgclf.errors import UsageError
from imgclf.models import catalog, classifier, sources, textbook

import keras  # isort: skip  (imgclf chooses its backend first)


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        ("lenet5", 10, 61_706),
        ("alexnet", 1000, 60_965_224),
        ("googlenet", 1000, 6_998_552),
        ("mlp", 10, 32 * 32 * 3 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_the_parameters_are_as_many_as_published(name, classes, published):
    facts = catalog.find(name)
    backbone = textbook.build(name, facts.image_size, facts.min_image_size)
    assert backbone.count_params() == facts.parameters
    assert classifier.build(backbone, classes).count_params() == published


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "resnet50", "resnet152"])
def test_the_catalog_has_the_published_parameters_of_the_other_networks(name):
    published = {"vgg16": 138_357_544, "vgg19": 143_667_240, "resnet50": 25.6e6, "resnet152": 60.4e6}
    assert catalog.find(name).parameters_with_top == pytest.approx(published[name], rel=2e-3)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "googlenet" else n for n in textbook.NETWORKS]
)
def test_one_step_at_the_smallest_size_changes_every_weight(name):
    facts = catalog.find(name)
    keras.utils.set_random_seed(0)
    backbone = sources.find(name).build(facts.min_image_size, sources.NONE)
    model = classifier.build(backbone, 10)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = model.get_weights()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, facts.min_image_size, facts.min_image_size, 3)).astype(np.float32)
    loss = model.train_on_batch(pixels, np.arange(20) % 10)
    assert np.isfinite(loss)
    assert all((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))


def test_the_parameters_of_googlenet_are_those_of_table_1():
    """Input depth, then #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj; each filter has a bias."""
    total = (7 * 7 * 3 + 1) * 64 + (64 + 1) * 64 + (3 * 3 * 64 + 1) * 192
    for depth, one, reduce3, three, reduce5, five, pooled in (
        (192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64), (480, 192, 96, 208, 16, 48, 64),
        (512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64),
        (528, 256, 160, 320, 32, 128, 128), (832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128),
    ):  # fmt: skip
        total += (depth + 1) * (one + reduce3 + reduce5 + pooled)
        total += (9 * reduce3 + 1) * three + (25 * reduce5 + 1) * five
    assert total == catalog.find("googlenet").parameters
    assert total + (1024 + 1) * 1000 == 6_998_552


def test_lenet_sees_the_mean_of_the_channels():
    model = textbook.build("lenet5", 32, 16)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    gray = keras.Model(model.input, model.get_layer("c0").output).predict(pixels, verbose=0)
    np.testing.assert_allclose(gray[0, :, :, 0], pixels[0].mean(axis=-1) / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5", "alexnet"])
def test_an_image_too_small_for_the_maps_is_refused(name):
    smallest = catalog.find(name).min_image_size
    with pytest.raises(UsageError, match=f"at least {smallest} px, found {smallest - 1} px"):
        sources.find(name).build(smallest - 1, sources.NONE)
    with pytest.raises(UsageError, match="found several sizes"):
        sources.find(name).build(None, sources.NONE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lenet_learns_the_digits_of_scikit_learn(tmp_path, seed):
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = tmp_path / "digits" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
    config = imgclf.TrainConfig(
        backbone="lenet5", seed=seed, epochs=40, keep_orientation=True, augment="light", near_duplicates="off",
        label_smoothing=0.0, export="litert",
    )  # fmt: skip
    run = imgclf.train(imgclf.read(tmp_path / "digits", config), config, output=tmp_path / "run")
    scores = json.loads(run.metrics.read_text())
    assert scores["argmax"]["accuracy"] >= 0.975
