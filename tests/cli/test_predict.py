import csv
import gc
import io
import itertools
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from imgclf import prediction
from imgclf.cli import app, console
from imgclf.cli import predict as command
from imgclf.prediction import artifact, decision

CLASSES = {"disc", "two discs"}


@pytest.fixture
def imgclf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs `imgclf ARGUMENTS` in this process and returns its exit code."""
    library = logging.getLogger("imgclf")
    handlers, level = list(library.handlers), library.level

    def call(*arguments: object, stdin: bytes = b"") -> int:
        monkeypatch.setattr("sys.argv", ["imgclf", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0)

    yield call
    library.handlers[:] = handlers
    library.setLevel(level)
    console.err.quiet = False


@pytest.fixture
def photos(trained_run, tmp_path: Path) -> Path:
    """A folder of four images of the run's classes, one of them with a name that asks for trouble, and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted((trained_run.path.parent / "images").rglob("*.png"))[::16]):
        shutil.copyfile(path, folder / f"{number}.png")
    (folder / "2.png").rename(folder / "[b]2 ä\n.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_json_line_for_each_image_agrees_with_the_library(imgclf, trained_run, photos, capsys):
    assert imgclf("predict", trained_run.path, photos, "--format", "jsonl", "--top", 2) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    names = ["0.png", "1.png", "[b]2 ä\n.png", "broken.png"]
    assert [line["path"] for line in lines] == [str(photos / name) for name in names]
    answers = prediction.load(trained_run.path).predict(photos / name for name in names)
    for line, answer in zip(lines, answers, strict=True):
        assert list(line) == ["path", "label", "confidence", "rejected", "top", "error"]
        best = [{"label": label, "confidence": confidence} for label, confidence in answer.top(2)]
        assert (line["label"], line["confidence"], line["top"]) == (answer.label, answer.confidence, best)
    assert {entry["label"] for entry in lines[0]["top"]} == CLASSES
    assert lines[3] | {"path": ""} == {
        "path": "",
        "label": None,
        "confidence": None,
        "rejected": False,
        "top": [],
        "error": "not an image, or a format that cannot be read",
    }
    assert printed.err.startswith(f"1 of 4 images cannot be read, such as {photos / 'broken.png'}: not an image")


def test_strict_fails_with_3_after_all_is_written(imgclf, trained_run, photos, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert imgclf("predict", trained_run.path, photos, "-o", output, "--strict") == 3
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] in CLASSES for row in rows] == [True, True, True, False]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Error: 1 of 4 images cannot be read" in printed.err


def test_strict_is_content_with_whole_images(imgclf, trained_run, photos, capsys):
    assert imgclf("predict", trained_run.litert, photos / "0.png", "--strict", "--format", "csv") == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err == ""


def test_the_default_is_a_table_with_names_as_they_are(imgclf, trained_run, photos, capsys):
    assert imgclf("predict", trained_run.path, photos, "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = printed.out.splitlines()
    assert "confidence" in rows[1] and "error" in rows[1]
    assert "[b]2 ä\\n.png" in printed.out
    assert "not an image" in rows[6] and "broken.png" in rows[6]
    assert [row for row in rows[7:-1] if not row.startswith("│    ")] == []  # the rest of the error


def test_what_there_is_of_a_truncated_file_is_classified_where_that_is_allowed(imgclf, trained_run, tmp_path, capsys):
    file = tmp_path / "cut.jpg"
    Image.new("RGB", (200, 200)).save(file)
    file.write_bytes(file.read_bytes()[:-100])
    assert imgclf("predict", trained_run.path, file, "--format", "csv", "--strict") == 3
    assert imgclf("predict", trained_run.path, file, "--format", "csv", "--strict", "--allow-truncated") == 0
    assert "truncated" not in capsys.readouterr().out.splitlines()[-1]


def test_a_table_without_broken_images_has_no_column_for_errors(imgclf, trained_run, photos, capsys):
    assert imgclf("predict", trained_run.path, photos / "0.png", "--top", 2) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "error" not in rows[1]
    assert sum("0.png" in row for row in rows) == 1
    assert all(any(name in row for row in rows[3:5]) for name in CLASSES)


def copies(photos: Path, count: int) -> list[Path]:
    """Files with the same image: one that is named several times is predicted once."""
    paths = [photos.parent / "copies" / f"{number}-0.png" for number in range(count)]
    paths[0].parent.mkdir()
    for path in paths:
        shutil.copyfile(photos / "0.png", path)
    return paths


def test_many_images_are_plain_lines_instead_of_a_table(imgclf, trained_run, photos, capsys):
    count = command.TABLE_LIMIT + 5
    paths = copies(photos, count)
    assert imgclf("predict", trained_run.path, *paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in paths]


def test_a_dash_reads_the_paths_from_stdin(imgclf, trained_run, photos, capsys):
    listed = f"{photos / '0.png'}\n{photos / '1.png'}\n"
    assert imgclf("predict", trained_run.path, "-", "--format", "csv", stdin=listed.encode()) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["path"] for row in rows] == listed.splitlines()


