import csv
import io
import json
import os
from dataclasses import replace

import numpy as np
import openpyxl
import pyarrow.parquet as pq
import pytest

from imgclf.errors import UsageError
from imgclf.prediction import Prediction, batch, embeddings, outputs
from imgclf.prediction.decision import Decision

LABELS = ("ants", "bees", "wasps")
BEES = Prediction("b.jpg", np.array([0.125, 0.75, 0.125], np.float32), LABELS)
BROKEN = Prediction("x.jpg", None, LABELS, "an empty file")
NOT_TEXT = os.fsdecode(b"caf\xe9.jpg")

needs_bytes_as_names = pytest.mark.skipif(os.name == "nt", reason="names of files are text there")


def named(path: str, labels: tuple[str, ...] = LABELS) -> Prediction:
    return Prediction(path, BEES.probabilities, labels)


def test_a_json_line_has_these_keys_in_this_order():
    assert list(outputs.to_jsonl([BEES, BROKEN], 2)) == [
        '{"path": "b.jpg", "label": "bees", "confidence": 0.75, "rejected": false, "top": [{"label": "bees", '
        '"confidence": 0.75}, {"label": "ants", "confidence": 0.125}], "error": null}\n',
        '{"path": "x.jpg", "label": null, "confidence": null, "rejected": false, "top": [], '
        '"error": "an empty file"}\n',
    ]


def test_a_rejected_image_has_a_confidence_and_is_unknown():
    unsure = replace(BEES, rules=Decision(reject_below=0.76))
    values = json.loads(next(outputs.to_jsonl([unsure], 1)))
    assert (values["label"], values["confidence"], values["rejected"]) == (None, 0.75, True)
    assert values["top"] == [{"label": "bees", "confidence": 0.75}]
    assert list(outputs.to_csv([unsure], 1))[1] == "b.jpg,unknown,0.75,,,true,bees\n"
    assert outputs.to_rows(unsure, 2) == [("b.jpg", "unknown (unsure)", "75.0%", ""), ("", "ants", "12.5%", "")]
    assert not replace(BEES, rules=Decision(reject_below=0.75)).rejected


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
        "path,label,confidence,error,predicted,rejected,argmax\n",
        "b.jpg,bees,0.75,,bees,false,bees\n",
        "x.jpg,,,an empty file,,false,\n",
    ]


def test_csv_has_columns_for_further_classes_and_leaves_empty_what_there_is_not():
    assert list(outputs.to_csv([BEES, BROKEN], 4)) == [
        "path,label,confidence,error,label_2,confidence_2,label_3,confidence_3,label_4,confidence_4,"
        "predicted,rejected,argmax\n",
        "b.jpg,bees,0.75,,ants,0.125,wasps,0.125,,,bees,false,bees\n",
        "x.jpg,,,an empty file,,,,,,,,false,\n",
    ]


@pytest.mark.parametrize("path", ['a,"b.jpg', "two\nlines.jpg", "a\rb.jpg", " space .jpg"])
def test_any_name_comes_back_from_csv(path):
    text = "".join(outputs.to_csv([named(path)], 1))
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == ["path", path]


def test_an_image_that_did_not_come_from_a_file_has_no_path():
    nameless = Prediction(None, BEES.probabilities, LABELS)
    assert json.loads(next(outputs.to_jsonl([nameless], 1)))["path"] is None
    assert list(outputs.to_csv([nameless], 1))[1] == ",bees,0.75,,bees,false,bees\n"


def test_a_table_has_a_row_for_each_class_and_names_the_image_once():
    assert outputs.to_rows(BEES, 2) == [("b.jpg", "bees", "75.0%", ""), ("", "ants", "12.5%", "")]
    assert outputs.to_rows(BROKEN, 2) == [("x.jpg", "", "", "an empty file")]


def test_a_line_for_people_stays_one_line_and_commands_no_terminal():
    assert outputs.to_text(BEES, 2) == "b.jpg\tbees 75.0%\tants 12.5%\n"
    assert outputs.to_text(BROKEN, 2) == "x.jpg\tan empty file\n"
    odd = named("a\n\x1b[31m" + NOT_TEXT, ("a", "b\tc", "d"))
    assert outputs.to_text(odd, 1) == "a\\n\\x1b[31mcaf\\udce9.jpg\tb\\tc 75.0%\n"


@pytest.mark.parametrize("count", [0, 1, outputs.ROWS + 1])
def test_parquet_has_the_columns_of_csv(tmp_path, count):
    with outputs.parquet(tmp_path / "out.parquet", 2) as add:
        for prediction in [replace(BEES, path=f"{number}.jpg") for number in range(count)] + [BROKEN, named(NOT_TEXT)]:
            add(prediction)
    table = pq.read_table(tmp_path / "out.parquet")
    assert tuple(table.column_names) == outputs.columns(2)
    rows = table.to_pylist()
    assert [row["path"] for row in rows[:count]] == [f"{number}.jpg" for number in range(count)]
    assert rows[count] == dict.fromkeys(outputs.columns(2)) | {
        "path": "x.jpg",
        "error": "an empty file",
        "rejected": False,
    }
    assert rows[-1] | {"path": ""} == {
        "path": "",
        "label": "bees",
        "confidence": 0.75,
        "error": None,
        "label_2": "ants",
        "confidence_2": 0.125,
        "predicted": "bees",
        "rejected": False,
        "argmax": "bees",
    }


