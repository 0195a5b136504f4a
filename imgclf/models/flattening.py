"""One flat graph out of nested models: encoders and sub-models dissolve into the layers that they hold.

Fine-tuning, cost estimates and cached activations need to see the blocks of a network, and most transformers of
KerasHub are one layer that contains them all. A transformer block stays one layer: it is frozen or trained as a whole.
"""

import contextlib
import inspect
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from imgclf import environment, tasks

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

RESERVED = frozenset({"feature_map", "embedding", "dropout", "logits", *tasks.outputs()})
"""Names of the layers that a classifier puts behind its backbone."""

HUB = "keras_hub"
_MADE_WITH = "_imgclf_made_with"


@contextlib.contextmanager
def recorded() -> Iterator[None]:
    """Note with each layer that is made meanwhile the arguments of its constructor, which `HubLayer` stores."""
    original = keras.layers.Layer.__new__

    def new(cls: type, *values: Any, **options: Any) -> Any:
        layer = original(cls, *values, **options)
        with contextlib.suppress(TypeError):  # which the constructor is about to raise
            bound = inspect.signature(cls.__init__).bind(layer, *values, **options)  # type: ignore[misc]
            rest = bound.arguments.pop("kwargs", {})
            vars(layer)[_MADE_WITH] = {k: v for k, v in (bound.arguments | rest).items() if v is not layer}
        return layer

    keras.layers.Layer.__new__ = new
    try:
        yield
    finally:
        keras.layers.Layer.__new__ = original


@keras.saving.register_keras_serializable("imgclf")
class HubLayer(keras.layers.Layer):
    """A layer of KerasHub that can be saved by itself.

    KerasHub saves whole backbones: `get_config` of several of its layers leaves arguments out, or names some that their
    constructors refuse (`key_dim` of ViTEncoderBlock). This one keeps the arguments that the layer was made with.

    Args:
        made: module and name of the layer's class, and the arguments of its constructor, as JSON has them.
        keywords: what `inner` is called with beside its input.
        tensors: how many tensors each further keyword takes; `call` gets them in one list.
        shape: of what the layer gives for one image, where Keras cannot tell.
        inner: the layer itself; None makes it from `made`.
    """

    def __init__(
        self,
        made: dict[str, Any],
        keywords: dict[str, Any] | None = None,
        tensors: dict[str, int] | None = None,
        shape: tuple[int, ...] | None = None,
        inner: keras.layers.Layer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.made, self.keywords, self.tensors = made, keywords or {}, tensors or {}
        self.shape = tuple(shape) if shape else None
        if inner is None:
            arguments = {key: _thawed(value) for key, value in made["arguments"].items()}
            inner = _class(made["module"], made["class"])(**arguments, dtype=self.dtype_policy)
        self.inner = inner
        self.given: tuple[bool, ...] = (True,)

    @classmethod
    def of(cls, layer: keras.layers.Layer, name: str, keywords: dict[str, Any], tensors: dict[str, int]) -> "HubLayer":
        """Return a layer with its weights, made within `recorded`."""
        kind = _original(layer)
        arguments = {k: _frozen(v) for k, v in vars(layer)[_MADE_WITH].items() if k not in ("name", "dtype")}
        made = {"module": kind.__module__, "class": kind.__name__, "arguments": arguments}
        return cls(made, keywords, tensors, inner=layer, name=name, dtype=layer.dtype_policy)

    def build(self, input_shape: Any) -> None:
        if not self.inner.built and not getattr(self.inner.build, "_is_default", False):
            self.inner.build(input_shape)
        self.built = True

    def call(self, inputs: Any, extra: Any = None) -> Any:
        """Return what the layer gives, less the Nones in it, which stand for what it was not asked for."""
        waiting = iter(extra or ())
        lists = {key: tuple(next(waiting) for _ in range(count)) for key, count in self.tensors.items()}
        with warnings.catch_warnings():
            # the mask of Swin's attention is an argument of its own
            warnings.filterwarnings("ignore", message=".*passed an input with a mask")
            found = self.inner(inputs, **self.keywords, **lists)
        if not isinstance(found, tuple):
            return keras.ops.reshape(found, (-1, *self.shape)) if self.shape else found
        self.given = tuple(value is not None for value in found)
        found = tuple(value for value in found if value is not None)
        return found if len(found) > 1 else found[0]

    def as_given(self, found: Any) -> Any:
        """Return what `call` gave, with the Nones."""
        if len(self.given) == 1:
            return found
        values = iter(found if isinstance(found, tuple) else (found,))
        return tuple(next(values) if given else None for given in self.given)

    def get_config(self) -> dict[str, Any]:
        facts = {"made": self.made, "keywords": self.keywords, "tensors": self.tensors, "shape": self.shape}
        return {**super().get_config(), **facts}


def _class(module: str, name: str) -> Any:
    """Return a class that a file names: of Keras or of KerasHub, since a file must not run just any code."""
    if module.partition(".")[0] not in ("keras", HUB):
        raise ValueError(f"expected a class of Keras or KerasHub, found {module}.{name}")
    return getattr(import_module(module), name)


def _frozen(value: Any) -> Any:
    """Return a constructor's argument as JSON has it; classes and functions by their registered names."""
    if inspect.isclass(value):
        return {"class": f"{value.__module__}.{value.__name__}"}
    if callable(value):
        return {"serialized": keras.saving.serialize_keras_object(value)}
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_frozen(item) for item in value]
    if keras.ops.is_tensor(value) or hasattr(value, "item"):
        return keras.ops.convert_to_numpy(value).tolist()
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"class"}:
        module, _, name = value["class"].rpartition(".")
        return _class(module, name)
    if isinstance(value, dict) and value.keys() == {"serialized"}:
        return keras.saving.deserialize_keras_object(value["serialized"])
    if isinstance(value, list):
        return tuple(_thawed(item) for item in value)
    return value


