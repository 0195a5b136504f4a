"""Class folders as people have them: splits under many names, folders of systems, output of imgclf among the data."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from imgclf import runs
from imgclf.data import collection, file_listing, litter
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION
from imgclf.data.file_listing import Listing
from imgclf.data.layouts import Source, folders
from imgclf.data.split_names import Vocabulary, is_split, split_in
from imgclf.errors import DatasetError, UsageError
from imgclf.settings import DataConfig, ReadConfig
from imgclf.tasks import ordered


def listing(root: Path, paths: list[str], settings: ReadConfig | None = None) -> Listing:
    """List files of these names; nothing opens them."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return folders.list_samples(Source(root, root), settings or ReadConfig())


def found(root: Path, paths: list[str], settings: ReadConfig | None = None) -> dict[str, tuple[str, str]]:
    """The split and the class of each file."""
    return {s.path: (s.split, s.label) for s in listing(root, paths, settings).samples}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("training_set", "validation_set", "test_set"),
        ("training_set/training_set", "valid_set/valid_set", "test_set/test_set"),
        ("train_images", "val_images", "test_images"),
        ("images_train", "images_val", "images_test"),
        ("Training Images", "Validation Images", "Test Images"),
        ("my-train", "my-valid", "my-test"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("leaf.train", "leaf.dev", "leaf.test"),
        ("TRAIN_DATA", "VAL_DATA", "TEST_DATA"),
        ("train2017", "val2017", "test2017"),
        ("1. Training", "2. Validation", "3. Testing"),
        ("trainingSet", "validationSet", "testSet"),
        ("trainset", "valset", "testset"),
        ("TrainImages", "ValImages", "TestImages"),
        ("train/images", "val/images", "test/images"),
        ("train/train", "validation/validation", "test/test"),
        ("images/train", "images/val", "images/test"),
        ("dataset/training", "dataset/validation", "dataset/testing"),
        ("a/b/c/train", "a/b/c/valid", "a/b/c/test"),
        ("train_v2", "val_final", "test_new"),
        ("train_1_of_3", "val_2_of_3", "test_3_of_3"),
    ],
)
def test_splits_are_recognized_by_words_in_the_names_of_folders(
    tmp_path: Path, train: str, validation: str, test: str
) -> None:
    splits = {train: TRAIN, validation: VALIDATION, test: TEST}
    expected = {
        f"{folder}/{name}/deep/1.jpg": (split, name) for folder, split in splits.items() for name in ("cats", "dogs")
    }
    assert found(tmp_path, list(expected)) == expected


@pytest.mark.parametrize("folder", ["training_set/training_set", "dataset/training", "Train Images", "data/train_data"])
def test_one_split_alone_is_a_split(tmp_path: Path, folder: str) -> None:
    assert found(tmp_path, [f"{folder}/a/1.jpg", f"{folder}/b/1.jpg"]) == {
        f"{folder}/a/1.jpg": (TRAIN, "a"),
        f"{folder}/b/1.jpg": (TRAIN, "b"),
    }


@pytest.mark.parametrize(
    "names",
    [
        ("test_tube", "train_station", "valid_ticket"),
        ("training_shoes", "boots"),
        ("car", "plane", "train"),
        ("pretrained", "contest", "devil", "retrieval"),
        ("train test", "other"),
    ],
)
def test_classes_whose_names_contain_the_words_stay_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    paths = [f"{name}/1.jpg" for name in names]
    assert found(tmp_path, paths) == {f"{name}/1.jpg": (UNASSIGNED, name) for name in names}


@pytest.mark.parametrize("layers", ["{c}/{s}/1.jpg", "{c}/{s}_images/deep/1.jpg"])
def test_splits_inside_class_folders_are_splits(tmp_path: Path, layers: str) -> None:
    splits = {"train": TRAIN, "val": VALIDATION, "test": TEST}
    paths = {layers.format(c=c, s=s): (splits[s], c) for c in ("cats", "dogs") for s in splits}
    assert found(tmp_path, [*paths, "cats/direct.jpg"]) == paths | {"cats/direct.jpg": (UNASSIGNED, "cats")}


def test_letters_of_full_width_spell_a_split(tmp_path: Path) -> None:
    paths = {
        f"{folder}/{name}/1.jpg": (split, name)
        for folder, split in ((chr(0xFF34) + "RAIN", TRAIN), ("test", TEST))
        for name in ("a", "b")
    }
    assert found(tmp_path, list(paths)) == paths


def test_a_split_with_one_class_does_not_lose_it(tmp_path: Path) -> None:
    paths = ["train/photos/1.jpg", "train/drawings/1.jpg", "test/photos/1.jpg"]
    assert found(tmp_path, paths)["test/photos/1.jpg"] == (TEST, "photos")


