"""imgclf suggest: choices by hand, what is known is left out, and a table that labels a flat folder."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import COLORS, fill
from PIL import Image

import imgclf as library
from imgclf.errors import DatasetError, UsageError
from imgclf.questions import suggest as question
from imgclf.settings import DataConfig, SuggestConfig

pytest_plugins = ("cli.conftest",)

POINTS = np.array([[1, 0], [0.99, 0.14], [0, 1], [-1, 0]])  # directions at 0, 8, 90 and 180 degrees


def test_the_most_uncertain_have_the_smallest_margin():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.45, 0.1, 0.45], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0]])
    assert question.pick(probabilities, POINTS, POINTS[:0], top=3, by="uncertainty") == [1, 2, 0]


def test_the_most_diverse_are_the_farthest_from_all_that_are_labeled_or_chosen():
    assert question.k_center(POINTS, np.array([[1.0, 0.0]]), 3) == [3, 2, 1]
    assert question.k_center(POINTS, np.empty((0, 2)), 2) == [0, 3]
    assert question.k_center(2 * POINTS, np.array([[5.0, 0.0]]), 9) == [3, 2, 1, 0]  # lengths do not count


def test_both_choose_the_diverse_among_the_uncertain(monkeypatch):
    monkeypatch.setattr(question, "PRESELECTED", 3)
    probabilities = np.array([[0.5, 0.5], [0.52, 0.48], [0.55, 0.45], [1.0, 0.0]])
    labeled = np.array([[1.0, 0.0]])
    assert question.pick(probabilities, POINTS, labeled, top=1, by="both") == [2]
    assert question.pick(probabilities, POINTS, labeled, top=1, by="diversity") == [3]


@pytest.fixture
def unlabeled(tmp_path):
    """A flat folder of images of two kinds."""
    drawn = fill(tmp_path / "drawn", ("disc", "two discs"), 8, 40, ".png", seed=11)
    flat = tmp_path / "flat"
    flat.mkdir()
    for kind in ("disc", "two discs"):
        for file in (drawn / kind).iterdir():
            shutil.copy(file, flat / f"{kind[0]}{file.name}")
    return flat


def test_the_command_writes_a_table_that_labels_a_flat_folder(imgclf, trained_run, unlabeled, tmp_path, capsys):
    table = unlabeled / "next.csv"
    assert imgclf("suggest", trained_run.path, unlabeled, "--top", 12, "-o", table, "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], len(found["suggestions"])) == (16, 12)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["path"] for row in rows] == [each["path"] for each in found["suggestions"]]
    assert {row["label"] for row in rows} == {""}
    assert '<section id="answer-suggest">' in (trained_run.path / "report.html").read_text()
    assert (unlabeled / "next.html").read_text().count("<img") == 12
    assert imgclf("suggest", trained_run.path, unlabeled, "-o", table) == 2
    assert "the file exists, perhaps with your marks" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="no class folders"):
        library.read(unlabeled)

    for row in rows[:10]:
        row["label"] = {"d": "one", "t": "two"}[row["path"][0]]
    moved = tmp_path / "labels.csv"  # it may lie anywhere
    for place in (table, moved):
        with place.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        labeled = library.read(unlabeled, DataConfig(labels=str(place)))
        assert {s.path: s.label for s in labeled.samples} == {row["path"]: row["label"] for row in rows[:10]}
        assert {s.path for s in labeled.skipped if s.kind == "unlabelled"} == {row["path"] for row in rows[10:]}


def test_a_flat_folder_needs_a_table_of_its_images(unlabeled, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nd000.png,one\nd001.png,\n")
    with pytest.raises(DatasetError, match="expected at least 2 classes"):
        library.read(unlabeled, DataConfig(labels=str(table)))
    table.write_text("path,label\nnowhere.png,one\n")
    with pytest.raises(DatasetError, match="not one of its paths leads to an image"):
        library.read(unlabeled, DataConfig(labels=str(table)))


def test_what_the_run_knows_is_left_out(trained_run, unlabeled, caplog):
    own = trained_run.path.parent / "images"
    shutil.copy(own / "disc" / "000.png", unlabeled / "known.png")
    (unlabeled / "broken.png").write_bytes(b"no image")
    config = SuggestConfig(top=100, by="uncertainty")
    with caplog.at_level("INFO", logger="imgclf"):
        found = library.suggest(trained_run, unlabeled, config)
    assert "images left out, since the run has their labels: 1." in caplog.text
    assert "1 of 17 images cannot be read, such as " in caplog.text
    assert found.sentence == "16 of 16 unlabeled images, the most useful first."
    assert len(found.suggestions) == 16
    assert "known.png" not in {each.path for each in found.suggestions}
    margins = [abs(each.confidence - 0.5) for each in found.suggestions]
    assert margins == sorted(margins)
    with pytest.raises(DatasetError, match=r"found only images that .* has labels for"):
        library.suggest(trained_run, own)


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(trained_run, unlabeled, caplog):
    (trained_run.path / "answers").write_text("a file where the folder belongs")
    found = library.suggest(trained_run, unlabeled, SuggestConfig(top=1, by="uncertainty"))
    assert found.sentence == "1 of 16 unlabeled images, the most useful first."
    assert "This answer is not kept in the run" in caplog.text


def test_what_has_nothing_to_suggest_is_refused(imgclf, trained_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert imgclf("suggest", trained_run.path, tmp_path / "empty") == 3
    assert "expected unlabeled images, found none" in capsys.readouterr().err
    assert imgclf("suggest", trained_run.path, tmp_path / "missing") == 3
    assert imgclf("suggest", trained_run.path, tmp_path / "empty", "-o", tmp_path / "next.txt") == 2
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="none of the 1 images can be read"):
        library.suggest(trained_run, tmp_path / "broken", SuggestConfig(by="uncertainty"))
    with pytest.raises(UsageError, match="--by"):
        SuggestConfig(by="luck")


def test_a_diverse_choice_has_both_kinds(trained_run, unlabeled):
    for number in range(4):  # an outlier of its own kind comes first
        Image.new("RGB", (40, 40), COLORS[number]).save(unlabeled / f"plain{number}.png")
    found = library.suggest(trained_run, unlabeled, SuggestConfig(top=3, by="diversity"))
    assert "plain" in found.suggestions[0].path
