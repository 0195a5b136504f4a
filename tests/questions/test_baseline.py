"""imgclf baseline: the same folds for all, ranked, and one sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import fill

import imgclf as library
from imgclf.data import splitting
from imgclf.errors import UsageError
from imgclf.evaluation.intervals import wilson
from imgclf.questions.baseline import PROBE, conclusion
from imgclf.settings import BaselineConfig

pytest_plugins = ("cli.conftest",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("baseline") / "images", ("one", "two"), 15, 40, ".png", seed=2)


@pytest.fixture(scope="module")
def found(folder):
    config = BaselineConfig(only="majority,color-histogram,mean-color")
    return library.baseline(library.read(folder), config)


def test_rows_are_ranked_with_their_intervals(found):
    accuracies = [row["accuracy"] for row in found.rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {row["name"] for row in found.rows} == {"majority class", "mean color + k-NN", "color histogram + SVM"}
    assert not any(row["note"] for row in found.rows)
    assert (found.images, found.folds) == (30, 3)
    for row in found.rows:
        assert row["interval"] == list(wilson(round(row["accuracy"] * 30), 30))


def test_the_majority_is_right_as_often_as_its_class_is_in_the_tested_folds(found, folder):
    dataset = library.read(folder)
    right = 0
    for train, tested in splitting.folds(dataset, 3, 0):
        most = np.bincount(dataset.labels[train]).argmax()
        right += int((dataset.labels[tested] == most).sum())
    [row] = [row for row in found.rows if row["name"] == "majority class"]
    assert row["accuracy"] == right / 30


def test_colors_that_tell_the_classes_apart_are_learned(found):
    [row] = [row for row in found.rows if row["name"] == "color histogram + SVM"]
    assert row["accuracy"] > 0.9


@pytest.mark.slow
def test_a_network_that_is_cut_short_says_so_and_the_probe_is_judged(folder):
    config = BaselineConfig(only="lenet5,majority,probe", time_limit="1s")
    found = library.baseline(library.read(folder), config)
    rows = {row["name"]: row for row in found.rows}
    assert rows["LeNet-5"]["note"].startswith("stopped after ")
    assert rows[PROBE]["accuracy"] > 0.9
    assert found.sentence.startswith(f"The network is worth it: {PROBE} gains")


def test_the_report_has_every_row(found, tmp_path):
    found.write(tmp_path / "baseline.html")
    page = (tmp_path / "baseline.html").read_text()
    assert all(row["name"] in page for row in found.rows)
    assert found.sentence.split(":")[0] in page
    with pytest.raises(UsageError, match="cannot be written"):
        found.write(tmp_path / "baseline.html" / "below.html")


def test_the_command_prints_the_table_and_json(imgclf, folder, capsys):
    options = ("baseline", folder, "--only", "majority,mean-color", "--folds", "2", "--quiet")
    assert imgclf(*options, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all({"name", "accuracy", "interval", "seconds"} <= set(row) for row in rows)
    assert imgclf(*options) == 0
    assert "mean color + k-NN" in capsys.readouterr().out


LABELS = np.arange(100) % 2


def guesses(right):
    """Predictions of which the first `right` are correct."""
    return np.where(np.arange(100) < right, LABELS, 1 - LABELS)


@pytest.mark.parametrize(
    ("network", "other", "sentence"),
    [
        (95, 60, f"The network is worth it: {PROBE} gains +35.0 percentage points over HOG + SVM (95% CI"),
        (61, 60, f"The network is not worth it yet: {PROBE} changes accuracy by +1.0 percentage points"),
        (40, 60, f"The network is not worth it yet: {PROBE} changes accuracy by -20.0 percentage points"),
    ],
)
def test_the_sentence_weighs_the_best_network_against_the_best_other(network, other, sentence):
    found = {
        PROBE: guesses(network),
        "LeNet-5": guesses(10),
        "HOG + SVM": guesses(other),
        "majority class": guesses(50),
    }
    assert conclusion(LABELS, found).startswith(sentence)


def test_without_a_network_there_is_nothing_to_weigh():
    assert conclusion(LABELS, {"HOG + SVM": guesses(60)}).startswith("Compare a network with another")


def test_a_task_without_classes_is_refused(folder):
    dataset = replace(library.read(folder), task="regression", settings=None)
    with pytest.raises(UsageError, match="baseline does not support --task regression yet"):
        library.baseline(dataset)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"only": "hog,svm"}, "--only"), ({"time_limit": "3"}, "--time-limit"), ({"folds": 1}, "--folds")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        BaselineConfig(**settings)