def test_a_class_called_unknown_differs_from_a_rejection():
    """Both have the label "unknown", which people read; the columns for programs tell them apart."""
    sure = Prediction("u.jpg", np.array([0.25, 0.75], np.float32), ("ants", "unknown"))
    rejected = replace(sure, path="r.jpg", rules=Decision(reject_below=0.8))
    rows = list(csv.DictReader(io.StringIO("".join(outputs.to_csv([sure, rejected], 1)))))
    assert [row["label"] for row in rows] == ["unknown", "unknown"]
    assert [(row["predicted"], row["rejected"]) for row in rows] == [("unknown", "false"), ("", "true")]
    assert [row["argmax"] for row in rows] == ["unknown", "unknown"]
    assert [outputs.to_rows(each, 1)[0][1] for each in (sure, rejected)] == ["unknown", "unknown (unsure)"]


def test_parquet_says_null_of_a_rejected_label_and_never_names_the_answer_twice(tmp_path):
    strange = replace(BEES, outlier_score=2.0, rules=Decision(outlier_above=1.0))
    even = np.array([0.375, 0.625], np.float32)
    by_threshold = Prediction("t.jpg", even, ("ants", "bees"), rules=Decision(positive="ants", threshold=0.25))
    with outputs.parquet(tmp_path / "out.parquet", 2) as add:
        for prediction in (replace(BEES, rules=Decision(reject_below=0.76)), strange, BEES, by_threshold):
            add(prediction)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["label"].null_count == 2
    assert table["label"].to_pylist() == [None, None, "bees", "ants"]
    assert table["confidence"].to_pylist() == [0.75, 0.75, 0.75, 0.375]
    assert table["label_2"].to_pylist() == ["ants", "ants", "ants", "bees"]
    assert table["predicted"].to_pylist() == [None, None, "bees", "ants"]
    assert table["rejected"].to_pylist() == [True, True, False, False]
    assert table["argmax"].to_pylist() == ["bees", "bees", "bees", "bees"]


def test_an_interrupted_parquet_file_can_be_read(tmp_path):
    with pytest.raises(KeyboardInterrupt), outputs.parquet(tmp_path / "out.parquet", 1) as add:
        add(BEES)
        raise KeyboardInterrupt
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 1


def test_a_workbook_has_the_columns_of_csv_and_no_formula(tmp_path, monkeypatch):
    odd = named("=1+1\x1b[31m.jpg", ("=cmd()", "b", "c"))
    monkeypatch.setattr(outputs, "SHEET_ROWS", 3)
    with outputs.excel(tmp_path / "out.xlsx", 1) as add:
        for prediction in (BEES, odd, BROKEN):
            add(prediction)
    workbook = openpyxl.load_workbook(tmp_path / "out.xlsx")
    first, second = (list(sheet.iter_rows(values_only=True)) for sheet in workbook)
    assert first[0] == second[0] == outputs.columns(1)
    rows = [dict(zip(outputs.columns(1), row, strict=True)) for row in (*first[1:], *second[1:])]
    assert [row["path"] for row in rows] == [BEES.path, "=1+1\\x1b[31m.jpg", "x.jpg"]
    assert [row["error"] for row in rows] == [None, None, "an empty file"]
    assert rows[0]["confidence"] == 0.75 and rows[0]["rejected"] is False
    kinds = {cell.data_type for sheet in workbook for row in sheet.iter_rows() for cell in row}
    assert "f" not in kinds


def test_a_workbook_without_predictions_has_its_columns(tmp_path):
    with outputs.excel(tmp_path / "out.xlsx", 1):
        pass
    [sheet] = openpyxl.load_workbook(tmp_path / "out.xlsx")
    assert list(sheet.iter_rows(values_only=True)) == [outputs.columns(1)]


def test_a_batch_is_summed_up_by_class():
    tally = batch.Tally()
    assert tally.summary == ""
    for prediction in [BEES] * 3 + [replace(BEES, rules=Decision(reject_below=0.76))] * 2 + [BROKEN]:
        tally.add(prediction)
    assert tally.summary == "6 images: bees 3, 2 rejected, 1 cannot be read."
    for number in range(12):
        tally.add(Prediction("x.jpg", np.array([0.75, 0.25], np.float32), (f"{number:02}", "z")))
    assert tally.summary.endswith("07 1, 08 1, 3 of other classes, 2 rejected, 1 cannot be read.")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embeddings_stand_beside_their_paths(tmp_path, suffix):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 3)).astype(np.float32)
    names = ["a.jpg", "naïve 蜂.jpg", "two\nlines.jpg", "x" * 300, "e.jpg"]
    path = tmp_path / f"vectors{suffix}"
    with embeddings.create(path) as add:
        for name, vector in zip(names, vectors, strict=True):
            add(replace(BEES, path=name, embedding=vector))
            add(BROKEN)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as found:
            assert found["paths"].tolist() == names
            assert np.array_equal(found["embeddings"], vectors)
    else:
        table = pq.read_table(path)
        assert table["path"].to_pylist() == names
        assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), vectors)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


@needs_bytes_as_names
def test_embeddings_of_nothing_and_of_odd_names_can_be_read(tmp_path):
    with embeddings.create(tmp_path / "none.npz"):
        pass
    with np.load(tmp_path / "none.npz", allow_pickle=False) as found:
        assert found["paths"].shape == (0,)
        assert len(found["embeddings"]) == 0
    with embeddings.create(tmp_path / "odd.npz") as add:
        add(replace(BEES, path=NOT_TEXT, embedding=np.ones(2, np.float32)))
    with np.load(tmp_path / "odd.npz", allow_pickle=False) as found:
        assert found["paths"].tolist() == [NOT_TEXT]


def test_embeddings_overwrite_nothing_and_want_a_known_ending(tmp_path):
    (tmp_path / "mine.npz").write_text("mine")
    for name, expected in (("mine.npz", "the file exists"), ("v.txt", "ends in .npz or .parquet")):
        with pytest.raises(UsageError, match=expected), embeddings.create(tmp_path / name):
            pass
    assert (tmp_path / "mine.npz").read_text() == "mine"
