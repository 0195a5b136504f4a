"""Pixels from memory, from the cache and from the files themselves; batches by seed, position and process."""

import json
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import pytest

from imgclf import environment
from imgclf.data import cache as caches
from imgclf.data import collection, images, loading, memory
from imgclf.data.dataset import Dataset
from imgclf.errors import DatasetError, ImageError
from imgclf.settings import Decoding

SIZE_PX = 24


@pytest.fixture
def dataset(image_folder) -> Dataset:
    """Twelve images of two classes, one of them twice."""
    folder = image_folder()
    (folder / "ant" / "copy.png").write_bytes((folder / "ant" / "000.png").read_bytes())
    return collection.collect(folder)


def expected(dataset: Dataset, rules: Decoding = images.DEFAULT) -> np.ndarray:
    return np.stack([images.load(path, SIZE_PX, rules) for path in dataset.paths])


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("cache", ["memory", "off", "auto", "folder"])
def test_every_place_gives_the_pixels_of_the_one_decoder(dataset, tmp_path, cache):
    place = str(tmp_path / "pixels") if cache == "folder" else cache
    for _ in range(2):  # the second time from what the first one left
        same, pixels = loading.decode(dataset, SIZE_PX, Decoding("crop"), cache=place)
        assert same is dataset and pixels.shape == (13, SIZE_PX, SIZE_PX, 3) and len(pixels) == 13
        np.testing.assert_array_equal(pixels[:], expected(dataset, Decoding("crop")))
        np.testing.assert_array_equal(pixels[3:5], pixels[np.array([3, 4])])
        np.testing.assert_array_equal(pixels.take(np.array([9, 2]))[1:], pixels[2:3])
    assert len(entries(tmp_path / "pixels")) == (cache == "folder")


def test_the_cache_holds_equal_files_once_and_is_found_again_whatever_the_order(dataset, tmp_path, monkeypatch):
    loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "pixels"))
    (entry,) = (tmp_path / "pixels").iterdir()
    stored = np.load(entry / "array.npy")
    assert stored.shape == (12, SIZE_PX, SIZE_PX, 3) and stored.dtype == np.uint8
    monkeypatch.setattr(images, "load", None)  # nothing is decoded again
    turned = replace(dataset, samples=dataset.samples[::-1])
    done: list[int] = []
    _, pixels = loading.decode(turned, SIZE_PX, cache=str(tmp_path / "pixels"), on_progress=done.append)
    assert sum(done) == 13
    monkeypatch.undo()
    np.testing.assert_array_equal(pixels[:], expected(turned))


def test_other_rules_sizes_contents_and_decoders_are_other_entries(dataset, tmp_path, monkeypatch):
    folder = tmp_path / "pixels"
    loading.decode(dataset, SIZE_PX, cache=str(folder))
    loading.decode(dataset, SIZE_PX + 1, cache=str(folder))
    loading.decode(dataset, SIZE_PX, Decoding("pad"), cache=str(folder))
    loading.decode(dataset, SIZE_PX, Decoding(window="0,9"), cache=str(folder))
    loading.decode(replace(dataset, samples=dataset.samples[:5]), SIZE_PX, cache=str(folder))
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    loading.decode(dataset, SIZE_PX, cache=str(folder))
    assert len(entries(folder)) == 6


@pytest.mark.parametrize("cache", ["memory", "off", "folder"])
def test_images_that_cannot_be_decoded_are_skipped_with_their_reason(dataset, tmp_path, cache):
    place = str(tmp_path / "pixels") if cache == "folder" else cache
    broken = dataset.root / "bee" / "003.png"
    broken.write_bytes(b"no image")
    samples = [replace(s, sha256="") if s.path == "bee/003.png" else s for s in dataset.samples]
    for _ in range(2):
        readable, pixels = loading.decode(replace(dataset, samples=tuple(samples)), SIZE_PX, cache=place)
        assert [(s.path, s.kind) for s in readable.skipped] == [("bee/003.png", "unreadable")]
        assert "not an image" in readable.skipped[0].reason
        np.testing.assert_array_equal(pixels[:], expected(readable))
    assert len(entries(tmp_path / "pixels")) == (cache == "folder")


def test_a_file_that_is_gone_or_changed_is_skipped_and_no_entry_made_of_it(dataset, tmp_path):
    (dataset.root / "ant" / "001.png").unlink()
    (dataset.root / "bee" / "002.png").write_bytes((dataset.root / "bee" / "001.png").read_bytes())
    readable, pixels = loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "pixels"))
    assert {s.path: s.reason for s in readable.skipped} == {
        "ant/001.png": "no such file",
        "bee/002.png": "changed since the data set was read",
    }
    np.testing.assert_array_equal(pixels[:], expected(readable))
    assert entries(tmp_path / "pixels") == []