def test_images_without_a_class_in_a_wrapped_test_folder_are_left_out(tmp_path: Path) -> None:
    result = listing(tmp_path, ["train/train/a/1.jpg", "train/train/b/1.jpg", "test/test/1.jpg"])
    assert {s.label for s in result.samples} == {"a", "b"}
    assert [(s.path, s.kind) for s in result.skipped] == [("test/test/1.jpg", "unlabelled")]


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["Entrenamiento/{}/1.jpg", "Prueba/{}/1.jpg"], "contains the same folders .cats, dogs"),
        (["fold1/{}/1.jpg", "fold2/{}/1.jpg", "fold3/{}/1.jpg"], "--split-names fold1=train,fold2=test"),
        (["color/{}/1.jpg", "gray/{}/1.jpg"], "pass --depth 1"),
        (["train/{}/1.jpg", "test/{}/1.jpg", "pred/1.jpg"], "--split-names pred=none"),
        (["a/train/{}/1.jpg", "a/test/{}/1.jpg", "b/train/{}/1.jpg", "b/test/{}/1.jpg"], "contains the same folders"),
        (["train_cats/1.jpg", "train_dogs/1.jpg", "test_cats/1.jpg", "test_dogs/1.jpg"], "a split and a class"),
        (["train_images/1.jpg", "test_images/1.jpg"], "expected class folders in test_images and train_images"),
        (["trainval/{}/1.jpg", "test/{}/1.jpg"], "a split .test. beside other folders.*--split-names trainval=train"),
        (["train/{}/1.jpg", "holdout/{}/1.jpg"], "If holdout is a split, too, pass --split-names holdout=test"),
        (["te/{}/1.jpg", "tr/{}/1.jpg"], "--split-names tr=train,te=test"),
        (["a/{}/1.jpg", "b/{}/1.jpg", "b/{}/2.jpg"], "--split-names b=train,a=test"),
        (["seg_train/seg_train/{}/1.jpg", "seg_test/seg_test/{}/1.jpg", "seg_pred/seg_pred/1.jpg"], "seg_pred=none"),
        (["seg_train/{}/1.jpg", "seg_pred/1.jpg"], "--split-names seg_pred=none"),
    ],
)
def test_what_may_be_splits_or_classes_is_a_question_that_names_the_option(
    tmp_path: Path, paths: list[str], problem: str
) -> None:
    with pytest.raises(DatasetError, match=problem):
        listing(tmp_path, [path.format(name) for path in paths for name in ("cats", "dogs")])


def test_options_answer_the_question(tmp_path: Path) -> None:
    paths = [f"{part}/{name}/1.jpg" for part in ("Entrenamiento", "Prueba", "Otro") for name in ("cats", "dogs")]
    both = ReadConfig(split_names="Entrenamiento=train, prueba=test, Otro=none")
    result = listing(tmp_path, paths, both)
    assert {(s.path.split("/")[0], s.split, s.label) for s in result.samples} == {
        *(("Entrenamiento", TRAIN, name) for name in ("cats", "dogs")),
        *(("Prueba", TEST, name) for name in ("cats", "dogs")),
    }
    assert [(s.path, s.kind) for s in result.skipped] == [("Otro", "excluded")]
    any_split = found(tmp_path, paths, ReadConfig(split_names="Entrenamiento=any,Prueba=any,Otro=any"))
    assert set(any_split.values()) == {(UNASSIGNED, "cats"), (UNASSIGNED, "dogs")}
    outer = found(tmp_path, paths, ReadConfig(depth=1))
    assert {label for _, label in outer.values()} == {"Entrenamiento", "Prueba", "Otro"}
    assert len({label for _, label in found(tmp_path, paths, ReadConfig(depth=2)).values()}) == 6
    inner = found(tmp_path, [*paths, "Prueba/2019/cats/2.jpg"], ReadConfig(depth="last"))
    assert {(path, label) for path, (_, label) in inner.items()} == {
        *((path, path.split("/")[1]) for path in paths),
        ("Prueba/2019/cats/2.jpg", "cats"),
    }


def test_no_folder_is_a_split_if_the_user_says_so(tmp_path: Path) -> None:
    paths = ["train/steam/1.jpg", "train/electric/1.jpg", "bus/red/1.jpg"]
    assert {label for _, label in found(tmp_path, paths, ReadConfig(split_names="none")).values()} == {"bus", "train"}


def test_a_folder_that_is_no_class_is_left_out(tmp_path: Path) -> None:
    paths = ["cats/1.jpg", "dogs/1.jpg", "junk/1.jpg"]
    result = listing(tmp_path, paths, ReadConfig(split_names="junk=none"))
    assert {s.label for s in result.samples} == {"cats", "dogs"}
    assert [(s.path, s.kind) for s in result.skipped] == [("junk", "excluded")]


@pytest.mark.parametrize("text", ["a", "a=b", "=train", "a=train,b", "a=nonsense"])
def test_split_names_need_a_name_and_a_split(text: str) -> None:
    with pytest.raises(UsageError, match="--split-names: expected none, or NAME=SPLIT"):
        ReadConfig(split_names=text)


def test_folders_shared_by_all_classes_are_allowed_where_groups_are_asked_for(tmp_path: Path) -> None:
    paths = [f"{name}/{patient}/1.jpg" for name in ("ill", "well") for patient in ("p1", "p2")]
    assert {label for _, label in found(tmp_path, paths, DataConfig(group_by="parent")).values()} == {"ill", "well"}


