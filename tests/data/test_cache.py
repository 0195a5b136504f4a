"""Entries appear whole or not at all, go oldest first, and two processes do not meet."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from imgclf.data import cache
from imgclf.settings import Decoding

SHAPE = (3, 4, 4, 3)
ROWS = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)


def name(number: int) -> str:
    return f"{number:064x}"


def write(folder: Path, number: int, failed: dict[int, str] | None = None, **options) -> cache.Entry:
    folder.mkdir(exist_ok=True)
    with cache.Writer(folder, name(number), SHAPE) as writer:
        writer.append(ROWS[:2])
        writer.append(ROWS[2:])
        return writer.finish(failed or {}, **options)


def test_what_is_written_is_read_with_its_failures(tmp_path):
    written = write(tmp_path, 1, {2: "not an image"})
    found = cache.read(tmp_path, name(1), SHAPE)
    assert found and written.failed == found.failed == {2: "not an image"}
    assert isinstance(found.array, np.memmap)
    np.testing.assert_array_equal(found.array, ROWS)
    np.testing.assert_array_equal(written.array, ROWS)
    assert cache.read(tmp_path, name(2), SHAPE) is None


def test_an_entry_that_is_not_kept_serves_once_and_is_gone(tmp_path):
    np.testing.assert_array_equal(write(tmp_path, 1, keep=False).array, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), cache.Writer(tmp_path, name(1), SHAPE) as writer:
        writer.append(ROWS[:1])
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["array.npy", "failed.json"])
@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"null", None])
def test_a_damaged_entry_is_removed(tmp_path, file, damage):
    write(tmp_path, 1)
    if damage is None:
        (tmp_path / name(1) / file).unlink()
    else:
        (tmp_path / name(1) / file).write_bytes(damage)
    assert cache.read(tmp_path, name(1), SHAPE) is None
    write(tmp_path, 1)
    assert cache.read(tmp_path, name(1), SHAPE) is not None


def test_an_entry_of_another_shape_is_no_answer(tmp_path):
    write(tmp_path, 1)
    assert cache.read(tmp_path, name(1), (4, 4, 4, 3)) is None


def test_the_name_follows_from_contents_size_rules_and_decoder():
    keys = [
        cache.key(hashes, size_px, rules)
        for hashes in (["a" * 64], ["a" * 64, "b" * 64])
        for size_px in (32, 48)
        for rules in (Decoding(), Decoding("crop"), Decoding(window="0,99"), Decoding(allow_truncated=True))
    ]
    assert len(set(keys)) == 16 and all(len(key) == 64 for key in keys)
    assert cache.key(["a" * 64], 32, Decoding()) == keys[0]


def test_the_longest_unused_entries_go_first(tmp_path):
    for number in range(4):
        write(tmp_path, number)
        os.utime(tmp_path / name(number), (1000 + number, 1000 + number))
    cache.read(tmp_path, name(0), SHAPE)  # now the youngest
    size = sum(file.stat().st_size for file in (tmp_path / name(0)).iterdir())
    assert cache.make_room(tmp_path, size, 3 * size) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [name(0), name(3)]


def test_nothing_is_removed_for_what_would_not_fit_even_so(tmp_path, monkeypatch):
    write(tmp_path, 1)
    assert "more than --cache-limit-gb" in (cache.make_room(tmp_path, 10_001, 10_000) or "")
    assert "GB to spare" in (cache.make_room(tmp_path, 1 << 60, 1 << 61) or "")
    usage = shutil.disk_usage(tmp_path)

    def disk_usage(folder):
        return usage._replace(free=cache.MIN_FREE_BYTES + (500 if (tmp_path / name(1)).exists() else 900))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert [path.name for path in tmp_path.iterdir()] == [name(1)]
    assert cache.make_room(tmp_path, 600, 1 << 61) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_the_caches_own_stays(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, 1)
    assert cache.make_room(tmp_path, 1000, 1000) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "photographs"]


def test_an_entry_in_use_survives_its_removal(tmp_path):
    entry = write(tmp_path, 1)
    assert cache.make_room(tmp_path, 1000, 1000) is None
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(entry.array, ROWS)


CRASH = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from imgclf.data import cache
    with cache.Writer(Path(sys.argv[1]), sys.argv[2], (3, 4, 4, 3)) as writer:
        writer.append(np.zeros((2, 4, 4, 3), np.uint8))
        print("written", flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_crash_leaves_is_no_entry_and_is_removed_once_its_writer_is_gone(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(CRASH), str(tmp_path), name(1)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "written\n"
        (stage,) = tmp_path.iterdir()
        long_ago = time.time() - 3600
        os.utime(stage, (long_ago, long_ago))
        assert cache.read(tmp_path, name(1), SHAPE) is None
        assert cache.make_room(tmp_path, 1000, 10**6) is None
        assert stage.exists()  # the other process still writes it
        process.communicate("\n")
    assert cache.read(tmp_path, name(1), SHAPE) is None
    os.utime(stage, (long_ago, long_ago))
    assert cache.make_room(tmp_path, 1000, 10**6) is None
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_entry_both_get_it(tmp_path):
    with cache.Writer(tmp_path, name(1), SHAPE) as slow:
        slow.append(ROWS)
        fast = write(tmp_path, 1)
        late = slow.finish({})
    np.testing.assert_array_equal(fast.array, late.array)
    assert [path.name for path in tmp_path.iterdir()] == [name(1)]


BOTH = """
    import sys
    from imgclf.data import loading, collection
    print(loading.decode(collection.collect(sys.argv[1]), 24, cache=sys.argv[2])[1][:].sum())
"""


def test_two_processes_decode_the_same_data_at_once(image_folder, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(BOTH), str(image_folder()), str(tmp_path / "pixels")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(sums) == 1
    assert len(list((tmp_path / "pixels").iterdir())) == 1