def test_an_image_too_large_for_the_memory_left_is_skipped_this_time_alone(dataset, tmp_path, monkeypatch):
    large, load = dataset.paths[4].read_bytes(), images.load

    def tight(data: bytes, *rest: object) -> np.ndarray:
        if data == large:
            raise ImageError(memory.TOO_LARGE)
        return load(data, *rest)

    monkeypatch.setattr(images, "load", tight)
    readable, _ = loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "pixels"))
    assert [s.reason for s in readable.skipped] == ["too large for the memory"]
    assert entries(tmp_path / "pixels") == []


def test_a_dataset_of_broken_images_alone_is_an_error(dataset, tmp_path):
    for path in dataset.paths:
        path.unlink()
    for place in ("memory", "off", str(tmp_path / "pixels")):
        with pytest.raises(DatasetError, match=r"none of 13 could be decoded \(no such file\)"):
            loading.decode(dataset, SIZE_PX, cache=place)


def test_without_a_cache_a_file_that_goes_later_has_a_name(dataset):
    _, pixels = loading.decode(dataset, SIZE_PX, cache="off")
    dataset.paths[4].unlink()
    with pytest.raises(DatasetError, match=r"004\.png: no such file"):
        pixels[4:5]


def test_auto_keeps_on_disk_what_takes_long_to_decode(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    loading.decode(dataset, SIZE_PX)
    assert not caches.default_folder().exists()
    monkeypatch.setattr(loading, "WORTH_CACHING", 100_000)
    loading.decode(dataset, SIZE_PX)
    assert len(entries(caches.default_folder())) == 1


def test_pixels_larger_than_the_limit_stay_in_memory_with_a_line(dataset, tmp_path, caplog):
    _, pixels = loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "pixels"), cache_limit_gb=1e-6)
    assert "more than --cache-limit-gb 1e-06" in caplog.text and "memory holds them instead" in caplog.text
    np.testing.assert_array_equal(pixels[:], expected(dataset))
    assert entries(tmp_path / "pixels") == []


def test_without_room_on_disk_and_in_memory_every_epoch_decodes(dataset, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(environment, "available_memory", lambda: 1000)
    _, pixels = loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "pixels"), cache_limit_gb=1e-6)
    assert "every epoch decodes them again instead" in caplog.text
    np.testing.assert_array_equal(pixels[:], expected(dataset))
    with pytest.raises(DatasetError, match=r"13 images|12 images.*more than the memory has free"):
        loading.decode(dataset, SIZE_PX, cache="memory")


def test_a_full_disk_is_a_line_and_no_error(dataset, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(caches, "MIN_FREE_BYTES", 1 << 60)
    _, pixels = loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "pixels"))
    assert "to spare); memory holds them instead" in caplog.text
    np.testing.assert_array_equal(pixels[:], expected(dataset))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_while_the_cache_is_written_leaves_nothing_behind(dataset, tmp_path):
    code = """
        import logging, resource, signal, sys
        from imgclf.data import loading, collection
        logging.basicConfig(format="%(message)s")
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        done = []
        _, pixels = loading.decode(collection.collect(sys.argv[1]), 24, cache=sys.argv[2], on_progress=done.append)
        print(pixels[:].sum(), sum(done))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(dataset.root), str(tmp_path / "pixels")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "(File too large); memory holds them instead." in found.stderr
    assert found.stdout.split() == [str(expected(dataset).sum()), "13"]
    assert entries(tmp_path / "pixels") == []


def test_a_folder_that_cannot_be_made_is_a_line_and_no_error(dataset, tmp_path, caplog):
    (tmp_path / "file").touch()
    _, pixels = loading.decode(dataset, SIZE_PX, cache=str(tmp_path / "file"))
    assert f"{tmp_path / 'file'}: decoded pixels cannot be kept there" in caplog.text
    np.testing.assert_array_equal(pixels[:], expected(dataset))


def classes_of(batch: tuple[np.ndarray, np.ndarray]) -> list[int]:
    return batch[1].argmax(axis=1).tolist()


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that show their own number, which is also their label."""
    pixels = np.zeros((count, 4, 4, 3), np.uint8)
    pixels[:] = np.arange(count)[:, None, None, None]
    return pixels, np.arange(count)


def read(count: int, steps: int, **settings) -> list[tuple[np.ndarray, np.ndarray]]:
    pixels, labels = numbered(count)
    settings = {"batch_size": 4, "seed": 3} | settings
    batches = iter(loading.training_batches(pixels, labels, classes=count, **settings))
    return [next(batches) for _ in range(steps)]


