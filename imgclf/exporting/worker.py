"""Export in a child process with TensorFlow when Keras runs on another backend.

`python -m imgclf.exporting.worker` reads one task as JSON from stdin and prints its answer as one line of JSON, last.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imgclf
from imgclf import environment, errors, runs
from imgclf.errors import ImgclfError


def call(task: str, **arguments: Any) -> Any:
    """Do a task of `TASKS` in a child process with the TensorFlow backend; its own errors are raised here.

    Raises:
        MissingError: if TensorFlow is not installed.
        ImgclfError: if the child process fails in a way that it cannot explain.
    """
    environment.require("tensorflow")
    source = str(Path(imgclf.__file__).parent.parent)
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "imgclf.exporting.worker"],
        input=json.dumps({"task": task, "arguments": arguments}),
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        tail = done.stderr[-2000:]
        raise ImgclfError(f"the export's child process ended with code {done.returncode}: {tail}") from None
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"], *answer["arguments"])
    return answer["result"]


def _export(path: str, formats: list[str], target: str | None) -> list[dict[str, Any]]:
    from imgclf.exporting import artifacts

    return artifacts.write(runs.Run(Path(path)), formats, target=Path(target) if target else None)


def _pretrained(name: str, parent: str, offline: bool) -> None:
    from imgclf.exporting import pretrained

    pretrained.make(Path(parent), name, offline=offline)


def _embedding(source: str, path: str) -> None:
    from imgclf.exporting import embedding
    from imgclf.models import flattening

    embedding.convert(flattening.load(Path(source)), Path(path))


TASKS: dict[str, Callable[..., Any]] = {"export": _export, "pretrained": _pretrained, "embedding": _embedding}


def main() -> None:
    """Read the task, do it, print the answer."""
    task = json.loads(sys.stdin.read())
    try:
        answer = {"result": TASKS[task["task"]](**task["arguments"])}
    except ImgclfError as error:
        arguments = [error.rows] if isinstance(error, errors.ExportError) else []
        answer = {"error": type(error).__name__, "message": str(error), "arguments": arguments}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
