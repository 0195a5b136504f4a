"""Copies of data sets as class folders: what comes out is the same data set, and nothing is overwritten."""

import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgclf.data import collection, copying
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample
from imgclf.errors import DatasetError, UsageError
from imgclf.prediction import Prediction, sorting
from imgclf.settings import ReadConfig

Factory = Callable[..., Path]


def test_a_copy_is_the_same_dataset_in_hard_links(image_folder: Factory, tmp_path: Path) -> None:
    dataset = collection.collect(image_folder(count=3))
    assert copying.copy(dataset, tmp_path / "deep" / "copy") == (6, 0)
    copy = collection.collect(tmp_path / "deep" / "copy")
    assert copy.samples == dataset.samples
    assert all(a.samefile(b) for a, b in zip(copy.paths, dataset.paths, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "images"]


def test_sides_become_folders(image_folder: Factory, tmp_path: Path) -> None:
    dataset = collection.collect(image_folder(count=2)).with_splits([TRAIN, TEST, VALIDATION, UNASSIGNED])
    copying.copy(dataset, tmp_path / "copy")
    copy = collection.collect(tmp_path / "copy")
    assert [(s.path, s.split) for s in copy.samples] == [
        ("test/ant/001.png", TEST),
        ("train/ant/000.png", TRAIN),
        ("train/bee/001.png", TRAIN),
        ("validation/bee/000.png", VALIDATION),
    ]


def test_files_of_another_disk_are_copied(
    image_folder: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    dataset = collection.collect(image_folder(count=2))
    assert copying.copy(dataset, tmp_path / "copy") == (0, 4)
    assert collection.collect(tmp_path / "copy").digest() == dataset.digest()


def test_links_are_copied_as_what_they_point_to(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(count=2)
    (folder / "ant/000.png").rename(tmp_path / "store.png")
    (folder / "ant/000.png").symlink_to("../../store.png")
    copying.copy(collection.collect(folder), tmp_path / "copy")
    assert not (tmp_path / "copy/ant/000.png").is_symlink()
    assert (tmp_path / "copy/ant/000.png").samefile(tmp_path / "store.png")


def test_files_of_one_name_in_one_class_all_arrive(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("ant", "bee"), count=1)
    for number, place in enumerate(("x/000.png", "x/y/000.png", "x_000.png", "z/000.PNG", "z/q.jpg/000.png")):
        (folder / "ant" / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "ant" / place).write_bytes((folder / "ant/000.png").read_bytes() + bytes(number + 1))
    dataset = collection.collect(folder)
    copying.copy(dataset, tmp_path / "copy")
    assert collection.collect(tmp_path / "copy").digest() == dataset.digest()


def test_a_table_of_files_without_endings_is_readable_as_a_copy(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("x",), count=2)
    for path in list((folder / "x").iterdir()):
        path.rename(path.with_name(f"scan.{path.stem}"))
    (folder / "labels.csv").write_text("path,label\nx/scan.000,ant\nx/scan.001,bee\n")
    dataset = collection.collect(folder / "labels.csv")
    copying.copy(dataset, tmp_path / "copy")
    assert sorted(s.path for s in collection.collect(tmp_path / "copy").samples) == [
        "ant/scan.000.png",
        "bee/scan.001.png",
    ]


def test_nested_class_names_become_nested_folders(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("rose/red", "rose/white"), count=2)
    dataset = collection.collect(folder, ReadConfig(depth=2))
    copying.copy(dataset, tmp_path / "copy")
    assert collection.collect(tmp_path / "copy", ReadConfig(depth=2)).samples == dataset.samples


@pytest.mark.parametrize("name", ["..", ".", "", ".x", "a\\b", "a\0b", "/etc", "a/", "a//b", "../up", "a/.."])
def test_unsafe_class_names_are_refused(image_folder: Factory, tmp_path: Path, name: str) -> None:
    folder = image_folder(count=1)
    dataset = Dataset(folder, (Sample("ant/000.png", name), Sample("bee/000.png", "a/b")), (name, "a/b"))
    with pytest.raises(DatasetError, match=r"class names that can be folders, found .*--rename"):
        copying.copy(dataset, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows drops spaces at the ends of names")
def test_class_names_with_spaces_at_their_ends_are_folders(image_folder: Factory, tmp_path: Path) -> None:
    dataset = collection.collect(image_folder(classes=(" dog", "dog", "dog "), count=2))
    copying.copy(dataset, tmp_path / "copy")
    assert collection.collect(tmp_path / "copy").samples == dataset.samples


@pytest.mark.parametrize("write", ["copy", "sort"])
def test_files_of_the_cache_are_copied_and_read_only(image_folder: Factory, tmp_path: Path, write: str) -> None:
    image_folder(count=2)
    archive = Path(shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "images"))
    dataset = collection.collect(archive)
    if write == "copy":
        assert copying.copy(dataset, tmp_path / "out") == (0, 4)
    else:
        sorter = sorting.Sorter(tmp_path / "out", dataset.class_names)
        for sample, path in zip(dataset.samples, dataset.paths, strict=True):
            one = np.eye(2, dtype=np.float32)[dataset.class_names.index(sample.label)]
            sorter.place(Prediction(sample.path, one, dataset.class_names, file=str(path)))
    for sample, cached in zip(dataset.samples, dataset.paths, strict=True):
        ours = tmp_path / "out" / sample.path
        assert ours.read_bytes() == cached.read_bytes()
        assert not ours.samefile(cached) and ours.stat().st_nlink == cached.stat().st_nlink == 1
        assert cached.stat().st_mode & 0o222 == 0 and ours.stat().st_mode & 0o200
    ours.write_bytes(b"edited")
    assert collection.collect(archive) == dataset


def test_an_archive_of_the_same_size_and_time_is_unpacked_again(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(count=1)
    archive, other = tmp_path / "data.zip", tmp_path / "other.zip"
    for path, names in ((archive, ("ant", "bee")), (other, ("bee", "ant"))):
        with zipfile.ZipFile(path, "w") as packed:
            for name, source in zip(names, ("ant", "bee"), strict=True):
                packed.write(folder / source / "000.png", f"{name}/000.png")
    before = collection.collect(archive)
    status = archive.stat()
    archive.write_bytes(other.read_bytes())
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert archive.stat().st_size == status.st_size
    assert [s.sha256 for s in collection.collect(archive).samples] == [s.sha256 for s in before.samples[::-1]]


def test_nested_names_beside_others_are_refused(image_folder: Factory, tmp_path: Path) -> None:
    dataset = Dataset(image_folder(), (Sample("ant/000.png", "N/A"), Sample("bee/000.png", "x")), ("N/A", "x"))
    with pytest.raises(DatasetError, match="found N/A beside others"):
        copying.copy(dataset, tmp_path / "copy")


def test_a_disk_that_takes_two_classes_for_one_is_an_error(
    image_folder: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, mkdir = collection.collect(image_folder(classes=("Ant", "ant"), count=1)), Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda path, *a, **k: mkdir(Path(str(path).replace("Ant", "ant")), *a, **k))
    monkeypatch.setattr(os, "link", lambda *_: None)
    with pytest.raises(DatasetError, match="does not tell upper from lower case"):
        copying.copy(dataset, tmp_path / "copy")


def test_what_is_there_is_never_overwritten(image_folder: Factory, tmp_path: Path) -> None:
    dataset = collection.collect(image_folder())
    (tmp_path / "file").touch()
    (tmp_path / "full" / "ant").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("file", "full", "nowhere", "circle"):
        with pytest.raises(UsageError, match="expected a new or empty folder, found something there"):
            copying.copy(dataset, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "empty", "file", "full", "images", "nowhere"]
    copying.copy(dataset, tmp_path / "empty")
    assert len(collection.collect(tmp_path / "empty")) == 12


def test_a_copy_into_the_data_is_refused(image_folder: Factory, tmp_path: Path) -> None:
    dataset = collection.collect(image_folder())
    unpacked = replace(dataset, source=tmp_path / "photographs")
    for data, folder in ((dataset, dataset.root), (unpacked, dataset.root), (unpacked, tmp_path / "photographs")):
        with pytest.raises(UsageError, match="expected a folder outside of the data"):
            copying.copy(data, folder / "ant" / "copy")


def test_nothing_is_left_of_a_copy_that_fails(image_folder: Factory, tmp_path: Path) -> None:
    dataset = collection.collect(image_folder())
    dataset.paths[-1].unlink()
    with pytest.raises(DatasetError, match=r"005\.png: the image is gone"):
        copying.copy(dataset, tmp_path / "copy")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="the copy cannot be written"):
        copying.copy(replace(dataset, samples=dataset.samples[:1]), tmp_path / "file" / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "images"]


def test_progress_is_counted(image_folder: Factory, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset = collection.collect(image_folder(count=60, size_px=4))
    copying.copy(dataset, tmp_path / "copy", lambda done, total: calls.append((done, total)))
    assert calls == [(100, 120)]


PATHS = st.lists(st.sampled_from(["a.png", "A.png", "b.PNG", "x/a.png", "x/a", "x_a.png", ".a.png", "a-2.png"]))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS)
def test_names_in_a_class_are_free_and_found_again(paths: list[str]) -> None:
    taken: set[str] = set()
    names = [copying.free_name(Sample(path, "ant", format="PNG"), taken) for path in paths]
    assert len({name.casefold() for name in names}) == len(paths)
    assert all(name.lower().endswith(".png") and name[0] != "." and "/" not in name for name in names)
