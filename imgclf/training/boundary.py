"""Where a network can be cut in two, and training the upper part on what the lower one makes of the images, kept.

While the lower layers stand still, what they make of an image stays the same: it is computed once, written as 16-bit
floats, mapped into memory, and an epoch costs only the upper part. With f the share of the multiply-adds above the
boundary, a frozen full path costs 1 forward and f twice backward, the upper part 3 f: the ideal gain is
(1 + 2f) / (3f).
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import layers

from imgclf.data import cache as caches
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.errors import UsageError
from imgclf.models import classifier
from imgclf.settings import TrainConfig
from imgclf.training import devices, features, fitting, work
from imgclf.training.fitting import OnProgress

log = logging.getLogger("imgclf")

NEAR = 0.25
"""How far from what was asked for a boundary may be, as a share of the backbone's multiply-adds."""


@dataclass(frozen=True)
class Cut:
    """A layer through whose output everything passes, and the share of the backbone's multiply-adds above it."""

    layer: str
    share: float

    @property
    def ideal_gain(self) -> float:
        """How many times as fast an epoch can be at best, against the full path with the same layers frozen."""
        return (1 + 2 * self.share) / (3 * self.share) if self.share else float("inf")


class _Graph:
    """The nodes of a flat functional model in the order of computation, and which feeds which.

    A layer has one node, or one for each scale at which it sees the image.
    """

    def __init__(self, model: keras.Model) -> None:
        depths = sorted(model._nodes_by_depth, reverse=True)
        self.nodes = [node for depth in depths for node in model._nodes_by_depth[depth]]
        self.of: dict[str, list[Any]] = {}
        for node in self.nodes:
            self.of.setdefault(node.operation.name, []).append(node)

    @staticmethod
    def sources(node: Any) -> list[Any]:
        histories = [tensor._keras_history for tensor in node.input_tensors]
        return [history.operation._inbound_nodes[history.node_index] for history in histories]

    def tensors(self, name: str) -> list[keras.KerasTensor]:
        """What a layer gives, at each scale."""
        return [node.output_tensors[0] for node in self.of[name]]

    @cached_property
    def paths(self) -> dict[str, int]:
        """How many paths from the input to the output lead through each layer; whole numbers, exact."""
        down: dict[Any, int] = {}
        for node in self.nodes:
            sources = self.sources(node)
            down[node] = sum(down[source] for source in sources) if sources else 1
        up = dict.fromkeys(down, 0)
        up[self.nodes[-1]] = 1
        for node in reversed(self.nodes):
            for source in self.sources(node):
                up[source] += up[node]
        return {name: sum(down[node] * up[node] for node in nodes) for name, nodes in self.of.items()}

    def ancestors(self, nodes: Sequence[Any]) -> set[Any]:
        """The nodes that feed these, without these, unless one of them feeds another."""
        found: set[Any] = set()
        waiting = [source for node in nodes for source in self.sources(node)]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self.sources(node)
        return found


def cuts(model: keras.Model) -> list[Cut]:
    """All layers of the backbone through whose output everything passes, once, from the input up."""
    graph = _Graph(model)
    total = graph.paths[graph.nodes[-1].operation.name]
    names = _backbone(model)
    whole = work.multiply_adds(model, names)
    found = []
    for name in filter(names.__contains__, graph.of):
        feeding = graph.ancestors(graph.of[name])
        if feeding and graph.paths[name] == total and not feeding & set(graph.of[name]):
            still = {node.operation.name for node in feeding} | {name}
            found.append(Cut(name, 1 - work.multiply_adds(model, names & still) / whole))
    return found


def below(model: keras.Model, name: str) -> set[str]:
    """The names of a layer and of all that feed it."""
    graph = _Graph(model)
    return {node.operation.name for node in graph.ancestors(graph.of[name])} | {name}


def wanted(model: keras.Model, request: str) -> float:
    """The share of the backbone's multiply-adds that a request sets free.

    Args:
        request: a share, or the name of a layer, or how the names of a block's layers begin.

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
    feeding = below(model, matching[0].name) - {matching[0].name}
    return 1 - _work(model, feeding) / work.multiply_adds(model, _backbone(model))


def before(model: keras.Model, share: float) -> set[str]:
    """The layers that stand still where there is no cut: the first ones, up to the share that is to move."""
    whole = work.multiply_adds(model, _backbone(model))
    still, done = set(), 0.0
    for layer in classifier.backbone_layers(model):
        done += work.multiply_adds(model, (layer.name,)) / whole
        if done > 1 - share + 1e-9:
            break
        still.add(layer.name)
    return still


def nearest(model: keras.Model, share: float) -> Cut | None:
    """The cut whose share is nearest; of equals that with the smallest output, and the last; None if all are far."""
    graph = _Graph(model)
    found = cuts(model)
    if not found:
        return None
    best = min(abs(cut.share - share) for cut in found)
    equals = [cut for cut in found if abs(cut.share - share) <= best + 1e-9]
    size = {cut.layer: sum(math.prod(tensor.shape[1:]) for tensor in graph.tensors(cut.layer)) for cut in equals}
    chosen = min(reversed(equals), key=lambda cut: size[cut.layer])
    return chosen if best <= NEAR else None


def blocks(model: keras.Model, cut: Cut) -> tuple[tuple[str, ...], ...]:
    """The layers above a cut, grouped between it and the cuts above it, from the top down."""
    above = [other for other in cuts(model) if other.share < cut.share - 1e-9]
    bounds = [cut, *{round(other.share, 9): other for other in above}.values()]
    inside = [below(model, bound.layer) for bound in bounds]
    names = [layer.name for layer in classifier.backbone_layers(model)]
    tops = [*inside[1:], set(names)]
    groups = [tuple(n for n in names if n in top and n not in low) for low, top in zip(inside, tops, strict=True)]
    return tuple(group for group in reversed(groups) if group)


def lower(model: keras.Model, cut: Cut) -> keras.Model:
    """Pixels -> what passes the cut; at several scales, one after the other in one row (n, d) for each image."""
    tensors = _Graph(model).tensors(cut.layer)
    if len(tensors) == 1:
        return keras.Model(model.input, tensors[0])
    return keras.Model(model.input, layers.Concatenate()([layers.Flatten()(tensor) for tensor in tensors]))


def upper(model: keras.Model, cut: Cut) -> keras.Model:
    """What passes the cut, as `lower` gives it -> probabilities; the layers are the model's own, and train with it."""
    tensors = _Graph(model).tensors(cut.layer)
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


