import json
import shutil

import pytest
from typer.testing import CliRunner

from imgclf.cli.app import app
from imgclf.errors import UsageError


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of the trained run that may be written."""
    return shutil.copytree(trained_run.path, tmp_path / "run")


def test_the_report_is_json(run):
    done = CliRunner().invoke(app, ["export", str(run), "--format", "litert", "--json"])
    assert done.exit_code == 0, done.output
    [row] = json.loads(done.stdout)
    assert row["format"] == "litert"
    assert row["bytes"] == (run / "model.tflite").stat().st_size
    assert row["max_difference"] <= 1e-4


def test_the_report_is_a_table(run):
    done = CliRunner().invoke(app, ["export", str(run), "--format", "litert,savedmodel"])
    assert done.exit_code == 0, done.output
    assert "Compared with the trained model on" in done.stdout
    assert "model.tflite" in done.stdout
    assert "saved_model" in done.stdout
    assert "100%" in done.stdout


def test_an_export_goes_into_another_folder_and_predicts_there(run, trained_run, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(run), "--format", "litert", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert {"artifact.json", "model.tflite"} <= {path.name for path in out.iterdir()}
    images = [str(path) for path in sorted((trained_run.path.parent / "images").rglob("*.png"))[:3]]
    answers = []
    for model in (run, out):
        done = CliRunner().invoke(app, ["predict", str(model), *images, "--format", "jsonl", "--engine", "litert"])
        answers.append([json.loads(line)["label"] for line in done.stdout.splitlines()])
    assert answers[0] == answers[1] and len(answers[0]) == 3


def test_an_unknown_format_is_a_usage_error(run):
    done = CliRunner().invoke(app, ["export", str(run), "--format", "onyx"])
    assert isinstance(done.exception, UsageError)
