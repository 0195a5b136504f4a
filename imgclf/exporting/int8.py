"""Convert a classifier to LiteRT in int8, and keep small what rounding its kernels to 8 bits changes.

Three corrections, since rounding errors add up over the layers until they are as large as the differences between
images:

1. Kernels of more than one pixel are rounded so that the sum of each window stays: where an image is even, a window
   computes its sum.
2. A rounded kernel moves the mean of each channel that it computes, by its rounding errors times the means of the
   inputs. This is subtracted in the bias.
3. The mean shift of the embedding that remains is measured on the calibration images, and subtracted in the map.

Source of 2 and 3: Nagel et al. 2019, arXiv:1906.04721, section 4.2 and appendix D.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from imgclf import environment, prediction
from imgclf.exporting import litert, parity, savedmodel
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact, File
from imgclf.prediction.decision import NO_RULES

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

LEVELS = 127
"""The largest integer of a kernel; the smallest is its negative."""


def write(path: Path, model: keras.Model, graph: Any, facts: Artifact, *, calibration: np.ndarray) -> None:
    """Write a model in int8; the calibration images are the pixels of `convert`."""
    path.write_bytes(convert(model, facts, calibration))


def convert(model: keras.Model, facts: Artifact, pixels: np.ndarray) -> bytes:
    """Convert to int8.

    Args:
        model: pixels -> dict of outputs, as `artifacts.load_model` returns it; it comes back as it was.
        pixels: of calibration images, float32 (n, s, s, 3), 0-255.
    """
    expected = parity.reference(model, pixels)["embedding"]
    with compensated(model, pixels):
        first = litert.convert(savedmodel.trace(model), facts.labels, precision="int8", calibration=pixels)
        left = (embeddings(first, facts, pixels) - expected).mean(axis=0)
        graph = savedmodel.trace(_shifted(model, -left))
        return litert.convert(graph, facts.labels, precision="int8", calibration=pixels)


@contextlib.contextmanager
def compensated(model: keras.Model, pixels: np.ndarray) -> Iterator[None]:
    """Make the first two corrections in the weights of a model, for a while."""
    found = list(_convolutions(model))
    before = model.get_weights()
    for (layer, norm), mean in zip(found, _input_means(model, [layer for layer, _ in found], pixels), strict=True):
        kernel, gain = _windows(layer, norm)
        new = rounded(kernel)
        bias = layer.bias if norm is None else norm.beta
        shift = np.einsum("hwigo,gi->go", new - kernel, mean.reshape(kernel.shape[3], -1)).ravel()
        bias.assign(keras.ops.convert_to_numpy(bias) - shift)
        if kernel.shape[0] * kernel.shape[1] > 1:
            new = np.where(gain == 0, kernel, new / np.where(gain == 0, 1.0, gain))
            layer.kernel.assign(new.reshape(layer.kernel.shape))
    try:
        yield
    finally:
        model.set_weights(before)


def rounded(kernel: np.ndarray) -> np.ndarray:
    """Round a kernel to the 255 steps that int8 has for each output, so that the sum of each window stays within half a
    step.

    Args:
        kernel: float64 (h, w, inputs of a group, groups, outputs of a group).
    """
    step = np.abs(kernel).max(axis=(0, 1, 2)) / LEVELS
    step[step == 0] = 1.0
    exact = kernel / step
    steps = np.round(exact)
    if kernel.shape[0] * kernel.shape[1] > 1:
        windows = (kernel.shape[0] * kernel.shape[1], -1)
        missing = np.round((exact - steps).sum(axis=(0, 1))).reshape(1, -1)
        # those whose rounding went furthest the wrong way go the other way; the largest stay, since they set the step
        gain = (exact - steps).reshape(windows) * np.sign(missing)
        gain[np.abs(steps.reshape(windows)) == LEVELS] = -np.inf
        rank = np.argsort(np.argsort(-gain, axis=0), axis=0)
        turned = (rank < np.abs(missing)) & np.isfinite(gain)
        steps += (turned * np.sign(missing)).reshape(steps.shape)
    return steps * step


def _windows(layer: layers.Layer, norm: layers.BatchNormalization | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel as the converter makes it, with the batch normalization behind it multiplied in.

    float64 (h, w, inputs of a group, groups, outputs of a group), and what was multiplied, (groups, outputs of it).
    """
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    if isinstance(layer, layers.DepthwiseConv2D):
        kernel = kernel[:, :, np.newaxis]
    else:
        kernel = kernel.reshape(*kernel.shape[:3], layer.groups, -1)
    gain = np.ones(kernel.shape[3:])
    if norm is not None:
        variance = keras.ops.convert_to_numpy(norm.moving_variance).astype(np.float64)
        scale = keras.ops.convert_to_numpy(norm.gamma) if norm.scale else 1.0
        gain = (scale / np.sqrt(variance + norm.epsilon)).reshape(gain.shape)
    return kernel * gain, gain


def _input_means(model: keras.Model, found: list[layers.Layer], pixels: np.ndarray) -> list[np.ndarray]:
    """Return the mean of each input channel of layers, float64 (channels,)."""
    if not found:
        return []
    means = keras.Model(model.input, [[keras.ops.mean(layer.input, axis=(1, 2))] for layer in found])
    sums = [np.zeros(layer.input.shape[-1]) for layer in found]
    for start in range(0, len(pixels), parity.BATCH):
        for total, [rows] in zip(sums, means(pixels[start : start + parity.BATCH], training=False), strict=True):
            total += keras.ops.convert_to_numpy(rows).sum(axis=0)
    return [total / len(pixels) for total in sums]


def _convolutions(model: keras.Model) -> Iterator[tuple[layers.Layer, layers.BatchNormalization | None]]:
    """Yield the convolutions whose mean can be corrected, each with the batch normalization behind it, if any."""
    for layer in model.layers:
        if not isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D) or len(layer._inbound_nodes) != 1:
            continue
        after = [node.operation for node in layer._outbound_nodes if node.operation in model.operations]
        norm = after[0] if len(after) == 1 and isinstance(after[0], layers.BatchNormalization) else None
        if norm is not None and norm.center:
            yield layer, norm
        elif norm is None and layer.use_bias:
            yield layer, None


def _shifted(model: keras.Model, offset: np.ndarray) -> keras.Model:
    """Return the same model with a constant added to each channel of its map, or to its embedding where it has none."""
    outputs = dict(model.output)
    last = "feature_map" if "feature_map" in outputs else "embedding"
    outputs[last] = outputs[last] + offset.astype(np.float32)
    if last == "feature_map":
        outputs["embedding"] = model.get_layer("embedding")(outputs[last])
    [answer] = outputs.keys() - {"feature_map", "embedding"}
    outputs[answer] = model.get_layer(answer)(model.get_layer("logits")(outputs["embedding"]))
    return keras.Model(model.input, outputs, name=model.name)


def embeddings(content: bytes, facts: Artifact, pixels: np.ndarray) -> np.ndarray:
    """Compute the embeddings float32 (n, d) of pixels with a LiteRT model, given as the content of its file."""
    with tempfile.TemporaryDirectory(prefix="imgclf-") as folder:
        path = Path(folder) / "model-int8.tflite"
        path.write_bytes(content)
        file = File("litert", *artifact.hash_tree(path), "int8")
        artifact.write(path.parent, replace(facts, files={path.name: file}, decision=NO_RULES))
        return prediction.load(path).outputs(pixels)["embedding"]