@pytest.mark.parametrize(("name", "format"), [("out.jsonl", None), ("out.csv", None), ("out", "jsonl"), ("out", "csv")])
def test_a_file_takes_the_format_from_its_name_or_from_the_option(imgclf, trained_run, photos, tmp_path, name, format):
    options = ["--format", format] if format else []
    assert imgclf("predict", trained_run.path, photos / "0.png", "-o", tmp_path / name, *options) == 0
    text = (tmp_path / name).read_text()
    if "jsonl" in (name[4:], format):
        assert json.loads(text)["path"] == str(photos / "0.png")
    else:
        assert text.startswith("path,label,confidence,error,predicted,rejected,argmax\n")


def test_a_file_that_exists_is_kept_and_named(imgclf, trained_run, photos, tmp_path, capsys):
    (tmp_path / "out.csv").write_text("mine")
    assert imgclf("predict", trained_run.path, photos, "-o", tmp_path / "out.csv") == 2
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert f"{tmp_path / 'out.csv'}: the file exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-o", "table.txt"], "ends in .jsonl, .csv, .parquet or .xlsx"),
        (["--format", "parquet"], "It is not text"),
        (["--resume"], "--resume: expected -o"),
        (["--resume", "-o", "out.parquet"], "ends in .jsonl or .csv, found out.parquet"),
        (["--resume", "-o", "out.csv", "--embeddings", "v.npz"], "--embeddings cannot be resumed"),
        (["--engine", "torch"], "one of auto, litert, onnx, openvino, savedmodel, keras"),
        (["--precision", "int4"], "one of auto, float32, float16, int8, bf16"),
        (["--reject-below", "2"], "a number from 0 to 1"),
        (["--shard", "3/2"], "I/N such as 1/4, I from 1 to N"),
        (["--shard", "0/2"], "I/N such as 1/4"),
        (["--shard", "half"], "I/N such as 1/4"),
        (["--embeddings", "v.txt"], "ends in .npz or .parquet"),
        (["--watch", "/", "--sort-into", "/tmp/x"], "which is watched"),
        (["--watch", "/", "--engine", "ray"], "--engine ray needs a list with an end"),
        (["-o", "out.csv", "--format", "jsonl"], "ends in .jsonl, as --format says, found .csv"),
        (["--format", "xml"], "one of table, jsonl, csv"),
        (["--top", "0"], "--top"),
        (["--batch-size", "0"], "--batch-size"),
    ],
)
def test_an_impossible_option_is_a_usage_error(imgclf, trained_run, photos, capsys, options, expected):
    assert imgclf("predict", trained_run.path, photos, *options) == 2
    assert expected in capsys.readouterr().err


def test_nothing_found_is_a_dataset_error_and_leaves_no_file(imgclf, trained_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "*.jpg"):
        assert imgclf("predict", trained_run.path, tmp_path / name, "-o", tmp_path / "out.csv") == 3
        assert f"{tmp_path / name}: expected images" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("beside", [[], ["0.png"]])
def test_a_file_that_is_missing_gets_a_line_alone_and_beside_others(imgclf, trained_run, photos, capsys, beside):
    names = [photos / name for name in [*beside, "none.jpg"]]
    assert imgclf("predict", trained_run.path, *names, "--format", "jsonl") == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [str(name) for name in names]
    assert lines[-1]["error"] and lines[-1]["label"] is None
    assert imgclf("predict", trained_run.path, *names, "--strict") == 3


