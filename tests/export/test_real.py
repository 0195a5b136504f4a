import numpy as np
import pytest

import imgclf
from imgclf import prediction
from imgclf.data import images
from imgclf.export import artifacts, parity, savedmodel
from imgclf.prediction import artifact


@pytest.mark.slow
@pytest.mark.real
def test_a_trained_network_answers_the_same_everywhere_on_100_photographs(real_data, tmp_path):
    dataset = imgclf.read(real_data / "ants-bees")
    config = imgclf.TrainConfig(backbone="small-cnn", method="scratch", image_size=64, epochs=12)
    run = imgclf.train(dataset, config, output=tmp_path / "run")
    files = dataset.paths[:: len(dataset) // 100][:100]
    encoded = [images.read_bytes(path) for path in files]
    pixels = np.stack([images.load(data, 64) for data in encoded]).astype(np.float32)

    keras_says = parity.reference(artifacts.load_model(run, artifact.read(run.path)), pixels)["probabilities"]
    assert len(keras_says) == 100
    assert keras_says.min() < 0.1
    assert keras_says.max() > 0.9
    assert ((keras_says > 0.1) & (keras_says < 0.9)).any(axis=1).sum() > 10

    for path in (run.litert, run.saved_model):
        assert np.abs(prediction.load(path).probabilities(pixels) - keras_says).max() <= 1e-4
    from_bytes = savedmodel.predict_bytes(run.saved_model, encoded)
    assert np.abs(from_bytes - keras_says).max() <= 0.02
    clear = np.abs(keras_says[:, 0] - keras_says[:, 1]) >= parity.TIE
    assert (from_bytes.argmax(1) == keras_says.argmax(1))[clear].all()
