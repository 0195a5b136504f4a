"""The one door: what settings do to the data, and what a dataset remembers of them."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import imgclf
from imgclf import runs, storage
from imgclf.data import dataset as datasets
from imgclf.data import layouts, reading, run_data
from imgclf.data.dataset import SPLITS, TEST, TRAIN, UNASSIGNED, Dataset
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.settings import DataConfig, EvaluateConfig, ReadConfig, TrainConfig

Factory = Callable[..., Path]


def test_read_labels_filters_groups_and_splits(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("ant", "bee", "cat", "dog"), count=12, size_px=8)
    (tmp_path / "labels.csv").write_text("path,label,exclude\nant/000.png,bee,\nant/001.png,,yes\n")
    (tmp_path / "map.csv").write_text("old,new\nwasp,insect\nant,insect\n")
    config = DataConfig(
        labels=str(tmp_path / "labels.csv"),
        rename="bee=wasp",
        class_map=str(tmp_path / "map.csv"),
        classes="insect,cat",
        group_by=r"(\d)\.png",
    )
    dataset = imgclf.read(folder, config)
    assert dataset.counts() == {"cat": 12, "insect": 23}
    assert {s.group for s in dataset.samples} == set("0123456789")
    assert all(len({s.split for s in dataset.samples if s.group == g}) == 1 for g in "0123456789")
    assert dataset.notes == (
        f"{tmp_path / 'labels.csv'}: labels changed: 1; images left out: 1.",
        f"{tmp_path / 'map.csv'}: 4 classes became 3.",
    )
    assert dataset.settings == config
    assert imgclf.read(folder, replace(config, limit=7)).counts() == {"cat": 2, "insect": 5}


@pytest.mark.parametrize("change", ["rename", "map"])
def test_settings_that_leave_one_class_are_refused(image_folder: Factory, tmp_path: Path, change: str) -> None:
    folder = image_folder(count=6, size_px=8)
    (tmp_path / "map.csv").write_text("ant,insect\nbee,insect\n")
    config = DataConfig(rename="ant=emmet", classes="emmet")
    if change == "map":
        config = DataConfig(class_map=str(tmp_path / "map.csv"))
    with pytest.raises(DatasetError, match=r"at least 2 classes, found (emmet|insect)\."):
        imgclf.read(folder, config)


def test_the_split_of_a_manifest_is_kept_and_its_hash_is_named(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(count=20, size_px=8)
    odd = [f"{name}/{number:03}.png" for name in ("ant", "bee") for number in range(1, 20, 2)]
    (tmp_path / "odd.csv").write_text("\n".join(["path", *odd]))
    old = imgclf.read(folder, DataConfig(seed=1, exclude=str(tmp_path / "odd.csv")))
    assert len(old) == 20
    datasets.write_manifest(old, tmp_path / "m.csv")
    result = imgclf.read(folder, DataConfig(split_from=str(tmp_path / "m.csv")))
    assert result.samples[::2] == old.samples
    assert result.split_notes[:2] == (
        f"The split is kept from {tmp_path / 'm.csv'} (SHA-256 {old.digest()}).",
        "Kept from the old split: 20 images; new: 20.",
    )
    with pytest.raises(RunError, match="expected a run folder"):
        imgclf.read(folder, DataConfig(split_from=str(tmp_path)))
    for name in ("none.csv", "x" * 300):
        with pytest.raises(DatasetError, match="the manifest cannot be read"):
            imgclf.read(folder, DataConfig(split_from=str(tmp_path / name)))


def test_images_to_score_keep_the_given_split_and_one_class_is_enough(image_folder: Factory) -> None:
    folder = image_folder(classes=("train/ant", "test/ant"), count=5, size_px=8)
    dataset = imgclf.read(folder, EvaluateConfig(), split=False)
    assert [s.split for s in dataset.samples] == [TEST] * 5 + [TRAIN] * 5
    assert dataset.checkup is None


def test_a_dataset_knows_the_split_it_was_given(image_folder: Factory) -> None:
    dataset = imgclf.read(image_folder(classes=("train/ant", "train/bee"), count=20, size_px=8))
    assert {s.split for s in dataset.samples} == set(SPLITS)
    assert {s.split for s in dataset.as_given().samples} == {TRAIN}


def test_a_dataset_without_a_split_was_given_none(image_folder: Factory) -> None:
    dataset = imgclf.read(image_folder(count=20, size_px=8))
    assert {s.split for s in dataset.as_given().samples} == {UNASSIGNED}


def test_settings_of_a_subclass_are_remembered_as_those_of_the_data(image_folder: Factory) -> None:
    config = TrainConfig(epochs=3, seed=5, test_fraction=0.3)
    dataset = imgclf.read(image_folder(count=10, size_px=8), config)
    assert dataset.settings == DataConfig(seed=5, test_fraction=0.3)
    assert reading.settled(dataset, TrainConfig(epochs=3)) == config
    assert reading.settled(dataset, TrainConfig(seed=6)).seed == 6  # of the weights; the split stays
    with pytest.raises(UsageError, match=r"limit: .* was read with None, but 6 is asked for. Pass the same settings"):
        reading.settled(dataset, TrainConfig(limit=6))


def coco(folder: Path, count: int = 8) -> Path:
    """Photographs of 80x60 px, each with one box of 20x20 px in its middle, of two classes in turn."""
    folder.mkdir()
    images, boxes = [], []
    for number in range(count):
        Image.effect_noise((80, 60), 20 + number).convert("RGB").save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 60})
        boxes.append({"id": number, "image_id": number, "category_id": number % 2, "bbox": [30, 20, 20, 20]})
    names = [{"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": names}))
    return folder


def as_run(dataset: Dataset, path: Path) -> imgclf.Run:
    """A run folder with what training writes about its data."""
    run = runs.create(path)
    run.write_labels(list(dataset.class_names))
    datasets.write_manifest(dataset, run.manifest)
    config = reading.settled(dataset, TrainConfig()).to_dict()
    storage.write_json(run.config, {"data": str(dataset.origin.resolve()), "config": config})
    return run


def test_objects_are_cut_with_the_same_margin_when_a_run_is_read_again(tmp_path: Path) -> None:
    dataset = imgclf.read(coco(tmp_path / "photographs"), ReadConfig(box_margin=1.0))
    assert {(s.width, s.height) for s in dataset.samples} == {(60, 60)}
    run = as_run(dataset, tmp_path / "run")
    shutil.rmtree(dataset.root)
    again = run_data.read(run)
    assert again == dataset
    assert again.settings == DataConfig(box_margin=1.0)
    for sample, path in zip(again.samples, again.paths, strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sample.sha256
        with Image.open(path) as image:
            assert image.size == (60, 60)


def test_a_run_whose_images_have_changed_is_refused_with_the_first_file(image_folder: Factory, tmp_path: Path) -> None:
    dataset = imgclf.read(image_folder(count=10, size_px=8))
    run = as_run(dataset, tmp_path / "run")
    assert run_data.read(run).samples == dataset.samples
    changed = ("bee/003.png", "bee/001.png")
    for name in changed:
        shutil.copy(dataset.root / "ant/000.png", dataset.root / name)
    with pytest.raises(
        DatasetError, match=r"bee/001\.png: .* changed since .*expected SHA-256.*So have 1 others: bee/003"
    ):
        run_data.read(run)
    assert run_data.read(run, verify=False).samples == dataset.samples
    (other, *_) = set(SPLITS) - {s.split for s in dataset.samples if s.path in changed}
    assert len(run_data.read(run, splits=(other,))) == len(dataset.part(other))


def test_cut_objects_that_come_out_otherwise_are_refused(tmp_path: Path) -> None:
    dataset = imgclf.read(coco(tmp_path / "photographs"), ReadConfig(box_margin=1.0))
    run = as_run(dataset, tmp_path / "run")
    storage.write_json(run.config, run.read_config() | {"config": TrainConfig().to_dict()})  # as before margins
    shutil.rmtree(dataset.root)
    with pytest.raises(DatasetError, match=r"0\.png-0\.png: the image has changed since training"):
        run_data.read(run)


def test_an_unknown_layout_is_refused_with_the_nearest_name(image_folder: Factory) -> None:
    known = "auto, voc, coco, idx, cifar, table, imagenet, folders"
    with pytest.raises(UsageError, match=f"--layout: expected one of {known}, found 'folder'. Did you mean 'folders'"):
        imgclf.read(image_folder(), ReadConfig(layout="folder"))


PREFIXED = '''
"""Images in one folder, whose names begin with their class: cat-1.png."""

from imgclf.data.dataset import Sample
from imgclf.data.file_listing import Listing
from imgclf.data.layouts import About

ABOUT = About(priority=60)


def recognize(source, settings):
    return bool(source.found.files) and all("-" in path and "/" not in path for path in source.found.files)


def list_samples(source, settings, on_progress):
    samples = [Sample(path, path.partition("-")[0]) for path in source.found.files]
    return Listing(source.root, samples, list(source.found.skipped))
'''


@pytest.mark.parametrize("layout", ["auto", "prefixed"])
def test_a_new_layout_is_one_new_file(
    tmp_path: Path, image_folder: Factory, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "prefixed.py").write_text(PREFIXED)
    flat = tmp_path / "flat"
    flat.mkdir()
    folder = image_folder(count=6, size_px=8)
    for name in ("ant", "bee"):
        for image in sorted((folder / name).iterdir()):
            shutil.copy(image, flat / f"{name}-{image.name}")
    with pytest.raises(DatasetError, match="12 images directly in it and no class folders"):
        imgclf.read(flat)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path / "plugins")])
    try:
        dataset = imgclf.read(flat, ReadConfig(layout=layout))
        assert dataset.counts() == {"ant": 6, "bee": 6}
        assert {s.split for s in dataset.samples} == set(SPLITS)
        assert run_data.read(as_run(dataset, tmp_path / "run")) == dataset
    finally:
        sys.modules.pop("imgclf.data.layouts.prefixed", None)


@pytest.mark.parametrize("split", ["test", "val"])
def test_data_with_a_test_split_alone_are_read_and_split_when_asked(image_folder: Factory, split: str) -> None:
    folder = image_folder(count=10, size_px=8, name=f"only/{split}").parent
    result = imgclf.ingest(folder)
    assert {s.split for s in result.dataset.samples} == {TEST}
    assert any("expected training images, found images for" in note for note in result.dataset.split_notes)
    assert len(imgclf.read(folder, split=False)) == 20
    with pytest.raises(DatasetError, match=r"found images for (test|validation) only\. Pass --resplit to ignore"):
        imgclf.read(folder)
    dataset = imgclf.read(folder, DataConfig(resplit=True))
    assert {s.split for s in dataset.samples} == set(SPLITS)
    assert {s.given for s in dataset.samples} == {UNASSIGNED}


def test_a_given_split_is_ignored_when_asked(image_folder: Factory) -> None:
    for name in ("train", "test"):
        folder = image_folder(count=10, size_px=8, name=f"both/{name}", seed=len(name)).parent
    kept, anew = imgclf.read(folder), imgclf.read(folder, DataConfig(resplit=True))
    assert {s.path.split("/")[0] for s in kept.samples if s.split == TEST} == {"test"}
    assert {s.path.split("/")[0] for s in anew.samples if s.split == TEST} == {"train", "test"}
