"""Preprocessing in a whole run: training and prediction see the same pixels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_backbone
from PIL import Image, ImageFilter

import imgclf
from imgclf import TrainConfig, prediction
from imgclf.prediction import artifact
from imgclf.settings import preprocessing
from imgclf.training import augment_preview

CONFIG = TrainConfig(method="probe", image_size=16, export="none", near_duplicates="off", augment="none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images of 16 x 16 px with noise, split: `dots`, in which single pixels are white, and `plain`."""
    rng = np.random.default_rng(0)
    for number in range(40):
        name = ("dots", "plain")[number % 2]
        pixels = rng.integers(60, 120, (16, 16, 3))
        if name == "dots":
            pixels[rng.integers(0, 16, 9), rng.integers(0, 16, 9)] = 255
        split = "train" if number < 24 else "validation" if number < 32 else "test"
        place = tmp_path / "images" / split / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place)
    return tmp_path / "images"


def test_a_run_is_that_of_images_which_were_preprocessed_before(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = tmp_path / "before" / "images"
    for path in folder.rglob("*.png"):
        target = before / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").filter(ImageFilter.MedianFilter(3)).convert("L").convert("RGB").save(target)
    config = replace(CONFIG, preprocess="denoise,gray")
    own, copies = (
        imgclf.train(imgclf.read(data, c), c, output=tmp_path / name, backbone=tiny_backbone())
        for data, c, name in ((folder, config, "own"), (before, CONFIG, "copies"))
    )
    assert artifact.read(own.path).preprocess == "denoise,gray" and artifact.read(copies.path).preprocess is None
    assert json.loads(own.config.read_text())["config"]["preprocess"] == "denoise,gray"
    assert own.predictions.read_text() == copies.predictions.read_text()
    files = sorted(folder.rglob("*.png"))[:4]
    [found, expected, plain] = (
        [each.probabilities for each in prediction.load(run.path).predict(paths)]
        for run, paths in ((own, files), (copies, [before / f.relative_to(folder) for f in files]), (copies, files))
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(found, plain)  # without the steps they are others
    assert imgclf.evaluate(own).metrics["accuracy"] == json.loads(own.metrics.read_text())["accuracy"]
    assert "that run was trained with" not in caplog.text
    other = replace(config, preprocess="gray", weights=str(own.path))
    imgclf.train(imgclf.read(folder, other), other, output=tmp_path / "other", backbone=tiny_backbone())
    expected = "that run was trained with --preprocess denoise,gray, this one with --preprocess gray"
    assert f"--weights {own.path}: {expected}" in caplog.text


def test_chains_are_the_same_however_they_are_written() -> None:
    assert preprocessing.same("denoise,grey", "denoise=3, gray")
    assert preprocessing.same(None, None) and preprocessing.same("threshold", "threshold")
    assert not preprocessing.same("gray,denoise", "denoise,gray")
    assert not preprocessing.same("threshold", "threshold=9") and not preprocessing.same(None, "gray")


def test_the_contact_sheet_shows_images_before_and_after(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(augment_preview.plots, "contact_sheet", lambda path, *rest: drawn.append(rest))
    for policy, variants in (("none", 0), ("flip=0.5", 3)):
        config = imgclf.AugmentConfig(image_size=16, policy=policy, variants=3, preprocess="threshold=200")
        imgclf.augment(imgclf.read(folder, config), config, output=tmp_path / "sheet.png")
        rows, names, title, firsts = drawn.pop()
        assert names == ["dots", "plain"] and list(firsts) == ["original", "preprocessed"]
        assert rows.shape == (2, 2 + variants, 16, 16, 3) and "threshold=200" in title
        assert len(np.unique(rows[0, 0])) > 50 and set(np.unique(rows[0, 1])) == {0, 255}
        assert rows[1, 1].max() == 0  # nothing in it is above 200
        np.testing.assert_array_equal(rows[0, 1], np.where(rows[0, 0] == 255, 255, 0))
