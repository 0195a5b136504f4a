import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from imgclf.exporting import artifacts, litert, parity, savedmodel
from imgclf.prediction import artifact
from imgclf.prediction.litert import LiteRTRuntime

import keras  # isort: skip  (imgclf chooses its backend first)


def keras_says(run, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return parity.reference(artifacts.load_model(run, artifact.read(run.path)), pixels)


@pytest.mark.parametrize("n", [1, 5])
def test_the_file_takes_any_batch_size_and_names_its_outputs(exported, n):
    run, _ = exported
    interpreter = Interpreter(str(run.litert))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["pixels"], "outputs": ["embedding", "feature_map", "probabilities"]}
    }
    [pixels_in] = interpreter.get_input_details()
    assert pixels_in["dtype"] == np.float32
    pixels = np.random.default_rng(0).uniform(0, 255, (n, 32, 32, 3)).astype(np.float32)
    interpreter.resize_tensor_input(pixels_in["index"], pixels.shape)
    found = interpreter.get_signature_runner("serving_default")(pixels=pixels)
    for name, expected in keras_says(run, pixels).items():
        assert found[name].shape == expected.shape
        assert np.allclose(found[name], expected, atol=1e-4)


def test_a_head_without_pooling_has_no_feature_map(flat_run):
    [row] = artifacts.write(flat_run, ["litert"])
    assert row["max_difference"] < 1e-4
    assert artifact.read(flat_run.path).outputs == ("probabilities", "embedding")
    runner = Interpreter(str(flat_run.litert)).get_signature_runner("serving_default")
    assert set(runner.get_output_details()) == {"probabilities", "embedding"}


def test_the_weights_of_a_layer_with_one_output_are_read(tmp_path):
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = keras.layers.Conv2D(5, 3)(pixels)
    embedding = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(1)
    values = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(3.0))(logits(embedding))
    model = keras.Model(pixels, {"values": values, "embedding": embedding})
    (tmp_path / "model.tflite").write_bytes(litert.convert(savedmodel.trace(model)))
    found = LiteRTRuntime(tmp_path / "model.tflite").constants((1, 5))
    assert any(np.allclose(each, logits.get_weights()[0].T) for each in found)
