"""Search the best settings."""

import csv
import json
import logging
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import fill
from PIL import Image

import imgclf
from imgclf import TrainConfig, TuneConfig
from imgclf.data.dataset import TEST
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.questions import search_space
from imgclf.questions import tune as question
from imgclf.questions.search_space import Choice, Range
from imgclf.training import trials

optuna = pytest.importorskip("optuna")

COLORS = TrainConfig(model="knn", features="mean-color", image_size=32)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two easy classes, told apart by their color."""
    return fill(tmp_path_factory.mktemp("tune") / "images", ("one", "two"), 20, 32, ".png", seed=2)


@pytest.fixture(scope="module")
def found(images: Path, tmp_path_factory: pytest.TempPathFactory) -> imgclf.Tuning:
    """A grid of four trials. Read it, never write it."""
    tuning = TuneConfig(search="k=1|3, neighbor_weights=uniform|distance", sampler="grid", trial_folds=3)
    return imgclf.tune(imgclf.read(images), tuning, COLORS, output=tmp_path_factory.mktemp("study") / "tuned")


def test_values_become_what_the_setting_takes() -> None:
    space = search_space.parse(
        "backbone=a|b, lr=1e-5..1e-2:log, --k=1|3, epochs=2..8, deterministic=true|false", COLORS
    )
    assert space == {
        "backbone": Choice(("a", "b")),
        "lr": Range(1e-5, 1e-2, log=True),
        "k": Choice((1, 3)),
        "epochs": Range(2, 8),
        "deterministic": Choice((True, False)),
    }
    assert space["epochs"].is_whole and not space["lr"].is_whole  # type: ignore[union-attr]
    assert search_space.parse("max_depth=2|none", COLORS)["max_depth"] == Choice((2, None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected settings to try, found none. Example: --search"),
        ("", "expected settings to try"),
        ("kk=1|2", "expected a setting of imgclf train, found 'kk'. Did you mean 'k'"),
        ("seed=1|2", "seed is not a setting to search"),
        ("k", "expected SETTING=VALUES, found 'k'"),
        ("k=", "k: expected values such as"),
        ("k=3..3", "k: expected a range from a lower to a higher number"),
        ("k=5..1", "k: expected a range from a lower to a higher number"),
        ("k=1..x", "k: expected whole numbers"),
        ("lr=0..1:log", "a logarithmic range begins above 0"),
        ("lr=0..1:exp", "expected LOW..HIGH or LOW..HIGH:log"),
        ("model=1..2", "model has no numbers"),
        ("k=1|1", "a value is there twice"),
        ("k=1|2, k=3|4", "k is named twice"),
        ("k=x|y", "k: expected a whole number, found 'x'"),
        ("C=x|y", "C: expected a number, found 'x'"),
        ("k=0|1", "--k: expected"),
        ("model=knn|knnn", "--model: expected"),
    ],
)
def test_a_space_that_makes_no_sense_is_explained(text: str | None, message: str) -> None:
    with pytest.raises(UsageError) as error:
        search_space.parse(text, COLORS)
    assert message in str(error.value)


def test_a_grid_is_every_combination_in_order_and_takes_no_range() -> None:
    space = search_space.parse("k=1|3, neighbor_weights=uniform|distance", COLORS)
    assert [tuple(each.values()) for each in search_space.grid(space)] == [
        *((1, "uniform"), (1, "distance"), (3, "uniform"), (3, "distance"))
    ]
    with pytest.raises(UsageError, match=r"k: a grid takes values such as 1\|3\|5, found a range"):
        search_space.grid(search_space.parse("k=1..9", COLORS))


def test_every_trial_of_a_grid_is_scored_and_the_best_refitted(found: imgclf.Tuning, images: Path) -> None:
    assert {row["state"] for row in found.trials} == {"complete"}
    assert sorted(row["number"] for row in found.trials) == [1, 2, 3, 4]
    scores = [row["score"] for row in found.trials]
    assert scores == sorted(scores, reverse=True) and scores[0] == 1.0
    assert {"study.db", "tune.json", "trials.csv", "tune.html", "best"} <= {
        path.name for path in found.folder.iterdir()
    }
    config = found.run.read_config()["config"]
    assert {name: config[name] for name in found.settings} == found.settings
    tested = len(imgclf.read(images).part(TEST))
    assert found.run.scores["n"] == tested
    assert f"{found.run.scores['accuracy']:.3f} on the test split" in found.sentence
    table = list(csv.DictReader((found.folder / "trials.csv").read_text().splitlines()))
    assert [int(row["number"]) for row in table] == [row["number"] for row in found.trials]
    assert '<section id="tune">' in (found.run.path / "report.html").read_text()
    assert "<h1>Search for settings</h1>" in (found.folder / "tune.html").read_text()


def test_a_trial_has_the_score_of_an_independent_cross_validation(found: imgclf.Tuning, images: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from imgclf.data import splitting

    dataset = imgclf.read(images)
    seen = tuple(s for s in dataset.samples if s.split != TEST)
    part = imgclf.Dataset(dataset.root, seen, dataset.class_names)
    colors = np.stack([np.asarray(Image.open(path).convert("RGB"), float).mean(axis=(0, 1)) for path in part.paths])
    scores = []
    for train, tested in splitting.folds(part, 3, 0, ()):
        estimator = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(colors[train], part.labels[train])
        scores.append(estimator.score(colors[tested], part.labels[tested]))
    row = next(r for r in found.trials if r["settings"] == {"k": 3, "neighbor_weights": "uniform"})
    assert (row["score"], row["folds"]) == (pytest.approx(np.mean(scores)), 3)


def test_the_same_command_continues_and_other_data_or_settings_are_refused(
    images: Path, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    dataset = imgclf.read(images)
    first = imgclf.tune(dataset, TuneConfig(search="k=1..9", trials=2, trial_folds=2), COLORS, output=tmp_path / "t")
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / 't' / 'study.db'}", study_name="tune")
    study.ask().set_user_attr("index", 2)  # as a process leaves it that is killed in its third trial
    more = imgclf.tune(dataset, TuneConfig(search="k=1..9", trials=4, trial_folds=2), COLORS, output=tmp_path / "t")
    by_number = {row["number"]: row for row in more.trials}
    assert sorted(by_number) == [1, 2, 3, 4]
    assert all(by_number[row["number"]] == row for row in first.trials)
    once = imgclf.tune(dataset, TuneConfig(search="k=1..9", trials=4, trial_folds=2), COLORS, output=tmp_path / "u")
    settings = [{row["number"]: row["settings"] for row in each.trials} for each in (once, more)]
    assert settings[0] == settings[1]  # as of one that was never interrupted
    other = imgclf.read(image_folder(classes=("one", "two"), count=12))
    with pytest.raises(RunError, match="found one with other images"):
        imgclf.tune(other, TuneConfig(search="k=1..9", trial_folds=2), COLORS, output=tmp_path / "t")
    with pytest.raises(RunError, match="found one with another --search, --sampler or --trial-folds"):
        imgclf.tune(dataset, TuneConfig(search="k=1..7", trial_folds=2), COLORS, output=tmp_path / "t")


@pytest.mark.parametrize("size", [9000, 0])
def test_a_damaged_study_is_an_error_and_an_empty_one_begins_anew(
    images: Path, tmp_path: Path, found: imgclf.Tuning, size: int
) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(found.folder, folder)
    with (folder / question.STUDY).open("r+b") as study:
        study.truncate(size)
    tuning = TuneConfig(search="k=1|3, neighbor_weights=uniform|distance", sampler="grid", trial_folds=3)
    if size == 0:
        again = imgclf.tune(imgclf.read(images), tuning, COLORS, output=folder)
        assert [row["score"] for row in again.trials] == [row["score"] for row in found.trials]
        return
    with pytest.raises(RunError, match=r"study\.db: the study is damaged \(.*malformed\)\. Remove it to repeat"):
        imgclf.tune(imgclf.read(images), tuning, COLORS, output=folder)


def test_another_spelling_of_the_same_space_continues_and_another_order_does_not(
    images: Path, tmp_path: Path, found: imgclf.Tuning
) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(found.folder, folder)
    spelled = TuneConfig(search="--k = 1 | 3,neighbor-weights=uniform|distance", sampler="grid", trial_folds=3)
    again = imgclf.tune(imgclf.read(images), spelled, COLORS, output=folder)
    assert again.trials == found.trials
    turned = TuneConfig(search="neighbor_weights=uniform|distance, k=1|3", sampler="grid", trial_folds=3)
    with pytest.raises(RunError, match="another --search"):
        imgclf.tune(imgclf.read(images), turned, COLORS, output=folder)


def test_a_killed_process_of_several_is_explained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(ThreadPoolExecutor):
        def __init__(self, processes: int, mp_context: object) -> None:
            super().__init__(processes)

        def submit(self, *arguments: object) -> Any:
            raise BrokenProcessPool

    monkeypatch.setattr(question, "ProcessPoolExecutor", Killed)
    tuning = TuneConfig(search="k=1|3", sampler="grid", trial_folds=2, jobs=2)
    with pytest.raises(RunError, match=r"the process of a trial was killed.*perhaps with fewer --jobs"):
        imgclf.tune(imgclf.read(images), tuning, COLORS, output=tmp_path / "t")


@pytest.mark.parametrize("name", ["trials", "trial_folds", "jobs"])
def test_none_of_what_a_search_counts_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: expected a whole number"):
        TuneConfig(search="k=1|3", **{name: 0})


def test_what_is_worse_than_the_median_is_stopped_early(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgclf.training.trials.Trials.scores", lambda self, config: iter([1 - config.k / 50] * 3))
    tuning = TuneConfig(search="k=1..20", sampler="random", trials=16, trial_folds=3)
    rows = imgclf.tune(imgclf.read(images), tuning, COLORS, output=tmp_path / "t").trials
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned and all(row["folds"] < 3 for row in pruned)
    assert rows[0]["score"] == max(row["score"] for row in rows) == 1 - rows[0]["settings"]["k"] / 50


def test_settings_that_do_not_suit_the_images_fail_alone(images: Path, tmp_path: Path) -> None:
    tuning = TuneConfig(search="k=3|500", sampler="grid", trial_folds=2)
    result = imgclf.tune(imgclf.read(images), tuning, COLORS, output=tmp_path / "t")
    assert [row["state"] for row in result.trials] == ["complete", "failed"]
    assert "expected at most" in result.trials[1]["error"] and result.settings == {"k": 3}
    with pytest.raises(RunError, match=r"no trial was completed \(--k: expected at most"):
        imgclf.tune(
            imgclf.read(images), TuneConfig(search="k=400|500", sampler="grid"), COLORS, output=tmp_path / "none"
        )


def test_too_few_images_for_the_folds_or_no_test_split_are_errors(images: Path, tmp_path: Path) -> None:
    dataset = imgclf.read(images)
    with pytest.raises(DatasetError, match="at least 30 training images of every class for 30 folds"):
        imgclf.tune(dataset, TuneConfig(search="k=1|3", trial_folds=30), COLORS, output=tmp_path / "t")
    with pytest.raises(DatasetError, match="expected a test split"):
        imgclf.tune(
            dataset.with_splits(["train"] * len(dataset)), TuneConfig(search="k=1|3"), COLORS, output=tmp_path / "t"
        )
    assert not (tmp_path / "t").exists()


def test_the_training_of_a_fold_is_heard_only_where_it_warns(images: Path, caplog, monkeypatch) -> None:
    def train(dataset: imgclf.Dataset, config: TrainConfig, **_: object) -> SimpleNamespace:
        logging.getLogger("imgclf").info("Test accuracy 0.5")
        logging.getLogger("imgclf").warning("an image cannot be read")
        return SimpleNamespace(scores={"accuracy": len(dataset.part(TEST))})

    monkeypatch.setattr(trials.training, "train", train)
    dataset, rows = imgclf.read(images), np.arange(len(imgclf.read(images)))
    folds = [(rows[3:], rows[:3]), (rows[:-4], rows[-4:])]
    config = TrainConfig(backbone="small-cnn", method="scratch", image_size=32, epochs=1)
    with caplog.at_level(logging.INFO, "imgclf"):
        assert list(trials.Trials(dataset, folds).scores(config)) == [3, 4]
    assert caplog.messages.count("an image cannot be read") == 2
    assert "Test accuracy 0.5" not in caplog.messages


@pytest.mark.slow
def test_labels_that_are_noise_do_not_beat_chance_on_the_test_split(tmp_path: Path) -> None:
    """Tuning fits noise in cross-validation; the test split, scored once, must not follow."""
    correct = total = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for number in range(120):
            place = tmp_path / str(seed) / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place)
        tuning = TuneConfig(search="k=1|2|3|5|7|9|13, neighbor_weights=uniform|distance", sampler="grid", trial_folds=3)
        dataset = imgclf.read(tmp_path / str(seed), imgclf.DataConfig(test_fraction=0.4, near_duplicates="off"))
        result = imgclf.tune(dataset, tuning, COLORS, output=tmp_path / f"t{seed}")
        correct += round(result.run.scores["accuracy"] * result.run.scores["n"])
        total += result.run.scores["n"]
    from scipy import stats

    assert stats.binomtest(correct, total, 0.5, alternative="greater").pvalue > 0.01


@pytest.mark.slow
def test_two_processes_try_what_one_does(images: Path, tmp_path: Path, found: imgclf.Tuning) -> None:
    tuning = TuneConfig(search="k=1|3, neighbor_weights=uniform|distance", sampler="grid", trial_folds=3, jobs=2)
    told: list[tuple[str, int, int]] = []
    both = imgclf.tune(
        imgclf.read(images), tuning, COLORS, output=tmp_path / "t", on_progress=lambda *step: told.append(step)
    )
    ends = [{r["number"]: (r["settings"], r["score"]) for r in rows} for rows in (both.trials, found.trials)]
    assert ends[0] == ends[1]
    assert ("trials", 4, 4) in told


def run_command(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "imgclf", *arguments], stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_grid_that_is_killed_ends_with_the_trials_of_an_unbroken_one(
    images: Path, tmp_path: Path, found: imgclf.Tuning
) -> None:
    arguments: list[str] = [
        *("tune", str(images), "--model", "knn", "--features", "mean-color", "--image-size", "32"),
        *("--search", "k=1|3, neighbor_weights=uniform|distance", "--sampler", "grid", "--trial-folds", "3"),
        *("-o", str(tmp_path / "t"), "--quiet"),
    ]
    chance = random.Random(0)
    for _ in range(2):
        process = run_command(arguments)
        deadline = time.monotonic() + 120
        while not trials_in(tmp_path / "t" / "study.db") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_command(arguments).wait() == 0
    facts: Any = json.loads((tmp_path / "t" / "tune.json").read_text())
    ends = [{r["number"]: (r["settings"], r["score"]) for r in rows} for rows in (facts["trials"], found.trials)]
    assert ends[0] == ends[1]


def trials_in(study: Path) -> int:
    """How many trials a study has begun."""
    if not study.is_file():
        return 0
    try:
        with sqlite3.connect(study) as connection:
            return int(connection.execute("select count(*) from trials").fetchone()[0])
    except sqlite3.Error:
        return 0
