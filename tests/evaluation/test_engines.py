"""One definition of a prediction: evaluate, predict and every table say the same under every engine."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

import imgclf
from imgclf import prediction
from imgclf.data import images
from imgclf.evaluation import decisions, outputs
from imgclf.evaluation.evaluate import evaluate
from imgclf.exporting import artifacts
from imgclf.prediction import artifact, decision
from imgclf.prediction import outputs as tables
from imgclf.prediction.decision import Decision, Outliers
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig
from tests.conftest import fill

CLASSES = ("disc", "two discs")
POSITIVE = "two discs"

SCRIPTS = dict(
    re.findall(
        r"<!-- script: (\w+) -->\n```python\n(.*?)^```$",
        (Path(__file__).parents[2] / "docs" / "artifacts.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
SLOW = ("onnx", "openvino")
ENGINES = ["litert", "savedmodel", "keras", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(scope="module")
def calibrated(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The trained run with a threshold for half the recall, a limit of confidence, and one for strange images."""
    run = Run(Path(shutil.copytree(trained_run.path, tmp_path_factory.mktemp("calibrated") / "run")))
    data = imgclf.read(trained_run.path.parent / "images")
    classifier = prediction.load(run.litert)
    pixels = np.stack([images.load(path, 32) for path in data.paths]).astype(np.float32)
    found = classifier.outputs(pixels)
    paths = [sample.path for sample in data.samples]
    outputs.write_predictions(run.validation, paths, data.labels, found["probabilities"], data.class_names)
    kept = Outliers.fit(found["embedding"])
    (run.path / decision.FILE).write_bytes(kept.to_bytes())
    facts = artifact.read(run.path)
    digest, size = artifact.hash_tree(run.path / decision.FILE)
    files = {**facts.files, decision.FILE: artifact.File(decision.FORMAT, digest, size)}
    limit = np.quantile(kept.scores(found["embedding"]), 0.95)
    rules = replace(facts.decision, outlier_above=float(limit), false_alarms=0.05)
    artifact.write(run.path, replace(facts, files=files, decision=rules))
    decisions.calibrate(run, CalibrateConfig(positive=POSITIVE, threshold="recall=0.5", reject_below="0.6"))
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the two classes that no model has seen, and among each some that show nothing of the kind."""
    folder = fill(tmp_path_factory.mktemp("new") / "photos", CLASSES, count=15, size_px=40, suffix=".png", seed=5)
    for place, name in enumerate(CLASSES):
        for number, color in enumerate(["white", "black", "yellow"]):
            Image.new("RGB", (40, 40), color).save(folder / name / f"plain-{place}-{number}.png")
    return folder


@pytest.fixture(scope="module")
def exported(calibrated: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with the other formats, too."""
    run = Run(Path(shutil.copytree(calibrated.path, tmp_path_factory.mktemp("exported") / "run")))
    artifacts.write(run, (*SLOW, "keras"))
    return run


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluate_and_predict_say_the_same(request, calibrated, photos, tmp_path, engine):
    whole = request.getfixturevalue("exported") if engine in SLOW else calibrated
    run = Run(Path(shutil.copytree(whole.path, tmp_path / "run")))
    facts = artifact.read(run.path)
    kept = {name: file for name, file in facts.files.items() if file.format in (engine, decision.FORMAT)}
    artifact.write(run.path, replace(facts, files=kept))  # so that evaluate has no other engine to take
    scores = evaluate(run, imgclf.read(photos), output=tmp_path / "scores").metrics

    data = imgclf.read(photos)
    answers = prediction.load(run.path, engine=engine).predict(data.paths)
    truth = [sample.label for sample in data.samples]
    said = [answer.label or "" for answer in answers]
    recalls = sk.recall_score(truth, said, labels=CLASSES, average=None)
    assert [scores["per_class"][name]["recall"] for name in CLASSES] == pytest.approx(recalls)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    assert scores["decision"]["positive_recall"] == pytest.approx(recalls[CLASSES.index(POSITIVE)])
    bare = sk.recall_score(truth, [answer.argmax for answer in answers], labels=CLASSES, average=None)
    assert [scores["argmax"]["per_class"][name]["recall"] for name in CLASSES] == pytest.approx(bare)
    assert abs(bare[1] - recalls[1]) > 0.1  # the rules matter here

    reasons = [answer.reason for answer in answers]
    assert scores["decision"]["outlier"] == pytest.approx(reasons.count("outlier") / len(reasons))
    assert scores["decision"]["unsure"] == pytest.approx(reasons.count("unsure") / len(reasons))
    by_litert = prediction.load(calibrated.litert).predict(data.paths)
    assert said == [answer.label or "" for answer in by_litert]
    assert reasons == [answer.reason for answer in by_litert]
    assert 0 < reasons.count("outlier") < len(reasons)

    with (tmp_path / "scores" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = list(csv.DictReader("".join(tables.to_csv(answers, 1)).splitlines()))
    lines = [json.loads(line) for line in tables.to_jsonl(answers, 1)]
    for key in ("predicted", "rejected", "argmax"):
        assert [row[key] for row in rows] == [row[key] for row in table]
    assert [row["predicted"] for row in rows] == said == [line["label"] or "" for line in lines]
    assert [row["rejected"] == "true" for row in rows] == [line["rejected"] for line in lines]
    assert [row["argmax"] for row in rows] == [line["top"][0]["label"] for line in lines]


def test_a_threshold_for_strange_images_without_the_means_to_apply_it_is_an_error(calibrated, tmp_path):
    run = Run(Path(shutil.copytree(calibrated.path, tmp_path / "run")))
    facts = artifact.read(run.path)
    artifact.write(run.path, replace(facts, files={"model.tflite": facts.files["model.tflite"]}))
    with pytest.raises(imgclf.errors.ArtifactError, match=r"features of training images.*--outliers none"):
        prediction.load(run.path)
    decisions.calibrate(run, CalibrateConfig(outliers="none"))
    assert prediction.load(run.path).rules.outlier_above is None


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_without_imgclf_applies_the_rules_for_probabilities(exported, photos, tmp_path, name):
    run = Run(Path(shutil.copytree(exported.path, tmp_path / "run")))
    paths = sorted(photos.rglob("*.png"))
    facts = replace(artifact.read(run.path), decision=Decision())
    artifact.write(run.path, facts)
    chances = np.sort([dict(answer.top(2))[POSITIVE] for answer in prediction.load(run.path).predict(paths)])
    above = chances[
        chances > 0.5
    ]  # the threshold lies above two of these, and the less probable class of one is enough
    rules = Decision(positive=POSITIVE, threshold=float(above[1:3].mean()), reject_below=1 - float(above[:2].mean()))
    artifact.write(run.path, replace(facts, decision=rules))
    answers = prediction.load(run.path).predict(paths)
    flipped = next(answer for answer in answers if answer.label not in (answer.argmax, None))
    rejected = next(answer for answer in answers if answer.rejected)
    for answer in (flipped, rejected, next(answer for answer in answers if answer.label == POSITIVE)):
        command = [sys.executable, "-c", f"import sys; sys.modules['imgclf'] = None\n{SCRIPTS[name]}", str(run.path)]
        done = subprocess.run(
            [*command, str(answer.path)], capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        )
        assert done.returncode == 0, done.stderr
        label, probability = done.stdout.rsplit(maxsplit=1)
        assert label == (answer.label or "unknown")
        assert float(probability) == pytest.approx(answer.confidence, abs=1e-4)
