"""How much arithmetic a network is."""

import math
from collections.abc import Iterable

import keras
from keras import layers

DEPTHWISE = (layers.DepthwiseConv2D, layers.SeparableConv2D)


def multiply_adds(network_layers: Iterable[layers.Layer]) -> int:
    """Multiply-adds of the convolutions and dense layers for one image; what else there is costs next to nothing.

    Args:
        network_layers: of a flat graph of one fixed image size.

    Raises:
        ValueError: if the graph has no fixed size.
    """
    return sum(map(_of_layer, network_layers))


def _of_layer(layer: layers.Layer) -> int:
    if not isinstance(layer, layers.Dense | layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D):
        return 0
    shape = layer.output.shape[1:]
    if None in shape:
        raise ValueError(f"{layer.name}: expected one fixed image size, found {layer.output.shape}")
    places = math.prod(shape[:-1])
    if isinstance(layer, layers.SeparableConv2D):
        depthwise, pointwise = (math.prod(kernel.shape) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel))
        return places * (depthwise + pointwise)
    kernel = (
        layer.kernel
    )  # (h, w, inputs of a group, outputs), or (h, w, channels, multiplier): each weight once a place
    return places * math.prod(kernel.shape)


def is_depthwise(model: keras.Model) -> bool:
    """Whether a network leans on depthwise convolutions."""
    return any(isinstance(layer, DEPTHWISE) for layer in model.layers)
