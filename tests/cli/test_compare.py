import json

import numpy as np
import pytest

from imgclf.evaluation import outputs
from tests.evaluation.test_compare import write


def test_a_table_the_pairs_and_one_sentence(imgclf, tmp_path, capsys):
    one, other = write(tmp_path / "[red]one", [1] * 10 + [0] * 10), write(tmp_path / "<b>", [1] * 20)
    assert imgclf("compare", one, other) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "On 20 images" in printed and "[red]one" in printed
    assert f"{other} is better than {one}: its accuracy is 50.0 percentage points higher, " in printed
    assert "chance alone hardly explains (p = 0.002)." in printed
    assert imgclf("compare", one, other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["accuracy"] for row in found["runs"]] == [0.5, 1.0]
    assert found["pairs"][0]["only_second"] == 10


def test_other_test_sets_end_with_4_unless_told(imgclf, tmp_path, capsys):
    one, other = write(tmp_path / "one", [1] * 10), write(tmp_path / "other", [1] * 10, start=4)
    assert imgclf("compare", one, other) == 4
    assert "--common" in capsys.readouterr().err
    assert imgclf("compare", one, other, "--common", "--json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 6


@pytest.mark.parametrize("number", ["nan", "7"])
def test_what_are_no_probabilities_ends_with_4_and_names_the_file(imgclf, tmp_path, capsys, number):
    one, other = write(tmp_path / "one", [1] * 4), write(tmp_path / "other", [1] * 4)
    text = (other / "predictions.csv").read_text().splitlines()
    text[2] = ",".join([*text[2].split(",")[:-1], number])
    (other / "predictions.csv").write_text("\n".join(text) + "\n")
    assert imgclf("compare", one, other) == 4
    printed = capsys.readouterr().err
    assert str(other / "predictions.csv") in printed and "row 1" in printed and "Traceback" not in printed


def test_equal_results_have_no_interval_that_looks_sure(imgclf, tmp_path, capsys):
    one, other = write(tmp_path / "one", [1] * 4), write(tmp_path / "other", [1] * 4)
    assert imgclf("compare", one, other) == 0
    out = capsys.readouterr().out
    assert "+0.0 to +0.0" not in out
    assert "make the same predictions, so these 4 images cannot tell which is better" in out


def test_one_image_is_enough_for_a_careful_sentence(imgclf, tmp_path, capsys):
    one, other = write(tmp_path / "one", [0]), write(tmp_path / "other", [1])
    assert imgclf("compare", one, other) == 0
    assert "No significant difference" in capsys.readouterr().out


def test_what_cannot_be_compared_ends_with_2_or_4(imgclf, tmp_path, capsys):
    one = write(tmp_path / "one", [1] * 4)
    assert imgclf("compare", one) == 2
    assert imgclf("compare", one, tmp_path / "nowhere") == 4
    others = tmp_path / "others"
    others.mkdir()
    chances = np.full((4, 3), 1 / 3)
    outputs.write_predictions(others / "predictions.csv", list("abcd"), np.zeros(4, int), chances, ["x", "y", "z"])
    assert imgclf("compare", one, others) == 4
    assert "expected the classes of" in capsys.readouterr().err
