import csv
import io
import json
import os

import numpy as np
import pytest

from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction import Prediction, outputs

LABELS = ("ants", "bees", "wasps")
BEES = Prediction("b.jpg", np.array([0.125, 0.75, 0.125], np.float32), LABELS)
BROKEN = Prediction("x.jpg", None, LABELS, "an empty file")
NOT_TEXT = os.fsdecode(b"caf\xe9.jpg")

needs_bytes_as_names = pytest.mark.skipif(os.name == "nt", reason="names of files are text there")


def named(path: str, labels: tuple[str, ...] = LABELS) -> Prediction:
    return Prediction(path, BEES.probabilities, labels)


def test_a_json_line_has_these_keys_in_this_order():
    assert list(outputs.to_jsonl([BEES, BROKEN], 2)) == [
        '{"path": "b.jpg", "label": "bees", "confidence": 0.75, "top": [{"label": "bees", "confidence": 0.75}, '
        '{"label": "ants", "confidence": 0.125}], "error": null}\n',
        '{"path": "x.jpg", "label": null, "confidence": null, "top": [], "error": "an empty file"}\n',
    ]


@needs_bytes_as_names
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("path", ["a\nb\t\"'.jpg", "naïve 蜂 \U0001f41d.jpg", NOT_TEXT, "\x1b[31m"])
def test_any_name_comes_back_from_a_json_line(path, ascii_only):
    [line] = outputs.to_jsonl([named(path, ("蜂\u2028", "b\n", "c"))], 3, ascii_only=ascii_only)
    assert line.count("\n") == 1
    raw = line.encode("ascii" if ascii_only else "utf-8")
    values = json.loads(raw)
    assert values["path"] == path
    assert [entry["label"] for entry in values["top"]] == ["b\n", "蜂\u2028", "c"]


def test_csv_begins_with_a_header_and_puts_the_best_class_first():
    assert list(outputs.to_csv([BEES, BROKEN], 1)) == [
        "path,label,confidence,error\n",
        "b.jpg,bees,0.75,\n",
        "x.jpg,,,an empty file\n",
    ]


def test_csv_has_columns_for_further_classes_and_leaves_empty_what_there_is_not():
    assert list(outputs.to_csv([BEES, BROKEN], 4)) == [
        "path,label,confidence,error,label_2,confidence_2,label_3,confidence_3,label_4,confidence_4\n",
        "b.jpg,bees,0.75,,ants,0.125,wasps,0.125,,\n",
        "x.jpg,,,an empty file,,,,,,\n",
    ]


@pytest.mark.parametrize("path", ['a,"b.jpg', "two\nlines.jpg", "a\rb.jpg", " space .jpg"])
def test_any_name_comes_back_from_csv(path):
    text = "".join(outputs.to_csv([named(path)], 1))
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == ["path", path]


def test_an_image_that_did_not_come_from_a_file_has_no_path():
    nameless = Prediction(None, BEES.probabilities, LABELS)
    assert json.loads(next(outputs.to_jsonl([nameless], 1)))["path"] is None
    assert list(outputs.to_csv([nameless], 1))[1] == ",bees,0.75,\n"


def test_a_table_has_a_row_for_each_class_and_names_the_image_once():
    assert outputs.to_rows(BEES, 2) == [("b.jpg", "bees", "75.0%", ""), ("", "ants", "12.5%", "")]
    assert outputs.to_rows(BROKEN, 2) == [("x.jpg", "", "", "an empty file")]


def test_a_line_for_people_stays_one_line_and_commands_no_terminal():
    assert outputs.to_text(BEES, 2) == "b.jpg\tbees 75.0%\tants 12.5%\n"
    assert outputs.to_text(BROKEN, 2) == "x.jpg\tan empty file\n"
    odd = named("a\n\x1b[31m" + NOT_TEXT, ("a", "b\tc", "d"))
    assert outputs.to_text(odd, 1) == "a\\n\\x1b[31mcaf\\udce9.jpg\tb\\tc 75.0%\n"


def test_a_new_file_stands_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "out.csv"
    with outputs.create(target) as file:
        file.write("naïve\n")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == "naïve\n".encode()
    assert [path.name for path in target.parent.iterdir()] == ["out.csv"]


@needs_bytes_as_names
def test_a_name_that_is_not_text_is_written_as_its_bytes(tmp_path):
    with outputs.create(tmp_path / "out.csv") as file:
        file.write(NOT_TEXT)
    assert (tmp_path / "out.csv").read_bytes() == b"caf\xe9.jpg"


def test_an_interruption_keeps_what_is_written(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt), outputs.create(tmp_path / "out.csv") as file:
        file.write("one\n")
        raise KeyboardInterrupt
    assert (tmp_path / "out.csv").read_text() == "one\n"
    assert f"{tmp_path / 'out.csv'} holds what was finished." in caplog.messages


@pytest.mark.parametrize("error", [ValueError("why"), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(tmp_path, error):
    expected = ImgclfError if isinstance(error, OSError) else ValueError
    with pytest.raises(expected, match=r"No space|why"), outputs.create(tmp_path / "out.csv") as file:
        file.write("one\n")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_touched(tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match="found one that exists"), outputs.create(tmp_path / "out.csv"):
        pass
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), outputs.create(tmp_path / "file" / "out.csv"):
        pass
