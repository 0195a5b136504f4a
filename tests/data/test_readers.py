"""Reading folders: layouts, what is skipped and why, limits, and every folder that is no data set."""

import hashlib
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.data import readers
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION
from imgclf.errors import DatasetError, UsageError

Factory = Callable[..., Path]
RNG = np.random.default_rng(0)


def put(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    """Write a small image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def kinds(dataset: readers.Dataset) -> dict[str, str]:
    return {s.path: s.kind for s in dataset.skipped}


def test_a_folder_per_class(image_folder: Factory) -> None:
    folder = image_folder(classes=("bee", "ant"), count=3, size_px=20)
    dataset = readers.read(folder)
    assert dataset.class_names == ("ant", "bee")
    assert [s.path for s in dataset.samples] == [f"{c}/00{i}.png" for c in ("ant", "bee") for i in range(3)]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.skipped == ()
    first = dataset.samples[0]
    assert (first.width, first.height, first.format, first.split) == (20, 20, "PNG", UNASSIGNED)
    assert first.sha256 == hashlib.sha256((folder / "ant/000.png").read_bytes()).hexdigest()


def test_a_path_may_be_text_or_a_link(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder()
    (tmp_path / "link").symlink_to(folder)
    assert readers.read(str(folder)).samples == readers.read(tmp_path / "link").samples


def test_images_are_found_at_any_depth_of_a_class(tmp_path: Path) -> None:
    for path in ("ant/a.png", "ant/2024/may/b.png", "bee/x/c.PNG", "bee/d.JpEg"):
        put(tmp_path / path)
    assert [(s.path, s.label) for s in readers.read(tmp_path).samples] == [
        ("ant/2024/may/b.png", "ant"),
        ("ant/a.png", "ant"),
        ("bee/d.JpEg", "bee"),
        ("bee/x/c.PNG", "bee"),
    ]


@pytest.mark.parametrize(
    ("folders", "sides"),
    [
        (("train", "val", "test"), [TRAIN, VALIDATION, TEST]),
        (("Training", "VALID", "Testing"), [TRAIN, VALIDATION, TEST]),
        (("train", "validation"), [TRAIN, VALIDATION]),
        (("train", "eval"), [TRAIN, VALIDATION]),
        (("train", "dev", "test"), [TRAIN, VALIDATION, TEST]),
        (("test",), [TEST]),
    ],
)
def test_folders_of_a_split_are_recognised(tmp_path: Path, folders: tuple[str, ...], sides: list[str]) -> None:
    for folder in folders:
        put(tmp_path / folder / "ant" / "a.png")
        put(tmp_path / folder / "bee" / "deeper" / "b.png")
    (tmp_path / "classes.tsv").write_text("n1\tant\n")
    (tmp_path / "annotations").mkdir()
    dataset = readers.read(tmp_path)
    assert dataset.class_names == ("ant", "bee")
    by_folder = {s.path.split("/")[0]: s.split for s in dataset.samples}
    assert by_folder == dict(zip(folders, sides, strict=True))


def test_classes_called_train_and_test_among_others_are_classes(tmp_path: Path) -> None:
    for name in ("car", "plane", "train"):
        put(tmp_path / name / "a.png")
    dataset = readers.read(tmp_path)
    assert dataset.class_names == ("car", "plane", "train")
    assert {s.split for s in dataset.samples} == {UNASSIGNED}


def test_split_folders_beside_other_folders_are_an_error(tmp_path: Path) -> None:
    for path in ("train/ant/a.png", "train/bee/a.png", "extra/a.png"):
        put(tmp_path / path)
    with pytest.raises(DatasetError, match=r"a split \(train\) beside other folders with images \(extra\)"):
        readers.read(tmp_path)


def test_split_folders_without_class_folders_are_an_error(tmp_path: Path) -> None:
    for path in ("train/a.png", "val/b.png"):
        put(tmp_path / path)
    with pytest.raises(DatasetError, match="expected class folders in train and val, found images directly there"):
        readers.read(tmp_path)


def test_an_unlabelled_test_folder_is_left_out_and_named(tmp_path: Path) -> None:
    for path in ("train/ant/a.png", "train/bee/b.png", "test/1.png", "loose.png"):
        put(tmp_path / path)
    dataset = readers.read(tmp_path)
    assert len(dataset) == 2
    assert kinds(dataset) == {"loose.png": "unlabelled", "test/1.png": "unlabelled"}


def test_files_that_are_no_images_are_counted_and_not_fatal(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    (folder / "ant/.DS_Store").write_bytes(b"\0")
    (folder / "ant/Thumbs.db").write_bytes(b"\0")
    (folder / "notes").write_text("read me")
    put(folder / ".cache/ant/a.png")
    put(folder / "bee/._b.png")
    dataset = readers.read(folder)
    assert len(dataset) == 4
    assert kinds(dataset) == {
        ".cache": "hidden",
        "ant/.DS_Store": "hidden",
        "ant/Thumbs.db": "not-an-image",
        "bee/._b.png": "hidden",
        "notes": "not-an-image",
    }


def test_damaged_files_are_named_with_a_reason(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    whole = put(folder / "whole.jpg", (64, 64)).read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "ant/zero.jpg").touch()
    (folder / "ant/words.png").write_text("404 not found")
    (folder / "bee/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bee/nowhere.jpg").symlink_to(folder / "gone.jpg")
    os.mkfifo(folder / "bee/pipe.jpg")
    dataset = readers.read(folder)
    assert len(dataset) == 4
    assert {s.path: s.reason for s in dataset.skipped if s.kind == "unreadable"} == {
        "ant/words.png": "not an image, or a format that cannot be read",
        "ant/zero.jpg": "an empty file",
        "bee/cut.jpg": next(s.reason for s in dataset.skipped if s.path == "bee/cut.jpg"),
        "bee/nowhere.jpg": "not a file, or a link to nowhere",
        "bee/pipe.jpg": "not a file, or a link to nowhere",
    }
    assert "truncated" in next(s.reason for s in dataset.skipped if s.path == "bee/cut.jpg")


def test_a_wrong_suffix_is_read_by_its_content(image_folder: Factory) -> None:
    folder = image_folder(count=1, suffix=".png")
    (folder / "ant/000.png").rename(folder / "ant/000.jpg")
    assert readers.read(folder).samples[0].format == "PNG"


def test_a_class_without_a_readable_image_is_named(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=1)
    (folder / "cat/000.png").write_bytes(b"")
    (folder / "dog").mkdir()
    dataset = readers.read(folder)
    assert dataset.class_names == ("ant", "bee")
    assert kinds(dataset) == {"cat": "empty-class", "cat/000.png": "unreadable", "dog": "empty-class"}


NAMES = ["two words", "[bold]", "line\nbreak", "return\r", "größe", "猫", "a,b", '"', "*?", "-x", "a\\b", "%s{}"]


def test_odd_names_of_classes_and_files_are_kept(tmp_path: Path) -> None:
    for name in NAMES:
        put(tmp_path / name / f"{name}.png")
    dataset = readers.read(tmp_path)
    assert dataset.class_names == tuple(sorted(NAMES))
    assert {s.path for s in dataset.samples} == {f"{name}/{name}.png" for name in NAMES}
    assert all(path.is_file() for path in dataset.paths)


def test_a_file_name_that_is_not_utf8_is_read(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "ant/000.png").rename(folder / "ant" / os.fsdecode(b"caf\xe9.png"))
    dataset = readers.read(folder)
    assert len(dataset) == 2
    assert dataset.paths[0].is_file()


def test_a_class_name_that_is_not_utf8_is_an_error(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "ant").rename(folder / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DatasetError, match=r"the class name b'caf\\xe9' is not UTF-8"):
        readers.read(folder)


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    for side, form in (("train", "NFC"), ("test", "NFD")):
        put(tmp_path / side / unicodedata.normalize(form, "café") / "a.png")
        put(tmp_path / side / "tea" / "a.png")
    assert readers.read(tmp_path).class_names == ("caf\u00e9", "tea")


def test_names_that_differ_in_case_are_two_classes(image_folder: Factory) -> None:
    assert readers.read(image_folder(classes=("Ant", "ant"), count=1)).class_names == ("Ant", "ant")


def test_a_link_in_a_circle_ends(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "ant/again").symlink_to(folder)
    dataset = readers.read(folder)
    assert len(dataset) == 2
    assert kinds(dataset) == {"ant/again": "unreadable"}


def test_a_linked_class_folder_is_followed(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("ant", "bee"), count=2)
    shutil.move(folder / "bee", tmp_path / "elsewhere")
    (folder / "bee").symlink_to(tmp_path / "elsewhere")
    assert readers.read(folder).counts() == {"ant": 2, "bee": 2}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_forbidden_files_and_folders_are_named(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=2)
    (folder / "ant/000.png").chmod(0)
    (folder / "cat").chmod(0)
    try:
        dataset = readers.read(folder)
    finally:
        (folder / "cat").chmod(0o700)
    assert kinds(dataset) == {"ant/000.png": "unreadable", "cat": "unreadable"}


def test_only_chosen_classes_are_opened(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=2)
    calls = []
    dataset = readers.read(folder, classes=("cat", "ant"), on_progress=lambda done, total: calls.append((done, total)))
    assert dataset.class_names == ("ant", "cat")
    assert calls == [(4, 4)]


def test_an_unknown_class_is_an_error_that_names_the_known_ones(image_folder: Factory) -> None:
    with pytest.raises(DatasetError, match=r"its classes \(ant, bee\), found cat, dog"):
        readers.read(image_folder(), classes=("dog", "ant", "cat"))


def test_progress_counts_every_file(image_folder: Factory) -> None:
    folder = image_folder(count=100, size_px=4)
    calls: list[tuple[int, int]] = []
    readers.read(folder, on_progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (200, 200)
    assert len(calls) > 2


def test_an_interrupt_in_the_middle_ends_reading(image_folder: Factory) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        readers.read(image_folder(count=70, size_px=4), on_progress=interrupt)


def test_a_limit_is_shared_in_proportion(tmp_path: Path) -> None:
    for name, count in (("ant", 60), ("bee", 30), ("cat", 1)):
        for number in range(count):
            put(tmp_path / name / f"{number}.png")
    everything = readers.read(tmp_path)
    for limit in (3, 10, 45, 90, 91, 500):
        counts = readers.read(tmp_path, limit=limit).counts()
        assert sum(counts.values()) == min(limit, 91)
        assert counts["cat"] == 1
        assert abs(counts["ant"] - 2 * counts["bee"]) <= 2
    small, large = readers.read(tmp_path, limit=20), readers.read(tmp_path, limit=50)
    assert set(small.samples) < set(large.samples) < set(everything.samples)


def test_a_limit_keeps_the_sides_of_a_split(tmp_path: Path) -> None:
    for side, count in (("train", 20), ("val", 5), ("test", 10)):
        for name in ("ant", "bee"):
            for number in range(count):
                put(tmp_path / side / name / f"{number}.png")
    dataset = readers.read(tmp_path, limit=28)
    assert Counter(s.split for s in dataset.samples) == {TRAIN: 16, VALIDATION: 4, TEST: 8}


def test_a_limit_chooses_by_content_and_not_by_name(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(count=20, size_px=8)
    chosen = {s.sha256 for s in readers.read(folder, limit=8).samples}
    for number, file in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed {number}.png"))
    assert {s.sha256 for s in readers.read(folder, limit=8).samples} == chosen


def test_a_limit_below_the_number_of_classes_is_an_error(image_folder: Factory) -> None:
    with pytest.raises(UsageError, match="--limit: expected at least 3"):
        readers.read(image_folder(classes=("ant", "bee", "cat")), limit=2)


def test_a_class_with_one_image_is_read(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee"), count=1)
    assert readers.read(folder).counts() == {"ant": 1, "bee": 1}


def test_fewer_classes_can_be_allowed(image_folder: Factory) -> None:
    assert readers.read(image_folder(classes=("ant",)), min_classes=1).class_names == ("ant",)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected a folder of images, found nothing there"):
        readers.read(tmp_path / "none")


def test_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected a folder with one sub-folder per class, a zip or tar archive of one, or a table"):
        readers.read(put(tmp_path / "a.png"))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected images, found an empty folder\. Put each class's images in"):
        readers.read(tmp_path)


def test_empty_class_folders_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "bee").mkdir()
    with pytest.raises(DatasetError, match="found 2 folders without files"):
        readers.read(tmp_path)


def test_a_folder_without_images_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.csv", "e.csv", "LICENSE", ".hidden"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"found other files \(3 \.txt, 2 \.csv, 1 without a suffix, 1 hidden\)"):
        readers.read(tmp_path)


def test_images_without_class_folders_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    with pytest.raises(DatasetError, match="found 2 images directly in it and no class folders"):
        readers.read(tmp_path)


def test_one_class_is_an_error_before_any_file_is_opened(tmp_path: Path) -> None:
    put(tmp_path / "ants-bees/ants/a.png")
    put(tmp_path / "ants-bees/bees/b.png")
    opened = []
    with pytest.raises(DatasetError, match=r"at least 2 classes with images, found 1 \(ants-bees\).*give that folder"):
        readers.read(tmp_path, on_progress=lambda done, total: opened.append(done))
    assert not opened


def test_one_chosen_class_is_an_error(image_folder: Factory) -> None:
    with pytest.raises(DatasetError, match=r"found 1 \(ant\)\. Name more of them"):
        readers.read(image_folder(), classes=("ant",))


def test_only_damaged_images_are_an_error_that_names_one(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none; 4 images cannot be read, such as ant/000\.png \(an empty file\)"):
        readers.read(folder)


@pytest.mark.real
def test_ants_and_bees_are_read_as_they_are(real_data: Path) -> None:
    folder = next(path.parent for path in (real_data / "ants-bees").rglob("train") if path.is_dir())
    dataset = readers.read(folder)
    assert dataset.counts() == {"ants": 194, "bees": 204}
    assert (len(dataset.part(TRAIN)), len(dataset.part(VALIDATION))) == (245, 153)
    assert kinds(dataset) == {"train/.DS_Store": "hidden", "val/.DS_Store": "hidden"}
    assert Counter(s.format for s in dataset.samples) == {"JPEG": 397, "GIF": 1}
