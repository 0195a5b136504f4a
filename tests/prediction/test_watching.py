"""A watched folder: what is given, when, and which predictions are written."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from imgclf.errors import DatasetError
from imgclf.prediction import Prediction, watching


class Folder:
    """A folder and a clock: each list of steps is done in the half second between two looks at the folder."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.now, self.steps = path, 0.0, iter(())
        monkeypatch.setattr(watching, "changes", self.changes)
        monkeypatch.setattr(watching.time, "monotonic", lambda: self.now)

    def changes(self, folder: Path) -> Iterator[bool]:
        for step in itertools.chain(self.steps, itertools.repeat(None)):
            self.now += watching.STABLE_S
            if step:
                step()
            yield True

    def write(self, name: str, text: str, mtime_s: float = 0.0) -> Callable[[], None]:
        def write() -> None:
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if mtime_s:
                os.utime(path, (mtime_s, mtime_s))

        return write

    def remove(self, name: str) -> Callable[[], None]:
        return (self.path / name).unlink


class Known(set):
    changed_ns = 1000 * 10**9


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return Folder(tmp_path, monkeypatch)


def given(watcher: watching.Watcher, count: int) -> list[str]:
    return [Path(path).name for path in itertools.islice(watcher, count)]


def answer(path: Path, error: str | None = None) -> Prediction:
    return Prediction(str(path), None if error else np.array([0.2, 0.8]), ("ants", "bees"), error)


def test_everything_that_the_output_lacks_is_given_and_what_is_newer_than_the_output(folder):
    for name, mtime_s in (("known.jpg", 999), ("replaced.jpg", 1001), ("lacking.jpg", 1)):
        folder.write(name, name, mtime_s)()
    (folder.path / "notes.txt").write_text("no image")
    known = Known(str(folder.path / name) for name in ("known.jpg", "replaced.jpg"))
    folder.steps = iter([None, folder.write("sub/new.png", "new")])
    assert given(watching.Watcher(folder.path, known), 3) == ["lacking.jpg", "replaced.jpg", "new.png"]


def test_a_file_is_given_once_it_stays_as_it_is_and_again_when_it_is_replaced(folder):
    folder.steps = iter(
        [
            *(folder.write("a.jpg", "x" * size) for size in (1, 2, 3)),
            *(None, folder.write("a.jpg", "another"), None),
            *(folder.remove("a.jpg"), None, folder.write("a.jpg", "another"), None),
        ]
    )
    watcher = iter(watching.Watcher(folder.path))
    moments = []
    for path in itertools.islice(watcher, 3):
        assert path == str(folder.path / "a.jpg")
        moments.append(folder.now / watching.STABLE_S)
    assert moments == [4, 6, 10]


def test_an_empty_file_and_one_that_is_open_for_writing_are_waited_for(folder, monkeypatch):
    with (folder.path / "open.jpg").open("w") as file:
        file.write("half")
        file.flush()
        is_known = watching.is_being_written(str(folder.path / "open.jpg"))
        folder.steps = iter([folder.write("empty.jpg", ""), None, folder.write("other.jpg", "x"), None, None])
        watcher = iter(watching.Watcher(folder.path))
        if is_known:  # on disks and systems that can tell
            assert Path(next(watcher)).name == "other.jpg"
    assert not watching.is_being_written(str(folder.path / "open.jpg"))
    assert not watching.is_being_written(str(folder.path / "none.jpg"))


def test_a_half_image_is_not_written_as_an_error_until_its_time_is_over(folder):
    path = folder.path / "a.jpg"
    folder.write("a.jpg", "half")()
    watcher = watching.Watcher(folder.path)
    found = iter(watcher)
    assert next(found) == str(path)
    assert not watcher.accepts(answer(path, "damaged or truncated"))
    folder.steps = iter([folder.write("a.jpg", "the whole image")])
    assert next(found) == str(path)
    assert watcher.accepts(answer(path))
    begin = folder.now
    folder.write("a.jpg", "broken for good")()
    assert next(found) == str(path)
    assert not watcher.accepts(answer(path, "damaged or truncated"))
    assert next(found) == str(path)
    assert folder.now - begin > watching.GRACE_S
    assert watcher.accepts(answer(path, "damaged or truncated"))
    folder.write("b.jpg", "another")()
    assert Path(next(found)).name == "b.jpg"  # and the broken one is not tried any more


def test_an_error_that_may_pass_is_tried_again_and_written_once(folder):
    path = folder.path / "a.jpg"
    folder.write("a.jpg", "locked")()
    watcher = watching.Watcher(folder.path)
    written = []
    for number, _ in enumerate(iter(watcher)):
        written.append(watcher.accepts(answer(path, "no permission to read it")))
        if number == 15:
            break
    assert sum(written) == 1 and not written[0]
    assert watcher.accepts(answer(path))  # at last


def test_an_image_that_was_removed_before_it_was_read_gets_no_line(folder):
    path = folder.path / "a.jpg"
    folder.write("a.jpg", "short-lived")()
    watcher = watching.Watcher(folder.path)
    found = iter(watcher)
    assert next(found) == str(path)
    path.unlink()
    folder.write("b.jpg", "another")()
    assert Path(next(found)).name == "b.jpg"
    assert not watcher.accepts(answer(path, "no such file"))


def test_an_image_that_was_named_is_not_given_a_second_time(folder):
    folder.write("a.jpg", "named")()
    folder.write("b.jpg", "found")()
    watcher = watching.Watcher(folder.path)
    watcher.note(str(folder.path / "a.jpg"))
    assert given(watcher, 1) == ["b.jpg"]
    assert watcher.accepts(answer(folder.path / "elsewhere.jpg"))


def test_a_watched_folder_that_is_missing_or_goes_is_a_dataset_error(folder):
    with pytest.raises(DatasetError, match="cannot be read"):
        watching.Watcher(folder.path / "none")
    (folder.path / "in").mkdir()
    watcher = iter(watching.Watcher(folder.path / "in"))
    folder.steps = iter([(folder.path / "in").rmdir])
    with pytest.raises(DatasetError, match="cannot be read"):
        next(watcher)


@pytest.mark.parametrize("installed", [True, False])
def test_the_system_or_else_the_clock_wakes_it(tmp_path, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    told = watching.changes(tmp_path)
    next(told)
    (tmp_path / "a.jpg").write_text("new")
    assert any(next(told) for _ in range(4))
