"""The file of predictions: locked, whole or absent, and resumed with what it lacks."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killing
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction import Prediction, output_files, outputs

LABELS = ("ants", "bees", "wasps")
BEES = Prediction("b.jpg", np.array([0.125, 0.75, 0.125], np.float32), LABELS)
BROKEN = Prediction("x.jpg", None, LABELS, "an empty file")
NOT_TEXT = os.fsdecode(b"caf\xe9.jpg")
MADE_BY = {"model": "abc", "--top": 1, "rules": {}}

needs_bytes_as_names = pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


def named(path: str) -> Prediction:
    return Prediction(path, BEES.probabilities, LABELS)


def test_a_new_file_stands_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "out.csv"
    with output_files.create(target) as (file, _):
        file.write("naïve\n")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == "naïve\n".encode()
    assert [path.name for path in target.parent.iterdir()] == ["out.csv"]


@needs_bytes_as_names
def test_a_name_that_is_not_text_is_written_as_its_bytes(tmp_path):
    with output_files.create(tmp_path / "out.csv") as (file, _):
        file.write(NOT_TEXT)
    assert (tmp_path / "out.csv").read_bytes() == b"caf\xe9.jpg"


def test_an_interruption_keeps_what_is_written(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt), output_files.create(tmp_path / "out.csv") as (file, _):
        file.write("one\n")
        raise KeyboardInterrupt
    assert (tmp_path / "out.csv").read_text() == "one\n"
    assert f"{tmp_path / 'out.csv'} contains what was finished." in caplog.messages


@pytest.mark.parametrize("error", [ValueError("why"), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(tmp_path, error):
    expected = ImgclfError if isinstance(error, OSError) else ValueError
    with pytest.raises(expected, match=r"No space|why"), output_files.create(tmp_path / "out.csv") as (file, _):
        file.write("one\n")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_touched(tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match="the file exists"), output_files.create(tmp_path / "out.csv"):
        pass
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), output_files.create(tmp_path / "file" / "out.csv"):
        pass


def go_on(path, predictions, format="jsonl", top=1):
    """Answer what the file does not hold."""
    with output_files.resume(path, format, outputs.columns(top)) as (file, done):
        left = [prediction for prediction in predictions if prediction.path not in done]
        lines = outputs.to_jsonl(left, top) if format == "jsonl" else (outputs.to_csv_line(p, top) for p in left)
        file.writelines(lines)
    return [prediction.path for prediction in left]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
@settings(deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\"), min_size=1),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    cut=st.integers(0, 10**6),
)
def test_wherever_a_file_was_cut_off_going_on_gives_the_whole_file(tmp_path_factory, format, names, cut):
    folder = tmp_path_factory.mktemp("resume")
    predictions = [named(name) for name in names]
    assert go_on(folder / "whole", predictions, format) == names
    whole = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(whole[: cut % (len(whole) + 1)])
    left = go_on(folder / "cut", predictions, format)
    assert (folder / "cut").read_bytes() == whole
    assert left == names[len(names) - len(left) :]
    assert go_on(folder / "cut", predictions, format) == []


@needs_bytes_as_names
@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_name_that_is_not_text_is_known_again(tmp_path, format):
    assert go_on(tmp_path / "out", [named(NOT_TEXT)], format) == [NOT_TEXT]
    assert go_on(tmp_path / "out", [named(NOT_TEXT)], format) == []


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("jsonl", "[1]\n{}\n"),
        ("jsonl", '{"path": "a.jpg", "error": 5}\n'),
        ("jsonl", '{"path": ["a.jpg"], "error": null}\n'),
        ("jsonl", "path,label\n"),
        ("csv", "a,b\n1,2\n"),
        ("csv", "path,label,confidence,error\nx\n"),
    ],
)
def test_a_file_of_something_else_is_a_usage_error_and_stays_as_it_is(tmp_path, format, content):
    (tmp_path / "out").write_text(content)
    with pytest.raises(UsageError, match=r"expected (a prediction|the columns)"):
        go_on(tmp_path / "out", [BEES], format)
    assert (tmp_path / "out").read_text() == content


def test_a_csv_of_another_number_of_classes_is_not_gone_on_with(tmp_path):
    go_on(tmp_path / "out.csv", [BEES], "csv", top=2)
    with pytest.raises(
        UsageError, match="expected the columns path,label,confidence,error,predicted,rejected,argmax, found"
    ):
        go_on(tmp_path / "out.csv", [BROKEN], "csv", top=1)


@pytest.mark.parametrize("begin", ["resume(Path(sys.argv[1]), 'jsonl', ())", "create(Path(sys.argv[1]))"])
def test_two_processes_do_not_write_one_file(tmp_path, begin):
    code = "import sys; from pathlib import Path; from imgclf.prediction import output_files\n"
    code += f"with output_files.{begin}: print('open', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "out.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "open\n"
        with refused():
            go_on(tmp_path / "out.jsonl", [BEES])
        refused_too = pytest.raises(UsageError, match=r"another imgclf process|the file exists")
        with refused_too, output_files.create(tmp_path / "out.jsonl"):
            pass
        other.communicate("\n")
    assert go_on(tmp_path / "out.jsonl", [BEES]) == ["b.jpg"]


def refused():
    return pytest.raises(UsageError, match="another imgclf process is writing this file")


def test_a_full_disk_leaves_what_was_finished_and_says_how_to_go_on(tmp_path):
    full = pytest.raises(ImgclfError, match=r"No space left.*and --resume")
    with full, output_files.resume(tmp_path / "out.jsonl", "jsonl", ()) as (file, _):
        file.writelines(outputs.to_jsonl([BEES], 1))
        file.flush()
        raise OSError(28, "No space left on device")
    assert go_on(tmp_path / "out.jsonl", [BEES, BROKEN]) == ["x.jpg"]


def record(path: Path, **changes: object) -> None:
    """Predict b.jpg into a file, made as MADE_BY says."""
    with output_files.resume(path, "jsonl", ()) as (file, done):
        done.claim(MADE_BY | changes)
        if "b.jpg" not in done:
            file.writelines(outputs.to_jsonl([BEES], 1))


def paths_in(path: Path) -> list[str]:
    return [json.loads(line)["path"] for line in path.read_text().splitlines()]


@needs_fork
def test_the_part_that_a_killed_process_left_is_continued_or_else_replaced(tmp_path):
    target = tmp_path / "out.jsonl"

    def leave() -> None:
        with output_files.create(target) as (file, done):
            done.claim(MADE_BY)
            file.writelines(outputs.to_jsonl([BEES], 1))
            file.write('{"path": "half')
            file.flush()
            os._exit(0)

    kill(leave)
    assert output_files.part_of(target).is_file() and not target.exists()
    assert go_on(target, [BEES, BROKEN]) == ["x.jpg"]
    assert paths_in(target) == ["b.jpg", "x.jpg"]
    target.unlink()
    kill(leave)
    with output_files.create(target) as (file, _):
        file.writelines(outputs.to_jsonl([BROKEN], 1))
    assert paths_in(target) == ["x.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]


def kill(work) -> None:
    child = os.fork()
    if not child:
        work()
    os.waitpid(child, 0)


@needs_fork
def test_killed_at_any_operation_a_file_is_resumed_to_the_same_bytes(tmp_path):
    whole = tmp_path / "whole.jsonl"
    go_on(whole, [BEES, BROKEN])

    def work() -> None:
        with output_files.create(tmp_path / "out.jsonl") as (file, done):
            done.claim(MADE_BY)
            for line in outputs.to_jsonl([BEES, BROKEN], 1):
                file.write(line)
                file.flush()

    for _ in killing.at_each_operation(work):
        if (tmp_path / "out.jsonl").exists():  # whole, though its lock is left
            assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()
        go_on(tmp_path / "out.jsonl", [BEES, BROKEN])
        assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()
        (tmp_path / "out.jsonl").unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "def"}, "begun with another model. Choose"),
        ({"--top": 3}, "begun with --top 1, found 3. Choose"),
        ({"rules": {"reject_below": 0.5}}, "begun with rules none, found reject_below 0.5. Choose"),
    ],
)
def test_a_file_is_not_resumed_with_another_model_or_other_options(tmp_path, changes, message):
    record(tmp_path / "out.jsonl")
    record(tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(UsageError, match=message):
        record(tmp_path / "out.jsonl", **changes)
    assert (tmp_path / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize("sessions", ["5", '[[Infinity, "/"]]', '[[0, "/", 1]]', "[[0]]"])
def test_a_file_without_a_record_is_resumed_with_a_warning(tmp_path, caplog, sessions):
    record(tmp_path / "out.jsonl")
    output_files.record_of(tmp_path / "out.jsonl").write_text(f'{{"made_by": {{}}, "sessions": {sessions}}}')
    record(tmp_path / "out.jsonl", model="def")
    assert "no record of the model" in caplog.text
    with pytest.raises(UsageError, match="another model"):
        record(tmp_path / "out.jsonl")


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_an_image_is_known_by_what_its_path_names_from_whatever_folder(tmp_path, monkeypatch, format):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    target = tmp_path / "out"

    def left(*names: str) -> list[str]:
        predictions = [named(name) for name in names]
        with output_files.resume(target, format, outputs.columns(1)) as (file, done):
            done.claim(MADE_BY)
            new = [each for each in predictions if each.path not in done]
            lines = outputs.to_jsonl(new, 1) if format == "jsonl" else (outputs.to_csv_line(each, 1) for each in new)
            file.writelines(lines)
        return [str(each.path) for each in new]

    monkeypatch.chdir(tmp_path)
    assert left("photos/cats/0.jpg") == ["photos/cats/0.jpg"]
    assert left("./photos/cats/0.jpg", f"{tmp_path}/photos/cats/0.jpg", "photos/../photos//cats/0.jpg") == []
    assert left("link/cats/0.jpg") == []
    monkeypatch.chdir(tmp_path / "photos")
    assert left("cats/0.jpg", "photos/cats/0.jpg", "cats/1.jpg") == ["photos/cats/0.jpg", "cats/1.jpg"]
    monkeypatch.chdir(tmp_path)
    assert left("photos/cats/1.jpg", "cats/1.jpg") == ["cats/1.jpg"]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_lines_with_errors_that_may_have_passed_are_predicted_again(tmp_path, format):
    gone = [replace(BROKEN, path=f"{number}.jpg", error="no such file") for number in range(3)]
    target = tmp_path / "out"
    go_on(target, [gone[0], BEES, gone[1], BROKEN, gone[2]], format)
    back = [named(each.path) for each in gone]
    assert go_on(target, [back[0], BEES, back[1], BROKEN, back[2]], format) == ["0.jpg", "1.jpg", "2.jpg"]
    text = target.read_text()
    assert "no such file" not in text and text.count("an empty file") == 1
    if format == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["path"] for row in rows] == ["b.jpg", "x.jpg", "0.jpg", "1.jpg", "2.jpg"]
