"""The surroundings of a run: one cache root, and a backend of Keras that is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLOT = """
import numpy as np
from pathlib import Path
import imgclf.training
from imgclf.evaluation import metrics, plots
plots.confusion_matrix(Path("matrix.png"), metrics.score(np.array([0]), np.eye(2)[[0]], ["a", "b"]))
"""


def run(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process with a few other environment variables."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "KERAS_HOME")}
    command = [sys.executable, "-c", code]
    env = kept | {"PYTHONPATH": str(Path(__file__).parents[1])} | variables
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
def test_everything_that_is_kept_lies_under_one_root(tmp_path: Path) -> None:
    cache, home, work = (tmp_path / name for name in ("cache", "home", "work"))
    for folder in (cache, home, work):
        folder.mkdir()
    done = run(PLOT, work, HOME=str(home), XDG_CACHE_HOME=str(cache), KERAS_BACKEND="")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in work.iterdir()] == ["matrix.png"]
    assert list(home.iterdir()) == []
    # fontconfig, which Matplotlib asks for fonts, keeps its own folder
    assert {path.name for path in cache.iterdir()} - {"fontconfig"} == {"imgclf"}


@pytest.mark.parametrize(
    ("backend", "advice"), [("torch", "pip install torch"), ("theano", "expected one of tensorflow, jax, torch")]
)
def test_a_backend_that_is_not_there_is_explained(tmp_path: Path, backend: str, advice: str) -> None:
    code = f"""
from imgclf import environment
environment.has_package = lambda name: name != {backend!r}
try:
    environment.prepare_keras()
except Exception as error:
    print(error)
"""
    done = run(code, tmp_path, KERAS_BACKEND=backend)
    assert advice in done.stdout, done.stderr


def test_what_python_says_is_seen_while_libraries_are_silenced(tmp_path: Path) -> None:
    code = """
import os, sys
from imgclf import environment
environment.part_stderr()
with environment.silence_stderr_fd():
    os.write(2, b"a library")
    print("progress", file=sys.stderr)
os.write(2, b"after")
"""
    assert run(code, tmp_path).stderr == "progress\nafter"