def load(path: Path) -> keras.Model:
    """Load a `.keras` file, which may contain layers of KerasHub; code in it is refused."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def flatten(model: keras.Model, inputs: keras.KerasTensor) -> Any:
    """Apply a functional model to a tensor, as layers of one flat graph.

    Args:
        model: any functional model; layers of KerasHub in it must have been made within `recorded`.
        inputs: float32 (n, s, s, 3).

    Returns:
        What the model gives, in its structure; the layers and their weights are the model's own.
    """
    with _Tracer(model):
        return _run(model, inputs)


def _run(model: keras.Model, inputs: Any) -> Any:
    """Return what `model.call` does, without its conversion of the inputs, which would be a node of the graph."""
    return getattr(model, "_functional", model)._run_through_graph(inputs)


class _Tracer:
    """Makes calls of the nested layers of a model dissolve them, or wrap them, for a while."""

    def __init__(self, model: keras.Model) -> None:
        self.names: dict[int, str] = {}
        self.wrapped: dict[int, HubLayer] = {}
        self.direct: set[int] = set()
        self.swapped: list[keras.layers.Layer] = []
        self._name(model, "")

    def _name(self, parent: keras.layers.Layer, prefix: str) -> None:
        numbers: Counter[str] = Counter()
        for layer in parent._layers:
            if id(layer) in self.names:
                continue
            name = stable_name(layer, numbers)
            self.names[id(layer)] = prefix + name
            if _is_nested(layer):
                self._name(layer, f"{prefix}{name}_")
                self.swapped.append(layer)
            elif prefix:
                layer.name = prefix + name

    def __enter__(self) -> None:
        for layer in self.swapped:
            kind = type(layer)
            calls = {"__call__": self._call, "_imgclf_original": kind}
            object.__setattr__(layer, "__class__", type(kind.__name__, (kind,), calls))

    def __exit__(self, *_: object) -> None:
        for layer in self.swapped:
            object.__setattr__(layer, "__class__", _original(layer))

    @property
    def _call(self) -> Any:
        tracer = self

        def call(layer: keras.layers.Layer, *values: Any, **options: Any) -> Any:
            if id(layer) in tracer.direct or not _is_symbolic((values, options)):
                return _original(layer).__call__(layer, *values, **options)
            if isinstance(layer, keras.layers.Identity):  # one that was given a dtype policy cannot be saved
                return values[0]
            if _dissolves(layer):
                is_model = isinstance(layer, keras.Model)
                found = _run(layer, values or options) if is_model else layer.call(*values, **options)
                if is_model or _can_be_saved(found, (values, options)):
                    return found
            return tracer._whole(layer, *values, **options)

        return call

    def _whole(self, layer: keras.layers.Layer, *values: Any, **options: Any) -> Any:
        """Call a layer as one node of the graph."""
        kind = _original(layer)
        inner = list(map(id, layer._flatten_layers()))
        self.direct.update(inner)
        try:
            if kind.__module__.partition(".")[0] != HUB:
                return layer(*values, **options)
            options.pop("training", None)  # Keras itself hands it on
            inputs, *rest = inspect.signature(layer.call).bind(*values, **options).arguments.items()
            keywords = {k: v for k, v in rest if v is not None and not _is_symbolic(v)}
            tensors = {k: keras.tree.flatten(v) for k, v in rest if _is_symbolic(v)}
            if id(layer) not in self.wrapped:
                counts = {key: len(found) for key, found in tensors.items()}
                self.wrapped[id(layer)] = HubLayer.of(layer, self.names[id(layer)], keywords, counts)
            whole = self.wrapped[id(layer)]
            extra = [tensor for found in tensors.values() for tensor in found]
            found = whole(inputs[1], extra) if extra else whole(inputs[1])
            is_open = not isinstance(found, tuple) and None in found.shape[1:]
            if is_open and not extra and None not in inputs[1].shape[1:]:
                whole.shape = tuple(whole(keras.ops.zeros((1, *inputs[1].shape[1:]))).shape[1:])
                found = whole(inputs[1])
            return whole.as_given(found)
        finally:
            self.direct.difference_update(inner)


def _original(layer: keras.layers.Layer) -> type:
    return getattr(type(layer), "_imgclf_original", type(layer))


def _is_nested(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Model | keras.layers.Identity) or type(layer).__module__.partition(".")[0] == HUB


def _dissolves(layer: keras.layers.Layer) -> bool:
    """Whether a nested layer only arranges others: models, encoders and blocks of convolutions do."""
    if isinstance(layer, keras.Model):
        return hasattr(getattr(layer, "_functional", layer), "_run_through_graph")
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    attending = sum(attends(inner) for inner in layer._layers)
    return bool(layer._layers) and not own and (attending > 1 or not attends(layer))


def attends(layer: keras.layers.Layer) -> bool:
    """Whether a layer is attention or holds some."""
    return any("Attention" in _original(inner).__name__ for inner in layer._flatten_layers())


def _is_symbolic(arguments: Any) -> bool:
    return any(isinstance(value, keras.KerasTensor) for value in keras.tree.flatten(arguments))


def _can_be_saved(found: Any, arguments: Any) -> bool:
    """Whether the layers and operations between two ends can be saved, and compute batches of any size."""
    ends = {id(value) for value in keras.tree.flatten(arguments)}
    for operation in operations(found, ends):
        values = vars(operation).values()
        if any(getattr(value, "__name__", "") == "<lambda>" for value in values):
            return False
        is_layer = isinstance(operation, keras.layers.Layer)
        if not is_layer and any(isinstance(value, list | tuple) and None in value for value in values):
            return False  # a shape with the size of the batch, which is unknown
    return True


def operations(tensors: Any, ends: frozenset[int] | set[int] = frozenset()) -> list[Any]:
    """Return the layers and operations behind some tensors, each once, in an order of computation.

    Args:
        ends: ids of tensors not to look behind.
    """
    found: dict[int, Any] = {}
    waiting = [(tensor, False) for tensor in reversed(keras.tree.flatten(tensors))]
    seen: set[int] = set()
    while waiting:
        tensor, is_done = waiting.pop()
        if not isinstance(tensor, keras.KerasTensor) or id(tensor) in ends:
            continue
        operation, node, _ = tensor._keras_history
        if is_done:
            found.setdefault(id(operation), operation)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            waiting += [(source, False) for source in reversed(operation._inbound_nodes[node].input_tensors)]
    return list(found.values())


def numbered(stem: str, numbers: Counter[str]) -> str:
    """Return a name with the next number: `dense`, `dense_1`..."""
    numbers[stem] += 1
    return f"{stem}_{numbers[stem] - 1}" if numbers[stem] > 1 else stem


def stable_name(operation: Any, numbers: Counter[str]) -> str:
    """Name a layer or operation; number it within its network where Keras has numbered it within the process."""
    stem = re.sub(r"_\d+$", "", operation.name)
    is_automatic = stem.replace("_", "") == type(operation).__name__.lower()
    return numbered(stem, numbers) if is_automatic else str(operation.name)


def rename(outputs: Any) -> None:
    """Give the layers and operations behind some tensors names that are the same in every process, and unique."""
    numbers: Counter[str] = Counter()
    taken: set[str] = set()
    for operation in operations(outputs):
        name = stable_name(operation, numbers)
        if name in RESERVED:
            name = f"backbone_{name}"
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        operation.name = unique
