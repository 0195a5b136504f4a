"""Reading folders: layouts, what is skipped and why, limits, and every folder that is no data set."""

import hashlib
import os
import random
import shutil
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf import runs, storage
from imgclf.data import collection, run_data, split_names
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION, write_manifest
from imgclf.errors import DatasetError, UsageError
from imgclf.settings import ReadConfig, TrainConfig

Factory = Callable[..., Path]
RNG = np.random.default_rng(0)


def put(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    """Write a small image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def kinds(dataset: collection.Dataset) -> dict[str, str]:
    return {s.path: s.kind for s in dataset.skipped}


def test_a_folder_per_class(image_folder: Factory) -> None:
    folder = image_folder(classes=("bee", "ant"), count=3, size_px=20)
    dataset = collection.collect(folder)
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
    assert collection.collect(str(folder)).samples == collection.collect(tmp_path / "link").samples


def test_images_are_found_at_any_depth_of_a_class(tmp_path: Path) -> None:
    for path in ("ant/a.png", "ant/2024/may/b.png", "bee/x/c.PNG", "bee/d.JpEg"):
        put(tmp_path / path)
    assert [(s.path, s.label) for s in collection.collect(tmp_path).samples] == [
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
def test_folders_of_a_split_are_recognized(tmp_path: Path, folders: tuple[str, ...], sides: list[str]) -> None:
    for folder in folders:
        put(tmp_path / folder / "ant" / "a.png")
        put(tmp_path / folder / "bee" / "deeper" / "b.png")
    (tmp_path / "classes.tsv").write_text("n1\tant\n")
    (tmp_path / "annotations").mkdir()
    dataset = collection.collect(tmp_path)
    assert dataset.class_names == ("ant", "bee")
    by_folder = {s.path.split("/")[0]: s.split for s in dataset.samples}
    assert by_folder == dict(zip(folders, sides, strict=True))


def test_classes_called_train_and_test_among_others_are_classes(tmp_path: Path) -> None:
    for name in ("car", "plane", "train"):
        put(tmp_path / name / "a.png")
    dataset = collection.collect(tmp_path)
    assert dataset.class_names == ("car", "plane", "train")
    assert {s.split for s in dataset.samples} == {UNASSIGNED}


def test_split_folders_beside_other_folders_are_an_error(tmp_path: Path) -> None:
    for path in ("train/ant/a.png", "train/bee/a.png", "extra/a.png"):
        put(tmp_path / path)
    with pytest.raises(DatasetError, match=r"a split \(train\) beside other folders with images \(extra\)"):
        collection.collect(tmp_path)


def test_split_folders_without_class_folders_are_an_error(tmp_path: Path) -> None:
    for path in ("train/a.png", "val/b.png"):
        put(tmp_path / path)
    with pytest.raises(DatasetError, match="expected class folders in train and val, found images directly there"):
        collection.collect(tmp_path)


def test_an_unlabelled_test_folder_is_left_out_and_named(tmp_path: Path) -> None:
    for path in ("train/ant/a.png", "train/bee/b.png", "test/1.png", "loose.png"):
        put(tmp_path / path)
    dataset = collection.collect(tmp_path)
    assert len(dataset) == 2
    assert kinds(dataset) == {"loose.png": "unlabelled", "test/1.png": "unlabelled"}


def test_files_that_are_no_images_are_counted_and_not_fatal(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    (folder / "ant/.DS_Store").write_bytes(b"\0")
    (folder / "ant/Thumbs.db").write_bytes(b"\0")
    (folder / "notes").write_text("read me")
    put(folder / ".cache/ant/a.png")
    put(folder / "bee/._b.png")
    dataset = collection.collect(folder)
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
    dataset = collection.collect(folder)
    assert len(dataset) == 4
    assert {s.path: s.reason for s in dataset.skipped if s.kind == "unreadable"} == {
        "ant/words.png": "not an image, or a format that cannot be read",
        "ant/zero.jpg": "an empty file",
        "bee/cut.jpg": next(s.reason for s in dataset.skipped if s.path == "bee/cut.jpg"),
        "bee/nowhere.jpg": "not a file, or a link to nowhere",
        "bee/pipe.jpg": "not a file, or a link to nowhere",
    }
    assert "truncated" in next(s.reason for s in dataset.skipped if s.path == "bee/cut.jpg")


def test_what_is_no_file_is_not_opened_whatever_its_name(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    for name in ("labels.csv", "coco.json", "a.xml", "batches.meta"):
        os.mkfifo(folder / name)  # opening one would wait for ever
    (folder / "names.txt").symlink_to("gone")
    assert set(kinds(collection.collect(folder)).values()) == {"unreadable"}
    for old, new in (("ant", "n01440764"), ("bee", "n02012849")):
        (folder / old).rename(folder / new)
    assert len(collection.collect(folder)) == 4


def test_a_wrong_suffix_is_read_by_its_content(image_folder: Factory) -> None:
    folder = image_folder(count=1, suffix=".png")
    (folder / "ant/000.png").rename(folder / "ant/000.jpg")
    assert collection.collect(folder).samples[0].format == "PNG"


def test_a_class_without_a_readable_image_is_named(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=1)
    (folder / "cat/000.png").write_bytes(b"")
    (folder / "dog").mkdir()
    dataset = collection.collect(folder)
    assert dataset.class_names == ("ant", "bee")
    assert kinds(dataset) == {"cat": "empty-class", "cat/000.png": "unreadable", "dog": "empty-class"}


NAMES = ["two words", "[bold]", "line\nbreak", "return\r", "größe", "猫", "a,b", '"', "*?", "-x", "a\\b", "%s{}"]


def test_odd_names_of_classes_and_files_are_kept(tmp_path: Path) -> None:
    for name in NAMES:
        put(tmp_path / name / f"{name}.png")
    dataset = collection.collect(tmp_path)
    assert dataset.class_names == tuple(sorted(NAMES))
    assert {s.path for s in dataset.samples} == {f"{name}/{name}.png" for name in NAMES}
    assert all(path.is_file() for path in dataset.paths)


def test_a_file_name_that_is_not_utf8_is_read(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "ant/000.png").rename(folder / "ant" / os.fsdecode(b"caf\xe9.png"))
    dataset = collection.collect(folder)
    assert len(dataset) == 2
    assert dataset.paths[0].is_file()


def test_a_class_name_that_is_not_utf8_is_an_error(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "ant").rename(folder / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DatasetError, match=r"the class name b'caf\\xe9' is not UTF-8"):
        collection.collect(folder)


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    for side, form in (("train", "NFC"), ("test", "NFD")):
        put(tmp_path / side / unicodedata.normalize(form, "café") / "a.png")
        put(tmp_path / side / "tea" / "a.png")
    assert collection.collect(tmp_path).class_names == ("caf\u00e9", "tea")


def test_names_that_differ_in_case_are_two_classes(image_folder: Factory) -> None:
    assert collection.collect(image_folder(classes=("Ant", "ant"), count=1)).class_names == ("Ant", "ant")


def test_names_that_differ_in_case_are_said_to(image_folder: Factory, caplog: pytest.LogCaptureFixture) -> None:
    collection.collect(image_folder(classes=("Ant", "ant", "bee"), count=1))
    assert "classes whose names differ only in case: Ant and ant." in caplog.text


def test_a_link_in_a_circle_ends(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "ant/again").symlink_to(folder)
    dataset = collection.collect(folder)
    assert len(dataset) == 2
    assert kinds(dataset) == {"ant/again": "unreadable"}


def test_a_linked_class_folder_is_followed(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("ant", "bee"), count=2)
    shutil.move(folder / "bee", tmp_path / "elsewhere")
    (folder / "bee").symlink_to(tmp_path / "elsewhere")
    assert collection.collect(folder).counts() == {"ant": 2, "bee": 2}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_forbidden_files_and_folders_are_named(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=2)
    (folder / "ant/000.png").chmod(0)
    (folder / "cat").chmod(0)
    try:
        dataset = collection.collect(folder)
    finally:
        (folder / "cat").chmod(0o700)
    assert kinds(dataset) == {"ant/000.png": "unreadable", "cat": "unreadable"}


def test_a_folder_that_cannot_be_listed_is_named(image_folder: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scandir = image_folder(classes=("ant", "bee", "cat"), count=2), os.scandir

    def forbid(path: Path) -> object:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    dataset = collection.collect(folder)
    assert {s.path: s.reason for s in dataset.skipped} == {"cat": "the folder cannot be read (Permission denied)"}


def test_links_in_many_circles_end(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    for name in ("a", "b", "c"):
        (folder / "ant" / name).symlink_to(folder)
        (folder / "bee" / name).symlink_to(folder / "ant")
    (folder / "ant" / "self").symlink_to("self")
    dataset = collection.collect(folder)
    assert [s.path for s in dataset.samples] == ["ant/000.png", "bee/000.png"]
    circles = {f"{folder}/{name}" for folder in ("ant", "bee") for name in ("a", "b", "c")}
    assert kinds(dataset) == dict.fromkeys(circles | {"ant/self"}, "unreadable")


@pytest.mark.slow
def test_ten_thousand_classes_are_read(image_folder: Factory, tmp_path: Path) -> None:
    one = image_folder(classes=("x",), count=1, size_px=4) / "x/000.png"
    for number in range(10_000):
        (tmp_path / "many" / f"{number:05}").mkdir(parents=True)
        os.link(one, tmp_path / "many" / f"{number:05}" / "a.png")
    dataset = collection.collect(tmp_path / "many")
    assert len(dataset.class_names) == 10_000
    assert dataset.labels.tolist() == list(range(10_000))


def test_nested_folders_make_class_names(tmp_path: Path) -> None:
    for path in ("rose/red/a.png", "rose/white/deep/b.png", "tulip/red/c.png", "loose.png", "rose/half.png"):
        put(tmp_path / path)
    (tmp_path / "tulip" / "black").mkdir()
    dataset = collection.collect(tmp_path, ReadConfig(depth=2))
    assert [(s.path, s.label) for s in dataset.samples] == [
        ("rose/red/a.png", "rose/red"),
        ("rose/white/deep/b.png", "rose/white"),
        ("tulip/red/c.png", "tulip/red"),
    ]
    assert kinds(dataset) == {"loose.png": "unlabelled", "rose/half.png": "unlabelled", "tulip/black": "empty-class"}
    assert collection.collect(tmp_path).class_names == ("rose", "tulip")
    with pytest.raises(DatasetError, match="expected images in folders nested 4 deep, found none"):
        collection.collect(tmp_path, ReadConfig(depth=4))


def test_nested_folders_of_a_split(tmp_path: Path) -> None:
    for path in ("train/rose/red/a.png", "train/tulip/red/b.png", "val/rose/red/c.png"):
        put(tmp_path / path)
    dataset = collection.collect(tmp_path, ReadConfig(depth=2))
    assert [(s.label, s.split) for s in dataset.samples] == [
        ("rose/red", TRAIN),
        ("tulip/red", TRAIN),
        ("rose/red", VALIDATION),
    ]


SYNSETS = ("n01440764", "n02012849", "n03126707")
LINES = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn99999999 else\n"
NAMES_OF_SYNSETS = ("crane (n02012849)", "crane (n03126707)", "tench")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LOC_synset_mapping.txt", LINES),
        ("words.txt", LINES.replace(" ", "\t", 1).replace("9 crane", "9\tcrane").replace("7 crane", "7\tcrane")),
        ("classes.tsv", "\n".join(line.replace(" ", "\t", 1) for line in LINES.splitlines())),
        ("index.json", '{"0": ["n01440764", "tench"], "1": ["n02012849", "crane"], "2": ["n03126707", "crane"]}'),
        ("names.json", '{"n01440764": "tench, Tinca tinca", "n02012849": "crane", "n03126707": "crane"}'),
    ],
)
def test_imagenet_folders_get_the_names_of_their_synsets(image_folder: Factory, name: str, text: str) -> None:
    folder = image_folder(classes=SYNSETS, count=1)
    assert collection.collect(folder).class_names == SYNSETS
    (folder / name).write_text(text)
    (folder / "about.txt").write_text("n01440764 is a fish\n")
    for settings_ in (ReadConfig(), ReadConfig(layout="imagenet")):
        dataset = collection.collect(folder, settings_)
        assert dataset.class_names == NAMES_OF_SYNSETS
        assert {s.path: s.label for s in dataset.samples}["n01440764/000.png"] == "tench"
    assert collection.collect(folder, ReadConfig(layout="folders")).class_names == SYNSETS


def test_imagenet_without_names_is_an_error(image_folder: Factory) -> None:
    with pytest.raises(DatasetError, match="a file beside them that names all of them, found none"):
        collection.collect(image_folder(classes=SYNSETS), ReadConfig(layout="imagenet"))


def test_class_folders_get_the_names_in_a_file(image_folder: Factory, tmp_path: Path) -> None:
    folder, file = image_folder(classes=("0", "1", "extra"), count=1), tmp_path / "names"
    for text in ('0,"worker, old"\n1,queen\n', "0\tworker, old\n1\tqueen\n"):
        file.write_text(text)
        dataset = collection.collect(folder, ReadConfig(class_names=str(file)))
        assert dataset.class_names == ("extra", "queen", "worker, old")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"9,queen\n", "expected names for the classes ant, bee, found names for 9"),
        ("x.csv", b"no names here\n", "line 1: a key without a name"),
        ("x.csv", b"ant,caf\xe9\n", "expected names of classes in UTF-8"),
        ("x.json", b"{", "expected names of classes in UTF-8"),
        ("x.json", b'{"ant": 1}', "1 is no name"),
        ("x.json", b'"ant"', "neither an object nor a list"),
        ("x.json", b"[" * 100_000, "expected names of classes in UTF-8"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_a_damaged_file_of_names_is_an_error(
    image_folder: Factory, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        collection.collect(image_folder(), ReadConfig(class_names=str(tmp_path / name)))


def test_a_truncated_file_is_read_where_that_is_allowed(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    whole = put(folder / "ant/whole.jpg", (64, 64))
    whole.write_bytes(whole.read_bytes()[:-500])
    assert kinds(collection.collect(folder)) == {"ant/whole.jpg": "unreadable"}
    assert kinds(collection.collect(folder, ReadConfig(allow_truncated=True))) == {}


def test_options_without_effect_are_named(image_folder: Factory, caplog: pytest.LogCaptureFixture) -> None:
    collection.collect(image_folder(), ReadConfig(crowd=True, box_margin=0.5, depth=1))
    assert "read as --layout folders, which leaves these without effect: --box-margin, --crowd." in caplog.text


@pytest.mark.parametrize(("name", "layout"), [("labels.csv", "table"), ("annotations.json", "coco")])
def test_a_file_of_another_layout_than_asked_for_is_an_error(tmp_path: Path, name: str, layout: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"--layout voc: .*{name} can only be read as --layout {layout}"):
        collection.collect(tmp_path / name, ReadConfig(layout="voc"))


def test_locate_names_what_is_gone(tmp_path: Path, image_folder: Factory) -> None:
    assert collection.locate(tmp_path / "gone") == tmp_path / "gone"
    assert collection.locate(image_folder()) == image_folder()


def test_only_chosen_classes_are_opened(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee", "cat"), count=2)
    calls = []
    dataset = collection.collect(
        folder, classes=("cat", "ant"), on_progress=lambda done, total: calls.append((done, total))
    )
    assert dataset.class_names == ("ant", "cat")
    assert calls == [(4, 4)]


def test_an_unknown_class_is_an_error_that_names_the_known_ones(image_folder: Factory) -> None:
    with pytest.raises(DatasetError, match=r"its classes \(ant, bee\), found cat, dog"):
        collection.collect(image_folder(), classes=("dog", "ant", "cat"))


def test_progress_counts_every_file(image_folder: Factory) -> None:
    folder = image_folder(count=100, size_px=4)
    calls: list[tuple[int, int]] = []
    collection.collect(folder, on_progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (200, 200)
    assert len(calls) > 2


def test_an_interrupt_in_the_middle_ends_reading(image_folder: Factory) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.collect(image_folder(count=70, size_px=4), on_progress=interrupt)


def test_a_limit_is_shared_in_proportion(tmp_path: Path) -> None:
    for name, count in (("ant", 60), ("bee", 30), ("cat", 1)):
        for number in range(count):
            put(tmp_path / name / f"{number}.png")
    everything = collection.collect(tmp_path)
    for limit in (3, 10, 45, 90, 91, 500):
        counts = collection.narrow(everything, limit=limit).counts()
        assert sum(counts.values()) == min(limit, 91)
        assert counts["cat"] == 1
        assert abs(counts["ant"] - 2 * counts["bee"]) <= 2
    small, large = collection.narrow(everything, limit=20), collection.narrow(everything, limit=50)
    assert set(small.samples) < set(large.samples) < set(everything.samples)


def test_a_limit_keeps_the_sides_of_a_split(tmp_path: Path) -> None:
    for side, count in (("train", 20), ("val", 5), ("test", 10)):
        for name in ("ant", "bee"):
            for number in range(count):
                put(tmp_path / side / name / f"{number}.png")
    dataset = collection.narrow(collection.collect(tmp_path), limit=28)
    assert Counter(s.split for s in dataset.samples) == {TRAIN: 16, VALIDATION: 4, TEST: 8}


def test_a_limit_chooses_by_content_and_not_by_name(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(count=20, size_px=8)
    chosen = {s.sha256 for s in collection.narrow(collection.collect(folder), limit=8).samples}
    for number, file in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed {number}.png"))
    assert {s.sha256 for s in collection.narrow(collection.collect(folder), limit=8).samples} == chosen


def test_a_limit_below_the_number_of_classes_is_an_error(image_folder: Factory) -> None:
    with pytest.raises(UsageError, match="--limit: expected at least 3"):
        collection.narrow(collection.collect(image_folder(classes=("ant", "bee", "cat"))), limit=2)


def test_a_class_with_one_image_is_read(image_folder: Factory) -> None:
    folder = image_folder(classes=("ant", "bee"), count=1)
    assert collection.collect(folder).counts() == {"ant": 1, "bee": 1}


def test_fewer_classes_can_be_allowed(image_folder: Factory) -> None:
    assert collection.collect(image_folder(classes=("ant",)), min_classes=1).class_names == ("ant",)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    for name in ("none", "x" * 300):
        with pytest.raises(DatasetError, match="expected a folder of images, found nothing there"):
            collection.collect(tmp_path / name)
        assert collection.locate(tmp_path / name) == tmp_path / name


def test_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="sub-folder per class, a zip or tar archive of one, or a table"):
        collection.collect(put(tmp_path / "a.png"))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected images, found an empty folder\. Put each class's images in"):
        collection.collect(tmp_path)


def test_empty_class_folders_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "bee").mkdir()
    with pytest.raises(DatasetError, match="found 2 folders without files"):
        collection.collect(tmp_path)


def test_a_folder_without_images_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.csv", "e.csv", "LICENSE", ".hidden"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"found other files \(3 \.txt, 2 \.csv, 1 without a suffix, 1 hidden\)"):
        collection.collect(tmp_path)


def test_images_without_class_folders_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    with pytest.raises(DatasetError, match="found 2 images directly in it and no class folders"):
        collection.collect(tmp_path)


def test_one_class_is_an_error_before_any_file_is_opened(tmp_path: Path) -> None:
    put(tmp_path / "ants-bees/ants/a.png")
    put(tmp_path / "ants-bees/bees/b.png")
    opened = []
    with pytest.raises(DatasetError, match=r"at least 2 classes with images, found 1 \(ants-bees\).*give that folder"):
        collection.collect(tmp_path, on_progress=lambda done, total: opened.append(done))
    assert not opened


def test_one_chosen_class_is_an_error(image_folder: Factory) -> None:
    with pytest.raises(DatasetError, match=r"found 1 \(ant\)\. Name more of them"):
        collection.collect(image_folder(), classes=("ant",))


def test_only_damaged_images_are_an_error_that_names_one(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none; 4 images cannot be read, such as ant/000\.png \(an empty file\)"):
        collection.collect(folder)


@pytest.mark.real
def test_ants_and_bees_are_read_as_they_are(real_data: Path) -> None:
    folder = next(path.parent for path in (real_data / "ants-bees").rglob("train") if path.is_dir())
    dataset = collection.collect(folder)
    assert dataset.counts() == {"ants": 194, "bees": 204}
    assert (len(dataset.part(TRAIN)), len(dataset.part(VALIDATION))) == (245, 153)
    assert kinds(dataset) == {"train/.DS_Store": "hidden", "val/.DS_Store": "hidden"}
    assert Counter(s.format for s in dataset.samples) == {"JPEG": 397, "GIF": 1}


@pytest.mark.parametrize("kind", ["zip", "table", "voc"])
def test_the_images_of_a_run_are_found_again(image_folder: Factory, tmp_path: Path, kind: str) -> None:
    data = folder = image_folder(count=3)
    if kind == "zip":
        data = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    elif kind == "table":
        data = folder / "labels.csv"
        data.write_text("path,label\nant/000.png,x\nbee/000.png,y\n")
    else:
        for name in ("ant", "bee"):
            box = "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
            objects = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
            (folder / name / "000.xml").write_text(f"<annotation><filename>000.png</filename>{objects}</annotation>")
    config = ReadConfig(layout="voc" if kind == "voc" else "auto")
    dataset = collection.collect(data, config)
    run = runs.create(tmp_path / "run")
    run.write_labels(list(dataset.class_names))
    write_manifest(dataset, run.manifest)
    facts = {"data": str(dataset.origin), "config": TrainConfig(layout=config.layout).to_dict() | {"from": "later"}}
    storage.write_json(run.config, facts)
    if kind != "table":
        shutil.rmtree(dataset.root)
    again = run_data.read(run)
    assert again == dataset
    assert again.origin == data
    assert all(path.is_file() for path in again.paths)


@pytest.mark.real
@pytest.mark.slow
def test_tiny_imagenet_is_one_dataset_as_zip_and_as_folder(tmp_path: Path) -> None:
    source = os.environ.get("IMGCLF_TEST_DATA")
    if not source:
        pytest.skip("IMGCLF_TEST_DATA is not set")
    archive = Path(source) / "tiny-imagenet.zip"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "tiny-imagenet")
    folder, zipped = collection.collect(tmp_path / "tiny-imagenet"), collection.collect(archive)
    assert folder.counts() == zipped.counts()
    assert folder.digest() == zipped.digest()
    assert (len(folder), len(folder.class_names)) == (109_450, 199)
    assert "tench" not in folder.class_names
    assert "goldfish" in folder.class_names  # classes.tsv names the synsets


LETTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\")
FOLDERS = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: name[0] != "." and name == name.strip())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FOLDERS, st.integers(1, 3), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_image_of_any_class_folders_is_read_once_in_any_order(
    tmp_path: Path, classes: dict[str, int], order: random.Random
) -> None:
    names = {unicodedata.normalize("NFC", name): count for name, count in classes.items()}
    if any(split_names.Vocabulary({}).of_folder(name).split for name in names):
        return
    one = put(tmp_path / "one.png")
    shutil.rmtree(tmp_path / "turns", ignore_errors=True)
    expected = sorted(f"{name}/{number}.png" for name, count in names.items() for number in range(count))
    found = []
    for turn in range(2):
        folder = tmp_path / "turns" / str(turn)
        for path in order.sample(expected, len(expected)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one, folder / path)
        found.append(collection.collect(folder, min_classes=1))
    assert [s.path for s in found[0].samples] == expected
    assert found[0].samples == found[1].samples
    assert found[0].counts() == dict(sorted(names.items()))
