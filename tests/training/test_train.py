"""One training, start to end."""

import csv
import hashlib
import itertools
import json
import math
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fill
from PIL import Image

import imgclf
from imgclf import TrainConfig, runs, storage
from imgclf.data import images
from imgclf.data.dataset import Dataset, Sample
from imgclf.errors import DatasetError, MissingError, RunError, UsageError
from imgclf.evaluation import outputs
from imgclf.prediction import artifact
from imgclf.settings import DataConfig
from imgclf.training import checkpoint, history, network, recipe
from imgclf.training import train as training
from imgclf.training.run_log import explained

CNN = TrainConfig(backbone="small-cnn", image_size=32, epochs=2, batch_size=8, export="none")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_run_holds_everything_that_is_promised(trained_run: imgclf.Run) -> None:
    for path in (
        trained_run.config,
        trained_run.manifest,
        trained_run.labels,
        trained_run.history_file,
        trained_run.model,
        trained_run.artifact,
        trained_run.saved_model,
        trained_run.litert,
        trained_run.metrics,
        trained_run.predictions,
        trained_run.log,
    ):
        assert path.exists(), path
    facts = trained_run.read_config()
    assert TrainConfig.from_dict(facts["config"]).method == "scratch"
    open_settings = {key for key, value in facts["config"].items() if value is None}
    assert not open_settings & {"image_size", "epochs", "batch_size", "lr", "weight_decay", "label_smoothing", "ema"}
    assert {"keras", "tensorflow", "python"} <= set(facts["versions"])
    assert not trained_run.checkpoint.exists()


def test_history_has_a_row_per_epoch(trained_run: imgclf.Run) -> None:
    rows = rows_of(trained_run.history_file)
    assert [row["epoch"] for row in rows] == [str(n + 1) for n in range(len(rows))]
    assert {row["phase"] for row in rows} == {"scratch"}
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)


def test_scores_are_those_of_the_test_part_of_the_manifest(trained_run: imgclf.Run) -> None:
    manifest = rows_of(trained_run.manifest)
    predictions = rows_of(trained_run.predictions)
    assert {row["path"] for row in manifest if row["split"] == "test"} == {row["path"] for row in predictions}
    right = np.mean([row["label"] == row["predicted"] for row in predictions])
    assert json.loads(trained_run.metrics.read_text())["accuracy"] == pytest.approx(right)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_split_and_the_config_does_the_run_again(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=12)
    one = imgclf.train(imgclf.read(folder), CNN, output=tmp_path / "one")
    again = TrainConfig.from_dict(one.read_config()["config"])
    two = imgclf.train(imgclf.read(folder), again, output=tmp_path / "two")
    assert one.manifest.read_bytes() == two.manifest.read_bytes()
    assert two.read_config()["config"] == one.read_config()["config"]
    first, second = (outputs.read_predictions(run.predictions).probabilities for run in (one, two))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_images_that_break_while_decoding_are_named_and_left_out(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=12, suffix=".jpg", size_px=64)
    dataset = imgclf.read(folder)
    victim = folder / dataset.samples[0].path
    victim.write_bytes(b"broken since it was read")
    run = imgclf.train(dataset, CNN, output=tmp_path / "run")
    assert dataset.samples[0].path in run.log.read_text()
    assert dataset.samples[0].path not in run.manifest.read_text()