class Activations:
    """What passes the cut, of the images and of views of them, as 16-bit floats that are mapped into memory.

    Slices and arrays of row numbers give the images' own; `draw` gives one of the views of each.
    """

    def __init__(self, views: Sequence[np.ndarray], row_of: np.ndarray) -> None:
        self._views = views  # each float16 (u, ...)
        self._row_of = row_of

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._row_of), *self._views[0].shape[1:])

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._views[0][self._row_of[index]])

    def take(self, rows: np.ndarray) -> "Activations":
        """Some of the images under new numbers."""
        return Activations(self._views, self._row_of[rows])

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One of the views of each row, the original among them."""
        chosen = rng.integers(len(self._views), size=len(rows))
        places = self._row_of[rows]
        return np.stack([self._views[view][place] for view, place in zip(chosen, places, strict=True)])


def cached(
    model: keras.Model,
    cut: Cut,
    dataset: Dataset,
    pixels: loading.Pixels,
    config: TrainConfig,
    *,
    dtype: type[np.floating] = np.float16,
    on_progress: OnProgress | None = None,
) -> Activations | str:
    """The activations of all images at a cut, and of `config.views` augmented views of them.

    They are found again by later runs, like frozen features, by content, size, rules, weights below the cut, view and
    seed, as long as they fit into `config.cache_limit_gb`; where nothing is kept on disk, they stay in memory.

    Returns:
        The activations, or why they cannot be kept.
    """
    views = config.views or 0
    hashes, first, row_of = np.unique(loading.content_hashes(dataset), return_index=True, return_inverse=True)
    part = lower(model, cut)
    shape = (len(hashes), *part.output_shape[1:])
    if None in shape:
        return "the image size is open"
    needed = (1 + views) * int(np.prod(shape)) * np.dtype(dtype).itemsize
    store = caches.Store.of(config.cache, config.cache_limit_gb)
    if needed > config.cache_limit_gb * 1e9:
        return f"{needed / 1e9:.1f} GB of activations are more than --cache-limit-gb {config.cache_limit_gb:g}"
    part.compile(jit_compile=devices.jit_compile())
    network = features.fingerprint_layers([layer for layer in model.layers if layer.name in below(model, cut.layer)])
    found: list[np.ndarray] = []
    for view in range(1 + views):
        name = features.entry_name("boundary", config, network, view, hashes, [cut.layer, np.dtype(dtype).name])
        known = store.read(name, shape, dtype) if store else None
        if known is not None:
            found.append(known)
            continue
        batches = _batches(part, pixels.take(first), config, view, on_progress)
        try:
            made = _write(store, name, shape, dtype, batches) if store else _hold(shape, dtype, batches)
        except OSError as error:
            return error.strerror or str(error)
        if isinstance(made, str):
            return made
        found.append(made)
    return Activations(found, row_of)


def _batches(
    part: keras.Model, contents: loading.Pixels, config: TrainConfig, view: int, on_progress: OnProgress | None
) -> Iterator[np.ndarray]:
    seen = features.View(contents, config, view) if view else contents
    size = fitting.batch_size(config)
    for start in range(0, len(contents), size):
        yield fitting.predict(part, seen[start : start + size], size)
        if on_progress:
            on_progress(f"activations of view {view}", min(start + size, len(contents)), len(contents))


def _write(
    store: caches.Store, name: str, shape: tuple[int, ...], dtype: type[np.floating], batches: Iterator[np.ndarray]
) -> np.ndarray | str:
    no_room = caches.make_room(store.folder, int(np.prod(shape)) * np.dtype(dtype).itemsize, store.limit)
    if no_room:
        return no_room
    with caches.Writer(store.folder, name, shape, dtype) as writer:
        for batch in batches:
            writer.append(batch.astype(dtype))
        return writer.finish({}).array


def _hold(shape: tuple[int, ...], dtype: type[np.floating], batches: Iterator[np.ndarray]) -> np.ndarray:
    rows = np.empty(shape, dtype)
    done = 0
    for batch in batches:
        rows[done : done + len(batch)] = batch
        done += len(batch)
    return rows


def _backbone(model: keras.Model) -> set[str]:
    return {layer.name for layer in classifier.backbone_layers(model)}


def _work(model: keras.Model, names: set[str]) -> int:
    return work.multiply_adds(model, names & _backbone(model))
