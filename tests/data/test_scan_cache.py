"""The scan: one pass over each file, remembered, interrupted and continued."""

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imgclf.data import collection, images, scan_cache, similar, statistics
from imgclf.data.dataset import Dataset


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Grows with every file that is decoded."""
    seen: list[bytes] = []
    look = images.look

    def counted(data: bytes, *rest: object) -> images.Look:
        seen.append(data)
        return look(data, *rest)

    monkeypatch.setattr(images, "look", counted)
    return seen


@pytest.fixture
def folder(image_folder: Callable[..., Path]) -> Iterator[Path]:
    """60 images, last changed an hour ago."""
    made = image_folder(count=30, size_px=40)
    for path in made.rglob("*.png"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
    yield made


def scan(folder: Path, cache: Path) -> tuple[Dataset, np.ndarray]:
    with scan_cache.Scanner(folder=cache) as scanner:
        dataset = collection.collect(folder, scanner=scanner)
        return dataset, scanner.records(dataset)


def test_a_scan_reads_as_a_reading_without_one(folder: Path, tmp_path: Path) -> None:
    (folder / "ant/empty.png").touch()
    (folder / "ant/text.png").write_text("text")
    dataset, records = scan(folder, tmp_path / "scans")
    plain = collection.collect(folder)
    assert (dataset, dataset.skipped) == (plain, plain.skipped)
    assert [tuple(row) for row in records[["width", "height"]].tolist()] == [(40, 40)] * 60


def test_a_second_scan_opens_nothing_and_gives_the_same(folder: Path, tmp_path: Path, opened: list[bytes]) -> None:
    first = scan(folder, tmp_path / "scans")
    assert len(opened) == 60
    second = scan(folder, tmp_path / "scans")
    assert len(opened) == 60
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])


def test_what_has_changed_is_looked_at_again(folder: Path, tmp_path: Path, opened: list[bytes]) -> None:
    before = scan(folder, tmp_path / "scans")[1]
    Image.new("RGB", (90, 50), (250, 250, 250)).save(folder / "ant/000.png")
    dataset, after = scan(folder, tmp_path / "scans")
    assert len(opened) == 61
    assert (after["width"][0], after["mean"][0]) == (90, 250)
    assert np.array_equal(before[1:], after[1:])
    assert dataset == collection.collect(folder)


def test_a_file_that_has_just_changed_is_hashed_again(
    image_folder: Callable[..., Path], tmp_path: Path, opened: list[bytes]
) -> None:
    folder = image_folder(count=3, size_px=40)
    scan(folder, tmp_path / "scans")
    path = folder / "ant/000.png"
    status = path.stat()
    content = (folder / "bee/001.png").read_bytes()
    path.write_bytes(content[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time
    assert scan(folder, tmp_path / "scans")[0] == collection.collect(folder)


def test_another_content_of_the_same_size_and_time_is_noticed(
    image_folder: Callable[..., Path], tmp_path: Path, opened: list[bytes]
) -> None:
    folder = image_folder(count=2, size_px=40, suffix=".bmp")
    path, other = folder / "ant/000.bmp", folder / "bee/001.bmp"
    for name in (path, other):
        os.utime(name, (1_000_000_000, 1_000_000_000))
    before, _ = scan(folder, tmp_path / "scans")
    assert path.stat().st_size == other.stat().st_size
    path.write_bytes(other.read_bytes())
    os.utime(path, (1_000_000_000, 1_000_000_000))
    after, _ = scan(folder, tmp_path / "scans")
    assert after.samples[0].sha256 == before.samples[3].sha256 != before.samples[0].sha256


def test_a_copy_of_a_folder_is_not_decoded_again(folder: Path, tmp_path: Path, opened: list[bytes]) -> None:
    scan(folder, tmp_path / "scans")
    shutil.copytree(folder, tmp_path / "copy")
    scan(tmp_path / "copy", tmp_path / "scans")
    assert len(opened) == 60


def test_an_interrupted_scan_goes_on_where_it_was(
    folder: Path, tmp_path: Path, opened: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_cache, "CHUNK", 4)

    def interrupt(done: int, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), scan_cache.Scanner(folder=tmp_path / "scans") as scanner:
        collection.collect(folder, scanner=scanner, on_progress=interrupt)
    begun = len(opened)
    assert 20 <= begun <= 60
    dataset, records = scan(folder, tmp_path / "scans")
    assert len(opened) == 60
    assert len(dataset) == len(records) == 60


def test_records_of_a_dataset_that_was_read_without_a_scanner(folder: Path, tmp_path: Path) -> None:
    _, expected = scan(folder, tmp_path / "scans")
    plain = collection.collect(folder)
    (folder / "bee/029.png").unlink()
    with scan_cache.Scanner(folder=tmp_path / "other") as scanner:
        records = scanner.records(plain)
    assert np.array_equal(records[:-1], expected[:-1])
    assert not records[-1]["width"]


def test_a_damaged_or_forbidden_cache_is_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("imgclf"), "propagate", True)
    expected = scan(folder, tmp_path / "scans")[1]
    (file,) = (tmp_path / "scans").glob("*.sqlite")
    file.write_bytes(b"no database at all" * 100)
    (tmp_path / "file").touch()
    for cache in (tmp_path / "scans", tmp_path / "file"):
        assert np.array_equal(scan(folder, cache)[1], expected)
        assert "the scan of the images cannot be cached there" in caplog.text
        caplog.clear()


def test_the_statistics_of_known_pictures(tmp_path: Path) -> None:
    def measured(image: Image.Image) -> np.ndarray:
        return statistics.measure([statistics.tiles(image)])[0]

    gray = measured(Image.new("RGB", (200, 200), (100, 100, 100)))
    assert (gray["mean"], gray["spread"], gray["entropy"], gray["flat"], gray["chroma"]) == (100, 0, 0, 1, 0)
    half = np.zeros((256, 256, 3), np.uint8)
    half[:, 128:] = (200, 200, 200)
    row = measured(Image.fromarray(half))
    assert (row["mean"], row["spread"], row["entropy"], row["low"], row["high"]) == (100, 100, 1, 0, 200)
    assert np.array_equal(row["thumb"], np.repeat([[0] * 16 + [200] * 16], 32, axis=0))
    red = measured(Image.new("RGB", (100, 100), (255, 0, 0)))
    assert (red["chroma"], red["mean"]) == (255, 76)


def test_blur_rises_with_blur() -> None:
    blocks = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    sharp = blocks.resize((256, 256), Image.Resampling.NEAREST)
    blurred = [sharp, *(sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (2, 4, 8))]
    values = statistics.measure([statistics.tiles(image) for image in blurred])["blur"].tolist()
    assert values == sorted(values)
    assert values[0] < 0.3 < 0.7 < values[-1]


def test_near_duplicates_are_searched_for_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    thumbs = rng.integers(0, 255, (40, 4, 4), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    thumbs[7] = thumbs[31]
    with scan_cache.Scanner(folder=tmp_path / "scans") as scanner:
        found = scanner.near_duplicates(thumbs, 0.9)
    assert (found.first.tolist(), found.second.tolist()) == ([7], [31])
    calls = []

    def counted(*arguments: object) -> similar.Pairs:
        calls.append(arguments)
        return find(*arguments)

    find = similar.find
    monkeypatch.setattr(similar, "find", counted)
    with scan_cache.Scanner(folder=tmp_path / "scans") as scanner:
        again = scanner.near_duplicates(thumbs, 0.9)
        assert not calls
        assert (again.first.tolist(), again.second.tolist()) == ([7], [31])
        np.testing.assert_array_equal(again.likeness, found.likeness)
        thumbs[3] = thumbs[31]
        assert len(scanner.near_duplicates(thumbs, 0.9)) > 1
        scanner.near_duplicates(thumbs, 0.8)
        assert len(calls) == 2
    for number in range(scan_cache.SEARCHES + 5):
        with scan_cache.Scanner(folder=tmp_path / "scans") as scanner:
            scanner.near_duplicates(thumbs, 0.9 + number / 1000)
    database = next((tmp_path / "scans").glob("*.sqlite"))
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM searches").fetchone() == (scan_cache.SEARCHES,)
