"""Who else is told how training goes: TensorBoard and MLflow, where they are installed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import imgclf
from imgclf import TrainConfig, environment
from imgclf.errors import MissingError, UsageError
from imgclf.training import devices

CNN = TrainConfig(backbone="small-cnn", image_size=32, epochs=2, batch_size=8, export="none")

MLFLOW = """
import json, pathlib
told = []
run = None
def _write(kind, value):
    told.append([kind, value])
    pathlib.Path(r"{place}").write_text(json.dumps(told))
def active_run():
    return run
def start_run(run_name):
    global run
    run = run_name
    _write("run", run_name)
def log_params(values):
    _write("params", values)
def log_metrics(values, step):
    _write("metrics", [step, values])
"""


@pytest.mark.slow
def test_mlflow_is_told_the_settings_and_every_epoch(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in takes down what the few functions of MLflow that are called are given."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "mlflow.py").write_text(MLFLOW.format(place=tmp_path / "told.json"))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    run = imgclf.train(imgclf.read(image_folder(count=12)), replace(CNN, mlflow=True), output=tmp_path / "run")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told[0] == ["run", "run"]
    assert told[1][0] == "params" and told[1][1]["epochs"] == 2
    steps = [value for kind, value in told if kind == "metrics"]
    assert [step for step, _ in steps] == [1, 2]
    rows = run.history_file.read_text().splitlines()
    assert steps[0][1]["val_loss"] == pytest.approx(float(rows[1].split(",")[6]))


def test_tensorboard_finds_events_in_the_run(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = imgclf.train(imgclf.read(image_folder(count=12)), replace(CNN, tensorboard=True), output=tmp_path / "run")
    assert list((run.path / "tensorboard").rglob("events.out.tfevents.*"))


def test_what_is_not_installed_is_named_before_anything_is_written(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "has_package", lambda name: name != "mlflow")
    with pytest.raises(MissingError, match=r"pip install 'imgclf\[mlflow\]'"):
        imgclf.train(imgclf.read(image_folder()), replace(CNN, mlflow=True), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    devices.choose("auto")
    with pytest.raises(UsageError, match=r"--device tpu: expected one of this kind, found CPU.*KERAS_BACKEND=jax"):
        devices.choose("tpu")


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (ValueError("shapes"), False),
    ],
)
def test_errors_that_mean_too_little_memory_are_known(error: Exception, memory: bool) -> None:
    assert devices.is_out_of_memory(error) == memory
