import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imgclf.evaluation import metrics, plots


def scores(counts: np.ndarray, names: list[str]) -> dict:
    labels, predicted = (np.repeat(side, counts.ravel()) for side in np.indices(counts.shape).reshape(2, -1))
    return metrics.score(labels, np.eye(len(names))[predicted], names)


def drawn(tmp_path, found: dict) -> Image.Image:
    plots.confusion_matrix(tmp_path / "matrix.png", found)
    return Image.open(io.BytesIO((tmp_path / "matrix.png").read_bytes())).convert("RGB")


def blue(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the colour is: bool (h, w)."""
    return (np.abs(np.asarray(image).astype(int) - colour) <= 2).all(axis=2)


@pytest.mark.parametrize("classes", [2, 31, 200])
def test_any_number_of_classes_gives_a_picture_of_sensible_size(tmp_path, classes):
    names = [f"species {i}" for i in range(classes)]
    image = drawn(tmp_path, scores(np.eye(classes, dtype=int) * 3, names))
    assert 300 < image.width < 2500
    assert 300 < image.height < 2500


def test_a_row_has_the_colours_of_its_shares_however_small_the_class(tmp_path):
    image = drawn(tmp_path, scores(np.array([[100, 0], [0, 1]]), ["many", "one"]))
    full = blue(image, (8, 48, 107))[:, : int(image.width * 0.75)]  # the colour bar, at the right, left out
    rows, columns = np.nonzero(full)
    upper, lower = rows < image.height * 0.45, rows > image.height * 0.55
    assert upper.sum() == pytest.approx(lower.sum(), rel=0.05)
    assert columns[upper].max() < columns[lower].min()


def test_names_are_drawn_as_they_are_written(tmp_path):
    nasty = ["$\\frac{1}$", "$", "[red]x[/red]", "line\nbreak\x00", "日本語", "x" * 500, "", "_^{"]
    image = drawn(tmp_path, scores(np.eye(len(nasty), dtype=int), nasty))
    assert image.width < 1500


def test_the_same_scores_give_the_same_file(tmp_path):
    found = scores(np.array([[3, 1], [2, 5]]), ["ant", "bee"])
    first = drawn(tmp_path, found)
    assert np.array_equal(first, drawn(tmp_path, found))


def test_a_plot_leaves_no_trace_in_the_process(tmp_path):
    code = f"""
import sys, numpy as np
from pathlib import Path
from imgclf.evaluation import metrics, plots
plots.confusion_matrix(Path({str(tmp_path / "m.png")!r}), metrics.score(np.array([0]), np.eye(2)[[0]], ["a", "b"]))
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
