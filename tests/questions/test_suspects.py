"""imgclf suspects: confident learning by hand, planted labels, and what becomes of the marks."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import fill

import imgclf as library
from imgclf.data import labels as corrections
from imgclf.errors import DatasetError, UsageError
from imgclf.questions import suspects as question
from imgclf.questions.suspects import Suspect, Suspects
from imgclf.settings import Decoding, SuspectsConfig

pytest_plugins = ("cli.conftest",)

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
PROBABILITIES = np.array(
    [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.3, 0.7], [0.5, 0.5]]
)


def test_thresholds_are_the_mean_confidence_of_each_class():
    assert question.thresholds(LABELS, PROBABILITIES).tolist() == pytest.approx([2.6 / 4, 2.8 / 4])


def test_the_joint_counts_what_exceeds_the_thresholds_and_is_scaled_to_the_labels():
    # label 0: rows 0, 1, 2 exceed 0.65 of class 0, row 3 exceeds 0.7 of class 1; label 1: rows 4, 5, 6; row 7 nothing
    joint = question.joint_counts(LABELS, PROBABILITIES)
    np.testing.assert_allclose(joint, [[3, 1], [0, 4]])
    [pair] = question.noise(joint, ["ant", "bee"])
    assert pair == {"given": "ant", "true": "bee", "images": 1.0, "share": 1 / 5}


def test_a_label_without_a_confident_image_counts_as_it_is():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]])
    joint = question.joint_counts(labels, probabilities)
    assert joint.sum(axis=1).tolist() == [2, 2]
    assert joint[1].tolist() == [0, 2]


def test_the_ranking_begins_with_the_least_probable_label_for_its_class():
    order, proposals, scores = question.rank(LABELS, PROBABILITIES)
    assert order[0] == 3
    assert proposals[3] == 1
    assert scores[3] == pytest.approx(1 - 0.2 / 0.65)
    assert scores[7] == pytest.approx(1 - 0.5 / 0.7)
    assert order.tolist() == sorted(range(8), key=lambda row: -scores[row])


@pytest.fixture
def folder(tmp_path):
    """Two classes that differ in color; two images of each lie in the folder of the other."""
    folder = fill(tmp_path / "images", ("ant", "bee"), 30, 40, ".png", seed=3)
    for name in ("000.png", "001.png"):
        shutil.move(folder / "ant" / name, folder / "bee" / f"a{name}")
        shutil.move(folder / "bee" / name, folder / "ant" / f"b{name}")
    return folder


PLANTED = {"ant/b000.png", "ant/b001.png", "bee/a000.png", "bee/a001.png"}


@pytest.mark.usefixtures("mean_colors")
def test_planted_labels_come_first_and_are_counted(folder):
    found = library.suspects(library.read(folder), SuspectsConfig(top=4))
    assert {each.path for each in found.suspects} == PLANTED
    assert all(each.given != each.label == {"a": "ant", "b": "bee"}[each.path[4]] for each in found.suspects)
    assert found.wrong == pytest.approx(4, abs=1)
    assert {(pair["given"], pair["true"]) for pair in found.noise} == {("ant", "bee"), ("bee", "ant")}
    assert found.sentence == f"About {found.wrong:.0f} of 60 labels ({found.wrong / 60:.1%}) are probably wrong."


@pytest.mark.usefixtures("mean_colors")
def test_files_that_cannot_be_read_are_named(folder, caplog):
    (folder / "ant" / "broken.png").write_bytes(b"no image")
    assert library.suspects(library.read(folder), SuspectsConfig(top=4)).images == 60
    assert "left out as unreadable: 1, such as ant/broken.png: " in caplog.text


def test_scores_as_usual_have_no_sign():
    usual = Suspect("ant/a.png", "ant", "bee", -0.0001, Path("ant/a.png"))
    found = Suspects([usual], 1, 0.0, [], Decoding())
    assert found.tables()[0][2] == [("ant/a.png", "ant", "bee", "0.00")]


@pytest.mark.usefixtures("mean_colors")
def test_the_command_writes_a_table_to_mark_that_train_applies(imgclf, folder, tmp_path, capsys):
    table = tmp_path / "s.csv"
    assert imgclf("suspects", folder, "--top", 4, "-o", table, "--quiet", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == [str(table), str(tmp_path / "s.html")]
    assert {row["path"] for row in printed["suspects"]} == PLANTED
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert list(rows[0]) == ["path", "given", "label", "score", "accept", "exclude"]
    assert [float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True)
    page = (tmp_path / "s.html").read_text()
    assert page.count("<img") == 4
    assert "bee/a000.png" in page

    rows[0]["accept"], rows[1]["exclude"] = "x", "1"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    before = {s.path: s.label for s in library.read(folder).samples}
    corrected = {s.path: s.label for s in library.read(folder, library.DataConfig(labels=str(table))).samples}
    changed = {path for path in corrected if corrected[path] != before[path]}
    assert changed == {rows[0]["path"]}
    assert set(before) - set(corrected) == {rows[1]["path"]}
    left = {s.path for s in library.read(folder, library.DataConfig(exclude=str(table))).samples}
    assert set(before) - left == {rows[1]["path"]}

    assert imgclf("suspects", folder, "-o", table) == 2
    assert "perhaps with your marks" in capsys.readouterr().err
    assert imgclf("suspects", folder, "--top", 4, "--quiet") == 0
    assert "Noise by pair of classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cells", "message"),
    [("1,1", "marked in accept and in exclude"), ("maybe,", "0, false, no or nothing for accept, found 'maybe'")],
)
def test_impossible_marks_are_refused(folder, tmp_path, cells, message):
    table = tmp_path / "s.csv"
    table.write_text(f"path,given,label,score,accept,exclude\nbee/a000.png,bee,ant,1.0,{cells}\n")
    with pytest.raises(DatasetError, match=message):
        corrections.correct(library.read(folder), table)


def test_what_has_no_effect_or_no_sense_is_refused(imgclf, folder, trained_run, tmp_path, capsys):
    assert imgclf("suspects", folder, "-o", tmp_path / "s.txt") == 2
    assert "expected a name that ends in .csv" in capsys.readouterr().err
    assert imgclf("suspects", trained_run.path, "--backbone", "small-cnn") == 2
    assert "is a run with its own settings. Remove --backbone" in capsys.readouterr().err
    assert imgclf("suspects", folder, "--top", 0) == 2
    with pytest.raises(UsageError, match="--data tells where the images of a run lie"):
        library.suspects(library.read(folder), data=folder)
    with pytest.raises(
        DatasetError, match="expected images of every class outside each of 5 folds, found all those of 'ant'"
    ):
        library.suspects(library.read(fill(tmp_path / "two", ("ant", "bee"), 1, 32, ".png", 0)))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_are_refused(folder, task):
    with pytest.raises(UsageError, match=f"suspects does not support --task {task} yet"):
        library.suspects(replace(library.read(folder), task=task, settings=None))


@pytest.mark.usefixtures("mean_colors")
def test_the_report_of_a_run_shows_its_suspects_and_the_rest_of_it_stays(trained_run):
    before = (trained_run.path / "report.html").read_text()
    found = library.suspects(trained_run, SuspectsConfig(top=3))
    after = (trained_run.path / "report.html").read_text()
    section = after[after.index("<!-- answers -->") : after.index("<!-- end of answers -->")]
    assert all(each.path in section for each in found.suspects)
    assert found.sentence in section
    assert after.replace(section, "<!-- answers -->\n\n") == before


@pytest.mark.slow
def test_a_run_gives_its_images_and_a_backbone_that_has_not_seen_their_labels(trained_run):
    found = library.suspects(trained_run, SuspectsConfig(top=3))
    assert (found.images, len(found.suspects)) == (48, 3)
    assert found.wrong < 2