def test_a_missing_model_is_an_artifact_error(imgclf, photos, tmp_path, capsys):
    assert imgclf("predict", tmp_path / "run", photos) == 4
    assert f"{tmp_path / 'run'}: expected a run, an exported model, or the name" in capsys.readouterr().err


def test_a_mistyped_backbone_is_answered_with_the_nearest_names(imgclf, photos, capsys):
    assert imgclf("predict", "mobilnetv2", photos) == 4
    assert "Did you mean mobilenetv2" in capsys.readouterr().err


def test_a_damaged_run_is_an_artifact_error(imgclf, trained_run, photos, tmp_path, capsys):
    copy = shutil.copytree(trained_run.path, tmp_path / "run")
    (copy / "artifact.json").write_text("{")
    assert imgclf("predict", copy, photos) == 4
    assert str(copy / "artifact.json") in capsys.readouterr().err


def changed(folder: Path) -> Path:
    with (folder / "model.tflite").open("ab") as file:
        file.write(b"more")
    return folder


def without_its_features(folder: Path) -> Path:
    facts = artifact.read(folder)
    (folder / decision.FILE).write_bytes(b"PK")
    files = {**facts.files, decision.FILE: artifact.File(decision.FORMAT, *artifact.hash_tree(folder / decision.FILE))}
    artifact.write(folder, replace(facts, files=files, decision=replace(facts.decision, outlier_above=1.0)))
    return folder


def newer(folder: Path) -> Path:
    content = json.loads((folder / artifact.NAME).read_text())
    (folder / artifact.NAME).write_text(json.dumps(content | {"schema": artifact.SCHEMA + 1, "imgclf": "9.0"}))
    return folder


def foreign(folder: Path) -> Path:
    for path in (folder / artifact.NAME, folder / "saved_model" / "variables"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return folder / "saved_model"


def a_pickle(folder: Path) -> Path:
    (folder.parent / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
    return folder.parent / "model.pkl"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (changed, r"model\.tflite: expected SHA-256 [0-9a-f]{12}\.\.\. as in artifact\.json, found"),
        (without_its_features, r"outliers\.npz: damaged file"),
        (newer, r"artifact\.json: expected schema 2 or older, found 3, written by imgclf 9\.0"),
        (foreign, r"saved_model: expected an exported model \(with artifact\.json\), found none"),
        (a_pickle, r"model\.pkl: expected a model with artifact\.json .* pickles above all, are never loaded"),
    ],
)
def test_a_model_that_is_not_what_it_should_be_is_exit_4_and_leaves_no_output(
    imgclf, trained_run, photos, tmp_path, capsys, spoil, expected
):
    model = spoil(Path(shutil.copytree(trained_run.path, tmp_path / "run")))
    assert imgclf("predict", model, photos, "-o", tmp_path / "out.csv") == 4
    assert gc.isenabled()
    assert re.search(expected, capsys.readouterr().err)
    assert not list(tmp_path.glob("*out.csv*"))


@pytest.mark.skipif(os.name == "nt", reason="needs to close what a process inherits")
def test_a_list_on_stdin_that_cannot_be_read_is_a_usage_error(trained_run, tmp_path):
    code = "import sys; from imgclf.cli.app import main; sys.argv[0] = 'imgclf'; main()"
    command = [sys.executable, "-c", code, "predict", str(trained_run.path), "-", "-o", str(tmp_path / "out.csv")]
    for prepare in (lambda: os.close(0), lambda: os.dup2(1, 0)):  # closed, and a pipe that is only for writing
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=prepare)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"Error: -: .*stdin.*(closed|Bad file descriptor).*\n", done.stderr)
        assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_backbone_is_predicted_with_its_own_artefact(imgclf, trained_run, photos, monkeypatch, capsys):
    asked = []

    def artifact(name: str, *, offline: bool, on_progress: object) -> Path:
        asked.append((name, offline))
        return trained_run.path

    monkeypatch.setattr("imgclf.exporting.pretrained.artifact", artifact)
    assert imgclf("predict", "EfficientNetV2-B0", photos / "0.png", "--offline", "--format", "jsonl") == 0
    assert asked == [("efficientnetv2-b0", True)]
    assert json.loads(capsys.readouterr().out)["label"] in CLASSES


