"""imgclf train, as far as it goes without a network: its help, and what it hands to reading and training."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from imgclf import environment
from imgclf.cli import app
from imgclf.data.dataset import TEST, Dataset
from imgclf.runs import Run
from imgclf.settings import TrainConfig

Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def handed() -> list[tuple[Dataset, TrainConfig]]:
    """The datasets and settings that training was called with."""
    return []


@pytest.fixture
def train(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    handed: list[tuple[Dataset, TrainConfig]],
) -> Train:
    """Runs `imgclf train ARGUMENTS` with a stand-in for the training; returns exit code, stdout and stderr."""

    def stand_in(dataset: Dataset, config: TrainConfig, **options: object) -> Run:
        handed.append((dataset, config))
        return Run(tmp_path / "run")

    module = ModuleType("imgclf.training.train")
    module.train = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imgclf.training", ModuleType("imgclf.training"))
    monkeypatch.setattr(sys.modules["imgclf.training"], "train", module, raising=False)
    monkeypatch.setitem(sys.modules, "imgclf.training.train", module)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["imgclf", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_help_lists_the_options_in_panels_and_fits_80_columns(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = train("--help-all")
    assert code == 0
    panels = re.findall(r"^(\w[\w ]*):$", out, re.MULTILINE)
    assert panels[:2] == ["Arguments", "Options"]
    assert set(panels[2:]) == {
        "Model",
        "Classical models",
        "Training",
        "Distillation",
        "Augmentation",
        "Decoding",
        "System",
        "Reading",
        "Labels and classes",
        "Splitting",
    }
    assert len(panels) == len(set(panels))
    assert max(map(len, out.splitlines())) <= 80
    options = out[out.index("\nOptions:") : out.index("\nModel:")]
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", options, re.MULTILINE) == [
        "--output",
        "--config",
        "--resume",
        "--data",
        "--export",
        "--json",
        "--quiet",
        "--help-all",
        "--help",
    ]


def test_options_become_settings_and_read_only_what_is_asked_for(
    train: Train, handed: list[tuple[Dataset, TrainConfig]], image_folder: Callable[..., Path]
) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=8, size_px=8)
    code, _, _ = train(folder, "--classes", "ant,bee", "--limit", 15, "--group-by", r"(\d)\.", "--test-group", 3)
    assert code == 0
    ((dataset, config),) = handed
    assert sorted(dataset.counts().values()) == [7, 8]
    assert {s.group for s in dataset.samples if s.split == TEST} == {"3"}
    assert (config.group_by, config.test_group, config.limit) == (r"(\d)\.", "3", 15)


def test_new_names_of_classes_may_be_chosen(
    train: Train, handed: list[tuple[Dataset, TrainConfig]], image_folder: Callable[..., Path]
) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=4, size_px=8)
    assert train(folder, "--rename", "ant=wood ant", "--classes", "wood ant,bee", "--limit", 4)[0] == 0
    assert handed[0][0].counts() == {"bee": 2, "wood ant": 2}


def test_numbers_may_be_left_to_training(
    train: Train, handed: list[tuple[Dataset, TrainConfig]], image_folder: Callable[..., Path]
) -> None:
    folder = image_folder(count=4, size_px=8)
    assert train(folder, "--lr", "auto", "--batch-size", "auto", "--time-limit", "1.5m")[0] == 0
    assert train(folder, "--lr", "3e-4", "--batch-size", "16")[0] == 0
    (_, auto), (_, given) = handed
    assert (auto.lr, auto.batch_size, auto.limit_s) == ("auto", "auto", 90)
    assert (given.lr, given.batch_size, given.limit_s) == (3e-4, 16, None)


@pytest.mark.parametrize(
    "option",
    [
        ("--group-by", "("),
        ("--rename", "ant"),
        ("--limit", 0),
        ("--lr", "fast"),
        ("--batch-size", "2.5"),
        ("--time-limit", "5 minutes"),
        ("--unfreeze-from", "1.5"),
        ("--balance", "even"),
        ("--device", "abacus"),
    ],
)
def test_impossible_options_are_usage_errors(train: Train, option: tuple[str, object], tmp_path: Path) -> None:
    code, out, err = train(tmp_path, *option)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {option[0]}: expected")


def test_what_can_fail_at_once_fails_before_the_data_are_read(train, tmp_path, handed, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    code, _, err = train(tmp_path / "no such data", "-o", tmp_path / "taken")
    assert code == 4 and "expected a new or empty folder" in err
    monkeypatch.setattr(environment, "has_package", lambda name: name not in ("mlflow", "onnxruntime"))
    for options, extra in ((("--mlflow",), "mlflow"), (("--export", "onnx"), "onnx")):
        code, _, err = train(tmp_path / "no such data", *options)
        assert code == 5 and f"pip install 'imgclf[{extra}]'" in err
    assert handed == []


def test_a_missing_config_or_run_fails_before_anything_is_loaded(train: Train, tmp_path: Path) -> None:
    code, _, err = train("--config", tmp_path / "confg.json")
    assert code == 4 and f"--config {tmp_path / 'confg.json'}: no such file." in err
    code, _, err = train("--resume", tmp_path / "none")  # the fixture's library has no `resume` to be called
    assert code == 4 and f"{tmp_path / 'none'}: expected a run folder" in err


def test_an_interruption_before_there_is_a_run_says_that_nothing_was_written(train, tmp_path, monkeypatch):
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imgclf.read", stop)
    assert train(tmp_path) == (130, "", "Nothing was written yet.\nInterrupted.\n")
