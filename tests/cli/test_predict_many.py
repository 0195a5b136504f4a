"""What `imgclf predict` does with many images: inputs that come, outputs that stay, parts of the work."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from imgclf.cli.app import app
from imgclf.errors import UsageError

CLASSES = {"disc", "two discs"}
MAIN = "import sys; from imgclf.cli.app import main; sys.argv[0] = 'imgclf'; main()"

needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")


@pytest.fixture
def photos(trained_run) -> Path:
    """The images of the run: 24 for each class. Read only."""
    return trained_run.path.parent / "images"


def predict(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def labels(lines: str) -> dict[str, str]:
    return {values["path"]: values["label"] for values in map(json.loads, lines.splitlines())}


def start(*arguments: object) -> subprocess.Popen:
    # where Ctrl-C is ignored (nohup, a background job, many CI systems), children inherit that
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", heeded + MAIN, "predict", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)


def line_of(process: subprocess.Popen, timeout_s: float = 60) -> str:
    """The next line of its output."""
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    assert ready, "no answer came"
    return process.stdout.readline()


def test_the_shards_together_answer_each_image_once(trained_run, photos):
    options = (trained_run.path, photos, "--format", "jsonl")
    whole = labels(predict(*options))
    shares = [labels(predict(*options, "--shard", f"{part}/3")) for part in (1, 2, 3)]
    assert sum(map(len, shares)) == len(whole) == 48
    assert {path: label for share in shares for path, label in share.items()} == whole


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_resume_answers_what_the_output_does_not_hold(trained_run, photos, tmp_path, name):
    options = (trained_run.path, photos, "-o", tmp_path / name, "--resume")
    predict(*options)
    whole = (tmp_path / name).read_bytes()
    assert whole.count(b".png") == 48
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    predict(*options)
    assert (tmp_path / name).read_bytes() == whole
    predict(*options)
    assert (tmp_path / name).read_bytes() == whole


def test_an_archive_is_answered_under_its_own_name_and_sorted(trained_run, photos, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos))
    out = tmp_path / "sorted"
    found = labels(predict(trained_run.path, archive, "--format", "jsonl", "--sort-into", out))
    assert {path.removeprefix(f"{archive}/") for path in found} == {
        path.relative_to(photos).as_posix() for path in photos.rglob("*.png")
    }
    assert {label: sum(1 for _ in (out / label).iterdir()) for label in CLASSES} == {
        label: list(found.values()).count(label) for label in CLASSES
    }


def test_a_parquet_file_and_the_embeddings_are_written_in_one_go(trained_run, photos, tmp_path):
    predict(trained_run.path, photos, "-o", tmp_path / "out.parquet", "--embeddings", tmp_path / "v.npz", "--tta")
    table = pq.read_table(tmp_path / "out.parquet")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as vectors:
        assert vectors["paths"].tolist() == table["path"].to_pylist()
        assert vectors["embeddings"].shape[0] == 48
        assert np.isfinite(vectors["embeddings"]).all()
    assert set(table["label"].to_pylist()) == CLASSES


def test_rejected_images_have_no_label_and_a_folder_of_their_own(trained_run, photos, tmp_path):
    options = ("--format", "jsonl", "--reject-below", 1, "--sort-into", tmp_path / "sorted")
    lines = predict(trained_run.path, photos, *options).splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(row["rejected"] == (row["confidence"] < 1) == (row["label"] is None) for row in rows)
    rejected = sum(row["rejected"] for row in rows)
    assert rejected > 0
    assert sum(1 for _ in (tmp_path / "sorted" / "_rejected").iterdir()) == rejected
    assert "unknown" in predict(trained_run.path, photos, "--reject-below", 1)


def test_neither_images_nor_a_watched_folder_is_a_usage_error(trained_run):
    done = CliRunner().invoke(app, ["predict", str(trained_run.path)])
    assert isinstance(done.exception, UsageError)


@needs_signals
@pytest.mark.slow
def test_each_path_on_stdin_is_answered_when_it_comes(trained_run, photos):
    with start(trained_run.path, "-") as process:
        for path in sorted(photos.rglob("*.png"))[:3]:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            name, answer = line_of(process).rstrip("\n").split("\t")
            assert name == str(path)
            assert answer.rsplit(" ", 1)[0] in CLASSES
        assert process.communicate(timeout=60) == ("", "3 images: disc 3.\n")
        assert process.returncode == 0


@needs_signals
@pytest.mark.slow
def test_a_watched_folder_is_answered_until_it_is_interrupted_and_the_rest_the_next_time(trained_run, photos, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    every = sorted(photos.rglob("*.png"))
    command = (trained_run.path, "--watch", folder, "-o", output, "--resume", "--sort-into", tmp_path / "s")
    for number, source in enumerate(every[:20]):
        shutil.copyfile(source, folder / f"before-{number}.png")

    def answered(process, count):
        deadline = time.monotonic() + 60
        while not output.exists() or output.read_text().count("\n") < count:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    with start(*command) as process:
        answered(process, 20)
        shutil.copyfile(every[20], folder / "new.png")
        answered(process, 21)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (130, "Interrupted.\n")
    shutil.copyfile(every[21], folder / "meanwhile.png")
    with start(*command) as process:
        answered(process, 22)
        half = every[22].read_bytes()
        (folder / "slow.png").write_bytes(half[: len(half) // 2])
        time.sleep(3)
        (folder / "slow.png").write_bytes(half)
        answered(process, 23)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(Path(row["path"]).name for row in found) == sorted(path.name for path in folder.iterdir())
    assert not any(row["error"] for row in found)
    assert sum(1 for path in (tmp_path / "s").rglob("*.png")) == 23


@needs_signals
@pytest.mark.slow
def test_a_process_that_is_killed_is_gone_on_with(trained_run, photos, tmp_path):
    """Killed without a chance to tidy up, then resumed: each image is answered exactly once."""
    output = tmp_path / "out.jsonl"
    every = [str(path) for path in sorted(photos.rglob("*.png"))]
    with start(trained_run.path, "-", "-o", output, "--resume") as process:
        process.stdin.write("\n".join(every[:30]) + "\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not output.exists() or output.read_text().count("\n") < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    with output.open("a") as file:
        file.write('{"path": "half a li')
    predict(trained_run.path, *every, "-o", output, "--resume")
    paths = [json.loads(line)["path"] for line in output.read_text().splitlines()]
    assert sorted(paths) == every


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_full_is_named_and_no_file_is_left(trained_run, photos, tmp_path, monkeypatch):
    from imgclf.errors import ImgclfError
    from imgclf.prediction import outputs

    whole = outputs.to_jsonl

    def to_full_disk(*arguments, **options):
        for number, line in enumerate(whole(*arguments, **options)):
            if number == 5:
                with Path("/dev/full").open("w") as full:  # raises what a full disk raises
                    full.write(line)
            yield line

    monkeypatch.setattr(outputs, "to_jsonl", to_full_disk)
    done = CliRunner().invoke(app, ["predict", str(trained_run.path), str(photos), "-o", str(tmp_path / "out.jsonl")])
    assert isinstance(done.exception, ImgclfError)
    assert "writing failed (No space left on device)" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize(
    "options",
    [
        ["-o", "out.jsonl"],
        ["-o", "out.csv"],
        ["-o", "out.parquet"],
        ["-o", "out.jsonl", "--resume"],
        ["--embeddings", "v.npz"],
        ["--embeddings", "v.parquet"],
    ],
)
def test_where_a_file_cannot_grow_nothing_half_is_left(trained_run, photos, tmp_path, options):
    """The system itself refuses to write more than 1,500 bytes into one file, as a full disk refuses."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
    command = [sys.executable, "-B", "-c", limit + MAIN, "predict", str(trained_run.path), str(photos), "--format"]
    command += ["jsonl" if "-o" not in options else options[1].partition(".")[2], *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{options[1]}: writing failed (" in done.stderr.splitlines()[-1]
    if "--resume" not in options:
        assert list(tmp_path.iterdir()) == []
        return
    assert "free disk space, and --resume" in done.stderr
    predict(trained_run.path, photos, "-o", tmp_path / "out.jsonl", "--resume")
    paths = [json.loads(line)["path"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(paths) == sorted(map(str, photos.rglob("*.png")))


def test_images_of_all_sizes_are_answered_together(trained_run, tmp_path):
    from PIL import Image

    for width, height in ((1, 1), (1, 500), (300, 7), (33, 32), (1000, 1000)):
        Image.new("RGB", (width, height), (200, 60, 50)).save(tmp_path / f"{width}x{height}.png")
    found = labels(predict(trained_run.path, tmp_path, "--format", "jsonl", "--strict"))
    assert len(found) == 5
    assert set(found.values()) <= CLASSES


def test_a_broken_archive_is_one_line_with_an_error(trained_run, photos, tmp_path):
    archive = tmp_path / "broken.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a/1.jpg", bytes(100))
    archive.write_bytes(archive.read_bytes()[:-30])
    image = next(photos.rglob("*.png"))
    lines = predict(trained_run.path, archive, image, "--format", "jsonl").splitlines()
    assert [json.loads(line)["error"] is None for line in lines] == [False, True]
