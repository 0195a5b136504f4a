"""The graph of a Keras model: where it can be cut in two, what it costs, what identifies it.

All that touches Keras's private fields about graphs stands here. A classifier's graph is flat: see `models.classifier`.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.errors import UsageError
from imgclf.models import classifier, flattening
from imgclf.models.flattening import HubLayer

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

NEAR = 0.25
"""Largest distance between a requested and an actual cut, as a share of the backbone's multiply-adds."""

_ALIKE = 0.05
"""Cuts this near to the nearest one may be taken for it: inside an inverted residual the map is six times as wide."""

_DEPTHWISE = (layers.DepthwiseConv2D, layers.SeparableConv2D)
_COUNTED = (layers.Dense, layers.Conv2D, *_DEPTHWISE)


def multiply_adds(model: keras.Model, names: Container[str] | None = None) -> int:
    """Multiply-adds of convolutions, dense layers and attention for one image; other layers are neglected.

    Args:
        model: a flat graph of one fixed image size; a layer that is used twice counts twice.
        names: the layers to count; None counts all.

    Raises:
        ValueError: if the graph has no fixed size.
    """
    nodes = itertools.chain.from_iterable(model._nodes_by_depth.values())
    return sum(_multiply_adds(node) for node in nodes if names is None or node.operation.name in names)