def test_a_folder_comes_before_a_backbone_of_the_same_name(imgclf, trained_run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run.path, tmp_path / "mobilenetv2")
    monkeypatch.setitem(sys.modules, "imgclf.exporting.pretrained", None)
    assert imgclf("predict", "mobilenetv2", photos / "0.png") == 0


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_a_name_that_is_not_text_is_printed_safely(imgclf, trained_run, photos, capfd):
    odd = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")
    (photos / "0.png").rename(odd)
    for format in ("table", "jsonl", "csv"):
        assert imgclf("predict", trained_run.path, odd, "--format", format) == 0
        printed = capfd.readouterr()
        assert "caf\\udce9.png" in printed.out
        assert printed.err == ""
        if format == "jsonl":
            assert json.loads(printed.out)["path"] == odd


def test_progress_goes_to_stderr_and_leaves_the_results_alone(
    imgclf, trained_run, photos, tmp_path, monkeypatch, capsys
):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, markup=False, highlight=False))
    monkeypatch.setattr(console, "PROGRESS_AFTER_S", -1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    paths = copies(photos, 40)
    assert imgclf("predict", trained_run.path, *paths, "--format", "jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["path"] for line in lines] == [str(path) for path in paths]
    assert "predicting" in screen.getvalue()


def test_the_formats_of_photographs_and_animations_are_read(imgclf, trained_run, tmp_path, capsys):
    image = Image.new("RGB", (40, 30), (200, 60, 50))
    for suffix in ("jpg", "webp", "bmp", "tif", "gif"):
        image.save(tmp_path / f"image.{suffix}")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "animated.gif", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    assert imgclf("predict", trained_run.path, tmp_path, "--format", "csv", "--strict") == 0
    assert len(capsys.readouterr().out.splitlines()) == 8


@pytest.mark.parametrize("finished", [1, 150])
def test_an_interrupted_table_shows_what_is_finished(imgclf, trained_run, photos, monkeypatch, capsys, finished):
    whole = prediction.Classifier.stream

    def stream(classifier, sources, batch_size, **options):
        yield from itertools.islice(whole(classifier, sources, batch_size, **options), finished)
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction.Classifier, "stream", stream)
    assert imgclf("predict", trained_run.path, *copies(photos, 200)) == 130
    printed = capsys.readouterr()
    assert printed.out.count("0.png") == finished
    assert printed.err == "Interrupted.\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_is_130_and_keeps_the_whole_lines_that_were_written(trained_run, photos, tmp_path):
    # where Ctrl-C is ignored (nohup, a background job, many CI systems), children inherit that
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "import sys; from imgclf.cli.app import main; sys.argv[0] = 'imgclf'; main()"
    output = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "predict", str(trained_run.path), "-", "-o", str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"{photos / '0.png'}\n" * 200)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size for part in tmp_path.glob(".out.jsonl.*.part")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert not output.exists()
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed == ""
    assert complaints.splitlines() == [f"{output} contains what was finished.", "Interrupted."]
    lines = output.read_text().splitlines()
    assert 0 < len(lines) <= 200
    assert all(json.loads(line)["label"] in CLASSES for line in lines)


def test_names_of_nothing_alone_are_an_error_and_no_table(imgclf, trained_run, tmp_path, capsys):
    assert imgclf("predict", trained_run.path, tmp_path / "gone.jpg", tmp_path / "too") == 3
    error = f"Error: {tmp_path / 'gone.jpg'}, {tmp_path / 'too'}: no such file or folder.\n"
    assert capsys.readouterr() == ("", error)


def test_where_sorted_images_are_is_said(imgclf, trained_run, photos, tmp_path, capsys):
    assert imgclf("predict", trained_run.path, photos, "--sort-into", tmp_path / "sorted") == 0
    assert f"{tmp_path / 'sorted'}: 3 images linked or copied into a folder for each class." in capsys.readouterr().err


def test_a_name_of_nothing_is_an_error_after_the_others_are_predicted(imgclf, trained_run, photos, tmp_path, capsys):
    options = ("--format", "csv")
    assert imgclf("predict", trained_run.path, tmp_path / "gone.jpg", photos / "0.png", *options) == 3
    printed = capsys.readouterr()
    assert [row["error"] for row in csv.DictReader(printed.out.splitlines())] == ["no such file", ""]
    assert f"Error: {tmp_path / 'gone.jpg'}: no such file or folder." in printed.err
