import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from imgclf import runs
from imgclf.evaluation import outputs
from imgclf.evaluation.intervals import wilson
from imgclf.prediction import artifact
from imgclf.runs import Run

NAMES = ["[red]ant[/red]", "<b>bee</b>"]
CHANCES = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55], [0.1, 0.9]], np.float32)
LABELS = np.array([0, 0, 1, 1, 1])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = runs.create(tmp_path / "run")
    made.config.write_text('{"data": "images", "config": {}}')
    outputs.write_predictions(made.validation, [f"{i}.png" for i in range(5)], LABELS, CHANCES, NAMES)
    artifact.write(made.path, artifact.Artifact(tuple(NAMES), 16, "squash", "small", ("probabilities",), "", {}))
    return made


def test_rules_are_fitted_stored_and_shown(imgclf, run, capsys):
    options = ("--reject-below", "auto", "--precision", "0.9", "--coverage", "0.5", "--json")
    assert imgclf("calibrate", run.path, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    facts = artifact.read(run.path)
    assert (
        printed["rules"]["reject_below"] == facts.decision.reject_below == pytest.approx(0.8)
    )  # from there on all are right
    # of 6 ranks half: the third lowest of 0.4, 0.55, 0.8, 0.9, 0.9, the probabilities of the true classes
    assert printed["rules"]["set_from"] == facts.decision.set_from == pytest.approx(0.8)
    assert printed["validation"]["precision"] == 1
    assert imgclf("calibrate", run.path, "--positive", NAMES[0], "--threshold", "recall=1") == 0
    printed = capsys.readouterr()
    shown = printed.out
    assert NAMES[0] in shown and "0.8" in shown and "positive recall" in shown
    assert f"({NAMES[0]} 2, {NAMES[1]} 3)" in " ".join(shown.split())
    low, high = wilson(2, 2)
    assert f"{low:.3f} to {high:.3f}" in shown  # of the recall of 2 of 2 positive images
    assert "rests on 2 positive and 3 negative validation images" in printed.err
    assert imgclf("calibrate", run.path, "--reject-below", "none", "--coverage", "none", "--threshold", "none") == 0
    assert artifact.read(run.path).decision.reject_below is None
    assert artifact.read(run.path).decision == artifact.NO_RULES


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--reject-below", "2"), 2, "--reject-below"),
        (("--coverage", "1"), 2, "--coverage"),
        (("--threshold", "beauty=1", "--positive", NAMES[0]), 2, "--threshold"),
        (("--threshold", "recall=1", "--positive", "cat"), 2, "expected two classes and one of them as --positive"),
        (("--positive", NAMES[0]), 2, "--positive"),
        (("--reject-below", "auto", "--precision", "0.999"), 0, ""),
    ],
)
def test_what_cannot_be_asked_for_is_an_error(imgclf, run, capsys, options, code, message):
    before = run.artifact.read_bytes()
    assert imgclf("calibrate", run.path, *options) == code
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert (run.artifact.read_bytes() == before) is bool(code)


def test_a_precision_that_no_confidence_reaches_ends_with_3(imgclf, run, capsys):
    wrong = np.array([1, 1, 0, 0, 0])
    outputs.write_predictions(run.validation, [f"{i}.png" for i in range(5)], wrong, CHANCES, NAMES)
    assert imgclf("calibrate", run.path, "--reject-below", "auto") == 3
    assert "the highest is" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "path,label,predicted,confidence,p_a,p_b\nx,a,a,nan,nan,0\n"])
def test_validation_answers_that_are_gone_or_damaged_end_with_4(imgclf, run, capsys, content):
    run.validation.unlink()
    if content is not None:
        run.validation.write_text(content)
    assert imgclf("calibrate", run.path, "--coverage", "0.9") == 4
    printed = capsys.readouterr().err
    assert "validation.csv" in printed and "Traceback" not in printed


def test_what_is_calibrated_is_applied_by_predict_and_evaluate(imgclf, trained_run, tmp_path, capsys):
    made = Run(shutil.copytree(trained_run.path, tmp_path / "run"))
    if not made.validation.is_file():  # of so few images none
        paths, labels, probabilities, names, *_ = outputs.read_predictions(made.predictions)
        outputs.write_predictions(made.validation, paths * 2, np.tile(labels, 2), np.tile(probabilities, (2, 1)), names)
    assert imgclf("calibrate", made.path, "--reject-below", "0.999", "--coverage", "0.99") == 0
    capsys.readouterr()
    assert imgclf("evaluate", made.path, "-o", tmp_path / "scores", "--json") == 0
    decision = json.loads(capsys.readouterr().out)["decision"]
    assert decision["coverage"] == 0.99 and decision["set_size"] >= 1
    image = next((trained_run.path.parent / "images").rglob("*.png"))
    assert imgclf("predict", made.path, image, "--format", "jsonl") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["set"]) >= 1
    assert answer["label"] is None if answer["confidence"] < 0.999 else answer["label"]
