"""Conversion to int8: rounding that keeps sums, corrections of what it shifts, and what is refused."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import imgclf
from imgclf import TrainConfig
from imgclf.errors import ArtifactError, ExportError
from imgclf.exporting import artifacts, int8, litert, parity, quality
from imgclf.prediction import artifact
from imgclf.runs import Run


def test_a_window_keeps_its_sum_where_plain_rounding_would_lose_it() -> None:
    window = np.array([127.0, 0.4, 0.4, 0.4, -0.3, 0.2]).reshape(2, 3, 1, 1, 1)  # the step is 1; the sum 128.1
    found = int8.rounded(window).ravel()
    assert found.sum() == pytest.approx(128)  # plain rounding would give 127
    assert sorted(found) == [0, 0, 0, 0, 1, 127] and found[0] == 127 and found[1:4].sum() == 1


def test_rounding_stays_on_the_grid_of_each_output_and_near_the_kernel() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 2, 4)) ** 3
    found = int8.rounded(kernel)
    step = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-9)
    np.testing.assert_allclose(np.abs(found).max(axis=(0, 1, 2)), 127 * step)
    assert (np.abs(found - kernel) <= step * (1 + 1e-9)).all()
    assert (np.abs((found - kernel).sum(axis=(0, 1))) <= step / 2 * (1 + 1e-9)).all()
    one = np.random.default_rng(1).normal(size=(1, 1, 8, 1, 4))
    largest = np.abs(one).max(axis=(0, 1, 2)) / 127
    np.testing.assert_allclose(int8.rounded(one), np.round(one / largest) * largest)


def small() -> keras.Model:
    """A regular, a depthwise, a grouped and a plain convolution, with and without batch normalization."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="first")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="first_norm")(x))
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="depthwise_norm", scale=False)(x))
    x = layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = layers.Conv2D(6, 1, name="plain")(layers.ReLU()(x))
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights(
            [
                rng.uniform(0.1, 1, w.shape) if "variance" in v.path else rng.normal(0, 1, w.shape)
                for v, w in zip(layer.weights, layer.get_weights(), strict=True)
            ]
        )
    return model


def with_rounded_kernels(model: keras.Model) -> keras.Model:
    """The model as a converter rounds it: each kernel times its batch normalization, to 255 steps for each output."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if not isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            continue
        after = next((other for other in copy.layers if other.input is layer.output), None)
        kernel = layer.get_weights()[0]
        is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
        gain = np.ones(kernel.shape[2 if is_depthwise else 3])
        if isinstance(after, layers.BatchNormalization):
            gain = 1 / np.sqrt(np.asarray(after.moving_variance) + after.epsilon)
            gain *= np.asarray(after.gamma) if after.scale else 1
        gain = gain[:, None] if is_depthwise else gain
        folded = kernel * gain
        step = np.abs(folded).max(axis=(0, 1) if is_depthwise else (0, 1, 2)) / 127
        layer.set_weights([np.round(folded / step) * step / gain, *layer.get_weights()[1:]])
    return copy


def test_compensated_weights_keep_the_means_of_the_outputs_and_come_back() -> None:
    model = small()
    pixels = np.random.default_rng(1).uniform(0, 4, (12, 16, 16, 3)).astype(np.float32)
    before, expected = model.get_weights(), model(pixels).numpy().mean(axis=(0, 1, 2))
    plain = with_rounded_kernels(model)(pixels).numpy().mean(axis=(0, 1, 2))
    with int8.compensated(model, pixels):
        corrected = with_rounded_kernels(model)(pixels).numpy().mean(axis=(0, 1, 2))
    assert np.abs(corrected - expected).mean() < np.abs(plain - expected).mean() / 2
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_constant_shift_of_the_embedding_is_taken_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that adds 0.5 to one channel of the map: the second conversion is given the opposite."""
    facts = artifact.read(run.path)
    model = artifacts.load_model(run, facts)
    pixels = quality.calibration(run, facts)
    expected = parity.reference(model, pixels)
    wrong = expected["embedding"] + np.eye(12, dtype=np.float32)[3] / 2
    graphs = []
    monkeypatch.setattr(int8, "embeddings", lambda *_: wrong)
    monkeypatch.setattr(litert, "convert", lambda graph, *_, **__: graphs.append(graph) or b"")
    int8.convert(model, facts, pixels)
    first, second = ({name: value.numpy() for name, value in graph(pixels).items()} for graph in graphs)
    difference = second["feature_map"] - first["feature_map"]
    np.testing.assert_allclose(difference, np.broadcast_to(-np.eye(12)[3] / 2, difference.shape), atol=1e-5)
    np.testing.assert_allclose(second["embedding"], second["feature_map"].mean(axis=(1, 2)), atol=1e-5)
    kernel, bias = model.get_layer("logits").get_weights()
    powers = np.exp(second["embedding"] @ kernel + bias)
    np.testing.assert_allclose(second["probabilities"], powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_refused_format_is_reported_after_the_others_were_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise ArtifactError("int8: differs by 9")

    monkeypatch.setattr(int8, "convert", refuse)
    with pytest.raises(ExportError, match="int8: differs by 9 Use --quantize float16") as raised:
        artifacts.write(run, ["litert", "litert-int8", "keras"])
    assert [row["format"] for row in raised.value.rows] == ["litert", "keras"]
    assert set(artifact.read(run.path).files) == {"model.keras", "model.tflite", "classifier.keras"}
    assert raised.value.exit_code == 4


def with_attention(run: Run) -> Run:
    """The run with a network that has attention."""
    pixels = keras.Input((32, 32, 3), name="pixels")
    x = layers.Conv2D(8, 8, 8)(pixels)
    x = layers.Reshape((16, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.GlobalAveragePooling1D(name="embedding")(x)
    x = layers.Softmax(name="probabilities")(layers.Dense(3, name="logits")(x))
    keras.Model(pixels, x).save(run.model)
    facts = artifact.read(run.path)
    file = artifact.File("keras", *artifact.hash_tree(run.model))
    artifact.write(run.path, artifact.Artifact(**{**vars(facts), "files": {run.model.name: file}}))
    return run


def test_int8_of_a_network_with_attention_is_refused_before_any_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "load_model", None)
    with pytest.raises(ExportError, match=r"model-int8\.tflite: not exported, since int8 .* attention.*float16"):
        artifacts.write(with_attention(run), ["litert-int8"])


def test_all_leaves_int8_out_where_the_network_has_attention(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert "litert-int8" in artifacts.everything(run)
    assert "litert-int8" not in artifacts.everything(with_attention(run))
    assert "litert-int8: left out" in caplog.text


@pytest.mark.slow
@pytest.mark.real
def test_int8_of_the_default_backbone_keeps_96_of_100_labels(real_data: Path, tmp_path: Path) -> None:
    config = TrainConfig(method="probe", image_size=224, export="none", seed=0)
    run = imgclf.train(imgclf.read(real_data / "sign-digits", config), config, output=tmp_path / "run")
    [row] = artifacts.write(run, ["litert-int8"])
    assert row["quality"]["images"] > 300
    assert row["quality"]["label_agreement"] >= 0.96
    assert row["quality"]["images_per_s"] > row["quality"]["images_per_s_before"]
