"""How much arithmetic a network is."""

import itertools
import math
from collections.abc import Container
from typing import Any

import keras
from keras import layers

DEPTHWISE = (layers.DepthwiseConv2D, layers.SeparableConv2D)


def multiply_adds(model: keras.Model, names: Container[str] | None = None) -> int:
    """Multiply-adds of the convolutions and dense layers for one image; what else there is costs next to nothing.

    Args:
        model: a flat graph of one fixed image size; a layer that sees several scales counts at each.
        names: of the layers to count; None is all.

    Raises:
        ValueError: if the graph has no fixed size.
    """
    nodes = itertools.chain.from_iterable(model._nodes_by_depth.values())
    return sum(_of_node(node) for node in nodes if names is None or node.operation.name in names)


def _of_node(node: Any) -> int:
    layer = node.operation
    if not isinstance(layer, layers.Dense | layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D):
        return 0
    shape = node.output_tensors[0].shape[1:]
    if None in shape:
        raise ValueError(f"{layer.name}: expected one fixed image size, found {node.output_tensors[0].shape}")
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
