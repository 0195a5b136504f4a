import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import at_temperature
from PIL import Image

import imgclf
from imgclf.evaluation import decisions
from imgclf.evaluation.outputs import read_predictions
from imgclf.prediction import artifact
from imgclf.prediction.decision import Outliers
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig
from imgclf.training import calibration_fit

FRESH = """
import json, sys
import imgclf
found = imgclf.load(sys.argv[1]).predict(sys.argv[2:])
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(json.dumps([[p.probabilities.tolist(), p.label, p.reason, p.outlier_score, p.classes] for p in found]))
"""


def test_the_threshold_for_strange_images_by_hand():
    scores = np.arange(1, 200) / 100  # 199 of them
    limit, share = calibration_fit.threshold_for(scores, 0.01)
    assert (limit, share) == (1.98, 0.01)  # 198 of 200 lie at or below it
    assert calibration_fit.threshold_for(scores[:19], 0.01) == (scores[18], 1 / 20)


def test_training_images_tell_a_threshold_that_few_validation_images_cannot():
    rng = np.random.default_rng(0)
    alarms = {"validation": [], "both": []}
    for _ in range(100):
        train, validation, fresh = (rng.normal(size=(n, 20)) + 3 for n in (120, 11, 400))
        outliers = Outliers.fit(train)
        like, own = outliers.scores(validation), outliers.own_scores()
        assert own.shape == (120,)
        for name, scores in (("validation", like), ("both", np.concatenate([like, own]))):
            threshold, _ = calibration_fit.threshold_for(scores, 0.01)
            alarms[name].append(np.mean(outliers.scores(fresh) > threshold))
    assert np.mean(alarms["both"]) == pytest.approx(0.01, abs=0.004)
    assert np.mean(alarms["validation"]) == pytest.approx(1 / 12, abs=0.03)


def test_a_training_image_is_no_neighbor_of_its_own():
    features = np.eye(8, dtype=np.float32)  # all at right angles: every distance is the square root of 2
    assert Outliers.fit(features).own_scores() == pytest.approx(np.full(8, 2**0.5))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a validation part that is large enough; its answers are rejected below a confidence."""
    from tests.conftest import fill

    folder = tmp_path_factory.mktemp("calibrated")
    fill(folder / "images", ("ant", "bee", "wasp"), count=40, size_px=24, suffix=".png", seed=1)
    config = imgclf.TrainConfig(backbone="small-cnn", image_size=16, epochs=10, batch_size=16, export="litert")
    made = imgclf.train(imgclf.read(folder / "images"), config, output=folder / "run")
    decisions.calibrate(made, CalibrateConfig(reject_below="0.6", coverage="0.9"))
    return made


@pytest.mark.slow
def test_the_temperature_is_in_the_exported_graph_and_in_the_description(run):
    facts = artifact.read(run.path)
    validation = read_predictions(run.validation)
    paths = [run.path.parent / "images" / path for path in validation.paths]
    found = np.stack([p.probabilities for p in imgclf.load(run.litert).predict(paths)])
    assert found == pytest.approx(validation.probabilities, abs=1e-4)
    assert facts.temperature != pytest.approx(1, abs=0.01)
    without = at_temperature(found, 1 / facts.temperature)  # as if it were 1
    assert np.abs(without - found).max() > 0.005
    losses = [-np.log(p[np.arange(len(p)), validation.labels]).mean() for p in (found, without)]
    assert losses[0] <= losses[1]


@pytest.mark.slow
def test_a_fresh_process_with_the_listed_files_alone_answers_as_evaluate_does(run, tmp_path):
    (tmp_path / "shipped").mkdir()
    facts = artifact.read(run.path)
    names = ["model.tflite", "outliers.npz"]
    for name in names:
        shutil.copy(run.path / name, tmp_path / "shipped" / name)
    artifact.write(tmp_path / "shipped", replace(facts, files={name: facts.files[name] for name in names}))
    test = read_predictions(run.predictions)
    paths = [str(run.path.parent / "images" / path) for path in test.paths]
    white = tmp_path / "white.png"
    Image.new("RGB", (24, 24), "white").save(white)
    command = [sys.executable, "-c", FRESH, str(tmp_path / "shipped"), *paths, str(white)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert np.array([row[0] for row in found[:-1]]) == pytest.approx(test.probabilities, abs=1e-4)
    expected = imgclf.load(run.path).predict([*paths, str(white)])
    assert [row[1] for row in found] == [p.label for p in expected]
    assert [row[3] for row in found] == pytest.approx([p.outlier_score for p in expected])
    assert [tuple(row[4]) for row in found] == [p.classes for p in expected]
    confidences = test.probabilities.max(axis=1)
    unsure = [confidence < 0.6 for confidence in confidences if abs(confidence - 0.6) > 1e-3]
    said = [row[2] == "unsure" for row, c in zip(found, confidences, strict=False) if abs(c - 0.6) > 1e-3]
    assert all(u or not s for u, s in zip(unsure, said, strict=True))
    assert found[-1][3] > np.median([row[3] for row in found[:-1]])