def test_an_epoch_shows_every_image_once_and_each_epoch_in_another_order():
    found = [classes_of(batch) for batch in read(12, 6)]
    first, second = list(chain(*found[:3])), list(chain(*found[3:]))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second


def test_a_batch_is_full_and_its_targets_are_those_of_its_pixels():
    for pixels, targets in read(11, 5):
        assert pixels.shape == (4, 4, 4, 3) and pixels.dtype == np.uint8
        assert targets.shape == (4, 11) and targets.dtype == np.float32 and (targets.sum(axis=1) == 1).all()
        np.testing.assert_array_equal(pixels[:, 0, 0, 0], targets.argmax(axis=1))
    assert [len(pixels) for pixels, _ in read(3, 2)] == [3, 3]


def test_the_order_follows_from_the_seed():
    first, second, other = ([classes_of(b) for b in read(40, 10, seed=seed)] for seed in (1, 1, 2))
    assert first == second != other


def jitter(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels.astype(np.float32) + rng.random((len(pixels), 1, 1, 1), np.float32)


def test_reading_goes_on_in_the_middle_of_an_epoch_as_if_never_interrupted():
    whole = read(21, 14, transform=jitter)
    for first in (1, 7):
        rest = read(21, 14 - first, transform=jitter, first_step=first)
        for ours, theirs in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


def test_an_iterators_position_is_saved_and_restored_as_json():
    pixels, labels = numbered(21)
    batches = loading.training_batches(pixels, labels, classes=21, batch_size=4, seed=3, transform=jitter)
    reading = iter(batches)
    for _ in range(7):
        next(reading)
    state = json.dumps(reading.get_state())
    expected_next = [next(reading)[0] for _ in range(4)]
    again = iter(batches)
    again.set_state(json.loads(state))
    for batch in expected_next:
        np.testing.assert_array_equal(next(again)[0], batch)


def test_processes_share_the_batches_that_one_alone_would_read():
    alone = [classes_of(batch) for batch in read(50, 10, batch_size=12)]
    shards = [read(50, 10, batch_size=4, shard_index=i, shard_count=3, transform=jitter) for i in range(3)]
    for step in range(10):
        assert list(chain(*(classes_of(shard[step]) for shard in shards))) == alone[step]
    shifts = [shard[0][0][:, 0, 0, 0] % 1 for shard in shards]
    assert not np.allclose(shifts[0], shifts[1])  # each its own randomness


def test_fewer_images_than_processes_are_an_error():
    with pytest.raises(DatasetError, match="an image for each of 4 processes, found 3"):
        read(3, 1, shard_count=4)


def test_every_epoch_shows_each_image_once_also_among_many_classes():
    found = Counter(chain(*(classes_of(batch) for batch in read(250, 125, batch_size=2))))
    assert found == dict.fromkeys(range(250), 1)


def unshared_mib() -> float:
    """Memory of this process that no file backs, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_epochs_and_does_not_grow_with_the_data(tmp_path):
    stored = np.lib.format.open_memmap(tmp_path / "many.npy", "w+", np.uint8, (1_000_000, 8, 8, 3))
    labels = np.arange(len(stored)) % 10_000
    before = unshared_mib()
    pixels = loading.Pixels(stored).take(np.arange(0, len(stored), 2))
    batches = iter(loading.training_batches(pixels, labels[::2], classes=10_000, batch_size=64, seed=0))
    levels = []
    for step in range(1500):
        next(batches)
        if step % 500 == 499:
            levels.append(unshared_mib())
    assert levels[0] - before < 150
    assert levels[2] - levels[1] < 60  # of 1,250 that these batches take, up to 25 are read ahead


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_entries_cost_loading_little_and_no_more_with_every_epoch(dataset, tmp_path):
    many = replace(dataset, samples=tuple(islice(cycle(dataset.samples), 1_000_000)))
    labels = many.labels
    before = unshared_mib()
    same, pixels = loading.decode(many, SIZE_PX, cache=str(tmp_path / "pixels"))
    assert same is many and len(pixels) == 1_000_000
    np.testing.assert_array_equal(pixels[-13:], expected(dataset)[np.arange(999_987, 1_000_000) % 13])
    batches = iter(loading.training_batches(pixels, labels, classes=2, batch_size=1000, seed=0))
    levels = []
    for step in range(4000):  # four epochs
        next(batches)
        if step % 1000 == 999:
            levels.append(unshared_mib())
    assert levels[0] - before < 150  # 25 batches read ahead are 45 MiB, an order of a million rows is 8
    assert levels[3] - levels[1] < 60