def test_a_run_records_the_settings_that_its_images_were_read_with(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    settings = DataConfig(classes="a,c", limit=16, seed=3)
    dataset = imgclf.read(image_folder(classes=("a", "b", "c"), count=12), settings)
    run = imgclf.train(dataset, replace(CNN, epochs=1), output=tmp_path / "run")
    assert run.read_labels() == ["a", "c"]
    assert len(run.manifest.read_text().splitlines()) == 17
    assert settings.to_dict().items() <= run.read_config()["config"].items()
    with pytest.raises(UsageError, match=r"classes: .* was read with 'a,c', but 'b,c' is asked for"):
        imgclf.train(dataset, replace(CNN, classes="b,c"), output=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_holds_something_is_refused(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="files in it"):
        imgclf.train(imgclf.read(image_folder()), CNN, output=tmp_path / "run")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"


def test_a_second_process_on_the_same_run_is_refused(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    run = runs.create(tmp_path / "run")
    storage.write_json(run.config, {"config": CNN.to_dict(), "data": str(image_folder())})
    with run.lock(), pytest.raises(RunError, match="another imgclf process"):
        training.resume(run)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_a_finished_one_says_so(
    image_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = imgclf.read(image_folder(count=12))

    def stop(phase: str, done: int, total: int, status: str = "") -> None:
        if phase == "scratch" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imgclf.train(dataset, CNN, output=tmp_path / "run", on_progress=stop)
    run = runs.find(tmp_path / "run")
    assert len(run.history_file.read_text().splitlines()) == 2
    training.resume(run)
    assert len(run.history_file.read_text().splitlines()) == 3
    assert run.metrics.exists()
    caplog.clear()
    training.resume(run)
    assert "is finished" in caplog.text


@pytest.mark.parametrize(
    ("kept", "advice"), [(True, "imgclf train --resume"), (False, "Delete the folder and start over.")]
)
def test_an_interruption_advises_to_resume_only_what_can_be_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: bool, advice: str
) -> None:
    caplog.set_level("INFO", "imgclf")
    run = runs.create(tmp_path / "run")
    if kept:
        run.checkpoint.touch()
    with pytest.raises(KeyboardInterrupt) as stop, explained(run):
        raise KeyboardInterrupt
    assert advice in caplog.text and len(caplog.messages) == 1
    assert stop.value.__notes__ == [f"{run.path} was begun"]


def test_a_class_without_training_images_is_named(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(count=12)
    (folder / "lonely").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "lonely" / "one.png")
    dataset = imgclf.read(folder)
    broken = next(sample for sample in dataset.samples if sample.label == "lonely")
    (folder / broken.path).write_bytes(b"")
    with pytest.raises(DatasetError, match="lonely"):
        imgclf.train(dataset, CNN, output=tmp_path / "other")


@pytest.mark.slow
def test_probe_and_fine_tune_from_the_weights_of_a_run(
    trained_run: imgclf.Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = imgclf.read(image_folder(classes=("x", "y", "z"), count=12))
    shared = {"backbone": "small-cnn", "image_size": 32, "weights": str(trained_run.path), "export": "none"}
    probe = imgclf.train(dataset, TrainConfig(**shared, method="probe"), output=tmp_path / "probe")
    fine = TrainConfig(**shared, method="finetune", lr=0.0, epochs=1, augment="none", dropout=0.0)
    tuned = imgclf.train(dataset, fine, output=tmp_path / "fine")
    assert [row["phase"] for row in rows_of(tuned.history_file)] == ["probe", "finetune"]
    first, second = (outputs.read_predictions(run.predictions).probabilities for run in (probe, tuned))
    np.testing.assert_allclose(first, second, atol=1e-4)  # learning rate 0 leaves the probe as it is


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet51"}, "resnet50"),
        ({"backbone": "small-cnn", "method": "probe"}, "pretrained weights"),
        ({"backbone": "small-cnn", "image_size": 48, "image_sizes": "32,64"}, "none above --image-size 48, found 64"),
        ({"backbone": "small-cnn", "weights": "hub"}, "small-cnn has no weights of this kind"),
        ({"backbone": "mobilenetv2", "method": "scratch", "weights": "hub"}, "random weights"),
        ({"weights": "some.weights.h5"}, "Give --backbone"),
        ({"backbone": "efficientnet-lite0", "method": "finetune", "precision": "bf16"}, "features of --method probe"),
    ],
)
def test_settings_that_exclude_one_another_are_explained(
    settings: dict[str, object], message: str, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        imgclf.train(imgclf.read(image_folder()), TrainConfig(**settings), output=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_an_explained_error_and_the_epochs_are_kept(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras.Model.save", full)
    with pytest.raises(RunError, match=r"No space left on device.*--resume"):
        imgclf.train(imgclf.read(image_folder(count=12)), CNN, output=str(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.slow
def test_full_starts_from_the_given_weights_and_moves_every_layer(
    trained_run: imgclf.Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    import keras

    start = keras.saving.load_model(trained_run.model)
    ends = {}
    for lr in (0.0, 0.01):
        config = TrainConfig(
            **{**CNN.to_dict(), "weights": str(trained_run.path), "method": "full", "epochs": 1, "lr": lr, "ema": 0.0}
        )
        run = imgclf.train(imgclf.read(image_folder(count=12)), config, output=tmp_path / str(lr))
        ends[lr] = keras.saving.load_model(run.model)
    for name in ("stage_1_1_conv", "stage_4_2_conv"):
        before, still, moved = (m.get_layer(name).get_weights()[0] for m in (start, ends[0.0], ends[0.01]))
        np.testing.assert_array_equal(before, still)
        assert (before != moved).mean() > 0.9
    statistics = [m.get_layer("stage_1_1_norm").get_weights()[2] for m in (start, ends[0.0])]
    assert (statistics[0] != statistics[1]).any()


@pytest.mark.slow
def test_a_disk_that_fills_while_checkpointing_keeps_the_last_whole_checkpoint(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full_after_one(path: Path, content: bytes, **options: Any) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        storage.write_atomic(path, content, **options)

    monkeypatch.setattr(checkpoint, "write_atomic", full_after_one)
    with pytest.raises(RunError, match=r"No space left on device.*--resume"):
        imgclf.train(imgclf.read(image_folder(count=12)), CNN, output=tmp_path / "run")
    monkeypatch.undo()
    run = training.resume(runs.find(tmp_path / "run"))
    assert [row["epoch"] for row in rows_of(run.history_file)] == ["1", "2"]


def test_the_weights_of_a_run_bring_its_backbone_and_size(trained_run: imgclf.Run) -> None:
    config, _ = recipe.resolve(TrainConfig(weights=str(trained_run.path)))
    assert (config.backbone, config.image_size, config.method) == ("small-cnn", 32, "auto")
    config, _ = recipe.resolve(TrainConfig(weights=str(trained_run.path), time_limit="1m"))
    assert (config.method, config.cached_augmentations) == ("auto", 1)


@pytest.mark.parametrize(
    ("given", "side_px", "expected"),
    [
        ({}, 32.0, 160),
        ({}, 64.0, 160),
        ({}, 65.0, 224),
        ({}, math.inf, 224),
        ({"image_size": 224}, 32.0, 224),
        ({"image_sizes": "192,224", "method": "finetune"}, 32.0, 224),
        ({"backbone": "small-cnn", "method": "scratch"}, 32.0, 96),
    ],
)
def test_small_images_get_a_smaller_size_unless_one_is_given(given: Any, side_px: float, expected: int) -> None:
    config, notes = recipe.resolve(TrainConfig(**given), side_px)
    assert config.image_size == config.settings.image_size == expected
    told = [note for note in notes if note.startswith("Image size: 160 px, since the median image is")]
    assert len(told) == (expected == 160)


def test_the_side_of_the_images_is_the_median_of_the_shorter_ones() -> None:
    samples = [
        Sample(f"{n}.jpg", "a", width=width, height=height)
        for n, (width, height) in enumerate([(100, 300), (120, 80), (500, 400), (0, 0)])
    ]
    assert Dataset(Path(), tuple(samples), ("a",)).median_side_px == 100
    assert Dataset(Path(), (), ("a",)).median_side_px == math.inf


@pytest.mark.parametrize(("lr", "expected"), [(None, (3e-4, 10 / 3)), ("auto", (3e-4, 1.0)), (2e-3, (2e-3, 1.0))])
def test_a_recipe_has_nothing_open(trained_run: imgclf.Run, lr: Any, expected: tuple[float, float]) -> None:
    found, _ = recipe.resolve(TrainConfig(weights=str(trained_run.path), lr=lr, batch_size="auto"))
    assert (found.lr, found.lr_multiplier) == expected
    values = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "settings"}
    assert None not in values.values() and "auto" not in {k: v for k, v in values.items() if k != "method"}.values()
    assert found.may_halve_batch and found.finds_lr == (lr == "auto")
    assert recipe.resolve(found.settings)[0] == recipe.from_resolved(found.settings) == found
    settled = found.settle(lr=0.5, batch_size=16)
    assert (settled.lr, settled.settings.lr, settled.settings.batch_size) == (0.5, 0.5, 16)


def test_settings_of_steps_given_to_a_probe_are_named(trained_run: imgclf.Run) -> None:
    config = TrainConfig(weights=str(trained_run.path), method="probe", epochs=3, optimizer="sgd", augment="heavy")
    resolved, notes = recipe.resolve(config)
    assert resolved.epochs == 0 and resolved.settings.epochs is None
    assert notes[-1].startswith("--epochs, --optimizer, --augment: no effect")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> imgclf.Run:
    """A finished run of two epochs. Copy it."""
    folder = tmp_path_factory.mktemp("finished")
    fill(folder / "images", ("ant", "bee"), count=12, size_px=32, suffix=".png", seed=0)
    return imgclf.train(imgclf.read(folder / "images"), CNN, output=folder / "run")


def files_of(run: imgclf.Run) -> dict[str, str]:
    """The content of all files of a run, but for its log and the training for more epochs."""
    others = (run.log, run.events, run.path / storage.LOCK)
    files = [path for path in run.path.rglob("*") if path.is_file() and path not in others]
    return {
        str(path.relative_to(run.path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if run.extension.path not in path.parents
    }


def is_consistent(run: imgclf.Run) -> bool:
    """Whether model, description, history and scores belong together."""
    facts, epochs = artifact.read(run.path), run.read_config()["config"]["epochs"]
    for name in facts.files:
        artifact.verify(run.path, facts, name)
    return len(rows_of(run.history_file)) == epochs and runs.read_json(run.metrics)["n"] == len(
        rows_of(run.predictions)
    )


@pytest.mark.slow
def test_more_epochs_change_a_finished_run_in_one_step(finished: imgclf.Run, tmp_path: Path) -> None:
    run = runs.Run(Path(shutil.copytree(finished.path, tmp_path / "run")))
    (run.path / "report.md").write_text("of the former model")
    (run.path / "answers").mkdir()
    (run.path / "answers" / "drift.json").write_text("about the former model")
    before = files_of(run)
    with pytest.raises(UsageError, match="has had 2; expected more, found 2"):
        training.resume(run, epochs=2)

    def stop(phase: str, done: int, total: int, status: str = "") -> None:
        if phase == "scratch" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.resume(run, epochs=5, on_progress=stop)
    assert files_of(run) == before and run.extension.checkpoint.is_file()
    with pytest.raises(UsageError, match="is being trained for 5 epochs, which --resume alone resumes; found 9"):
        training.resume(run, epochs=9)
    training.resume(run)
    assert [row["epoch"] for row in rows_of(run.history_file)] == ["1", "2", "3", "4", "5"]
    assert is_consistent(run) and run.read_config()["config"]["epochs"] == 5
    assert files_of(run)["model.keras"] != before["model.keras"]
    assert not run.extension.path.exists() and not run.checkpoint.exists() and not (run.path / "report.md").exists()
    assert not (run.path / "answers").exists()
    assert {"report.html", "learning_curve.png", "confusion_matrix.png"} <= files_of(run).keys()
    assert len([json.loads(line) for line in run.events.read_text().splitlines()]) >= 5


class Killed(BaseException):
    """Stands for `kill -9`: no code of imgclf handles it."""


@pytest.mark.slow
def test_killed_at_any_write_of_more_epochs_the_run_has_the_old_model_or_the_new_one(
    finished: imgclf.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.Run(Path(shutil.copytree(finished.path, tmp_path / "run")))
    before, stage = files_of(run), storage.stage
    left = 0

    def killing(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        return stage(*arguments, **options)

    monkeypatch.setattr(storage, "stage", killing)
    for number in itertools.count(1):
        left = number
        with pytest.raises(Killed):  # the last write is that of the report
            training.resume(run, epochs=3)
        left = -1
        assert is_consistent(run)
        if len(rows_of(run.history_file)) == 3:
            break
        assert files_of(run) == before
    assert number > 10
    training.resume(run)
    assert "report.html" in files_of(run) and is_consistent(run)


@pytest.mark.slow
def test_what_a_finished_run_lacks_is_made_when_it_is_resumed(finished: imgclf.Run, tmp_path: Path) -> None:
    run = runs.Run(Path(shutil.copytree(finished.path, tmp_path / "run")))
    before = files_of(run)
    for name in ("report.html", "learning_curve.png"):
        (run.path / name).unlink()
    run.checkpoint.touch()
    training.resume(run)
    assert files_of(run).keys() == before.keys()


def test_a_training_that_was_killed_before_it_was_a_run_starts_over(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = imgclf.read(image_folder(count=12))

    def killed(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr("imgclf.environment.hardware", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            imgclf.train(dataset, CNN, output=tmp_path / "run")
        assert (tmp_path / "run" / "labels.txt").is_file() and not (tmp_path / "run" / "config.json").exists()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="files in it"):
        imgclf.train(dataset, CNN, output=tmp_path / "run")


def test_a_run_that_was_deleted_is_not_made_again_by_its_history_or_checkpoint(tmp_path: Path) -> None:
    run = runs.Run(tmp_path / "run")
    with pytest.raises(RunError, match="the run folder was deleted during training"), explained(run):
        history.write(run.history_file, [], "accuracy")
    with pytest.raises(FileNotFoundError):
        checkpoint.write(run.checkpoint, {}, {})
    assert not run.path.exists()


@pytest.mark.slow
def test_a_run_folder_that_is_deleted_stops_the_training_at_the_end_of_the_epoch(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    def delete(phase: str, done: int, total: int, status: str = "") -> None:
        if phase == "scratch":
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            assert done <= total / 2, "a second epoch has begun"

    with pytest.raises(RunError, match="the run folder was deleted during training"):
        imgclf.train(imgclf.read(image_folder(count=12)), CNN, output=tmp_path / "run", on_progress=delete)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_growing_sizes_and_half_precision_end_in_a_float32_model_of_the_last_size(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    config = TrainConfig(
        backbone="small-cnn",
        image_sizes="24,32",
        precision="mixed_bfloat16",
        ema=0.9,
        epochs=2,
        batch_size=8,
        export="none",
    )
    run = imgclf.train(imgclf.read(image_folder(count=12)), config, output=tmp_path / "run")
    import keras

    model = keras.saving.load_model(run.model)
    assert model.input_shape == (None, 32, 32, 3)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@pytest.mark.slow
def test_the_upper_layers_move_at_growing_sizes(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    config = TrainConfig(
        backbone="efficientnet-lite0",
        method="finetune",
        image_sizes="32,48",
        epochs=2,
        lr=1e-3,
        batch_size=8,
        export="none",
    )
    run = imgclf.train(imgclf.read(image_folder(count=12, size_px=48)), config, output=tmp_path / "run")
    assert [row["image_size"] for row in rows_of(run.history_file)] == ["48", "32", "48"]
    import keras

    from imgclf.models import classifier, efficientnet_lite0

    pretrained = efficientnet_lite0.build(48)
    efficientnet_lite0.load_weights(pretrained)
    trained = classifier.backbone_layers(keras.saving.load_model(run.model))
    moved = {
        layer.name
        for layer in trained
        if any(
            (now != then).any()
            for now, then in zip(layer.get_weights(), pretrained.get_layer(layer.name).get_weights(), strict=True)
        )
    }
    assert moved
    assert all(name.startswith(("block_12", "block_13", "block_14", "block_15", "block_16", "top")) for name in moved)


def test_a_network_that_cannot_be_built_ends_the_decoding_beside_it(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = imgclf.read(image_folder(count=150))
    decoded, begun, load = [], threading.Event(), images.load

    def slowly(*arguments: Any) -> Any:
        decoded.append(0)
        begun.set()
        time.sleep(0.005)
        return load(*arguments)

    def fail(*_: object, **__: object) -> None:
        assert begun.wait(60)
        raise MissingError("no weights")

    monkeypatch.setattr(images, "load", slowly)
    monkeypatch.setattr(network, "build", fail)
    with pytest.raises(MissingError, match="no weights"):
        imgclf.train(dataset, CNN, output=tmp_path / "run")
    assert 0 < len(decoded) < 300
    assert not (tmp_path / "run").exists()
