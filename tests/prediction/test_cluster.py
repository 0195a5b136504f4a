"""Prediction on a Ray cluster of several nodes on this machine, some of which are killed in the middle."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgclf.errors import ArtifactError, ImgclfError, MissingError, UsageError
from imgclf.prediction import Prediction, artifact, cluster, load
from imgclf.prediction.classifier import Named

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'imgclf[ray]'"
)
quiet = pytest.mark.filterwarnings("ignore")  # Ray's own, of every kind, in its many processes

COUNT = 120
MAIN = "import sys; from imgclf.cli.app import main; sys.argv[0] = 'imgclf'; main()"


START = """
import os, signal, sys

def end(event, arguments):
    if event == "open" and str(arguments[0]).endswith("deadly.png"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(end)
"""
"""Ends a process that opens such a file as a lack of memory does: without a word."""


def split(outputs: tuple[str, str]) -> tuple[str, str]:
    """What a command printed, and its complaints: without progress and the closing line of how many of each class."""
    printed, told = outputs
    lines = [line for line in told.splitlines(keepends=True) if not re.match(r"[a-z' ]+ [\d,/]+ \(|\d+ images: ", line)]
    return printed, "".join(lines)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of a head without processors and no worker yet; tests add some. Files called `deadly.png` end them."""
    from ray.cluster_utils import Cluster

    start = tmp_path_factory.mktemp("start")
    (start / "sitecustomize.py").write_text(START)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(start), prepend=os.pathsep)
        soon = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}  # that a node is gone; 15 s else
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
        found = Cluster(initialize_head=True, head_node_args=head)
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of large images, which take their time, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    made = [folder / f"original-{number}.png" for number in range(4)]
    for path in made:
        colours = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(colours).resize((1300, 1300), Image.Resampling.BICUBIC).save(path)
    for number in range(COUNT - len(made) - 1):
        os.link(made[number % 4], folder / f"{number:03}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def answered(output: Path) -> list[str]:
    """The paths in a file of lines that may still be written."""
    if not output.exists():
        return []
    return [json.loads(line)["path"] for line in output.read_text().splitlines(keepends=True) if line.endswith("\n")]


def start(nodes: Any, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", MAIN, "predict", *map(str, arguments)]
    env = os.environ | {"RAY_ADDRESS": nodes.address}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@needs_ray
@quiet
@pytest.mark.slow
def test_every_image_is_answered_once_though_a_worker_is_killed_in_the_middle(nodes, trained_run, photos, tmp_path):
    workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
    whole = [prediction.path for prediction in load(trained_run.path).predict(sorted(map(str, photos.iterdir())))]
    output = tmp_path / "out.jsonl"
    with start(nodes, trained_run.path, photos, "-o", output, "--resume", "--engine", "ray") as process:
        deadline = time.monotonic() + 240
        while len(answered(output)) < 20:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        nodes.remove_node(workers.pop(), allow_graceful=False)
        seen = len(answered(output))
        printed, complaints = split(process.communicate(timeout=300))
    assert seen < COUNT, "all was over before anything was killed"
    assert (process.returncode, printed) == (0, ""), complaints
    *others, last = complaints.splitlines()
    assert last.startswith(f"1 of {COUNT} images cannot be read")
    assert all(line.startswith("The cluster lost a worker; resuming after ") for line in others), complaints
    assert answered(output) == whole == sorted(set(whole))
    assert len(whole) == COUNT
    for worker in workers:
        nodes.remove_node(worker)


@needs_ray
@quiet
@pytest.mark.slow
def test_an_image_that_ends_every_process_is_one_line_with_an_error(nodes, trained_run, tmp_path):
    worker = nodes.add_node(num_cpus=2)
    found = sorted(map(str, (trained_run.path.parent / "images").rglob("*.png")))[:30]
    deadly = tmp_path / "deadly.png"
    shutil.copy(found[0], deadly)
    asked = [*found[:17], str(deadly), *found[17:]]
    output = tmp_path / "out.jsonl"
    with start(nodes, trained_run.path, *asked, "-o", output, "--engine", "ray") as process:
        printed, complaints = split(process.communicate(timeout=300))
    assert (process.returncode, printed) == (0, ""), complaints
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["path"] for line in lines] == asked
    why = "each of the 3 processes that read it died"
    assert [line["path"] for line in lines if line.get("error")] == [str(deadly)]
    assert complaints == f"1 of 31 images cannot be read, such as {deadly}: {why}\n"
    nodes.remove_node(worker)


@needs_ray
@quiet
@pytest.mark.slow
def test_a_cluster_answers_as_this_machine_does_and_goes_on_with_a_file(nodes, trained_run, tmp_path, monkeypatch):
    """All that an answer holds is the same, and what is wrong with the model is told as it is."""
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    worker = nodes.add_node(num_cpus=1)
    found = sorted(map(str, (trained_run.path.parent / "images").rglob("*.png")))
    asked = [*found[:20], str(tmp_path / "none.png"), os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")]
    options = {"tta": True, "embeddings": True}
    ours = load(trained_run.path, reject_below=0.9).predict(asked, **options)
    theirs = load(trained_run.path, engine="ray", reject_below=0.9).predict(asked, **options)
    assert [each.error is None for each in ours] == [True] * 20 + [False] * 2
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.path, mine.file, mine.error) == (other.path, other.file, other.error)
        assert (mine.label, mine.rejected, mine.outlier_score) == (other.label, other.rejected, other.outlier_score)
        if mine.error is None:
            assert np.abs(mine.probabilities - other.probabilities).max() <= 1e-6
            assert np.abs(mine.embedding - other.embedding).max() <= 1e-5

    output = tmp_path / "out.csv"
    with start(nodes, trained_run.path, *found[:12], "-o", output, "--resume") as here:
        assert here.wait(120) == 0
    with start(nodes, trained_run.path, *found, "-o", output, "--resume", "--engine", "ray") as there:
        printed, complaints = split(there.communicate(timeout=120))
        assert (there.returncode, printed, complaints) == (0, "", "")
    assert [line.partition(",")[0] for line in output.read_text().splitlines()] == ["path", *found]

    gone = Path(shutil.copytree(trained_run.path, tmp_path / "gone"))
    lost = load(gone, engine="ray")
    (gone / artifact.NAME).unlink()
    with pytest.raises(ArtifactError, match=r"expected a model with artifact\.json beside it, found none"):
        lost.predict(found[:3])
    nodes.remove_node(worker)


@needs_ray
@quiet
def test_without_a_cluster_it_is_said_how_to_begin_one(trained_run, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UsageError, match=r"cannot connect to a Ray cluster.*ray start --head"):
        load(trained_run.path, engine="ray").predict(["a.png"])


@needs_ray
@pytest.mark.parametrize("source", [Named("a.zip/a.png", "/cache/a.png"), b"bytes", np.zeros((8, 8, 3), np.uint8)])
def test_what_other_machines_cannot_see_is_a_usage_error(trained_run, source):
    with pytest.raises(UsageError, match="expected files that every machine sees, found one"):
        load(trained_run.path, engine="ray").predict([source])


def test_a_ledger_tells_over_which_image_processes_end():
    ledger = cluster.Ledger()
    assert [ledger.begin(block) for block in (0, 256)] == [None, None]
    for _ in range(cluster.TRIES):
        assert ledger.begin(256) == []
        for image in range(4):
            ledger.take(256, image)
    assert ledger.begin(256) == [3]
    assert ledger.begin(0) == []


def test_many_deadly_images_in_a_row_are_the_clusters_fault():
    fine, deadly = (Prediction("a.png", None, (), error, file=None) for error in ("no image", cluster.DEADLY))
    cluster.check_deaths([deadly] * (cluster.RETRIES - 1), "b.png")
    cluster.check_deaths([deadly, fine, *[deadly] * (cluster.RETRIES - 1)], "b.png")
    with pytest.raises(ImgclfError, match="the cluster failed"):
        cluster.check_deaths([fine, *[deadly] * cluster.RETRIES], "b.png")


def test_without_ray_the_error_names_its_extra(trained_run, monkeypatch):
    monkeypatch.setattr("imgclf.environment.has_package", lambda name: name != "ray")
    with pytest.raises(MissingError, match=r"'ray' is required .* pip install 'imgclf\[ray\]'"):
        load(trained_run.path, engine="ray")
