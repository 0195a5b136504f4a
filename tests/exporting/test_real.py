import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf import prediction
from imgclf.data import content, images
from imgclf.exporting import artifacts, parity, savedmodel
from imgclf.prediction import artifact

FOREIGN = """
import sys
sys.modules["imgclf"] = None
import tensorflow as tf

serve = tf.saved_model.load(sys.argv[1]).signatures["serve_bytes"]
for line in sys.stdin:
    answer = serve(images=tf.constant([open(line.rstrip("\\n"), "rb").read()]))
    print(answer["labels"][0, int(tf.argmax(answer["probabilities"][0]))].numpy().decode())
"""


@pytest.fixture(scope="module")
def dataset(real_data):
    return imgclf.read(real_data / "ants-bees")


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    config = imgclf.TrainConfig(backbone="small-cnn", method="scratch", image_size=64, epochs=12)
    return imgclf.train(dataset, config, output=tmp_path_factory.mktemp("real") / "run")


@pytest.mark.slow
@pytest.mark.real
def test_a_trained_network_answers_the_same_everywhere_on_100_photographs(dataset, run):
    files = dataset.paths[:: len(dataset) // 100][:100]
    encoded = [content.read(path) for path in files]
    pixels = np.stack([images.load(data, 64) for data in encoded]).astype(np.float32)

    keras_says = parity.reference(artifacts.load_model(run, artifact.read(run.path)), pixels)["probabilities"]
    assert len(keras_says) == 100
    assert keras_says.min() < 0.1
    assert keras_says.max() > 0.9
    assert ((keras_says > 0.1) & (keras_says < 0.9)).any(axis=1).sum() > 10

    for path in (run.litert, run.saved_model):
        assert np.abs(prediction.load(path).probabilities(pixels) - keras_says).max() <= 1e-4
    from_bytes = savedmodel.predict_bytes(run.saved_model, encoded)
    assert np.abs(from_bytes - keras_says).max() <= 1e-4
    assert np.array_equal(from_bytes.argmax(1), keras_says.argmax(1))


@pytest.mark.slow
@pytest.mark.real
def test_a_script_that_knows_nothing_of_imgclf_names_200_photographs_as_imgclf_does(dataset, run, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    files = []
    for number, path in enumerate(dataset.paths[:200]):
        if number % 4 == 0:
            files.append(path)
            continue
        with Image.open(path) as photograph:
            rgb = photograph.convert("RGB")
        files.append(tmp_path / f"{number}.jpg")
        if number % 4 == 1:
            rgb.save(files[-1], exif=turned)
        else:
            rgb.convert("L" if number % 4 == 2 else "CMYK").save(files[-1])
    ours = prediction.load(run.path).predict(files)
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN, str(run.saved_model)],
        input="".join(f"{path}\n" for path in files),
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    theirs = done.stdout.splitlines()
    assert len(theirs) == len(ours) == 200
    assert sum(answer.rejected for answer in ours) < 40  # grey, turned or CMYK, some look strange
    assert theirs == [answer.top(1)[0][0] for answer in ours]