def test_words_of_tables_and_of_folders_are_the_same() -> None:
    assert [split_in(text) for text in ("instances_train2017", "valset", "my Testing", "latest")] == [
        TRAIN,
        VALIDATION,
        TEST,
        None,
    ]
    assert is_split("Test-Images") and not is_split("test_tube") and not is_split("train_test_split")
    assert Vocabulary({"trn": TRAIN}).of_cell(" TRN ").split == TRAIN
    assert Vocabulary({}).of_cell("").split == UNASSIGNED


def test_a_wrapped_archive_keeps_the_folder_of_its_split(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        image(tmp_path / f"wrapped/test_set/{name}/1.png", 10 * len(name))
    image(tmp_path / "pack/@eaDir/SYNOPHOTO_THUMB_M.png", 1)
    shutil.move(tmp_path / "wrapped", tmp_path / "pack/wrapped")
    shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "pack")
    assert {(s.label, s.split) for s in collection.collect(tmp_path / "data.zip").samples} == {
        ("cats", TEST),
        ("dogs", TEST),
    }


SYSTEM = (
    *("@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints", "__MACOSX", "RECYCLER"),
    *(
        "System Volume Information",
        "@Recycle",
        ".@__thumb",
        "@tmp",
        ".Trash-1000",
        ".git",
        "__pycache__",
        ".AppleDouble",
    ),
)


@pytest.mark.parametrize("folder", SYSTEM)
def test_folders_of_systems_are_hidden_at_every_depth(tmp_path: Path, folder: str) -> None:
    paths = ["cats/1.jpg", "dogs/1.jpg"]
    thumbs = [f"{folder}/x.jpg", f"cats/{folder}/1.jpg/SYNOPHOTO_THUMB_M.jpg", f"dogs/deep/{folder}/1.jpg"]
    result = listing(tmp_path, [*paths, *thumbs])
    assert [s.path for s in result.samples] == paths
    assert {s.kind for s in result.skipped} == {"hidden"}


def image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, shade, 255 - shade)).save(path)


@pytest.mark.parametrize(
    "files",
    [
        ("artifact.json",),
        ("config.json", "manifest.csv"),
        ("log.jsonl", "log.txt"),
        ("config.json", "folds.json"),
        ("metrics.json", "predictions.csv"),
    ],
)
def test_output_of_imgclf_in_the_data_is_left_out_with_a_note(
    tmp_path: Path, files: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    for shade, name in enumerate(("cats/1.png", "dogs/1.png", "runs/one/learning_curve.png", "runs/one/deep/x.png")):
        image(tmp_path / name, 40 * shade)
    for name in files:
        (tmp_path / "runs/one" / name).write_text("{}")
    caplog.set_level("INFO", logger="imgclf")
    dataset = collection.collect(tmp_path)
    assert dataset.class_names == ("cats", "dogs")
    assert [(s.path, s.kind) for s in dataset.skipped] == [("runs/one", "own-output")]
    assert "left out, as output of imgclf: runs/one." in caplog.text


def test_sorted_images_are_data_unless_they_lie_in_the_folder_that_was_sorted(tmp_path: Path) -> None:
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    image(inbox / "1.png", 10)
    for folder in (inbox / "sorted", elsewhere):
        image(folder / "cats/1.png", 10)
        litter.mark_sorted(folder, inbox)
    assert file_listing.scan(inbox).files == ["1.png"]
    assert file_listing.scan(inbox / "sorted").files == ["cats/1.png"]
    assert file_listing.scan(elsewhere).files == ["cats/1.png"]
    shutil.move(inbox / "sorted", tmp_path / "corrected")
    assert file_listing.scan(tmp_path).files == ["corrected/cats/1.png", "elsewhere/cats/1.png", "inbox/1.png"]
    (tmp_path / "corrected" / litter.SORTED).write_text("[" * 100_000)
    assert "corrected/cats/1.png" in file_listing.scan(tmp_path).files


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "1", "0"], ["0", "1", "2", "10"]),
        (["10", "02", "00", "1"], ["00", "1", "02", "10"]),
        (["-1", "3", "+2", "0.5"], ["-1", "0.5", "+2", "3"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        (["1", "01"], ["01", "1"]),
        (["\u0661", "2", "10"], ["10", "2", "\u0661"]),
    ],
)
def test_classes_are_ordered_by_number_if_all_are_numbers(names: list[str], order: list[str]) -> None:
    assert list(ordered(names)) == order


def test_the_order_of_numbers_is_said_and_lasts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(11):
        image(tmp_path / "data" / str(number) / "1.png", 20 * number)
    caplog.set_level("INFO", logger="imgclf")
    dataset = collection.collect(tmp_path / "data")
    assert dataset.class_names == tuple(map(str, range(11)))
    assert "the classes are ordered by number: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more." in caplog.text
    run = runs.Run(tmp_path)
    run.write_labels(list(dataset.class_names))
    assert json.loads("[" + ",".join(run.labels.read_text().split()) + "]") == list(range(11))
