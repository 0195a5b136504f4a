"""Write a classifier as LiteRT, in float32, float16 or int8.

The class names travel in the file: `labels.txt` in a zip that is appended to it, where LiteRT's own tools look for it.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgclf import environment, runs
from imgclf.exporting import savedmodel
from imgclf.prediction.artifact import Artifact

environment.prepare_keras()

import numpy as np  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
import tensorflow as tf  # noqa: E402

LABELS = "labels.txt"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of `labels.txt` in the zip, so that the same model is the same file."""

IN_FLOAT = ("FULLY_CONNECTED", "SOFTMAX")
"""What an int8 model still calculates in 32 bits: the head is small, and in 8 bits a probability has 256 values."""


def write(path: Path, model: Any, graph: Any, facts: Artifact, **options: Any) -> None:
    """Write what `savedmodel.trace` made of a model; the options are those of `convert`."""
    path.write_bytes(convert(graph, facts.labels, **options))


def convert(
    graph: Any, labels: Sequence[str] = (), *, precision: str = "float32", calibration: np.ndarray | None = None
) -> bytes:
    """Convert what `savedmodel.trace` made of a model; the signature `serving_default` keeps its output names.

    Args:
        labels: the class names, in the order of the probabilities; none for a model that has no classes.
        precision: `float32`; `float16`, in which the weights are kept; or `int8`, in which the network calculates.
            Pixels go in and probabilities come out as float32 in any case.
        calibration: for int8, pixels float32 (n, s, s, 3), 0-255, that show which values occur.
    """
    with environment.silence_stderr_fd(), warnings.catch_warnings(), savedmodel.frozen(graph) as folder:
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[savedmodel.SERVING])
        if precision == "float32":
            return with_labels(converter.convert(), labels)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
            return with_labels(converter.convert(), labels)
        assert calibration is not None

        def examples() -> Iterator[Any]:
            for image in calibration:
                yield savedmodel.SERVING, {"pixels": image[np.newaxis]}

        converter.representative_dataset = examples
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(IN_FLOAT))
        quantizer = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=examples, debug_options=options
        )
        return with_labels(quantizer.get_nondebug_quantized_model(), labels)


def convert_unnamed(graph: Any) -> bytes:
    """Return the same in 32 bits for a graph with one output, without the names of either side, in half the time."""
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([graph]).convert())


def with_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """Return the model with a zip behind it; whoever reads the model ignores it, and whoever reads zips finds it."""
    if not labels:
        return bytes(model)
    file = io.BytesIO(bytes(model))
    with zipfile.ZipFile(file, "a") as archive:
        text = runs.labels_text(labels).encode("utf-8", "surrogateescape")
        archive.writestr(zipfile.ZipInfo(LABELS, EPOCH), text)
    return file.getvalue()
