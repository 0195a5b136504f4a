"""Write a classifier as ONNX, float32, with tf2onnx.

The file's metadata hold what `artifact.json` says: `labels` (JSON), `image_size` and `resize`.
"""

import json
import logging
import warnings
from typing import Any

from imgclf import environment
from imgclf.exporting import savedmodel
from imgclf.prediction.artifact import Artifact

OPSET = 18
"""Known to ONNX Runtime 1.14 and later, which is of 2023."""

EXTRA = "imgclf[onnx]"


def convert(graph: Any, facts: Artifact) -> bytes:
    """Convert what `savedmodel.trace` made of a model; inputs and outputs keep their names.

    Raises:
        MissingError: if tf2onnx is not installed.
    """
    for package in ("tf2onnx", "onnx", "onnxruntime"):
        environment.require(package, EXTRA)
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnx
        import tf2onnx

        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        signature = list(graph.structured_input_signature[0])
        model, _ = tf2onnx.convert.from_function(savedmodel.named(graph), input_signature=signature, opset=OPSET)
        facts_inside = {"labels": json.dumps(facts.labels), "image_size": str(facts.image_size), "resize": facts.resize}
        onnx.helper.set_model_props(model, facts_inside)
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
    return content
