import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgclf.cli import kfold
from imgclf.evaluation.outputs import read_predictions
from imgclf.runs import Run

SMALL = (
    "--backbone", "small-cnn", "--image-size", "16", "--epochs", "6", "--batch-size", "8", "--folds", "3",
    "--deterministic", "--quiet",
)  # fmt: skip


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (4, ("--folds", "5"), "at least 5 images of every class for 5 folds, found 4 of ant"),
        (8, ("--folds", "5", "--group-by", "00[0-3]|00[4-7]"), "at least 5 groups for 5 folds, found 2"),
    ],
)
def test_more_folds_than_there_is_to_deal_out_end_with_3(
    imgclf, image_folder, tmp_path, capsys, count, options, message
):
    folder = image_folder(count=count)
    if "--group-by" in options:  # two groups: the upper half of the numbers and the lower
        for path in folder.rglob("*.png"):
            path.rename(path.with_name(f"{'low' if int(path.stem) < 4 else 'high'}-{path.name}"))
        options = (*options[:3], "low|high")
    assert imgclf("kfold", folder, *options, "--backbone", "small-cnn", "-o", tmp_path / "folds") == 3
    assert message in capsys.readouterr().err


def test_a_folder_without_labels_ends_with_3(imgclf, image_folder, trained_run, tmp_path, capsys):
    folder = image_folder(classes=("ant",))
    for path in sorted(folder.rglob("*.png")):
        path.rename(folder / path.name)
    (folder / "ant").rmdir()
    for command in (("kfold", folder), ("evaluate", trained_run.path, folder)):
        assert imgclf(*command) == 3
        assert "no class folders" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--folds", "1"), ("--jobs", "0"), ("--repeats", "0")])
def test_an_impossible_number_ends_with_2(imgclf, image_folder, capsys, option):
    assert imgclf("kfold", image_folder(), *option) == 2
    assert option[0] in capsys.readouterr().err


def test_cross_validating_a_run_has_its_own_settings(imgclf, trained_run, capsys):
    assert imgclf("evaluate", trained_run.path, "--kfold", "2", "--top-k", "3") == 2
    assert "Remove --top-k." in capsys.readouterr().err


def test_the_end_names_the_report(tmp_path, capsys):
    (tmp_path / "report.html").touch()
    summary = {"accuracy": {"mean": 0.75, "deviation": 0.1, "interval": [0.5, 1.0]}}
    rows = [{"fold": "fold-1", "n": 4, "accuracy": 0.5}, {"fold": "fold-2", "n": 4, "accuracy": 1.0}]
    folds = {"keys": ["accuracy"], "rows": rows, "summary": summary, "sentence": "Accuracy 0.750."}
    kfold.show(SimpleNamespace(folder=tmp_path, folds=folds, metrics={}), json=False)
    printed = capsys.readouterr()
    assert "│ 95% CI, low    │   │    0.500 │" in printed.out
    assert printed.err.splitlines()[-1].endswith(f"open {tmp_path / 'report.html'}")


def start(data: Path, output: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "imgclf", "kfold", str(data), *SMALL, "-o", str(output), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def wait_for(process: "subprocess.Popen[bytes]", path: Path, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < end, f"{path} has not come"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_folds_that_were_killed_are_gone_on_with_and_end_with_the_same_scores(image_folder, tmp_path):
    data = image_folder(count=12)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    out, errors = start(data, whole).communicate(timeout=600)
    assert out, errors.decode()
    for moment in ("fold-1/config.json", "fold-2/checkpoint", "fold-3/history.csv"):
        process = start(data, killed)
        wait_for(process, killed / moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (killed / "folds.json").exists()
    finished = {fold: (killed / fold / "predictions.csv").stat().st_mtime_ns for fold in ("fold-1", "fold-2")}
    image = data.rename(tmp_path / "moved")  # the images have moved in between
    again, errors = start(image, killed).communicate(timeout=600)
    assert again, errors.decode()
    assert finished == {fold: (killed / fold / "predictions.csv").stat().st_mtime_ns for fold in finished}
    expected, found = json.loads(out), json.loads(again)
    assert found["metrics"] == expected["metrics"]
    assert found["folds"]["rows"] == expected["folds"]["rows"]
    assert (killed / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert (killed / "report.html").read_text().count("<img src=") == (whole / "report.html").read_text().count(
        "<img src="
    )


@pytest.mark.slow
def test_a_run_whose_data_has_moved_is_scored_and_cross_validated_and_gone_on_with(
    imgclf, image_folder, tmp_path, capsys
):
    data, run = image_folder(count=24), Run(tmp_path / "run")
    options = ("--backbone", "small-cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "8")
    assert imgclf("train", data, *options, "--export", "litert", "-o", run.path, "--quiet") == 0
    before = read_predictions(run.predictions)
    place = tmp_path / "elsewhere"
    place.mkdir()
    for number, path in enumerate(sorted(data.rglob("*.png"), reverse=True)):
        path.rename(place / f"{number}.png")
    capsys.readouterr()
    for command in (("evaluate", run.path), ("evaluate", run.path, "--kfold", "2")):
        assert imgclf(*command) == 3
        assert "are gone, such as" in capsys.readouterr().err
    assert imgclf("evaluate", run.path, "--data", place) == 0
    assert read_predictions(run.predictions).paths == before.paths
    assert abs(read_predictions(run.predictions).probabilities - before.probabilities).max() < 1e-4
    assert "data:image/jpeg" in (run.path / "report.html").read_text()
    capsys.readouterr()
    assert imgclf("evaluate", run.path, "--kfold", "2", "--data", place, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["n"] + len(before.paths) == 48
    assert imgclf("train", "--resume", run.path, "--epochs", "3", "--data", place, "--quiet") == 0
    assert run.read_config()["data"] == str(place)
    assert imgclf("evaluate", run.path) == 0  # it remembers
    assert imgclf("train", place, "--data", place) == 2
