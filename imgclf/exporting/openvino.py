"""Write a classifier as an OpenVINO model, float32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgclf import environment, runs
from imgclf.exporting import savedmodel
from imgclf.prediction.runtimes import OPENVINO_FILE

EXTRA = "imgclf[openvino]"


def write(graph: Any, folder: Path, labels: Sequence[str]) -> None:
    """Write what `savedmodel.trace` made of a model, and `labels.txt` beside it; inputs and outputs keep their names.

    Raises:
        MissingError: if OpenVINO is not installed.
    """
    environment.require("openvino", EXTRA)
    folder.mkdir()
    with environment.silence_stderr_fd(), savedmodel.frozen(graph) as source:
        import openvino

        model = openvino.convert_model(source)
        openvino.save_model(model, folder / OPENVINO_FILE, compress_to_fp16=False)
    text = runs.labels_text(labels)
    (folder / "labels.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
