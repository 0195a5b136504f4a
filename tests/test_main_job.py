"""The main job on real photographs, through the command line, as its users run it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def imgclf(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a fresh process."""
    command = [sys.executable, "-m", "imgclf", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, check=False)


@pytest.mark.slow
@pytest.mark.real
def test_ants_and_bees_as_they_are_from_folder_to_exported_model(real_data: Path, tmp_path: Path) -> None:
    data, run = real_data / "ants-bees", tmp_path / "run"
    looked = imgclf("ingest", data, "--json")
    assert looked.returncode == 0, looked.stderr
    assert json.loads(looked.stdout)["formats"] == {"JPEG": 397, "GIF": 1}
    assert json.loads(looked.stdout)["skipped"] == {"hidden": 2}

    trained = imgclf("train", data, "-o", run, "--backbone", "small-cnn", "--epochs", 8, "--image-size", 64)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.strip() == str(run)
    assert "val/ is used as the test split" in trained.stderr

    evaluated = imgclf("evaluate", run, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["n"] == len((run / "predictions.csv").read_text().splitlines()) - 1
    assert json.loads(evaluated.stdout)["accuracy"] > 0.5

    predicted = imgclf("predict", run, data / "val" / "bees", "--format", "jsonl", "--top", 2)
    assert predicted.returncode == 0, predicted.stderr
    lines = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert len(lines) == len([p for p in (data / "val" / "bees").iterdir() if not p.name.startswith(".")])
    assert {best["label"] for line in lines for best in line["top"]} == {"ants", "bees"}
    named = [line["label"] for line in lines if not line["rejected"]]
    assert set(named) <= {"ants", "bees"}
    assert len(named) > 0.8 * len(lines)  # a few may look strange to it

    exported = imgclf("export", run, "--format", "savedmodel,litert", "--json")
    assert exported.returncode == 0, exported.stderr
    assert {row["format"] for row in json.loads(exported.stdout)} == {"savedmodel", "litert"}


@pytest.mark.slow
@pytest.mark.real
def test_sign_digits_are_learned_from_scratch(real_data: Path, tmp_path: Path) -> None:
    """A third of the default epochs; the default's accuracy is printed by tests/benchmarks/sign_digits.py."""
    words = ("--backbone", "small-cnn", "--epochs", 10, "--image-size", 64, "--export", "none", "--json", "-q")
    trained = imgclf("train", real_data / "sign-digits", "-o", tmp_path / "run", *words)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["metrics"]["accuracy"] > 0.9


@pytest.mark.slow
def test_ctrl_c_ends_with_130_keeps_finished_epochs_and_resume_goes_on(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["train", image_folder(count=20), "-o", run, "--backbone", "small-cnn", "--image-size", 32]
    words += ["--epochs", 30, "--batch-size", 8, "--export", "none"]
    # where Ctrl-C is ignored (nohup, a background job, many CI systems), children inherit that
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from imgclf.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    history = run / "history.csv"
    deadline = time.monotonic() + 120
    while not (history.exists() and history.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.rstrip().endswith("Interrupted.")
    assert "Traceback" not in errors
    kept = history.read_text().count("\n")
    assert kept >= 3
    assert "--resume" in errors
    again = imgclf("train", "--resume", run)
    assert again.returncode == 0, again.stderr
    assert history.read_text().count("\n") == 31
    assert "Traceback" not in again.stderr
    assert imgclf("train", "--resume", run, "--lr", 0.1).returncode == 2


@pytest.mark.slow
def test_an_archive_is_trained_on_and_its_images_are_found_again(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", image_folder(count=12, size_px=48))
    run = tmp_path / "run"
    trained = imgclf("train", archive, "-o", run, "--offline", "--export", "litert")
    assert trained.returncode == 0, trained.stderr
    assert "made-up pixels" not in trained.stderr
    shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]) / "imgclf" / "unpacked")
    evaluated = imgclf("evaluate", run, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["n"] == len((run / "predictions.csv").read_text().splitlines()) - 1


def test_a_wrong_folder_fails_before_keras_loads(tmp_path: Path) -> None:
    script = "import sys\nfrom imgclf.cli import app\ntry:\n    app.main()\nfinally:\n    print('keras' in sys.modules)"
    command = [sys.executable, "-c", script, "train", str(tmp_path / "nowhere")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert result.stdout.strip() == "False"
    assert "Check the spelling" in result.stderr


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_training_where_nothing_can_be_written_is_explained(
    place: str, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = imgclf("train", image_folder(count=12), "-o", tmp_path / place, "--backbone", "small-cnn")
    assert result.returncode == 4
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
