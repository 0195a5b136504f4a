"""Every format of one small run, read back by its own library and compared with what Keras says."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgclf import environment, prediction, storage
from imgclf.data import images, run_data
from imgclf.errors import ArtifactError, MissingError, RunError
from imgclf.exporting import artifacts, parity, quality
from imgclf.prediction import artifact
from imgclf.runs import Run

LABELS = ["ants", "bées", "[moth]"]
NEW = ("litert-float16", "litert-int8", "onnx", "openvino", "keras")
DIFFERENCES = {"float32": 1e-4, "float16": 0.01, "int8": 0.1}


@pytest.fixture(scope="session")
def whole(tmp_path_factory, exported):
    """The exported run with all other formats, too, and their report. Read it, never write it."""
    run = Run(shutil.copytree(exported[0].path, tmp_path_factory.mktemp("whole") / "run"))
    return run, {row["file"]: row for row in artifacts.write(run, NEW)}


@pytest.fixture(scope="session")
def pixels(photographs: Path) -> np.ndarray:
    files = sorted(path for path in photographs.rglob("*") if path.is_file())
    return np.stack([images.load(path, 32) for path in files]).astype(np.float32)


@pytest.fixture(scope="session")
def expected(pristine, pixels) -> dict[str, np.ndarray]:
    return parity.reference(artifacts.load_model(pristine, artifact.read(pristine.path)), pixels)


@pytest.mark.parametrize("format", NEW)
def test_a_format_answers_as_keras_does_within_its_tolerance(whole, pixels, expected, format):
    run, rows = whole
    name = artifacts.FILES[format]
    file = artifact.read(run.path).files[name]
    found = prediction.load(run.path / name).outputs(pixels)
    assert set(found) == set(expected)
    difference = np.abs(found["probabilities"] - expected["probabilities"]).max()
    assert difference <= DIFFERENCES[file.precision]
    assert found["probabilities"].sum(1) == pytest.approx(np.ones(len(pixels)), abs=1e-5)
    assert found["embedding"].shape == expected["embedding"].shape
    assert rows[name]["precision"] == file.precision
    assert rows[name]["max_difference"] <= DIFFERENCES[file.precision]
    if file.precision != "float32":
        assert difference > 1e-6  # else nothing was quantised


def test_a_quantised_model_is_smaller_and_its_report_says_what_that_costs(whole):
    run, rows = whole
    full = run.litert.stat().st_size
    for name, precision in (("model-float16.tflite", "float16"), ("model-int8.tflite", "int8")):
        found = rows[name]["quality"]
        assert found["images"] == 12
        assert found["bytes_before"] == full
        assert 0.9 <= found["label_agreement"] <= 1
        assert min(found["images_per_s"], found["images_per_s_before"]) > 0
        assert artifact.read(run.path).files[name].agreement == {precision: found["label_agreement"]}
    assert rows["model.onnx"]["quality"] is None


def test_the_accuracies_of_the_report_are_those_of_the_models(whole, photographs):
    run, rows = whole
    part = run_data.read(run).part("test")
    for name, key in (("model.tflite", "accuracy_before"), ("model-int8.tflite", "accuracy")):
        answers = prediction.load(run.path / name).predict(part.paths)
        right = [answer.label == sample.label for answer, sample in zip(answers, part.samples, strict=True)]
        assert rows["model-int8.tflite"]["quality"][key] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("name", ["model.tflite", "model-int8.tflite", "classifier.keras"])
def test_the_class_names_travel_in_the_file(whole, name):
    with zipfile.ZipFile(whole[0].path / name) as archive:
        assert archive.read("labels.txt").decode().splitlines() == LABELS


def test_the_class_names_travel_with_onnx_and_openvino(whole):
    import onnx

    run, _ = whole
    model = onnx.load(run.path / "model.onnx")
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(facts["labels"]) == LABELS
    assert (facts["image_size"], facts["resize"]) == ("32", "squash")
    assert (run.path / "openvino" / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS


def test_an_int8_model_calculates_in_integers(whole):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(whole[0].path / "model-int8.tflite"))
    kinds = [details["dtype"] for details in interpreter.get_tensor_details()]
    assert kinds.count(np.int8) > 4
    assert {d["dtype"] for d in interpreter.get_input_details() + interpreter.get_output_details()} == {np.float32}


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_precision_chooses_its_file(whole, precision):
    run, _ = whole
    chosen = artifact.read(run.path)
    from imgclf.prediction import loading

    assert loading.choose(run.path, chosen, "auto", precision, None) == f"model-{precision}.tflite"


@pytest.mark.parametrize(("engine", "name"), [("onnx", "model.onnx"), ("keras", "classifier.keras")])
def test_an_engine_chooses_its_file(whole, engine, name):
    from imgclf.prediction import loading

    assert loading.choose(whole[0].path, artifact.read(whole[0].path), engine, "float32", None) == name


def test_auto_takes_what_suits_the_count(whole, monkeypatch):
    from imgclf.prediction import loading

    run, facts = whole[0], artifact.read(whole[0].path)
    for count, name in ((None, "model.tflite"), (1, "model.tflite"), (loading.MANY, "model.onnx")):
        assert loading.choose(run.path, facts, "auto", "float32", count) == name
    has_package = environment.has_package
    monkeypatch.setattr(environment, "has_package", lambda name: name != "onnxruntime" and has_package(name))
    assert loading.choose(run.path, facts, "auto", "float32", 10**6) == "model.tflite"


def test_openvino_answers_in_bfloat16_where_that_is_asked_for(whole, pixels, expected):
    run, _ = whole
    full = prediction.load(run.path / "openvino").probabilities(pixels)
    half = prediction.load(run.path, precision="bf16").probabilities(pixels)
    assert 1e-5 < np.abs(full - half).max() < 0.05
    stated = artifact.read(run.path).files["openvino"].agreement["bf16"]
    assert stated == pytest.approx((half.argmax(1) == expected["probabilities"].argmax(1))[:16].mean(), abs=0.15)


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "openvino"])
def test_several_calls_at_a_time_give_the_answers_of_one(whole, pixels, name, monkeypatch):
    monkeypatch.setattr(environment, "cpu_count", lambda: 3)
    classifier = prediction.load(whole[0].path / name)
    alone = classifier.probabilities(pixels)
    streamed = list(classifier.stream((image.astype(np.uint8) for image in pixels), batch_size=8))
    assert np.abs(alone - np.stack([p.probabilities for p in streamed])).max() < 1e-5


def test_a_run_without_exports_answers_through_keras(pristine, pixels, expected):
    classifier = prediction.load(pristine.path)
    assert np.abs(classifier.probabilities(pixels) - expected["probabilities"]).max() < 1e-5


@pytest.mark.parametrize("format", [NEW[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NEW[1:])])
def test_a_format_that_disagrees_leaves_the_old_file(whole, tmp_path, monkeypatch, format):
    run = Run(shutil.copytree(whole[0].path, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    reference = parity.reference

    def other(model, pixels):
        answers = reference(model, pixels)
        return {**answers, "probabilities": answers["probabilities"][:, ::-1]}

    monkeypatch.setattr(parity, "reference", other)
    with pytest.raises(ArtifactError, match="not kept"):
        artifacts.write(run, [format])
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_int8_that_changes_too_many_labels_is_not_kept(run, monkeypatch):
    monkeypatch.setattr(quality, "AGREEMENT", 1.01)
    with pytest.raises(ArtifactError, match=r"expected at least 101% of the labels of 12 test images.*not kept"):
        artifacts.write(run, ["litert-int8"])
    assert not (run.path / "model-int8.tflite").exists()


def test_int8_without_training_images_is_a_run_error(run, tmp_path):

    storage.write_json(run.config, {**run.read_config(), "data": str(tmp_path / "gone")})
    with pytest.raises(RunError, match="expected training images, on which int8 is calibrated"):
        artifacts.write(run, ["litert-int8"])
    [row] = artifacts.write(run, ["litert-float16"])
    assert row["quality"] is None


@pytest.mark.parametrize(("format", "package"), [("onnx", "tf2onnx"), ("openvino", "openvino")])
def test_without_its_packages_a_format_names_its_extra(pristine, monkeypatch, caplog, format, package):
    has_package = environment.has_package
    monkeypatch.setattr(environment, "has_package", lambda name: name != package and has_package(name))
    with pytest.raises(MissingError, match=rf"imgclf\[{format}\]"):
        artifacts.write(pristine, [format])
    assert artifacts.everything(pristine) == [name for name in artifacts.FILES if name != format]
    assert f"imgclf[{format}]" in caplog.text


def test_a_network_without_a_feature_map_has_no_backbone(flat_run):
    assert artifacts.everything(flat_run) == [name for name in artifacts.FILES if name != "backbone"]
    with pytest.raises(RunError, match="found one that ends in tokens or a vector"):
        artifacts.write(flat_run, ["backbone"])


def test_a_keras_file_that_carries_code_is_refused(run):
    import keras

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Lambda(lambda pixels: pixels / 255)(inputs)
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, x).save(run.model)
    facts = artifact.read(run.path)
    file = artifact.File("keras", *artifact.hash_tree(run.model))
    artifact.write(run.path, replace(facts, files={run.model.name: file}))
    with pytest.raises(ArtifactError, match="contains code"):
        prediction.load(run.path)
    with pytest.raises(RunError, match=r"model\.keras"):
        artifacts.write(run, ["litert"])


SCRIPTS = re.findall(
    r"<!-- script: (\w+) -->\n```python\n(.*?)^```$",
    (Path(__file__).parents[2] / "docs" / "artifacts.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def test_every_format_for_inference_has_a_script_of_about_ten_lines():
    assert sorted(name for name, _ in SCRIPTS) == ["keras", "litert", "onnx", "openvino", "savedmodel"]
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 14 for _, code in SCRIPTS)
    assert not any("imgclf" in code for _, code in SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
def test_a_script_of_the_docs_answers_as_imgclf_does(whole, photographs, name, code):
    run, _ = whole
    for path in sorted(photographs.rglob("*.jpg"))[:2]:  # one of them is turned by EXIF
        expected = prediction.load(run.path).predict([path])[0]
        blocked = "import sys; sys.modules['imgclf'] = None\n"
        command = [sys.executable, "-c", blocked + code, str(run.path), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
        assert done.returncode == 0, done.stderr
        label, probability = done.stdout.split()
        assert label == expected.label
        assert float(probability) == pytest.approx(expected.confidence, abs=1e-4)


@pytest.mark.parametrize(("rates", "winner"), [((200.0, 300.0), "model.onnx"), ((300.0, 200.0), "model.tflite")])
def test_for_many_images_the_engine_is_taken_that_is_quicker_here(whole, monkeypatch, rates, winner):
    from imgclf.prediction import loading, runtimes

    run = whole[0]
    tried = []

    def rate(runtime):
        tried.append(type(runtime))
        return rates[isinstance(runtime, runtimes.ONNXRuntime)]

    monkeypatch.setattr(loading, "images_per_second", rate)
    wanted = {"model.onnx": runtimes.ONNXRuntime, "model.tflite": runtimes.LiteRTRuntime}[winner]
    assert isinstance(prediction.load(run.path, count=loading.MANY).runtime, wanted)
    assert set(tried) == {runtimes.ONNXRuntime, runtimes.LiteRTRuntime}
    tried.clear()
    prediction.load(run.path, count=loading.MANY - 1)
    prediction.load(run.path, count=loading.MANY, engine="onnx")
    prediction.load(run.path / "model.tflite", count=loading.MANY)
    assert not tried


def test_the_rate_of_a_runtime_is_that_of_all_processors(monkeypatch):
    from imgclf.prediction import loading

    class Slow:
        size_px, classes, names, batch_size = 8, 2, ("probabilities",), 4
        calls = 0

        def __init__(self, seconds):
            self.seconds = seconds

        def prepare(self, calls):
            self.calls = calls

        def outputs(self, pixels, names):
            assert pixels.shape == (4, 8, 8, 3)
            time.sleep(self.seconds)
            return {"probabilities": np.zeros((4, 2), np.float32)}

    monkeypatch.setattr(environment, "cpu_count", lambda: 3)
    slow, quick = Slow(0.04), Slow(0.01)
    rates = [loading.images_per_second(runtime) for runtime in (slow, quick)]
    assert (slow.calls, quick.calls) == (3, 3)
    assert rates[0] <= 3 * 4 / 0.04
    assert rates[0] < rates[1] <= 3 * 4 / 0.01
