import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from imgclf import environment, runs, storage
from imgclf.data import collection
from imgclf.data.dataset import TEST, TRAIN, write_manifest
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.outputs import read_predictions
from imgclf.prediction import artifact, runtimes
from imgclf.runs import Run
from imgclf.settings import EvaluateConfig, TrainConfig

RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)
MODEL = "model.colours"
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE, "grey": (128, 128, 128)}


class ByColour:
    """A foreign runtime: the more of its colour an image has, the likelier the class. Its file lists the classes."""

    package = "numpy"
    names = ("probabilities", "embedding")
    batch_size = 4

    def __init__(self, labels: Sequence[str]) -> None:
        self.size_px, self.classes = 16, len(labels)
        self.colours = np.array([COLOURS[name] for name in labels], np.float32)  # (classes, 3)

    @classmethod
    def start(cls, path: Path, precision: str) -> "ByColour":
        return cls(path.read_text().split())

    def prepare(self, calls: int) -> None:
        """There is nothing to get ready."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        means = pixels.mean(axis=(1, 2))  # (n, 16, 16, 3) -> (n, 3)
        found = {"probabilities": softmax(means @ self.colours.T / 5000, axis=1), "embedding": means}
        return {name: found[name] for name in names}


def facts(labels: Sequence[str], files: dict[str, artifact.File]) -> artifact.Artifact:
    return artifact.Artifact(tuple(labels), 16, "squash", "small-cnn", ("probabilities",), "", files)


def describe(run: Run) -> None:
    """Write the artifact.json of a run without exports."""
    files = {run.model.name: artifact.File("keras", *artifact.hash_tree(run.model))}
    artifact.write(run.path, facts(run.read_labels(), files))


def paint(folder: Path, classes: Sequence[str], count: int = 3) -> Path:
    """`count` images of one colour, each a little different, for each class."""
    rng = np.random.default_rng(len(folder.parts))
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-20, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose model knows blue, red and green, in this order; each class has 2 training images and 1 test image."""
    dataset = collection.collect(paint(tmp_path / "colours", ("red", "green", "blue")))
    dataset = dataset.with_splits([TEST if s.path.endswith("2.png") else TRAIN for s in dataset.samples])
    made = runs.create(tmp_path / "run")
    made.write_labels(["blue", "red", "green"])
    write_manifest(dataset, made.manifest)
    config = TrainConfig(backbone="small-cnn", image_size=16).to_dict()
    storage.write_json(made.config, {"data": str(dataset.root), "config": config})
    monkeypatch.setitem(runtimes.RUNTIMES, "by-colour", ByColour)
    (made.path / MODEL).write_text(" ".join(made.read_labels()))
    files = {MODEL: artifact.File("by-colour", *artifact.hash_tree(made.path / MODEL))}
    artifact.write(made.path, facts(made.read_labels(), files))
    return made


