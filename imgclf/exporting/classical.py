"""Write a stored classifier of scikit-learn as ONNX, float32, with skl2onnx, behind the network of its features.

Features that are the embedding of a network make one graph, from pixels to probabilities. No graph computes features
made by hand: then the graph starts at the vectors, and its metadata say which they are.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.descriptors.kinds import EMBEDDING, Descriptor
from imgclf.exporting import onnx as networks
from imgclf.prediction import classical as stored
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.classical import About
from imgclf.settings import TrainConfig

EXTRA = "'imgclf[onnx]'"
PIXELS, VECTORS, SCORES, PROBABILITIES = "pixels", "features", "scores", "probabilities"
PREFIX = "backbone_"
"""Of all names in the network's graph, so that none is one of the classifier's."""

UNEQUAL = (
    "skl2onnx 1.20 gives all neighbors the same weight, as if --neighbor-weights were uniform. Train with uniform "
    "weights, or predict with the run itself."
)

ML_OPSET = 3
"""Of the operators for classical models, known to ONNX Runtime 1.14 and later."""


def require() -> None:
    """Check that the packages are installed.

    Raises:
        MissingError: if one is not.
    """
    environment.require_extras(["classical", "onnx"])
    environment.require("skl2onnx", EXTRA)


def starts_at_pixels(features: str) -> bool:
    """Whether the graph of a classifier takes images: whether its features are an embedding and no more."""
    return features.strip() == EMBEDDING


def write(path: Path, folder: Path, facts: Artifact) -> None:
    """Write the graph of a stored classifier, from pixels or from vectors to probabilities at its temperature.

    Raises:
        ArtifactError: if the classifier is damaged.
    """
    import onnx
    from onnx import compose

    estimator, about = stored.read(folder)
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = _classifier(estimator, about)
        more = {}
        if starts_at_pixels(about.features):
            graph = compose.merge_models(_network(folder / stored.BACKBONE), graph, io_map=[(f"{PREFIX}out", VECTORS)])
        else:
            columns = Descriptor(about.features, about.size_px).names(_embedding_width(about))
            more = {"features": about.features, "columns": json.dumps(columns)}
        networks.describe(graph, facts, more)
        onnx.checker.check_model(graph)
        path.write_bytes(graph.SerializeToString())


def _embedding_width(about: About) -> int:
    """Return the length of the network's vector among the features, which all else leaves."""
    descriptor = Descriptor(about.features, about.size_px)
    count = sum(part.strip() == EMBEDDING for part in about.features.split("+"))
    return (about.width - len(descriptor.names())) // count if count else 0


def predict(path: Path, vectors: np.ndarray) -> np.ndarray:
    """Run a graph that starts at vectors: float32 (n, width) -> probabilities float32 (n, classes)."""
    import onnxruntime

    with environment.silence_stderr_fd():
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([PROBABILITIES], {VECTORS: vectors})[0]
    return found


def why_not(settings: TrainConfig) -> str:
    """Return the reason for which a classifier of these settings cannot be written; empty where it can."""
    return UNEQUAL if settings.model == "knn" and settings.neighbor_weights == "distance" else ""


def _classifier(estimator: Any, about: About) -> Any:
    """Return the graph from vectors to probabilities: what `stored.logits` and `ClassicalRuntime` do."""
    from onnx import TensorProto, helper, numpy_helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType

    has_values = hasattr(estimator, "decision_function")
    last = estimator[-1] if hasattr(estimator, "named_steps") else estimator
    graph = to_onnx(
        estimator,
        initial_types=[(VECTORS, FloatTensorType([None, about.width]))],
        final_types=[("label", Int64TensorType([None])), (SCORES, FloatTensorType([None, about.classes]))],
        options={id(last): {"zipmap": False} | ({"raw_scores": True} if has_values else {})},
        target_opset={"": networks.OPSET, "ai.onnx.ml": ML_OPSET},
    )
    _rename(graph, PROBABILITIES, f"{SCORES}_inside")  # skl2onnx's name for what the temperature has not divided yet
    scale = 1 / about.temperature
    if has_values:
        scale /= 2 if about.classes == 2 else 1  # both are the one decision value, with either sign
        steps: list[tuple[str, float | None]] = [("Mul", scale)]
    else:
        steps = [("Max", stored.FLOOR), ("Log", None), ("Mul", scale)]
    name = SCORES
    for kind, number in steps:
        inputs = [name]
        if number is not None:
            inputs.append(f"imgclf_{kind}_by")
            graph.graph.initializer.append(numpy_helper.from_array(np.float32(number).reshape(()), inputs[-1]))
        name = f"imgclf_{kind}"
        graph.graph.node.append(helper.make_node(kind, inputs, [name], name))
    graph.graph.node.append(helper.make_node("Softmax", [name], [PROBABILITIES], "imgclf_Softmax", axis=1))
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [None, about.classes]))
    return graph


def _network(path: Path) -> Any:
    """Return the graph from `pixels` to `embedding`, which it gives a second time for the classifier behind it."""
    import tf2onnx
    from onnx import compose, helper

    networks.quiet()
    graph, _ = tf2onnx.convert.from_tflite(str(path), opset=networks.OPSET)
    graph = compose.add_prefix(graph, PREFIX)
    [given], [vectors] = graph.graph.input, graph.graph.output
    _rename(graph, given.name, PIXELS)
    given.name = PIXELS
    graph.graph.node.extend(
        helper.make_node("Identity", [vectors.name], [name], f"{PREFIX}{name}")
        for name in ("embedding", f"{PREFIX}out")
    )
    vectors.name = "embedding"
    graph.graph.output.append(vectors)
    graph.graph.output[1].name = f"{PREFIX}out"
    used = [each for each in graph.opset_import if not each.domain]  # others would have to agree with the classifier's
    del graph.opset_import[:]
    graph.opset_import.extend(used)
    return graph


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value between the nodes of a graph."""
    for node in graph.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
