"""Accuracy on corrupted images, and on slices of the images."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from scipy.special import softmax

import imgclf
from imgclf import EvaluateConfig, TrainConfig, runs, storage
from imgclf.data import collection
from imgclf.data.dataset import TEST, Sample, write_manifest
from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import corruptions, robustness, slices
from imgclf.evaluation.corruptions import KINDS, corrupt
from imgclf.prediction import artifact, runtimes
from imgclf.settings import Decoding

SIZE_PX = 32


def noisy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def changed(kind: str, severity: int, image: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    return corrupt(image, kind, severity, np.random.default_rng(0), noisy(9) if other is None else other)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_is_the_image_and_others_change_it_the_same_way_each_time(kind: str) -> None:
    image = noisy(1)
    np.testing.assert_array_equal(changed(kind, 0, image), image)
    for severity in corruptions.SEVERITIES:
        found = changed(kind, severity, image)
        assert (found.shape, found.dtype) == (image.shape, image.dtype)
        assert (found != image).any()
        np.testing.assert_array_equal(changed(kind, severity, image), found)


def test_light_and_contrast_by_hand() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    image[0] = 200
    assert changed("darker", 3, image)[0, 0].tolist() == [40, 40, 40]
    assert changed("brighter", 3, image)[0, 0].tolist() == [255, 255, 255]
    assert changed("low contrast", 3, image)[[0, 1], 0, 0].tolist() == [140, 120]  # around the mean of 125
    assert sorted(changed("color cast", 3, image)[1, 0].tolist()) == [40, 100, 160]


def test_a_shift_moves_by_its_share_of_the_side_and_mirrors_the_border() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[8:12, 8:12] = 255
    found = changed("translation", 3, image)  # by 4 px
    rows, columns = np.nonzero(found[..., 0] > 128)
    moved = sorted([abs(rows.mean() - 9.5), abs(columns.mean() - 9.5)])
    assert moved == pytest.approx([0, 4], abs=0.01)


def test_scale_and_rotation_keep_the_center() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 18:22] = 255  # an upright bar of 20 x 4
    assert (changed("smaller", 3, image)[10:30, 10:30, 0] > 128).any(axis=1).sum() == 10  # besides its mirror images
    turned = np.argwhere(changed("rotation", 3, image)[..., 0] > 128)
    np.testing.assert_allclose(turned.mean(axis=0), 19.5, atol=0.3)
    direction = np.linalg.svd(turned - turned.mean(axis=0))[2][0]
    assert np.degrees(np.arccos(abs(direction[0]))) == pytest.approx(40, abs=3)


def test_occlusion_covers_its_share_and_clutter_stays_outside_the_center() -> None:
    image, other = np.zeros((100, 100, 3), np.uint8), np.full((100, 100, 3), 255, np.uint8)
    for severity, share in enumerate(KINDS["occlusion"].strengths, start=1):
        assert (changed("occlusion", severity, image) == 128).all(axis=2).mean() == pytest.approx(share, abs=0.02)
    cluttered = changed("clutter", 3, image, other)[..., 0]
    assert not cluttered[20:80, 20:80].any() and cluttered.any()


class ByBrightness:
    """A foreign runtime: dark images are of the first class, bright ones of the second."""

    package = "numpy"
    names = ("probabilities", "embedding")
    batch_size = 8

    def __init__(self) -> None:
        self.size_px, self.classes = 16, 2

    @classmethod
    def start(cls, path: Path, precision: str) -> "ByBrightness":
        return cls()

    def prepare(self, calls: int) -> None:
        """There is nothing to get ready."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        means = pixels.mean(axis=(1, 2, 3))
        logits = np.stack([120 - means, means - 120], axis=1) / 20
        found = {"probabilities": softmax(logits, axis=1).astype(np.float32), "embedding": means[:, None]}
        return {name: found[name] for name in names}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Run:
    """A model that knows dark from bright; of the class bright, every third test image is dark all the same."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 60)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(18):
            own = 40 if name == "bright" and number % 3 == 0 else level
            pixels = np.clip(own + rng.normal(0, 6, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    dataset = collection.collect(tmp_path / "images")
    dataset = dataset.with_splits([TEST] * len(dataset))
    made = runs.create(tmp_path / "run")
    made.write_labels(["dark", "bright"])
    write_manifest(dataset, made.manifest)
    config = TrainConfig(backbone="small-cnn", image_size=16).to_dict()
    storage.write_json(made.config, {"data": str(dataset.root), "config": config})
    monkeypatch.setitem(runtimes.RUNTIMES, "by-brightness", ByBrightness)
    (made.path / "model.bright").write_text("")
    files = {"model.bright": artifact.File("by-brightness", *artifact.hash_tree(made.path / "model.bright"))}
    artifact.write(
        made.path,
        artifact.Artifact(("dark", "bright"), 16, "squash", "small-cnn", ("probabilities", "embedding"), "", files),
    )
    return made


@pytest.mark.slow
def test_a_model_of_brightness_suffers_from_the_light_alone(run: runs.Run) -> None:
    result = imgclf.evaluate(run, config=EvaluateConfig(robustness=True, format="html,md,json"))
    found = result.robustness
    assert found is not None
    assert found["plain"]["accuracy"] == result.metrics["accuracy"] == pytest.approx(30 / 36)
    rows = {(row["kind"], row["severity"]): row for row in found["rows"]}
    assert len(rows) == 3 * len(KINDS)
    assert rows["darker", 3]["accuracy"] == 0.5  # all are dark now
    assert rows["darker", 3]["change"] == pytest.approx(0.5 - 30 / 36)
    assert rows["darker", 3]["unchanged"] == pytest.approx(24 / 36)
    for kind in ("rotation", "translation", "noise", "elastic"):
        assert rows[kind, 1]["unchanged"] == 1.0
    assert (rows["darker", 3]["rejected"], rows["darker", 3]["argmax"]) == (0.0, 0.5)
    low, high = stats.binomtest(18, 36).proportion_ci(method="wilson")
    assert rows["darker", 3]["interval"] == pytest.approx([low, high])
    assert rows["brighter", 3]["accuracy"] == 12 / 36  # the dark ones of bright, which are bright now
    assert "brighter" in found["worst"] and "from 0.833 to 0.333" in found["worst"]
    assert found["translation"].startswith("The model is nearly invariant to translation: ")
    names = {"robustness.json", "robustness.png", "robustness_images.png", "report.html"}
    assert names <= {path.name for path in run.path.iterdir()}
    page = (run.path / "report.html").read_text()
    assert '<section id="robustness">' in page and '<section id="slices">' not in page
    assert "## Robustness" in (run.path / "report.md").read_text()
    assert json.loads((run.path / "report.json").read_text())["robustness"]["n"] == 36
    imgclf.evaluate(run)  # without it, no result of a former evaluation remains
    assert not (run.path / "robustness.json").exists() and not (run.path / "robustness_images.png").exists()


@pytest.mark.slow
def test_at_most_so_many_images_are_corrupted_evenly_by_class(run: runs.Run) -> None:
    found = imgclf.evaluate(run, config=EvaluateConfig(robustness=True, robustness_images=12)).robustness
    assert found is not None and (found["n"], found["of"]) == (12, 36)
    samples = [Sample(f"{n}.png", "ab"[n % 3 == 0]) for n in range(300)]
    chosen = robustness.chosen(samples, 30)
    assert len(set(chosen)) == 30 and sum(n % 3 == 0 for n in chosen) == pytest.approx(10, abs=1)
    assert robustness.chosen(samples, 300) == list(range(300))


def test_a_planted_dark_slice_is_named_first(run: runs.Run) -> None:
    result = imgclf.evaluate(run, config=EvaluateConfig(slices=True))
    found = result.slices
    assert found is not None and found["accuracy"] == pytest.approx(30 / 36)
    first = found["rows"][0]
    assert first["by"] == "brightness" and float(first["value"].split(" to ")[1]) < 60
    assert first["accuracy"] < 0.5 < first["others"] and first["p"] < 0.05
    assert found["sentence"].startswith("Worst slice: brightness 3")
    assert '<section id="slices">' in (run.path / "report.html").read_text()


def samples_of(values: Sequence[str]) -> list[Sample]:
    return [Sample(f"{n}.png", "a", group=value, width=20, height=20, format="PNG") for n, value in enumerate(values)]


def images_of(folder: Path, samples: Sequence[Sample]) -> dict[str, Path]:
    for sample in samples:
        Image.fromarray(np.full((20, 20, 3), 128, np.uint8)).save(folder / sample.path)
    return {sample.path: folder / sample.path for sample in samples}


def test_intervals_and_p_values_allow_for_the_number_of_slices(tmp_path: Path) -> None:
    samples = samples_of(["x"] * 10 + ["y"] * 30 + ["z"] * 4)  # too few of z
    correct = [False] * 6 + [True] * 38
    found = slices.measure(samples, images_of(tmp_path, samples), correct, rules=Decoding())
    assert [(row["by"], row["value"], row["n"]) for row in found["rows"]] == [("group", "x", 10), ("group", "y", 30)]
    low, high = stats.binomtest(4, 10).proportion_ci(1 - 0.05 / 2, method="wilson")
    assert found["rows"][0]["interval"] == pytest.approx([low, high])
    p = stats.fisher_exact([[4, 6], [34, 0]], alternative="less").pvalue
    assert found["rows"][0]["p"] == pytest.approx(2 * p)
    assert found["rows"][1]["p"] == 1.0


def test_slices_that_chance_explains_are_said_to_be_so(tmp_path: Path) -> None:
    samples = samples_of(["x", "y"] * 20)
    correct = [n % 7 > 0 for n in range(40)]
    found = slices.measure(samples, images_of(tmp_path, samples), correct, rules=Decoding())
    assert found["sentence"].startswith("No slice is worse than the rest by more than chance explains.")
    same = slices.measure(
        [replace(s, group="") for s in samples], images_of(tmp_path, samples), correct, rules=Decoding()
    )
    assert (same["rows"], same["sentence"]) == ([], "There are no slices of at least 5 images.")


def test_the_columns_of_a_table_are_slices(tmp_path: Path) -> None:
    samples = samples_of([""] * 24)
    with (tmp_path / "meta.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["file", "label", "camera", "iso"])
        for number, sample in enumerate(samples):
            write([sample.path, "a", "old" if number < 8 else "new", 100 + number])
    correct = [number >= 6 for number in range(24)]
    files = images_of(tmp_path, samples)
    found = slices.measure(samples, files, correct, rules=Decoding(), table=tmp_path / "meta.csv")
    kinds = [(row["by"], row["value"]) for row in found["rows"]]
    assert set(kinds) >= {("camera", "old"), ("camera", "new"), ("iso", "100 to 105")}
    assert kinds[0] == ("iso", "100 to 105") and found["rows"][0]["accuracy"] == 0
    (tmp_path / "other.csv").write_text("file,x\nnothing.png,1\n")
    with pytest.raises(DatasetError, match=r"expected rows for the scored images, such as '0.png'"):
        slices.measure(samples, files, correct, rules=Decoding(), table=tmp_path / "other.csv")
    (tmp_path / "bare.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DatasetError, match="expected a column path or file"):
        slices.measure(samples, files, correct, rules=Decoding(), table=tmp_path / "bare.csv")


def test_what_does_not_apply_is_refused(run: runs.Run) -> None:
    with pytest.raises(UsageError, match="--slice-table: expected --slices beside it"):
        EvaluateConfig(slice_table="x.csv")
    with pytest.raises(UsageError, match="--robustness-images"):
        EvaluateConfig(robustness_images=0)
    config = json.loads(run.config.read_text())
    storage.write_json(run.config, config | {"config": config["config"] | {"task": "multilabel"}})
    for name in ("robustness", "slices"):
        with pytest.raises(UsageError, match=f"--{name} does not support --task multilabel yet"):
            imgclf.evaluate(run, config=EvaluateConfig(**{name: True}))  # type: ignore[arg-type]
