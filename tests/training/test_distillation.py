"""Distillation: a student that learns from the predictions of a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import at_temperature, fill
from scipy.special import log_softmax

import imgclf
from imgclf import TrainConfig
from imgclf.data.dataset import TRAIN
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.settings import KfoldConfig
from imgclf.training import crossval, distillation, distillation_loss, recipe

CLASSES = ("disc", "two discs")
STUDENT = TrainConfig(backbone="small-cnn", method="scratch", image_size=32, epochs=1, batch_size=8, export="none")


def student_of(teacher: imgclf.Run, **settings: Any) -> TrainConfig:
    return replace(STUDENT, distill=str(teacher.path), **settings)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Labeled images of the classes of `trained_run`, which it has not seen."""
    return fill(tmp_path / "images", CLASSES, count=12, size_px=32, suffix=".png", seed=5)


@pytest.fixture
def unlabeled(tmp_path: Path, images: Path) -> Path:
    """Ten images in a flat folder, of which four are copies of labeled ones, of all splits, and one is there twice."""
    folder = tmp_path / "unlabeled"
    fill(tmp_path / "more", ("disc",), count=5, size_px=32, suffix=".png", seed=9)
    folder.mkdir()
    for number, path in enumerate(sorted((tmp_path / "more").rglob("*.png"))):
        (folder / f"new-{number}.png").write_bytes(path.read_bytes())
    (folder / "twice.png").write_bytes((folder / "new-0.png").read_bytes())
    for number, sample in enumerate(imgclf.read(images).samples[::6]):
        (folder / f"known-{number}.png").write_bytes((images / sample.path).read_bytes())
    return folder


def test_the_loss_is_the_stated_mixture() -> None:
    logits = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], np.float32)
    soft = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], np.float32)
    truth = np.array([[0, 1, 0], [0, 0, 0]], np.float32)  # the second is unlabeled
    temperature, weight = 2.0, 0.25
    found = distillation_loss.loss(temperature, weight, 0.0)(np.concatenate([truth, soft], axis=1), logits)
    match = -(temperature**2) * (soft * log_softmax(logits / temperature, axis=1)).sum(axis=1)
    hard = -log_softmax(logits, axis=1)[0, 1]
    np.testing.assert_allclose(found, [weight * hard + (1 - weight) * match[0], match[1]], rtol=1e-5)


