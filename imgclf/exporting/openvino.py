"""Write a classifier as an OpenVINO model, float32."""

from pathlib import Path
from typing import Any

from imgclf import environment, runs
from imgclf.exporting import savedmodel
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.runtimes import OPENVINO_FILE


def write(folder: Path, model: Any, graph: Any, facts: Artifact) -> None:
    """Write what `savedmodel.trace` made of a model, and `labels.txt` beside it. Inputs and outputs keep names."""
    folder.mkdir()
    with environment.silence_stderr_fd(), savedmodel.frozen(graph) as source:
        import openvino

        openvino.save_model(openvino.convert_model(source), folder / OPENVINO_FILE, compress_to_fp16=False)
    (folder / "labels.txt").write_bytes(runs.labels_text(facts.labels).encode("utf-8", "surrogateescape"))
