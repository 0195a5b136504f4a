import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from factories import gray_image, tiny_backbone
from scipy import stats

import imgclf
from imgclf.data import run_data
from imgclf.data.dataset import TEST, TRAIN, Dataset, Sample
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.evaluation.outputs import read_predictions
from imgclf.settings import KfoldConfig, TrainConfig
from imgclf.training import crossval

SMALL = TrainConfig(backbone="small-cnn", image_size=16, epochs=2, batch_size=8, cache="off")


def test_the_corrected_interval_by_hand():
    # 2 times 2 folds: mean 0.85, variance 0.0033, t(3) = 3.182; 1 test image on 1 training image
    low, high = crossval.corrected_interval([0.8, 0.9, 0.9, 0.8], 1.0)
    reach = stats.t.ppf(0.975, 3) * np.sqrt((1 / 4 + 1) * np.var([0.8, 0.9, 0.9, 0.8], ddof=1))
    assert (low, high) == pytest.approx((0.85 - reach, 0.85 + reach))
    independent = stats.t.interval(0.95, 3, 0.85, stats.sem([0.8, 0.9, 0.9, 0.8]))
    assert high - low == pytest.approx(np.sqrt(5) * (independent[1] - independent[0]))


@pytest.mark.parametrize("settings", [{"folds": 1}, {"repeats": 0}, {"jobs": 0}])
def test_an_impossible_number_is_a_usage_error(settings):
    with pytest.raises(UsageError):
        KfoldConfig(**settings)


def test_more_folds_than_images_of_a_class_or_groups_are_an_error(image_folder, tmp_path):
    dataset = imgclf.read(image_folder(count=4))
    with pytest.raises(DatasetError, match="at least 5 images of every class for 5 folds, found 4 of ant"):
        crossval.kfold(dataset, SMALL, output=tmp_path / "folds")
    dataset = imgclf.read(image_folder(count=8, name="more"))
    grouped = replace(dataset, samples=tuple(replace(s, group=f"g{int(s.path[-5]) % 2}") for s in dataset.samples))
    with pytest.raises(DatasetError, match="at least 5 groups for 5 folds, found 2"):
        crossval.kfold(grouped, SMALL, output=tmp_path / "groups")


@pytest.mark.parametrize(("method", "told"), [("auto", True), ("probe", False)])
def test_the_cost_of_fine_tuning_each_fold_is_told_before_it_begins(image_folder, tmp_path, caplog, method, told):
    caplog.set_level("INFO", "imgclf")
    with pytest.raises(DatasetError):  # too few images, which shows later
        crossval.kfold(imgclf.read(image_folder(count=4)), TrainConfig(method=method), output=tmp_path / "folds")
    line = "Cross-validation trains 5 times with --method auto, up to 5 min each: each fold as imgclf train would. "
    assert (line in caplog.text) is told


def test_a_folder_of_other_folds_is_refused(image_folder, tmp_path):
    (tmp_path / "folds").mkdir()
    (tmp_path / "folds" / "config.json").write_text('{"data": "x", "config": {}, "data_sha256": "0"}')
    with pytest.raises(RunError, match="expected folds of the same images and settings"):
        crossval.kfold(imgclf.read(image_folder()), SMALL, KfoldConfig(folds=2), output=tmp_path / "folds")


def test_a_test_part_that_the_data_came_with_stays_out(tmp_path):
    samples = tuple(
        Sample(f"{name}{i}.png", name, TEST if i < 2 else TRAIN, sha256=f"{name}{i}") for name in "ab" for i in range(6)
    )
    chosen, notes = crossval.images_to_fold(Dataset(tmp_path, samples, ("a", "b")), SMALL)
    assert len(chosen) == 8 and {s.split for s in chosen.samples} == {""}
    assert any("stays out: 4 images" in note for note in notes)
    unsplit = tuple(replace(s, split="") for s in samples)
    assert len(crossval.images_to_fold(Dataset(tmp_path, unsplit, ("a", "b")), SMALL)[0]) == 12


def test_a_fold_says_nothing_of_given_splits_and_has_validation_images(tmp_path):
    samples = tuple(
        Sample(f"{name}{i}.png", name, TEST if i < 2 else TRAIN, sha256=f"{name}{i}")
        for name in "ab"
        for i in range(20)
    )
    config = replace(SMALL, near_duplicates="off")
    own = crossval.carve_validation(Dataset(tmp_path, samples, ("a", "b")), config, seed=0)
    assert sum(s.split == "validation" for s in own.samples) > 0
    assert not any("given splits" in note for note in own.split_notes)