def test_without_data_the_runs_own_test_part_is_scored_into_the_run(run):
    result = evaluate(run)
    assert result.folder == run.path
    assert result.metrics == json.loads(run.metrics.read_text())
    assert (result.metrics["n"], result.metrics["accuracy"]) == (3, 1.0)
    rows = read_predictions(run.predictions)
    assert rows.paths == ["blue/2.png", "green/2.png", "red/2.png"]
    assert rows.class_names == ["blue", "red", "green"]
    assert rows.labels.tolist() == [0, 2, 1]
    assert (run.path / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


def test_classes_are_matched_by_name_not_by_place(run, tmp_path):
    folder = paint(tmp_path / "other", ("red", "green", "blue"))
    (folder / "red").rename(folder / "swap")
    (folder / "green").rename(folder / "red")  # what lies in the folder red is green, and the other way round
    (folder / "swap").rename(folder / "green")
    scores = evaluate(run, collection.collect(folder)).metrics
    assert scores["confusion_matrix"] == {
        "labels": ["blue", "red", "green"],
        "counts": [[3, 0, 0], [0, 0, 3], [0, 3, 0]],
    }


def test_other_data_is_scored_into_a_numbered_folder_and_the_run_stays_as_it_is(run, tmp_path):
    dataset = collection.collect(paint(tmp_path / "other", ("red", "green", "blue"), count=1))
    first, second = evaluate(run, dataset), evaluate(run, dataset)
    assert first.folder == run.path / "evaluations" / "other-1"
    assert second.folder == run.path / "evaluations" / "other-2"
    written = sorted(path.name for path in first.folder.iterdir())
    assert written == ["confusion_matrix.png", "metrics.json", "predictions.csv", "report.html"]
    assert not run.metrics.exists()


def test_a_class_that_the_folder_lacks_is_an_error_unless_allowed(run, tmp_path):
    dataset = collection.collect(paint(tmp_path / "other", ("red", "green")))
    with pytest.raises(DatasetError, match=r"none of 'blue'.*--missing-classes allow"):
        evaluate(run, dataset)
    scores = evaluate(run, dataset, EvaluateConfig(missing_classes="allow")).metrics
    assert scores["macro_f1"] == scores["balanced_accuracy"] == 1
    assert scores["per_class"]["blue"]["support"] == 0
    assert scores["confusion_matrix"]["counts"] == [[0, 0, 0], [0, 3, 0], [0, 0, 3]]


def test_a_class_that_the_model_does_not_know_is_an_error_unless_skipped(run, tmp_path, caplog):
    dataset = collection.collect(paint(tmp_path / "other", ("blue", "green", "grey", "red")))
    with pytest.raises(DatasetError, match=r"'grey'.*--unknown-classes skip"):
        evaluate(run, dataset)
    result = evaluate(run, dataset, EvaluateConfig(unknown_classes="skip"))
    assert (result.metrics["n"], result.metrics["accuracy"]) == (9, 1.0)
    assert "3 images of 'grey'" in caplog.text
    assert not [path for path in read_predictions(result.folder / "predictions.csv").paths if "grey" in path]


def test_a_folder_without_any_known_class_is_an_error_whatever_is_allowed(run, tmp_path):
    dataset = collection.collect(paint(tmp_path / "other", ("grey",)), min_classes=1)
    with pytest.raises(DatasetError, match="found none of them, but 'grey'"):
        evaluate(run, dataset, EvaluateConfig(missing_classes="allow", unknown_classes="skip"))


@pytest.mark.parametrize(("sides", "scored"), [(("train", "val", "test"), "test"), (("train", "valid"), "valid")])
def test_of_a_split_folder_one_part_is_scored_and_named(run, tmp_path, caplog, sides, scored):
    for side in sides:
        paint(tmp_path / "split" / side, ("red", "green", "blue"), count=2)
        (tmp_path / "split" / side / "red" / "broken.png").write_bytes(b"no image")
    caplog.set_level(logging.INFO)
    result = evaluate(run, collection.collect(tmp_path / "split"))
    paths = read_predictions(result.folder / "predictions.csv").paths
    assert len(paths) == 6
    assert {path.split("/")[0] for path in paths} == {scored}
    assert [item.path for item in result.skipped] == [f"{scored}/red/broken.png"]
    assert "part, 6 images" in caplog.text


def test_unreadable_images_are_named_and_left_out(run, tmp_path, caplog):
    folder = paint(tmp_path / "other", ("red", "green", "blue"))
    (folder / "red" / "empty.png").touch()
    dataset = collection.collect(folder)
    (folder / "green" / "0.png").write_bytes(b"broken since it was read")
    result = evaluate(run, dataset)
    assert result.metrics["n"] == 8
    assert {item.path for item in result.skipped} == {"red/empty.png", "green/0.png"}
    assert "green/0.png: not an image" in caplog.text
    assert "green/0.png" not in read_predictions(result.folder / "predictions.csv").paths


def test_nothing_readable_is_an_error(run, tmp_path):
    dataset = collection.collect(paint(tmp_path / "other", ("red", "green", "blue"), count=1))
    for path in dataset.paths:
        path.write_bytes(b"broken since it was read")
    with pytest.raises(DatasetError, match="none of the 3"):
        evaluate(run, dataset)
    assert not (run.path / "evaluations").exists()


def test_images_that_were_trained_on_are_counted(run, tmp_path, caplog):
    evaluate(run, collection.collect(tmp_path / "colours"))
    assert "6 of these 9 images were used in training" in caplog.text


def test_a_test_image_that_is_gone_is_an_error_that_names_it(run, tmp_path):
    (tmp_path / "colours" / "red" / "2.png").unlink()
    with pytest.raises(DatasetError, match=r"1 are gone, such as 'red/2\.png'"):
        evaluate(run)
    assert not run.metrics.exists()


def test_images_that_were_moved_are_found_by_content_and_keep_their_names(run, tmp_path):
    shutil.move(tmp_path / "colours", tmp_path / "old")
    place = tmp_path / "new"
    for number, path in enumerate(sorted((tmp_path / "old").rglob("2.png"), reverse=True)):
        place.mkdir(exist_ok=True)
        path.rename(place / f"{number}.png")  # the test part alone, in other folders and under other names
    with pytest.raises(DatasetError, match=r"3 are gone, such as 'blue/2\.png'.*--data"):
        evaluate(run)
    result = evaluate(run, data=place)
    assert (result.metrics["n"], result.metrics["accuracy"]) == (3, 1.0)
    assert read_predictions(run.predictions).paths == ["blue/2.png", "green/2.png", "red/2.png"]
    assert (run.path / "report.html").read_text().count(
        "<img src="
    ) == 6  # each in its cell and among the least certain
    (place / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"found 2, and nothing for green/2\.png"):
        evaluate(run, data=place)
    with pytest.raises(UsageError, match="--data"):
        evaluate(run, collection.collect(tmp_path / "old"), data=place)


@pytest.mark.parametrize(("number", "why"), [(np.nan, "not finite"), (-0.5, r"cannot be scored.*found 3 of 3")])
def test_a_model_that_answers_with_no_probabilities_is_an_error(run, monkeypatch, number, why):
    def outputs(runtime, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {"probabilities": np.tile(np.array([number, 0.5, 0.5], np.float32), (len(pixels), 1))}

    monkeypatch.setattr(ByColour, "outputs", outputs)
    with pytest.raises(RunError, match=why):
        evaluate(run)
    assert not run.metrics.exists()


def test_one_image_and_one_class_are_scored(run, tmp_path):
    allow = EvaluateConfig(missing_classes="allow", format="html,md,json")
    for count in (1, 3):
        dataset = collection.collect(paint(tmp_path / f"only {count}", ("green",), count=count), min_classes=1)
        result = evaluate(run, dataset, allow)
        assert (result.metrics["n"], result.metrics["accuracy"]) == (count, 1.0)
        assert result.metrics["macro_roc_auc"] is None and result.metrics["intervals"]["macro_roc_auc"] is None
        assert result.metrics["per_class"]["green"]["recall"] == 1
        assert any("Without images: 'blue', 'red'." in warning for warning in result.metrics["warnings"])
        assert {"report.html", "report.md", "report.json"} <= {path.name for path in result.folder.iterdir()}


def test_a_run_without_a_test_part_asks_for_data(run, tmp_path):
    dataset = collection.collect(tmp_path / "colours")
    write_manifest(dataset.with_splits([TRAIN] * len(dataset)), run.manifest)
    with pytest.raises(DatasetError, match=r"imgclf evaluate .* DATA"):
        evaluate(run)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.touch(), "a file has its name"),
        (lambda path: (path / "x").mkdir(parents=True), "expected a new or empty folder"),
    ],
)
def test_an_output_that_holds_something_is_refused(run, tmp_path, make: Callable[[Path], None], told):
    make(tmp_path / "output")
    with pytest.raises(RunError, match=told):
        evaluate(run, output=tmp_path / "output")


