"""What is shipped is enough: a fresh process with the exported files alone answers as `imgclf evaluate` does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import at_temperature

import imgclf
from imgclf.data import run_data
from imgclf.data.dataset import TEST
from imgclf.evaluation import calibration, decisions
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.outputs import read_predictions
from imgclf.prediction import artifact
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig, EvaluateConfig

SHIPPED = ("model.tflite", "artifact.json", "outliers.npz")

FRESH = """
import json, sys
import imgclf
found = imgclf.load(".").predict(sys.argv[1:])
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(json.dumps([[p.probabilities.tolist(), p.label, p.reason, p.outlier_score, p.classes] for p in found]))
"""

PROBE = imgclf.TrainConfig(backbone="efficientnet-lite0", method="probe", export="litert", offline=True)

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module")
def run(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe of ants and bees, with every rule for answers."""
    folder = tmp_path_factory.mktemp("shipped")
    made = imgclf.train(imgclf.read(real_data / "ants-bees"), PROBE, output=folder / "run")
    decisions.calibrate(made, CalibrateConfig(reject_below="0.9", coverage="0.9"))
    return made


def ask_afresh(run: Run, folder: Path, images: list[Path]) -> list[Any]:
    """What a new process says, in a folder that holds nothing but the three files."""
    folder.mkdir()
    for name in SHIPPED:
        shutil.copy(run.path / name, folder / name)
    command = [sys.executable, "-c", FRESH, *map(str, images)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_a_fresh_process_reproduces_what_evaluate_says_of_50_photographs(run, real_data, tmp_path):
    part = run_data.read(run).part(TEST)
    chosen = np.random.default_rng(0).choice(len(part), 50, replace=False)
    for row in chosen.tolist():
        place = tmp_path / "photographs" / part.samples[row].label
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(part.paths[row], place / f"{row}.jpg")
    scored = evaluate(run, imgclf.read(tmp_path / "photographs"), EvaluateConfig(), output=tmp_path / "scores")
    expected, decision = read_predictions(tmp_path / "scores" / "predictions.csv"), scored.metrics["decision"]
    images = [tmp_path / "photographs" / path for path in expected.paths]
    found = ask_afresh(run, tmp_path / "alone", images)
    assert len(found) == scored.metrics["n"] == 50

    assert np.array([row[0] for row in found]) == pytest.approx(expected.probabilities, abs=1e-5)
    reasons = [row[2] for row in found]
    assert decision["outlier"] == pytest.approx(reasons.count("outlier") / 50)
    assert decision["unsure"] == pytest.approx(reasons.count("unsure") / 50)
    assert decision["unsure"] > 0 and decision["answered"] > 0.5
    assert decision["answered"] == pytest.approx(np.mean([row[1] is not None for row in found]))
    assert decision["set_size"] == pytest.approx(np.mean([len(row[4]) for row in found]))
    truth = [expected.class_names[label] for label in expected.labels]
    assert decision["set_coverage"] == pytest.approx(
        np.mean([t in row[4] for t, row in zip(truth, found, strict=True)])
    )
    right = [row[1] == t for t, row in zip(truth, found, strict=True) if row[1]]
    assert decision["precision"] == pytest.approx(np.mean(right))
    rules = artifact.read(run.path).decision
    scores = [answer.outlier_score for answer in imgclf.load(run.path).predict(images)]
    assert [row[3] for row in found] == pytest.approx(scores, abs=1e-5)
    assert [row[2] == "outlier" for row in found] == [score > rules.outlier_above for score in scores]


def test_most_of_20_foreign_photographs_are_unknown_to_a_model_of_hand_signs(real_data, tmp_path):
    run = imgclf.train(imgclf.read(real_data / "sign-digits"), PROBE, output=tmp_path / "signs", with_report=False)
    foreign = sorted((real_data / "ants-bees").rglob("*.jpg"), key=lambda path: path.name)
    chosen = [foreign[i] for i in np.random.default_rng(0).choice(len(foreign), 20, replace=False)]
    found = ask_afresh(run, tmp_path / "alone", chosen)
    assert sum(row[1] is None for row in found) > 10
    assert sum(row[2] == "outlier" for row in found) > 10


def test_with_a_temperature_of_1_the_shipped_probabilities_are_others(run, real_data, tmp_path, monkeypatch):
    temperature = artifact.read(run.path).temperature
    assert abs(temperature - 1) > 0.02
    monkeypatch.setattr(calibration, "fit_temperature", lambda labels, logits: 1.0)
    plain = imgclf.train(imgclf.read(real_data / "ants-bees"), PROBE, output=tmp_path / "plain")
    images = run_data.read(run).part(TEST).paths[:20]
    found, without = (
        np.array([row[0] for row in ask_afresh(made, tmp_path / f"{made.path.name} alone", images)])
        for made in (run, plain)
    )
    assert np.abs(found - without).max() > 1e-3
    assert at_temperature(without, temperature) == pytest.approx(found, abs=1e-4)
