import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from imgclf.data import collection, relocate
from imgclf.errors import DatasetError


def contents(paths: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("renamed", [False, True])
def test_a_moved_folder_is_found_again_even_with_other_names(
    image_folder: Callable[..., Path], tmp_path: Path, renamed: bool
) -> None:
    dataset = collection.collect(image_folder())
    before = contents(dataset.paths)
    place = tmp_path / "elsewhere"
    shutil.move(dataset.root, place)
    if renamed:
        for number, path in enumerate(sorted(place.rglob("*.png"), reverse=True)):
            path.rename(place / f"photo {number}.png")
    found = relocate.find(dataset, place)
    assert contents(found.paths) == before
    assert [s.label for s in found.samples] == [s.label for s in dataset.samples]
    assert ([s.path for s in found.samples] == [s.path for s in dataset.samples]) is not renamed


def test_a_file_of_the_same_name_and_other_content_is_not_taken(image_folder: Callable[..., Path]) -> None:
    folder = image_folder()
    dataset = collection.collect(folder)
    (folder / "ant" / "000.png").rename(folder / "ant" / "first.png")
    Image.new("RGB", (32, 32)).save(folder / "ant" / "000.png")
    found = relocate.find(dataset, folder)
    assert found.samples[0].path == "ant/first.png"
    assert [s.path for s in found.samples[1:]] == [s.path for s in dataset.samples[1:]]


def test_an_archive_of_the_folder_will_do(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = collection.collect(image_folder())
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for sample, path in zip(dataset.samples, dataset.paths, strict=True):
            archive.write(path, f"deep/er/{sample.path}")
    before = contents(dataset.paths)
    shutil.rmtree(dataset.root)
    found = relocate.find(dataset, tmp_path / "packed.zip")
    assert contents(found.paths) == before
    assert found.origin == tmp_path / "packed.zip"


def test_images_that_are_not_there_are_counted_and_named(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = collection.collect(image_folder())
    (dataset.root / "bee" / "003.png").unlink()
    with pytest.raises(DatasetError, match=r"expected the 12 images.*found 11, and nothing for bee/003\.png"):
        relocate.find(dataset, dataset.root)
    with pytest.raises(DatasetError, match="nowhere: expected the images that have moved, found nothing there"):
        relocate.find(dataset, tmp_path / "nowhere")


def test_without_hashes_nothing_can_be_told(image_folder: Callable[..., Path]) -> None:
    dataset = collection.collect(image_folder())
    unhashed = replace(dataset, samples=tuple(replace(s, sha256="") for s in dataset.samples))
    with pytest.raises(DatasetError, match="expected the SHA-256 of every image"):
        relocate.find(unhashed, dataset.root)
