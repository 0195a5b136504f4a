"""Explanations: methods against each other, attention against independent computations, and bad input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf.data import images
from imgclf.errors import ArtifactError, UsageError
from imgclf.explanation import gradients, occlusion
from imgclf.models import classifier as classifiers
from imgclf.prediction import heatmaps
from imgclf.settings.explanation import ExplainConfig

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers, ops  # isort: skip


@pytest.fixture(scope="module")
def files(trained_run) -> list[str]:
    return [str(path) for path in sorted((trained_run.path.parent / "images").rglob("*.png"))[::12]]


def artifact_alone(run: imgclf.Run, folder: Path) -> Path:
    """The run's LiteRT model and its description, without the Keras model."""
    for name in ("artifact.json", "model.tflite", "outliers.npz"):
        if (run.path / name).is_file():
            (folder / name).write_bytes((run.path / name).read_bytes())
    return folder


def test_an_artifact_is_explained_by_its_class_activation_map(trained_run, files, tmp_path):
    rows = imgclf.explain(artifact_alone(trained_run, tmp_path), files, output=tmp_path / "maps")
    predictions = imgclf.load(trained_run.path).predict(files)
    assert [(row.path, row.label, row.target) for row in rows] == [(p.path, p.label, p.argmax) for p in predictions]
    assert {row.method for row in rows} == {"cam"}
    assert all(row.drawing.is_file() and 0 <= row.peak[0] < 40 > row.peak[1] >= 0 for row in rows)
    assert rows[0].to_dict()["peak"] == list(rows[0].peak)


def test_the_class_activation_map_is_grad_cam_up_to_scale(trained_run, files):
    cam = imgclf.explain(trained_run, files, ExplainConfig(top=2))
    grad = imgclf.explain(trained_run, files, ExplainConfig(method="gradcam", top=2))
    assert len(cam) == 2 * len(files)
    for one, other in zip(cam, grad, strict=True):
        assert one.target == other.target
        np.testing.assert_allclose(other.values, np.maximum(one.values, 0) / one.values.size, atol=1e-4)


def test_the_logit_is_that_of_the_keras_model(trained_run, files):
    [row] = imgclf.explain(trained_run, files[:1], label="two discs")
    network = classifiers.logits(gradients.load(trained_run.model))
    pixels = images.load(files[0], 32)[None].astype(np.float32)
    assert row.target == "two discs"
    assert row.logit == pytest.approx(float(network.predict_on_batch(pixels)[0, 1]), abs=1e-4)


class Corner:
    """Stands for a classifier: the probability of its second class is the brightness of the lower left corner."""

    labels, task = ("dark", "bright"), "multiclass"

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        bright = 0.01 + 0.98 * pixels[:, 24:, :8].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - bright, bright], axis=1)


def test_occlusion_finds_the_part_that_decides():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[24:, :8] = 255
    against, towards = occlusion.occlude(Corner(), pixels, [0, 1], grid=4)
    assert np.unravel_index(towards.argmax(), towards.shape) == (3, 0)
    assert towards[:2].max() == 0 == towards[:, 2:].max()  # what covers no part of the corner changes nothing
    assert against[3, 0] < 0


def test_maps_change_when_the_weights_are_randomized(trained_run, files):
    """The sanity check of Adebayo et al. 2018, arXiv:1810.03292."""
    network = gradients.load(trained_run.model)
    pixels = images.load(files[0], 32)
    [before] = gradients.grad_cam(network, pixels, [0])
    keras.utils.set_random_seed(1)
    [after] = gradients.grad_cam(keras.models.clone_model(network), pixels, [0])
    assert not np.allclose(before / max(before.max(), 1e-9), after / max(after.max(), 1e-9), atol=0.05)


