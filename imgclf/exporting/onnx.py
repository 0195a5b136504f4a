"""Write a classifier as ONNX, float32, with tf2onnx.

The file's metadata hold what `artifact.json` says: `labels` (JSON), `image_size` and `resize`.
"""

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.prediction.artifact import Artifact

OPSET = 18
"""Known to ONNX Runtime 1.14 and later, which is of 2023."""


def write(path: Path, model: Any, graph: Any, facts: Artifact) -> None:
    """Write what `savedmodel.trace` made of a model; inputs and outputs keep their names."""
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnx
        import tf2onnx

        from imgclf.exporting import savedmodel  # only here: the graph of a classical model needs no TensorFlow

        quiet()
        signature = list(graph.structured_input_signature[0])
        converted, _ = tf2onnx.convert.from_function(
            savedmodel.named(graph), input_signature=signature, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
        )
        describe(converted, facts)
        onnx.checker.check_model(converted)
        path.write_bytes(converted.SerializeToString())


def describe(graph: Any, facts: Artifact, more: Mapping[str, str] | None = None) -> None:
    """Put what `artifact.json` says into the metadata of a graph, and more."""
    import onnx

    inside = {"labels": json.dumps(facts.labels), "image_size": str(facts.image_size), "resize": facts.resize}
    onnx.helper.set_model_props(graph, {**inside, **(more or {})})


def quiet() -> None:
    """Let tf2onnx say nothing but errors."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)


def _erfc(graph: Any, node: Any, *_: Any) -> None:
    """Write 1 - erf(x) for erfc(x), by which TensorFlow calculates GELU and which ONNX lacks."""
    kinds, shapes = [graph.get_dtype(node.output[0])], [graph.get_shape(node.output[0])]
    one = graph.make_const(f"{node.name}_one", np.ones((), np.float32))
    erf = graph.make_node("Erf", [node.input[0]], shapes=shapes, dtypes=kinds)
    graph.remove_node(node.name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, shapes=shapes, dtypes=kinds)
