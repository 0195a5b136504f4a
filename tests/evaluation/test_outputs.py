import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgclf.errors import RunError
from imgclf.evaluation import outputs

NAMES = [
    "plain",
    "",
    "a,b",
    'say "yes"',
    "line\nbreak",
    "old\rmac",
    "dos\r\n",
    " été ",
    "日本語",
    "=1+1",
    "p_plain",
    "path",
]


def softmax(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    logits = rng.normal(0, 10, (n, classes))
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def test_every_float_comes_back_as_it_was_under_nasty_names(tmp_path):
    file = tmp_path / "predictions.csv"
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, len(NAMES), 500), softmax(rng, 500, len(NAMES))
    paths = [f"{name}/caf\udce9 {i}.jpg" for i, name in enumerate(NAMES * 42)][:500]
    outputs.write_predictions(file, paths, labels, probabilities, NAMES)
    found = outputs.read_predictions(file)
    assert found.paths == paths
    assert found.class_names == NAMES
    assert found.labels.tolist() == labels.tolist()
    assert found.probabilities.dtype == np.float32
    assert np.array_equal(found.probabilities, probabilities)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=5, unique=True), st.integers(0))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_any_names_come_back_as_they_were(tmp_path, names, seed):
    file = tmp_path / "predictions.csv"
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, len(names), 3), softmax(rng, 3, len(names))
    outputs.write_predictions(file, [*names, "x", "y", "z"][:3], labels, probabilities, names)
    found = outputs.read_predictions(file)
    assert (found.paths, found.class_names) == ([*names, "x", "y", "z"][:3], names)
    assert found.labels.tolist() == labels.tolist()
    assert np.array_equal(found.probabilities, probabilities)


def test_the_file_reads_as_the_table_that_is_documented(tmp_path):
    file = tmp_path / "predictions.csv"
    probabilities = np.array([[0.25, 0.75], [0.9, 0.1]], np.float32)
    outputs.write_predictions(file, [Path("ant/1.jpg"), "bee/2.jpg"], np.array([1, 1]), probabilities, ["ant", "bee"])
    assert file.read_text() == (
        "path,label,predicted,confidence,rejected,argmax,p_ant,p_bee\n"
        "ant/1.jpg,bee,bee,0.75,false,bee,0.25,0.75\n"
        "bee/2.jpg,bee,ant,0.9,false,ant,0.9,0.1\n"
    )
    with file.open(newline="") as opened:
        assert [row["p_bee"] for row in csv.DictReader(opened)] == ["0.75", "0.1"]


def test_a_rejected_image_is_told_from_one_of_a_class_without_a_name(tmp_path):
    file = tmp_path / "predictions.csv"
    probabilities = np.array([[0.25, 0.75], [0.9, 0.1], [0.4, 0.6]], np.float32)
    predicted, confidence = np.array([-1, 0, 0]), np.array([0.25, 0.9, 0.4], np.float32)
    outputs.write_predictions(file, "abc", np.array([1, 1, 0]), probabilities, ["", "bee"], predicted, confidence)
    assert file.read_text().splitlines()[1:] == [
        "a,bee,,0.25,true,bee,0.25,0.75",
        "b,bee,,0.9,false,,0.9,0.1",
        "c,,,0.4,false,bee,0.4,0.6",
    ]
    found = outputs.read_predictions(file)
    assert found.predicted.tolist() == [-1, 0, 0]
    assert found.confidence.tolist() == confidence.tolist()
    outputs.write_predictions(tmp_path / "again.csv", *found)
    assert (tmp_path / "again.csv").read_bytes() == file.read_bytes()


def test_a_file_written_before_rejections_were_recorded_is_read(tmp_path):
    file = tmp_path / "predictions.csv"
    file.write_text("path,label,predicted,confidence,p_ant,p_bee\na,bee,bee,0.75,0.25,0.75\nb,bee,ant,0.9,0.9,0.1\n")
    found = outputs.read_predictions(file)
    assert found.predicted.tolist() == [1, 0]
    assert found.confidence.tolist() == pytest.approx([0.75, 0.9])


@pytest.mark.parametrize(
    ("paths", "labels", "probabilities"),
    [(["a"], [-1], [[1, 0]]), (["a"], [0], [[np.nan, 0]]), (["a", "b"], [0], [[1, 0]]), ([], [0], [[1, 0]])],
)
def test_what_does_not_fit_together_is_refused_and_the_old_file_stays(tmp_path, paths, labels, probabilities):
    file = tmp_path / "predictions.csv"
    file.write_text("old")
    with pytest.raises(ValueError):
        outputs.write_predictions(file, paths, np.array(labels), np.array(probabilities, np.float32), ["ant", "bee"])
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "expected the columns"),
        ("path,label,predicted\n", "expected the columns"),
        ("path,label,predicted,confidence\n", "expected the columns"),
        ("path,label,predicted,confidence,p_a,b\n", "expected the columns"),
        ("path,label,predicted,confidence,p_a,p_b\nx,a,a,1,1,0\ny,a,a,1,1\n", "line 3"),
        ("path,label,predicted,confidence,p_a,p_b\nx,a,a,1,1,zero\n", "line 2"),
        ("path,label,predicted,confidence,p_a,p_b\nx,c,a,1,1,0\n", "line 2"),
        ("path,label,predicted,confidence,p_a,p_b\nx,a,a,1,1,0\ny,a,a,nan,nan,0\n", "row 1 is .*nan"),
        ("path,label,predicted,confidence,rejected,argmax,p_a,p_b\nx,a,a,1,maybe,a,1,0\n", "line 2"),
        ("path,label,predicted,confidence,rejected,argmax,p_a,p_b\nx,a,,1,false,a,1,0\n", "line 2"),
        ("path,label,predicted,confidence,rejected,argmax,p_a,p_b\nx,a,a,1,false\n", "line 2"),
        ("path,label,predicted,confidence,rejected,p_a,p_b\nx,a,a,1,false,1,0\n", "expected the columns"),
        ("path,label,predicted,confidence,p_a,p_b\nx,a,a,1,1,1\n", "sums to 2"),
        ("path,label,predicted,confidence,p_a,p_b\n", "at least one"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(tmp_path, content, why):
    file = tmp_path / "predictions.csv"
    file.write_text(content)
    with pytest.raises(RunError, match=why):
        outputs.read_predictions(file)


def test_a_missing_file_is_an_error_that_names_the_command(tmp_path):
    with pytest.raises(RunError, match="imgclf evaluate"):
        outputs.read_predictions(tmp_path / "predictions.csv")