def transformer() -> keras.Model:
    """A class token and 3 x 3 patches, two attention layers, the mean of the tokens."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((24, 24, 3), name="pixels")
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Reshape((9, 8))(layers.Conv2D(8, 8, strides=8, name="patches")(x))
    x = layers.Concatenate(axis=1, name="tokens")([ops.mean(x, axis=1, keepdims=True), x])
    for number in (1, 2):
        attended = layers.MultiHeadAttention(2, 4, name=f"attention_{number}")(x, x)
        x = layers.Add(name=f"sum_{number}")([x, 3 * attended])
    return classifiers.build(keras.Model(pixels, x), 3)


@pytest.fixture(scope="module")
def vit() -> keras.Model:
    return transformer()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)


def test_rollout_multiplies_the_attention_that_keras_returns(vit, noise):
    found = []
    for number, source in ((1, "tokens"), (2, "sum_1")):
        tokens = keras.Model(vit.input, vit.get_layer(source).output)(noise[None].astype(np.float32))
        _, scores = vit.get_layer(f"attention_{number}")(tokens, tokens, return_attention_scores=True)
        found.append(0.5 * np.asarray(scores)[0].mean(axis=0) + 0.5 * np.eye(10))
    expected = (found[1] @ found[0]).mean(axis=0)
    [values] = gradients.rollout(vit, noise)
    np.testing.assert_allclose(values, expected[1:].reshape(3, 3), rtol=1e-5)


def test_recording_leaves_the_network_as_it_was(vit, noise):
    before = vit.predict_on_batch(noise[None].astype(np.float32))
    with gradients.recorded(gradients.attention_layers(vit)):
        during = vit(noise[None].astype(np.float32), training=False)
    np.testing.assert_allclose(np.asarray(during), before, atol=1e-6)
    assert "_compute_attention" not in vars(vit.get_layer("attention_1"))


def test_the_gradient_weighted_form_knows_the_class(vit, noise):
    one, other = gradients.rollout(vit, noise, [0, 1])
    assert not np.allclose(one, other)
    # one layer by hand: the gradient of a logit with respect to one weight, by a difference
    keras.utils.set_random_seed(0)
    pixels = keras.Input((24, 24, 3))
    x = layers.Reshape((9, 8))(layers.Conv2D(8, 8, strides=8)(layers.Rescaling(1 / 255)(pixels)))
    model = classifiers.build(keras.Model(pixels, layers.MultiHeadAttention(1, 4)(x, x)), 2)
    image, attending = noise[None].astype(np.float32), gradients.attention_layers(model)
    network = classifiers.logits(model)
    with gradients.recorded(attending) as (found, _):
        plain = float(np.asarray(network(image))[0, 1])
    weights = np.asarray(found[0])[0, 0]
    slopes = np.zeros((9, 9))
    for place in np.ndindex(9, 9):
        change = np.zeros((1, 1, 9, 9), np.float32)
        change[0, 0][place] = 0.1
        with gradients.recorded(attending) as (_, added):
            added.append(ops.convert_to_tensor(change))
            slopes[place] = (float(np.asarray(network(image))[0, 1]) - plain) / 0.1
    expected = np.maximum(slopes * weights, 0).mean(axis=0)
    np.testing.assert_allclose(gradients.rollout(model, noise, [1])[0].ravel(), expected, atol=1e-5)


def test_what_does_not_suit_the_network_is_refused(trained_run, vit, noise):
    with pytest.raises(UsageError, match="--method rollout: expected a Vision Transformer"):
        gradients.rollout(gradients.load(trained_run.model), np.zeros((32, 32, 3), np.uint8))
    pixels = keras.Input((8, 8, 3))
    flat = classifiers.build(keras.Model(pixels, layers.Dense(4)(layers.Flatten()(pixels))), 2)
    assert gradients.last_map(vit) == "patches"
    with pytest.raises(UsageError, match="--method gradcam: expected a network with convolutions"):
        gradients.grad_cam(flat, np.zeros((8, 8, 3), np.uint8), [0])


def test_an_unknown_class_is_refused_and_near_ones_are_named(trained_run, files):
    with pytest.raises(UsageError, match="--class: expected a class of the model, such as two discs"):
        imgclf.explain(trained_run, files, label="two disks")
    with pytest.raises(UsageError, match="--class: --top"):
        imgclf.explain(trained_run, files, ExplainConfig(top=2), label="disc")


def test_gradients_need_the_run(trained_run, files, tmp_path):
    folder = artifact_alone(trained_run, tmp_path)
    with pytest.raises(ArtifactError, match=r"expected a run with its model\.keras"):
        imgclf.explain(folder, files, ExplainConfig(method="gradcam"))


def test_a_model_without_a_feature_map_is_explained_by_occlusion(trained_run, files, tmp_path, monkeypatch):
    monkeypatch.setattr(heatmaps, "has_map", lambda classifier: False)
    [row] = imgclf.explain(artifact_alone(trained_run, tmp_path), files[:1], ExplainConfig(grid=3))
    assert (row.method, row.values.shape, row.logit) == ("occlusion", (3, 3), None)


def test_unreadable_images_have_an_error(trained_run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"none")
    [row] = imgclf.explain(trained_run, [tmp_path / "broken.png"])
    assert (row.label, row.target, row.peak) == (None, None, None)
    assert "not an image" in row.error


def test_an_array_can_be_explained(trained_run):
    [row] = imgclf.explain(trained_run, [np.zeros((50, 70), np.uint8)], ExplainConfig(method="occlusion"))
    assert row.path is None and row.peak[0] < 70 and row.peak[1] < 50


def planted(folder: Path, count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Images of noise that differ by a small square alone, red or blue; their files with the square's corner."""
    rng = np.random.default_rng(seed)
    places = {}
    for label, color in (("red", (230, 20, 20)), ("blue", (20, 20, 230))):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(rng.integers(60, 196, (24, 24, 3)).astype(np.uint8)).resize((96, 96))
            x, y = (int(place) for place in rng.integers(0, 96 - 20, 2))
            image.paste(color, (x, y, x + 20, y + 20))
            path = folder / label / f"{number:03}.png"
            image.save(path)
            places[str(path)] = (x, y)
    return places


@pytest.mark.slow
def test_the_peak_lies_on_the_planted_cause(tmp_path):
    planted(tmp_path / "images", 200, seed=0)
    config = imgclf.TrainConfig(backbone="small-cnn", image_size=96, epochs=10, augment="none", export="litert")
    run = imgclf.train(imgclf.read(tmp_path / "images"), config, output=tmp_path / "run")
    places = planted(tmp_path / "test", 50, seed=1)
    rows = imgclf.explain(run, list(places))
    assert np.mean([row.target == Path(row.path).parent.name for row in rows]) >= 0.98
    near = [
        all(start - 8 <= at < start + 28 for at, start in zip(row.peak, places[row.path], strict=True)) for row in rows
    ]  # half a place of the map, which is 16 px wide, on either side of the square
    assert np.mean(near) >= 0.95


def test_methods_of_classical_models_are_refused(trained_run, files):
    for method in ("features", "neighbors"):
        with pytest.raises(UsageError, match=f"--method {method}: expected a run of a classical model"):
            imgclf.explain(trained_run, files[:1], ExplainConfig(method=method))
