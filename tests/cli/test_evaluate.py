import json
import shutil

import numpy as np
import pytest

from imgclf.evaluation.outputs import read_predictions


def numbers(value: object, key: str = "") -> dict[str, object]:
    """Every number and text in JSON, by its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for k, item in items for path, leaf in numbers(item, f"{key}/{k}").items()}
    return {key: value}


def test_a_runs_own_test_part_gives_the_scores_of_its_training(imgclf, trained_run, tmp_path, capsys):
    assert imgclf("evaluate", trained_run.path, "-o", tmp_path / "scores", "--json", "--quiet") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found == json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert numbers(found) == pytest.approx(numbers(json.loads(trained_run.metrics.read_text())), abs=1e-4)
    ours, training = (
        read_predictions(path) for path in (tmp_path / "scores" / "predictions.csv", trained_run.predictions)
    )
    assert (ours.paths, ours.class_names) == (training.paths, training.class_names)
    assert np.abs(ours.probabilities - training.probabilities).max() < 1e-4
    assert printed.err == ""


def test_the_table_holds_every_class_and_the_headline_numbers(imgclf, trained_run, tmp_path, capsys):
    folder = trained_run.path.parent / "images"
    assert imgclf("evaluate", trained_run.path, folder, "-o", tmp_path / "scores") == 0
    printed = capsys.readouterr()
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    low, high = scores["intervals"]["accuracy"]
    assert scores["n"] == 48
    assert "two discs" in printed.out
    assert f"{scores['accuracy']:.3f} (95% CI {low:.3f} to {high:.3f}), n = 48" in printed.out
    assert f"{scores['macro_f1']:.3f}" in printed.out
    assert "images were used in training" in printed.err
    assert str(tmp_path / "scores") in printed.err


def test_a_gate_that_is_not_met_ends_with_6_after_everything_is_written(imgclf, trained_run, tmp_path, capsys):
    gates = "accuracy=0,accuracy.low=0.999"
    assert imgclf("evaluate", trained_run.path, "-o", tmp_path / "scores", "--fail-under", gates, "--json") == 6
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert "accuracy.low is" in printed.err
    assert "accuracy is" not in printed.err


def test_gates_that_are_met_end_with_0(imgclf, trained_run, tmp_path):
    gates = "accuracy=0,macro_f1=0"
    assert imgclf("evaluate", trained_run.path, "-o", tmp_path / "scores", "--fail-under", gates) == 0


@pytest.mark.parametrize("option", [("--fail-under", "beauty=1"), ("--top-k", "0"), ("--missing-classes", "maybe")])
def test_an_impossible_option_is_a_usage_error_that_names_it(imgclf, tmp_path, capsys, option):
    (tmp_path / "config.json").write_text('{"config": {}}')
    assert imgclf("evaluate", tmp_path, *option) == 2
    assert option[0] in capsys.readouterr().err


def test_a_folder_that_is_no_run_ends_with_4(imgclf, tmp_path, capsys):
    assert imgclf("evaluate", tmp_path) == 4
    assert "expected a run folder" in capsys.readouterr().err


def test_a_damaged_run_ends_with_4(imgclf, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"config": {}}')
    assert imgclf("evaluate", tmp_path) == 4
    assert "labels.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"config": {}}'),
        ("config.json", b'{"data": 5, "config": {}}'),
        ("config.json", b'{"data": "images", "config": []}'),
        ("labels.txt", None),
        ("labels.txt", b""),
        ("labels.txt", b"\xff\xfed\0i\0"),
        ("labels.txt", b'"abc\ntwo discs\n'),
        ("labels.txt", b"two discs\ndisc\n"),
        ("manifest.csv", None),
        ("manifest.csv", b"\x89PNG"),
        ("manifest.csv", b"path,label,split,group,sha256,width,height,format\na.png,disc,test,,,wide,1,PNG\n"),
        ("manifest.csv", b"path,label,split,group,sha256,width,height,format\na.png,cat,test,,,1,1,PNG\n"),
        ("artifact.json", None),
        ("artifact.json", b"[]"),
        ("model.tflite", b"TFL3"),
    ],
)
def test_each_damaged_file_of_a_run_ends_with_4_and_is_named(imgclf, trained_run, tmp_path, capsys, name, content):
    damaged = tmp_path / "run"
    shutil.copytree(trained_run.path, damaged)
    (damaged / name).unlink()
    if content is not None:
        (damaged / name).write_bytes(content)
    assert imgclf("evaluate", damaged, "-o", tmp_path / "scores") == 4
    printed = capsys.readouterr().err
    assert name in printed
    assert "Traceback" not in printed


def test_options_that_do_nothing_without_data_are_named(imgclf, trained_run, tmp_path, capsys):
    assert imgclf("evaluate", trained_run.path, "-o", tmp_path / "scores", "--unknown-classes", "skip") == 0
    assert "--unknown-classes have no effect" in capsys.readouterr().err


def test_a_missing_folder_of_images_ends_with_3(imgclf, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"config": {}}')
    assert imgclf("evaluate", tmp_path, tmp_path / "nowhere") == 3
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "augment"])
def test_an_output_that_exists_is_refused_before_anything_is_read(imgclf, tmp_path, capsys, command):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").touch()
    where = (tmp_path, tmp_path / "no data") if command == "evaluate" else (tmp_path / "no data",)
    assert imgclf(command, *where, "-o", taken) in (2, 4)
    assert "taken: expected a new" in capsys.readouterr().err