def test_an_output_is_made_and_progress_is_told(run, tmp_path):
    told: list[tuple[str, int, int]] = []
    result = evaluate(run, output=tmp_path / "new" / "output", on_progress=lambda *step: told.append(step))
    assert result.folder == tmp_path / "new" / "output"
    assert (result.folder / "metrics.json").is_file()
    assert told == [
        ("loading the model", 0, None),
        *(("predicting", i, 3) for i in (1, 2, 3)),
        ("scoring", 0, None),
        ("writing the report", 0, None),
    ]


def test_a_place_that_cannot_be_written_is_an_error(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        evaluate(run, output=tmp_path / "file" / "output")


def test_labels_that_are_not_the_models_are_an_error_not_a_shift(run):
    run.write_labels(["red", "green", "blue"])
    with pytest.raises(RunError, match=r"labels\.txt: expected the classes of artifact\.json"):
        evaluate(run)


def test_a_run_without_a_model_is_an_error(run):
    run.artifact.unlink()
    with pytest.raises(RunError, match="Is the training finished"):
        evaluate(run)


def test_a_run_without_exports_is_scored_through_keras(run, tmp_path):
    environment.prepare_keras()
    import keras

    pixels = keras.Input((16, 16, 3), name="pixels")
    mean = keras.layers.GlobalAveragePooling2D(name="embedding")(pixels)
    model = keras.Model(pixels, keras.layers.Dense(3, "softmax", name="probabilities")(mean))
    colours = np.array([COLOURS[name] for name in run.read_labels()], np.float32)  # (classes, 3)
    model.layers[-1].set_weights([colours.T / 5000, np.zeros(3)])
    model.save(run.model)
    describe(run)

    folder = paint(tmp_path / "other", ("red", "green", "blue"))
    (folder / "red" / "0.png").rename(folder / "blue" / "red.png")
    dataset = collection.collect(folder)
    (folder / "green" / "0.png").write_bytes(b"broken since it was read")
    result = evaluate(run, dataset, EvaluateConfig(batch_size=4))
    assert result.metrics["confusion_matrix"]["counts"] == [[3, 1, 0], [0, 2, 0], [0, 0, 2]]
    assert [item.path for item in result.skipped] == ["green/0.png"]

    run.model.write_bytes(b"no model")
    with pytest.raises(RunError, match=r"model\.keras: expected SHA-256"):
        evaluate(run)
    describe(run)
    with pytest.raises(RunError, match="cannot be loaded"):
        evaluate(run)
