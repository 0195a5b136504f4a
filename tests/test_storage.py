"""Files, folders and sets of files are written whole or not at all, wherever the process is killed."""

import os
import subprocess
import sys
from pathlib import Path

import killing
import pytest

from imgclf import storage
from imgclf.errors import RunError

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != storage.LOCK)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    storage.write_atomic(target, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_atomic(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_files_have_the_permissions_of_files_and_not_of_secrets(tmp_path: Path) -> None:
    storage.write_atomic(tmp_path / "written", "x")
    (tmp_path / "plain").touch()
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_was_deleted_is_not_made_again_where_that_is_not_wanted(tmp_path: Path) -> None:
    storage.write_atomic(tmp_path / "new" / "file", "x")
    with pytest.raises(FileNotFoundError):
        storage.write_atomic(tmp_path / "gone" / "file", "x", parents=False)
    assert not (tmp_path / "gone").exists()


@needs_fork
def test_killed_at_any_operation_a_file_is_the_old_or_the_new_one_and_the_next_write_tidies_up(tmp_path: Path) -> None:
    target = tmp_path / "file"
    seen = set()
    target.write_text("old")
    for _ in killing.at_each_operation(lambda: storage.write_atomic(target, "new")):
        seen.add(target.read_text())
        storage.write_atomic(target, "old")
        age(tmp_path)
        storage.remove_abandoned(tmp_path)
        assert names(tmp_path) == ["file"]
    assert seen == {"old", "new"}


@needs_fork
def test_killed_at_any_operation_a_new_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def make() -> None:
        with storage.new_folder(target) as place:
            for name in "ab":
                (place / name).write_text(name)

    seen = []
    for _ in killing.at_each_operation(make):
        seen.append(contents(target) if target.exists() else None)
        age(tmp_path)
        storage.remove_abandoned(tmp_path)
        assert names(tmp_path) in ([], ["folder"])
        if target.exists():
            for path in target.iterdir():
                path.unlink()
            target.rmdir()
    assert all(found in (None, {"a": "a", "b": "b"}) for found in seen)
    assert {found is None for found in seen} == {True, False}


def age(folder: Path) -> None:
    """Make stages old enough to be known as left: one without a lock could be in the making."""
    for path in folder.glob(f"*{storage.STAGE}"):
        os.utime(path, (0, 0))


OLD = {"model": "old", "tree/a": "old", "tree/b": "old", "notes": "mine", "stale": "old"}
NEW = {"model": "new", "tree/a": "new", "added": "new", "notes": "mine"}


def lay(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def replace_set(folder: Path) -> None:
    with storage.locked(folder / storage.LOCK), storage.stage(folder) as stage:
        lay(stage, {"model": "new", "tree/a": "new", "added": "new", "scratch": "none"})
        storage.install(stage, folder, remove=["stale"], leave=["scratch"])


def test_a_set_of_files_replaces_another_and_what_it_lacks_goes(tmp_path: Path) -> None:
    lay(tmp_path, OLD)
    replace_set(tmp_path)
    assert contents(tmp_path) == NEW


@needs_fork
def test_killed_at_any_operation_a_set_of_files_is_the_old_or_the_new_one_once_it_is_read(tmp_path: Path) -> None:
    seen = []
    folder = tmp_path / "run"
    lay(folder, OLD)
    for number in killing.at_each_operation(lambda: replace_set(folder)):
        storage.settle(folder)
        age(folder)
        storage.remove_abandoned(folder)
        seen.append(contents(folder))
        folder.rename(tmp_path / f"done-{number}")
        lay(folder, OLD)
    assert all(found in (OLD, NEW) for found in seen)
    assert seen[0] == OLD and seen[-1] == NEW


@needs_fork
def test_killed_while_it_settles_a_reader_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    folder, ready = tmp_path / "run", tmp_path / "run" / storage.READY
    prepare(folder)
    for _ in killing.at_each_operation(lambda: storage.settle(folder)):
        storage.settle(folder)
        assert contents(folder) == NEW
        assert not ready.exists()
        prepare(folder)


def prepare(folder: Path) -> None:
    """A set that is ready, and not one file of it in place."""
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    lay(folder, OLD)
    lay(folder / storage.READY, {"model": "new", "tree/a": "new", "added": "new"})
    storage.write_json(folder / storage.READY / ".orders.json", {"remove": ["stale"], "leave": []})


def test_what_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from imgclf import storage\n"
    code += "with storage.stage(Path(sys.argv[1])): print('open', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "open\n"
        storage.write_atomic(tmp_path / "file", "x")
        assert len(list(tmp_path.glob(f"*{storage.STAGE}"))) == 1
        other.kill()
    storage.write_atomic(tmp_path / "file", "y")
    assert names(tmp_path) == ["file"]


def test_a_set_that_cannot_be_moved_into_place_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(RunError, match=r"cannot be moved into place \(Read-only"):
        storage.settle(tmp_path)


@pytest.mark.parametrize(
    "orders",
    [
        '{"remove": ["../mine"], "leave": []}',
        '{"remove": ["%s"], "leave": []}',
        '{"remove": [".."], "leave": []}',
        '{"remove": [7], "leave": []}',
        '{"remove": []}',
        "[" * 100_000,
    ],
)
def test_orders_of_others_change_nothing_outside_of_their_folder(tmp_path: Path, orders: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("kept")
    ready = tmp_path / "downloaded" / storage.READY
    ready.mkdir(parents=True)
    (ready / ".orders.json").write_text(orders.replace("%s", mine.as_posix()))
    with pytest.raises(RunError, match=r"orders\.json: damaged"):
        storage.settle(tmp_path / "downloaded")
    assert (mine / "file").read_text() == "kept"


def test_a_cache_is_cleared_but_for_what_a_running_process_uses_or_writes(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from imgclf import storage; root = Path(sys.argv[1]) / 'unpacked'\n"
    code += "storage.use(root / 'used')\nwith storage.stage(root): print('open', flush=True); input()"
    lay(tmp_path, {"unpacked/used/a": "1", "unpacked/idle/a": "1", "scans/db": "1", "file": "1"})
    (tmp_path / "link").symlink_to(tmp_path / "unpacked")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout and other.stdout.readline() == "open\n"
        kept = storage.clear(tmp_path)
        assert [path.name for path in kept if path.name == "used"] == ["used"] and len(kept) == 2
        assert {path.name for path in tmp_path.iterdir()} == {"unpacked"}
        assert contents(tmp_path).keys() >= {"unpacked/used/a"}
        assert not (tmp_path / "unpacked" / "idle").exists()
        other.kill()
    assert storage.clear(tmp_path) == []
    assert names(tmp_path) == []
