"""The built wheel, in a new environment and without network: what a user has after `pip install imgclf`."""

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from imgclf.models import efficientnet_lite0

ROOT = Path(__file__).parent.parent
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def run(*words: object, cwd: Path) -> str:
    """The output of a command that cannot reach any network; a failure shows what it wrote."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | NO_NETWORK
    environment["XDG_CACHE_HOME"] = str(cwd / "cache")
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_is_small_and_does_the_main_job_without_network(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves files where it works
    shutil.copytree(ROOT / "imgclf", source / "imgclf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    build = (sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path)
    run(*build, cwd=tmp_path)
    (wheel,) = tmp_path.glob("imgclf-*.whl")
    assert wheel.stat().st_size < 16_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        f"imgclf/models/weights/{name}"
        for name in ("efficientnet-lite0.npz", "efficientnet-lite0.md", "imagenet-labels.txt")
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "sample_data/", "build/"))]

    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # the dependencies are those of this environment, behind what was just installed
    Path(where, "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    imgclf = (python, "-m", "imgclf")
    found = run(python, "-c", "import imgclf.models.efficientnet_lite0 as e; print(e.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(tmp_path)
    assert found.strip() != efficientnet_lite0.__file__
    run(*imgclf, "sample", "leaves", cwd=tmp_path)
    run(*imgclf, "train", "leaves", "-o", "run", cwd=tmp_path)
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["backbone"], config["weights"], config["method"]) == ("efficientnet-lite0", "bundled", "auto")
    predicted = run(*imgclf, "predict", "run", "leaves", "--format", "jsonl", cwd=tmp_path)
    assert len(predicted.splitlines()) == len(list((tmp_path / "leaves").rglob("*.jpg")))
    assert json.loads(run(*imgclf, "evaluate", "run", "--json", cwd=tmp_path))["accuracy"] > 0.7
