"""The seam through which backbones come."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest

import imgclf
from imgclf.errors import MissingError, RunError, UsageError
from imgclf.models import classifier, sources
from imgclf.models.sources import Facts
from imgclf.settings import TrainConfig
from imgclf.training import network, recipe

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip


class Means:
    """A foreign source: the means of the three channels, in eighths of the image, or in the fractions of its name."""

    weights = "exact"
    portable = True

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.facts = Facts(f"means-{parts}", 16, self.weights, note=f"backbone: {parts} x {parts} means")

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        return cls(int(name.removeprefix("means-"))) if name.startswith("means-") else None

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: object = None
    ) -> keras.Model:
        assert image_size is not None
        pixels = keras.Input((image_size, image_size, 3), name="pixels")
        x = layers.Rescaling(1 / 255, name="scale")(pixels)
        x = layers.AveragePooling2D(image_size // self.parts, name="parts")(x)
        return keras.Model(pixels, layers.Flatten(name="row")(x), name="means")


@pytest.fixture
def means() -> Iterator[None]:
    sources.register(Means)
    yield
    sources.unregister(Means)


@pytest.mark.usefixtures("means")
def test_a_foreign_source_trains_resumes_and_exports(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    config = TrainConfig(backbone="means-2", method="probe", export="litert")
    run = imgclf.train(imgclf.read(image_folder(count=10)), config, output=tmp_path / "run", with_report=False)
    recorded = run.read_config()["config"]
    assert (recorded["backbone"], recorded["weights"], recorded["image_size"]) == ("means-2", "exact", 16)
    assert "backbone: 2 x 2 means" in run.log.read_text(encoding="utf-8")
    white = np.full((1, 16, 16, 3), 255, np.float32)
    outputs = imgclf.load(run.path).outputs(white)
    assert outputs["embedding"].shape == (1, 12)
    np.testing.assert_allclose(outputs["embedding"], 1, rtol=1e-6)
    assert set(outputs) == {"probabilities", "embedding"}
    assert imgclf.resume(run).path == run.path


def test_each_source_gives_its_facts_by_name() -> None:
    lite, small, mobile = (sources.find(name).facts for name in ("EfficientNet_Lite0", "small-cnn", "MobileNet-v2"))
    assert (lite.name, lite.image_size, lite.pretrained) == ("efficientnet-lite0", 224, "bundled")
    assert (small.name, small.image_size, small.pretrained) == ("small-cnn", 96, None)
    assert (mobile.name, mobile.image_size, mobile.pretrained) == ("mobilenetv2", 224, "hub")
    assert all(facts.any_size for facts in (lite, small, mobile))
    assert (lite.imagenet, small.imagenet, mobile.imagenet) == (True, False, True)


def test_a_name_that_no_source_knows_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="Did you mean mobilenetv2"):
        sources.find("mobilenet2")
    with pytest.raises(MissingError, match=r"nowhere.keras: expected a Keras model"):
        sources.find("nowhere.keras")


def test_a_name_alone_gives_the_bundled_networks_and_those_of_keras_again(tmp_path: Path) -> None:
    assert sources.portable("efficientnet-lite0")
    assert sources.portable("resnet50")
    assert not sources.portable("keras-hub:vit_base_patch16_224_imagenet")
    assert not sources.portable(str(tmp_path / "gone.keras"))


def test_one_size_is_told_before_training(tmp_path: Path) -> None:
    path = _own(tmp_path / "own.keras")
    config, notes = recipe.resolve(TrainConfig(backbone=str(path)))
    assert (config.image_size, config.sizes, config.method, config.weights) == (16, (16,), "auto", "file")
    assert any("pixels from 0 to 255" in note and "a map, which is averaged (d = 4)" in note for note in notes)
    with pytest.raises(UsageError, match=r"--image-sizes: .* is trained at one size"):
        recipe.resolve(TrainConfig(backbone=str(path), image_sizes="16,24"))
    with pytest.raises(UsageError, match=r"--image-size: .* takes images of 16 px alone, found 24"):
        network.build(recipe.resolve(TrainConfig(backbone=str(path), image_size=24))[0], 2)
    with pytest.raises(UsageError, match=r"--weights hub: .* has no weights of this kind. Use file, auto"):
        recipe.resolve(TrainConfig(backbone=str(path), weights="hub"))


def test_weights_of_a_run_fit_by_the_names_of_its_layers(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    path, other = _own(tmp_path / "own.keras"), _own(tmp_path / "other.keras", width=5)
    config = TrainConfig(backbone=str(path), method="probe", export="none")
    run = imgclf.train(imgclf.read(image_folder()), config, output=tmp_path / "run", with_report=False)
    fresh = sources.find(str(path)).build(16, "none")
    filled = sources.find(str(path)).build(16, str(run.path))
    stored = sources.find(str(run.path)).build(16, "run")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    expected = keras.saving.load_model(path)(pixels)
    np.testing.assert_allclose(filled(pixels), expected, rtol=1e-6)
    np.testing.assert_allclose(stored(pixels), expected, rtol=1e-6)
    assert not np.allclose(fresh(pixels), expected)
    with pytest.raises(RunError, match=r"another network than own.*Layer conv: expected"):
        sources.find(str(other)).build(16, str(run.path))


def _own(path: Path, *, width: int = 4) -> Path:
    keras.utils.set_random_seed(1)
    pixels = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255, name="scale")(pixels)
    x = layers.Conv2D(width, 3, 2, name="conv")(x)
    keras.Model(pixels, x, name="own").save(path)
    return path


def test_a_classifier_gives_its_backbone_back() -> None:
    pixels = keras.Input((16, 16, 3), name="pixels")
    for end in (layers.Identity(), layers.Reshape((64, 12)), layers.Flatten()):
        x = end(layers.Conv2D(12, 2, 2)(pixels))
        backbone = keras.Model(pixels, x)
        whole = classifier.build(backbone, 3)
        assert classifier.has_map(whole) == (len(x.shape) == 4)
        images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
        np.testing.assert_array_equal(classifier.backbone(whole)(images), backbone(images))
        embedding = keras.Model(pixels, whole.get_layer("embedding").output)(images)
        rows = np.asarray(backbone(images))
        np.testing.assert_allclose(embedding, rows if rows.ndim == 2 else rows.reshape(2, 64, 12).mean(1), rtol=1e-5)
