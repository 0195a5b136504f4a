"""Run folders: whole files or none, one writer at a time, names that come back as they were."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf import runs
from imgclf.errors import RunError


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_class_names_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    run = runs.Run(tmp_path_factory.mktemp("run"))
    run.write_labels(names)
    assert run.read_labels() == names


def test_another_process_cannot_take_the_lock_and_it_goes_with_its_holder(tmp_path: Path) -> None:
    run = runs.create(tmp_path / "run")
    script = f"from imgclf import runs; from pathlib import Path\nwith runs.Run(Path({str(run.path)!r})).lock(): pass"
    with run.lock():
        held = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    free = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "another imgclf process" in held.stderr
    assert free.returncode == 0


def test_a_folder_that_is_no_run_or_a_damaged_one_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder"):
        runs.find(tmp_path)
    (tmp_path / "config.json").write_text("{ half a")
    with pytest.raises(RunError, match="expected JSON"):
        runs.find(tmp_path).read_config()
    for damaged in ("[]", "{}", '{"config": {}}', '{"data": 5, "config": {}}', '{"data": "x", "config": []}'):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(RunError, match="expected a"):
            runs.find(tmp_path).read_config()


def test_each_of_many_at_once_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "runs" / "cats-2").mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: runs.create_next(tmp_path / "runs", "cats"), range(8)))
    assert sorted(path.name for path in made) == [f"cats-{number}" for number in (1, 3, 4, 5, 6, 7, 8, 9)]
    assert all(path.is_dir() for path in made)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Choose -o"):
        runs.create_next(tmp_path / "file", "cats")


def test_a_class_name_that_is_no_text_comes_back(tmp_path: Path) -> None:
    run = runs.Run(tmp_path)
    run.write_labels(["caf\udce9", "tea"])
    assert run.read_labels() == ["caf\udce9", "tea"]


def test_scores_and_history_are_read_as_numbers(tmp_path):
    run = runs.create(tmp_path / "run")
    for name in ("scores", "history"):
        with pytest.raises(RunError, match=r"metrics\.json|history\.csv"):
            getattr(run, name)
    run.metrics.write_text('{"accuracy": 0.5}')
    run.history_file.write_text(
        "phase,epoch,image_size,lr,loss,outcome\nprobe,1,64,,0.25,\nfinetune,2,64,1e-3,0.5,kept\n"
    )
    assert run.scores == {"accuracy": 0.5}
    assert run.history == [
        {"phase": "probe", "epoch": 1, "image_size": 64, "loss": 0.25},
        {"phase": "finetune", "epoch": 2, "image_size": 64, "lr": 1e-3, "loss": 0.5, "outcome": "kept"},
    ]
    run.history_file.write_text("phase,epoch\nprobe,many\n")
    with pytest.raises(RunError, match="expected the history"):
        _ = run.history