def _multiply_adds(node: Any) -> int:
    layer = node.operation
    if not isinstance(layer, keras.layers.Layer):
        return _products(node)
    if not layer.weights:
        return 0
    shape = node.output_tensors[0].shape[1:]
    if None in shape:
        raise ValueError(f"{layer.name}: expected one fixed image size, found {node.output_tensors[0].shape}")
    positions = math.prod(shape[:-1])
    if isinstance(layer, layers.SeparableConv2D):
        return positions * (math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape))
    if isinstance(layer, _COUNTED):
        return positions * math.prod(layer.kernel.shape)  # each weight is used once per position
    if not flattening.attends(layer) and not isinstance(layer, HubLayer):
        return 0
    if not shape[:-1]:  # one row from many, as pooling by attention gives
        positions = math.prod(node.input_tensors[0].shape[1:-1])
    total = _attention(layer, positions)
    size = node.input_tensors[0].shape[1:-1]
    for inner in layer._flatten_layers():
        if isinstance(inner, (*_COUNTED, layers.EinsumDense)):
            is_patching = hasattr(inner, "strides") and len(shape) == 2 and len(size) == 2  # a map became tokens
            uses = (
                math.prod(s // step for s, step in zip(size, inner.strides, strict=True)) if is_patching else positions
            )
            total += uses * math.prod(inner.kernel.shape)
    return total


def _attention(layer: keras.layers.Layer, positions: int) -> int:
    """Multiply-adds of queries with keys, and of their weights with values: 2 t^2 d, or 2 t w^2 d in windows."""
    total = 0
    for inner in layer._flatten_layers():
        window = getattr(inner, "window_size", None)
        if isinstance(inner, layers.MultiHeadAttention):
            total += 2 * positions * positions * inner.num_heads * inner.key_dim
        elif "Attention" in type(inner).__name__ and hasattr(inner, "head_dim"):
            near = int(np.prod(np.broadcast_to(window, 2))) if window else positions
            total += 2 * positions * min(near, positions) * inner.num_heads * inner.head_dim
    return total


def _products(node: Any) -> int:
    """Multiply-adds of a matrix product among the operations."""
    if type(node.operation).__name__ != "Matmul":
        return 0
    return math.prod(node.output_tensors[0].shape[1:]) * int(node.input_tensors[0].shape[-1])


@dataclass(frozen=True, eq=False)
class Step:
    """One use of a layer or of an operation in a network.

    Args:
        operation: the Keras layer or operation.
        sources: the places, in the list of steps, of those that feed it.
        inputs: the shape of each input, without the batch.
        output: the shape of its first output, without the batch.
        repeated: whether an earlier step uses the same layer, and so the same weights.
        multiply_adds: for one image; None in a graph without one fixed size.
    """

    operation: Any
    sources: tuple[int, ...]
    inputs: tuple[tuple[int | None, ...], ...]
    output: tuple[int | None, ...]
    repeated: bool
    multiply_adds: int | None


def steps(model: keras.Model) -> list[Step]:
    """All that a functional model computes, in an order of computation, which is about that of Keras's summary."""
    order = {id(operation): place for place, operation in enumerate(model.operations)}
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [
        node for depth in depths for node in sorted(model._nodes_by_depth[depth], key=lambda n: order[id(n.operation)])
    ]
    places = {node: place for place, node in enumerate(nodes)}
    found, seen = [], set[int]()
    for node in nodes:
        sources = tuple(places[source] for source in _Graph.sources(node))
        shapes = [tuple(tensor.shape[1:]) for tensor in (*node.input_tensors, *node.output_tensors)]
        try:
            cost = _multiply_adds(node)
        except (ValueError, TypeError):  # a size that is open
            cost = None
        repeated = id(node.operation) in seen
        seen.add(id(node.operation))
        output = shapes[len(node.input_tensors)]
        found.append(Step(node.operation, sources, tuple(shapes[: len(sources)]), output, repeated, cost))
    return found


def is_depthwise(model: keras.Model) -> bool:
    """Whether a network consists largely of depthwise convolutions."""
    return any(isinstance(layer, _DEPTHWISE) for layer in model.layers)


def fingerprint(network_layers: Iterable[keras.layers.Layer]) -> str:
    """SHA-256 over some layers of a flat graph, their inputs and their weights."""
    total = hashlib.sha256()
    for layer in network_layers:
        facts = {key: value for key, value in layer.get_config().items() if key != "trainable"}
        sources = [tensor._keras_history.operation.name for tensor in layer._inbound_nodes[0].input_tensors]
        total.update(json.dumps([type(layer).__name__, facts, sources], sort_keys=True, default=str).encode())
        for array in layer.get_weights():
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Cut:
    """A place where a network can be divided into a lower and an upper part.

    Args:
        layer: the last layer below.
        share: of the backbone's multiply-adds, how many are above.
        taps: other layers below whose outputs the upper part only concatenates to the feature map.
    """

    layer: str
    share: float
    taps: tuple[str, ...] = ()

    @property
    def ideal_gain(self) -> float:
        """Speed-up of an epoch at best, over the full path with the same layers frozen: (1 + 2f) / (3f)."""
        return (1 + 2 * self.share) / (3 * self.share) if self.share else float("inf")


def _weights(node: Any) -> list[Any]:
    return getattr(node.operation, "weights", [])


class _Graph:
    """The nodes of a flat functional model in an order of computation in which layers without weights come early."""

    def __init__(self, model: keras.Model) -> None:
        depths = sorted(model._nodes_by_depth, reverse=True)
        waiting = [node for depth in depths for node in model._nodes_by_depth[depth]]
        self.consumers: dict[Any, list[Any]] = {node: [] for node in waiting}
        for node in waiting:
            for source in self.sources(node):
                self.consumers[source].append(node)
        missing = {node: len(self.sources(node)) for node in waiting}
        place = {node: number for number, node in enumerate(waiting)}
        ready = [node for node in waiting if not missing[node]]
        self.nodes: list[Any] = []
        while ready:
            node = min(ready, key=lambda node: (bool(_weights(node)), place[node]))
            ready.remove(node)
            self.nodes.append(node)
            for consumer in self.consumers[node]:
                missing[consumer] -= 1
                if not missing[consumer]:
                    ready.append(consumer)
        self.of: dict[str, list[Any]] = {}
        for node in self.nodes:
            self.of.setdefault(node.operation.name, []).append(node)

    @staticmethod
    def sources(node: Any) -> list[Any]:
        histories = [tensor._keras_history for tensor in node.input_tensors]
        return [history.operation._inbound_nodes[history.node_index] for history in histories]

    def output(self, name: str) -> keras.KerasTensor:
        return self.of[name][0].output_tensors[0]

    def ancestors(self, name: str) -> set[str]:
        """Return the names of a layer and of all layers that feed it."""
        found, waiting = set(), list(self.of[name])
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self.sources(node)
        return {node.operation.name for node in found}

    def tails(self) -> set[Any]:
        """Find the nodes from which only concatenation and layers without weights lead to the feature map."""
        found = set()
        for node in reversed(self.nodes):
            merges = len(self.sources(node)) > 1 and not isinstance(node.operation, layers.Concatenate)
            ends = node.operation.name == "feature_map"
            passes = self.consumers[node] and all(consumer in found for consumer in self.consumers[node])
            if not _weights(node) and not merges and (ends or passes):
                found.add(node)
        return found


def cuts(model: keras.Model) -> list[Cut]:
    """All cuts of a classifier's backbone: one tensor, and perhaps taps, feed all that is above. From the input up."""
    graph = _Graph(model)
    tails, names = graph.tails(), _backbone(model)
    whole = multiply_adds(model, names)
    found, below, pending = [], set[str](), dict[Any, set[Any]]()
    for node in graph.nodes:
        name = node.operation.name
        below.add(name)
        for source in graph.sources(node):
            pending.get(source, set()).discard(node)
        pending[node] = set(graph.consumers[node])
        pending = {source: consumers for source, consumers in pending.items() if consumers}
        taps = [source for source, consumers in pending.items() if consumers <= tails and source is not node]
        is_cut = node in pending and len(pending) == 1 + len(taps) and (not taps or not pending[node] <= tails)
        if is_cut and name in names and graph.sources(node) and len(graph.of[name]) == 1:
            share = 1 - multiply_adds(model, names & below) / whole
            found.append(Cut(name, share, tuple(tap.operation.name for tap in taps)))
    return found


def below(model: keras.Model, name: str) -> set[str]:
    """Return the names of a layer and of all that feed it."""
    return _Graph(model).ancestors(name)


def requested_share(model: keras.Model, request: str) -> float:
    """Return the share of the backbone's multiply-adds that a request unfreezes.

    Args:
        request: a share, the name of a layer, or the prefix of the names of a block's layers.

    Raises:
        UsageError: if there is no such layer.
    """
    try:
        return float(request)
    except ValueError:
        pass
    every = classifier.backbone_layers(model)
    matching = [layer for layer in every if layer.name == request or layer.name.startswith(request + "_")]
    if not matching:
        known = ", ".join(dict.fromkeys(cut.layer for cut in cuts(model)))
        raise UsageError(f"--unfreeze-from: {model.name} has no layer {request!r}; it can be cut after {known}.")
    names = _backbone(model)
    feeding = below(model, matching[0].name) - {matching[0].name}
    return 1 - multiply_adds(model, feeding & names) / multiply_adds(model, names)


def first_layers(model: keras.Model, share: float) -> set[str]:
    """Return the layers to freeze where no cut is near: the first ones, up to the share that is to train."""
    whole = multiply_adds(model, _backbone(model))
    frozen, done = set(), 0.0
    for layer in classifier.backbone_layers(model):
        done += multiply_adds(model, (layer.name,)) / whole
        if done > 1 - share + 1e-9:
            break
        frozen.add(layer.name)
    return frozen


def nearest(model: keras.Model, share: float) -> Cut | None:
    """Return the nearest cut, of equals the last one with the smallest outputs; None if all are far."""
    graph = _Graph(model)
    found = cuts(model)
    if not found:
        return None
    best = min(abs(cut.share - share) for cut in found)
    alike = [cut for cut in found if abs(cut.share - share) <= best + _ALIKE]
    size = {cut: sum(math.prod(graph.output(name).shape[1:]) for name in (cut.layer, *cut.taps)) for cut in alike}
    chosen = min(reversed(alike), key=size.__getitem__)
    return chosen if best <= NEAR else None


def blocks(model: keras.Model, cut: Cut) -> tuple[tuple[str, ...], ...]:
    """Return the layers above a cut, grouped between it and the cuts above it, from the top down."""
    above = [other for other in cuts(model) if other.share < cut.share - 1e-9]
    bounds = [cut, *{round(other.share, 9): other for other in above}.values()]
    inside = [below(model, bound.layer) for bound in bounds]
    names = [layer.name for layer in classifier.backbone_layers(model)]
    tops = [*inside[1:], set(names)]
    groups = [tuple(n for n in names if n in top and n not in low) for low, top in zip(inside, tops, strict=True)]
    return tuple(group for group in reversed(groups) if group)


def lower(model: keras.Model, cut: Cut) -> keras.Model:
    """Pixels -> what crosses the cut: a map, or, with taps, all tensors flattened into one row (n, d) per image."""
    graph = _Graph(model)
    tensors = [graph.output(name) for name in (cut.layer, *cut.taps)]
    if len(tensors) == 1:
        return keras.Model(model.input, tensors[0])
    return keras.Model(model.input, layers.Concatenate()([layers.Flatten()(tensor) for tensor in tensors]))


def upper(model: keras.Model, cut: Cut) -> keras.Model:
    """Map what crosses the cut, as `lower` gives it -> probabilities; its layers are the model's and train with it."""
    graph = _Graph(model)
    tensors = [graph.output(name) for name in (cut.layer, *cut.taps)]
    if len(tensors) == 1:
        return keras.Model(tensors[0], model.output, name=model.name)
    part = keras.Model(tensors, model.output, name=model.name)
    widths = [math.prod(tensor.shape[1:]) for tensor in tensors]
    row = keras.Input((sum(widths),))
    starts = [sum(widths[:place]) for place in range(len(widths))]
    inputs = [
        layers.Reshape(tensor.shape[1:])(row[:, start : start + width])
        for tensor, start, width in zip(tensors, starts, widths, strict=True)
    ]
    return keras.Model(row, part.call(inputs), name=model.name)


def _backbone(model: keras.Model) -> set[str]:
    return {layer.name for layer in classifier.backbone_layers(model)}