def test_without_weight_of_the_teacher_the_loss_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    truth = np.eye(4, dtype=np.float32)[rng.integers(4, size=5)]
    found = distillation_loss.loss(3.0, 1.0, 0.1)(
        np.concatenate([truth, np.full((5, 4), 0.25, np.float32)], axis=1), logits
    )
    expected = keras.losses.categorical_crossentropy(truth, logits, from_logits=True, label_smoothing=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_teacher_is_softened_as_its_logits_would_be() -> None:
    probabilities = np.array([[0.9, 0.09, 0.01], [1.0, 0.0, 0.0]], np.float32)
    softened = distillation.soften(probabilities, 2.0)
    np.testing.assert_allclose(softened[0], at_temperature(probabilities[:1], 2.0)[0], rtol=1e-5)
    assert softened[1, 0] > 0.999 and np.isfinite(softened).all()


def test_lessons_are_those_of_the_teacher_and_leave_out_what_is_labeled(
    trained_run: imgclf.Run, images: Path, unlabeled: Path, tmp_path: Path
) -> None:
    dataset = imgclf.read(images)
    settings = distillation.check(student_of(trained_run, unlabeled=str(unlabeled)), dataset)
    found = distillation.lessons(settings, dataset, imgclf.Run(tmp_path), 32, None)
    assert found is not None and found.unlabeled is not None
    train = dataset.part(TRAIN)
    assert len(found.unlabeled) == 5  # no image of the validation or test split, nor one twice
    assert found.targets.shape == (len(train) + 5, 4)
    np.testing.assert_array_equal(found.targets[:, :2].argmax(axis=1)[: len(train)], train.labels)
    assert not found.targets[len(train) :, :2].any()
    expected = np.stack([p.probabilities for p in imgclf.load(trained_run.path).predict(train.paths)])
    softened = at_temperature(np.maximum(expected, distillation.SMALLEST), settings.distill_temperature)
    np.testing.assert_allclose(found.targets[: len(train), 2:], softened, atol=1e-5)
    # a training that resumes learns the same, whatever has become of the teacher
    again = distillation.lessons(replace(settings, distill="/gone"), dataset, imgclf.Run(tmp_path), 32, None)
    assert again is not None
    np.testing.assert_array_equal(again.targets, found.targets)


def test_a_resumed_training_refuses_other_unlabeled_images(
    trained_run: imgclf.Run, images: Path, unlabeled: Path, tmp_path: Path
) -> None:
    dataset, run = imgclf.read(images), imgclf.Run(tmp_path)
    settings = distillation.check(student_of(trained_run, unlabeled=str(unlabeled)), dataset)
    distillation.lessons(settings, dataset, run, 32, None)
    fill(unlabeled, ("later",), count=1, size_px=32, suffix=".png", seed=77)
    with pytest.raises(RunError, match=r"found none for 1 of .* images have changed since"):
        distillation.lessons(settings, dataset, run, 32, None)
    run.soft_labels.write_bytes(b"no archive")
    with pytest.raises(RunError, match="soft labels are damaged"):
        distillation.lessons(settings, dataset, run, 32, None)


@pytest.mark.slow
def test_a_student_is_trained_interrupted_and_resumed(
    trained_run: imgclf.Run, images: Path, unlabeled: Path, tmp_path: Path
) -> None:
    settings = student_of(trained_run, unlabeled=str(unlabeled), epochs=2)

    def stop(phase: str, done: int, total: int, status: str = "") -> None:
        if phase == "scratch" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imgclf.train(imgclf.read(images), settings, output=tmp_path / "run", on_progress=stop)
    run = imgclf.Run(tmp_path / "run")
    stored = run.soft_labels.read_bytes()
    imgclf.resume(run, with_report=False)
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.soft_labels.read_bytes() == stored
    recorded = run.read_config()["config"]
    assert (recorded["distill"], recorded["unlabeled"]) == (str(trained_run.path.resolve()), str(unlabeled.resolve()))
    assert run.scores["n"] == sum(line.split(",")[2] == "test" for line in run.manifest.read_text().splitlines())
    assert "unlabeled" not in run.manifest.read_text()


def test_a_student_of_test_images_that_the_teacher_knows_is_warned_of(
    trained_run: imgclf.Run, caplog: pytest.LogCaptureFixture
) -> None:
    known = imgclf.read(Path(trained_run.read_config()["data"]))
    distillation.check(student_of(trained_run), known)
    assert "trained on" not in caplog.text  # the same split
    distillation.check(student_of(trained_run), known.with_splits(["test"] * len(known)))
    assert "was trained on" in caplog.text and "--split-from" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "knn"}, "expected a student trained by gradient descent, found --model knn"),
        ({"distill": None, "unlabeled": "x"}, "--unlabeled x: expected --distill RUN"),
        ({"unlabeled": "nowhere"}, "--unlabeled nowhere: expected a folder"),
        ({"distill": "nowhere"}, "nowhere: expected a run folder"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_there_is_a_run(
    changes: dict[str, Any], message: str, trained_run: imgclf.Run, images: Path, tmp_path: Path
) -> None:
    settings = replace(student_of(trained_run), **changes)
    with pytest.raises((UsageError, DatasetError, RunError), match=message):
        imgclf.train(imgclf.read(images), settings, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_or_another_task_is_refused(
    trained_run: imgclf.Run, image_folder: Callable[..., Path]
) -> None:
    others = imgclf.read(image_folder(classes=("disc", "square"), count=6))
    with pytest.raises(UsageError, match="expected a teacher of the classes disc, square, found disc, two discs"):
        distillation.check(student_of(trained_run), others)
    with pytest.raises(UsageError, match="--distill does not support --task multilabel yet"):
        distillation.check(student_of(trained_run), replace(others, task="multilabel"))


def test_an_empty_folder_and_one_of_labeled_images_are_refused(
    trained_run: imgclf.Run, images: Path, tmp_path: Path
) -> None:
    dataset = imgclf.read(images)
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "empty", "expected images, found none"), (images, "not among the labeled")):
        settings = student_of(trained_run, unlabeled=str(folder))
        with pytest.raises(DatasetError, match=message):
            distillation.lessons(settings, dataset, imgclf.Run(tmp_path), 32, None)


def test_the_method_of_a_student_is_one_of_steps(trained_run: imgclf.Run) -> None:
    teacher = str(trained_run.path)
    assert recipe.resolve(TrainConfig(distill=teacher))[0].method == "finetune"
    assert recipe.resolve(TrainConfig(distill=teacher, backbone="small-cnn"))[0].method == "scratch"
    with pytest.raises(UsageError, match="found --method probe"):
        recipe.resolve(TrainConfig(distill=teacher, method="probe"))
    with pytest.raises(UsageError, match="expected --balance none, found sampling"):
        recipe.resolve(TrainConfig(distill=teacher, balance="sampling"))


def test_folds_take_no_teacher(trained_run: imgclf.Run, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on images that folds test on"):
        crossval.kfold(imgclf.read(images), student_of(trained_run), KfoldConfig(folds=2), output=tmp_path / "folds")
    assert not (tmp_path / "folds").exists()