@pytest.mark.slow
def test_every_image_is_tested_once_and_a_killed_fold_is_done_again(image_folder, tmp_path):
    dataset = imgclf.read(image_folder(count=8))
    settings = KfoldConfig(folds=2)
    result = crossval.kfold(dataset, SMALL, settings, output=tmp_path / "folds")
    found = read_predictions(result.folder / "predictions.csv")
    assert sorted(found.paths) == sorted(s.path for s in dataset.samples)
    assert result.metrics["n"] == 16
    assert [row["fold"] for row in result.folds["rows"]] == ["fold-1", "fold-2"]
    mean = np.mean([row["accuracy"] for row in result.folds["rows"]])
    assert result.folds["summary"]["accuracy"]["mean"] == pytest.approx(mean)
    assert mean == pytest.approx(result.metrics["accuracy"])  # folds of equal size
    assert "Folds" in (result.folder / "report.html").read_text()
    assert not (result.folder / "fold-1" / "report.html").exists()
    for fold in ("fold-1", "fold-2"):
        config = json.loads((result.folder / fold / "config.json").read_text())["config"]
        assert config["export"] == "none"

    before = {p.name: p.stat().st_mtime_ns for p in (result.folder / "fold-1").iterdir()}
    (result.folder / "fold-2" / "predictions.csv").unlink()
    again = crossval.kfold(dataset, SMALL, settings, output=tmp_path / "folds")
    assert again.metrics == result.metrics
    assert {p.name: p.stat().st_mtime_ns for p in (result.folder / "fold-1").iterdir()} == before
    shutil.rmtree(tmp_path / "folds" / "fold-1")


@pytest.mark.slow
def test_a_run_is_cross_validated_on_its_own_training_and_validation_images(trained_run, tmp_path):
    run = imgclf.Run(shutil.copytree(trained_run.path, tmp_path / "run"))
    result = crossval.kfold(run, settings=KfoldConfig(folds=2, jobs=2))
    assert result.folder == run.path / "kfold-2"
    tested = set(read_predictions(run.predictions).paths)
    assert not tested & set(read_predictions(result.folder / "predictions.csv").paths)
    assert result.metrics["n"] + len(tested) == 48
    assert result.folds["sentence"].startswith("Accuracy ")


@pytest.mark.slow
def test_a_fold_of_a_probe_is_what_training_on_its_images_alone_gives(image_folder, tmp_path):
    config = TrainConfig(backbone="efficientnet-lite0", method="probe", offline=True, deterministic=True)
    result = crossval.kfold(
        imgclf.read(image_folder(count=12)), config, KfoldConfig(folds=2), output=tmp_path / "folds"
    )
    fold = imgclf.Run(result.folder / "fold-2")  # the graph has the head of the first fold when this one begins
    alone = imgclf.train(
        run_data.read(fold), TrainConfig.from_dict(fold.read_config()["config"]), output=tmp_path / "alone"
    )
    found, expected = read_predictions(fold.predictions), read_predictions(alone.predictions)
    assert found.paths == expected.paths
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_folds_of_an_own_model_keep_it_and_resume(tmp_path):
    for number in range(12):
        gray_image(
            tmp_path / "images" / ("dark" if number % 2 else "light") / f"{number}.png", 60 + 120 * (number % 2), number
        )
    dataset, config = imgclf.read(tmp_path / "images"), TrainConfig(method="probe", cache="off")
    settings = KfoldConfig(folds=2)
    found = crossval.kfold(dataset, config, settings, output=tmp_path / "folds", backbone=tiny_backbone())
    assert found.metrics["n"] == 12
    shutil.rmtree(tmp_path / "folds" / "fold-2")
    again = crossval.kfold(dataset, config, settings, output=tmp_path / "folds", backbone=tiny_backbone())
    assert again.folds["rows"] == found.folds["rows"]
    other = tiny_backbone()
    other.layers[-1].set_weights([array + 1 for array in other.layers[-1].get_weights()])
    with pytest.raises(RunError, match="expected folds of the same backbone, found others"):
        crossval.kfold(dataset, config, settings, output=tmp_path / "folds", backbone=other)


def test_an_own_model_for_the_folds_of_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="have that run's backbone"):
        crossval.kfold(imgclf.Run(tmp_path), backbone=object())
