"""What single units of a network do: their weights, what they make of an image, and which images excite them most."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imgclf import environment
from imgclf.errors import UsageError
from imgclf.explanation import description
from imgclf.models import graph

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

BATCH = 16


@dataclass(frozen=True)
class Excitation:
    """Where a unit responds most on one image.

    Args:
        image: the place of the image in the list.
        value: the response.
        box: left, top, right, bottom in pixels of the model's input: the receptive field, cut at the edges.
    """

    image: int
    value: float
    box: tuple[int, int, int, int]


def find_layer(model: keras.Model, name: str, option: str) -> layers.Layer:
    """Return a layer of a network by its name.

    Raises:
        UsageError: if there is none, naming the nearest ones.
    """
    known = [layer.name for layer in model.layers]
    if name in known:
        return model.get_layer(name)
    near = difflib.get_close_matches(name, known, 3)
    first = [layer for layer in known if model.get_layer(layer).weights][:5]
    hint = f"Did you mean {', '.join(near)}?" if near else f"It has {', '.join(first)} and others."
    raise UsageError(f"{option}: {model.name} has no layer {name!r}. {hint} imgclf describe lists all.")


def filters(layer: layers.Layer, option: str = "--filters") -> np.ndarray:
    """Return the kernels of a convolution.

    Returns:
        float32 (filters, channels, h, w). Those of depthwise convolutions have one channel.

    Raises:
        UsageError: if the layer is no convolution, or its kernels are single numbers.
    """
    kernel = getattr(layer, "kernel", None)
    if not isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D) or kernel is None:
        raise UsageError(f"{option}: expected a convolution, found {layer.name}, which is {type(layer).__name__}.")
    weights = keras.ops.convert_to_numpy(kernel).astype(np.float32)  # (h, w, channels, filters)
    if weights.shape[0] * weights.shape[1] == 1:
        raise UsageError(
            f"{option}: the kernels of {layer.name} are 1 x 1, so they have no form. Choose another layer."
        )
    if isinstance(layer, layers.DepthwiseConv2D):
        high, wide, *_ = weights.shape
        return weights.reshape(high, wide, 1, -1).transpose(3, 2, 0, 1)
    return weights.transpose(3, 2, 0, 1)


def feature_maps(model: keras.Model, layer: layers.Layer, pixels: np.ndarray, option: str) -> np.ndarray:
    """Return what a layer makes of images.

    Args:
        pixels: (n, s, s, 3), 0-255.

    Returns:
        float32 (n, h, w, channels).

    Raises:
        UsageError: if the layer gives no maps.
    """
    output = layer.output
    if len(output.shape) != 4:
        raise UsageError(f"{option}: expected a layer that gives maps, found {layer.name}: {output.shape[1:]}.")
    part = keras.Model(model.input, output)
    found = [
        keras.ops.convert_to_numpy(part(pixels[start : start + BATCH].astype(np.float32), training=False))
        for start in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(found).astype(np.float32)


def top_activations(
    model: keras.Model, layer: layers.Layer, batches: Sequence[np.ndarray], count: int, option: str
) -> list[list[Excitation]]:
    """Return the images that excite each channel of a layer most, at its strongest place.

    Args:
        batches: uint8 (n, s, s, 3) each; numbered through.
        count: images for each channel.

    Returns:
        For each channel, its images, the strongest first.

    Raises:
        UsageError: if the layer gives no maps.
    """
    values, places, shape = [], [], (1, 1)
    for pixels in batches:
        maps = feature_maps(model, layer, pixels, option)
        shape = maps.shape[1:3]
        flat = maps.reshape(len(maps), -1, maps.shape[-1])  # (n, places, channels)
        places.append(flat.argmax(axis=1))
        values.append(flat.max(axis=1))
    strongest, at = np.concatenate(values), np.concatenate(places)
    side = batches[0].shape[1]
    field = receptive_field(model, layer) or (side, side)
    found = []
    for channel in range(strongest.shape[1]):
        order = np.argsort(-strongest[:, channel], kind="stable")[:count]
        found.append(
            [
                Excitation(
                    int(image), float(strongest[image, channel]), _box(int(at[image, channel]), shape, field, side)
                )
                for image in order
            ]
        )
    return found


def receptive_field(model: keras.Model, layer: layers.Layer) -> tuple[int, int] | None:
    """Height and width of what one place of a layer sees; None for the whole image."""
    steps = graph.steps(model)
    for step, field in zip(steps, description.receptive_fields(steps), strict=True):
        if step.operation is layer:
            return None if field is None else (field.height, field.width)
    return None


def _box(place: int, shape: tuple[int, int], field: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """Return the receptive field of a place, around the middle of its share of the image, inside the image."""
    row, column = divmod(place, shape[1])
    ends = []
    for at, count, size in ((column, shape[1], field[1]), (row, shape[0], field[0])):
        size = min(size, side)
        start = math.floor((at + 0.5) / count * side - size / 2 + 0.5)
        start = min(max(start, 0), side - size)
        ends.append((start, start + size))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom
