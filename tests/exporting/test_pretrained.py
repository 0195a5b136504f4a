import subprocess
import sys

import numpy as np
import pytest

from imgclf import prediction
from imgclf.data import images
from imgclf.errors import MissingError, UsageError
from imgclf.exporting import pretrained
from imgclf.models import backbones, catalog, efficientnet_lite0

LABELS = efficientnet_lite0.imagenet_labels()


def small_network(name):
    """A head as MobileNetV2's: pooling, then the classes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    x = layers.Conv2D(8, 3, 4, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(pixels, layers.Dense(1000, activation="softmax")(x), name=name)


def application(name, build=backbones.build_with_top):
    """What `backbones.build_with_top` builds, with random weights."""
    return build(name, weights="none")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A function that sets what the hub answers with, random weights as they are; it returns what the hub was asked."""

    def answer_with(build):
        asked = []

        def build_with_top(name, *, offline, on_progress):
            asked.append((name, offline))
            return build(name)

        monkeypatch.setattr(backbones, "build_with_top", build_with_top)
        return asked

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return answer_with


def test_a_network_is_converted_once_and_then_kept(hub):
    asked = hub(small_network)
    folder = pretrained.artifact("mobilenetv2")
    classifier = prediction.load(folder)
    assert (classifier.image_size, classifier.resize, list(classifier.labels)) == (32, "crop", LABELS)
    outputs = classifier.outputs(np.zeros((1, 32, 32, 3), np.float32))
    assert {name: value.shape for name, value in outputs.items()} == {
        "probabilities": (1, 1000),
        "embedding": (1, 8),
        "feature_map": (1, 8, 8, 8),
    }
    assert pretrained.artifact("mobilenetv2", offline=True) == folder
    assert asked == [("mobilenetv2", False)]

    (folder / "model.tflite").write_bytes(b"cut off")
    pretrained.artifact("mobilenetv2", offline=True)
    assert asked == [("mobilenetv2", False), ("mobilenetv2", True)]
    assert prediction.load(folder).predict([np.zeros((9, 9, 3), np.uint8)])[0].label in LABELS


def test_without_weights_nothing_is_kept(hub, tmp_path):
    def refuse(name):
        raise MissingError(f"no weights for {name}")

    hub(refuse)
    with pytest.raises(MissingError, match="mobilenetv2"):
        pretrained.artifact("mobilenetv2", offline=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_kept_network_needs_neither_keras_nor_tensorflow(hub):
    hub(small_network)
    pretrained.artifact("mobilenetv2")
    code = "import sys; from imgclf.exporting import pretrained as p; p.artifact('mobilenetv2'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow"} & set(done.stdout.split())


def test_without_network_the_file_of_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MissingError) as caught:
        pretrained.artifact("mobilenetv2", offline=True)
    assert catalog.find("mobilenetv2").with_top.url in str(caught.value)


def test_without_a_writable_cache_the_model_lasts_for_the_process(hub, tmp_path, monkeypatch, caplog):
    hub(small_network)
    (tmp_path / "file").write_text("a file where the cache should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = pretrained.artifact("mobilenetv2")
    assert not folder.is_relative_to(tmp_path / "file")
    assert prediction.load(folder).predict([np.zeros((9, 9, 3), np.uint8)])[0].label in LABELS
    assert "cannot be written" in caplog.text and "XDG_CACHE_HOME" in caplog.text


@pytest.mark.slow
def test_imagenet_is_the_default_backbone_with_its_own_classes(tmp_path, monkeypatch):
    """Against the original implementation's answers, from a folder that holds nothing but the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    classifier = prediction.load(pretrained.artifact("imagenet", offline=True))
    assert (classifier.image_size, classifier.resize, len(classifier.labels)) == (224, "crop", 1000)
    model = efficientnet_lite0.build_with_top()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    outputs = classifier.outputs(pixels)
    np.testing.assert_allclose(outputs["probabilities"], model.predict(pixels, verbose=0), atol=1e-5)
    np.testing.assert_allclose(outputs["feature_map"].mean((1, 2)), outputs["embedding"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("mobilenetv2", True),
        ("mobilenet-v3-small", False),  # a layer stands between its pooling and its classes
        ("efficientnetv2-b0", True),
    ],
)
def test_every_kind_of_top_gives_an_embedding(hub, name, mapped):
    hub(application)
    classifier = prediction.load(pretrained.artifact(name))
    size_px = classifier.image_size
    outputs = classifier.outputs(images.load(np.zeros((9, 9, 3), np.uint8), size_px)[None].astype(np.float32))
    assert outputs["embedding"].ndim == 2
    assert ("feature_map" in outputs) == mapped
    if mapped:
        assert np.allclose(outputs["feature_map"].mean((1, 2)), outputs["embedding"], rtol=1e-3, atol=1e-5)


def test_a_network_without_classes_of_its_own_says_what_to_do():
    with pytest.raises(UsageError, match="imgclf train DATA --backbone small-cnn"):
        pretrained.artifact("small-cnn")
