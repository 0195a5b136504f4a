"""Describe a network: every layer with shape, parameters, multiply-adds, memory and receptive field."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imgclf import environment, runs
from imgclf.errors import ArtifactError, RunError, UsageError
from imgclf.models import backbones, catalog, classifier, efficientnet_lite0, flattening, graph, sources
from imgclf.models.flattening import HubLayer
from imgclf.models.graph import Step
from imgclf.models.publications import PUBLICATIONS
from imgclf.prediction import artifact
from imgclf.settings.explanation import DescribeConfig

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

CLASSES = 10
"""Classes of the head that a backbone without one is described with."""

BYTES = 4
"""Bytes of a float32."""

_POOLINGS = (layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D)


@dataclass(frozen=True)
class Layer:
    """One layer, or one use of it.

    Args:
        name: its name in the graph.
        type: its class.
        output: the shape of its output for one image: height, width, channels.
        kernel: the sides of the kernel or the pooling window; None without one.
        stride: the step of it.
        padding: `valid` or `same`.
        parameters: the number of its weights; 0 where an earlier use counts them.
        formula: how `parameters` follows from the sizes.
        multiply_adds: of convolutions, dense layers and attention, for one image.
        memory_bytes: of its output in float32, for one image.
        receptive_field: height and width in pixels of the part of the image that one place of the output depends on;
            None for all of it. Gates that see the whole image, such as squeeze-and-excitation, are not counted.
    """

    name: str
    type: str
    output: tuple[int, ...]
    kernel: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: str | None
    parameters: int
    formula: str
    multiply_adds: int
    memory_bytes: int
    receptive_field: tuple[int, int] | None


@dataclass(frozen=True)
class Description:
    """A network in numbers.

    Args:
        name: of the network.
        input: height, width and channels of an image.
        layers: all of them, from the input to the output.
        published: what is known of a network of the catalog: `top1_error` and `top5_error` in percent on ImageNet, for
            one model and one crop, with `source`; `year`, `paper`, and `layers` as the paper counts them. None for
            other networks.
    """

    name: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    published: dict[str, Any] | None

    @property
    def parameters(self) -> int:
        """The number of weights, trainable or not."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def weights_mb(self) -> float:
        """The weights in float32, in MB (10^6 bytes)."""
        return self.parameters * BYTES / 1e6

    @property
    def memory_mb(self) -> float:
        """The outputs of all layers for one image in float32, in MB: what training keeps of each image."""
        return sum(layer.memory_bytes for layer in self.layers) / 1e6

    @property
    def weighted_layers(self) -> int:
        """The number of convolutions, dense layers and attention layers, as papers count layers."""
        return sum(layer.multiply_adds > 0 for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        totals = {
            name: getattr(self, name)
            for name in ("parameters", "multiply_adds", "weights_mb", "memory_mb", "weighted_layers")
        }
        listed = [asdict(layer) for layer in self.layers]
        return {"name": self.name, "input": self.input, **totals, "published": self.published, "layers": listed}


def describe(
    model: "keras.Model | runs.Run | Path | str",
    config: DescribeConfig | None = None,
    *,
    output: Path | str | None = None,
) -> Description:
    """Describe a network layer by layer. Weights are not needed and never fetched.

    Args:
        model: a Keras model, a run, an exported model or its folder, a `.keras` file, or a name in `imgclf models`,
            with the head of its ImageNet classes where it has one.
        config: the image size, and the classes of another head.
        output: a new SVG file with a drawing of the network; None draws none.

    Raises:
        UsageError: if the name is unknown, the size does not fit, `output` exists, or settings have no effect.
        RunError: if a run, an artifact or a file is damaged, or is no network.
        MissingError: if KerasHub is needed and not installed, or its preset cannot be had.
    """
    config = config or DescribeConfig()
    network, facts = find(model, config)
    found = Description(
        network.name if facts is None else facts.name,
        tuple(network.inputs[0].shape[1:]),
        tuple(_layers(network)),
        None if facts is None else _published(facts),
    )
    if output is not None:
        from imgclf.explanation import description_drawing

        description_drawing.write(found, Path(output))
    return found


def find(
    model: "keras.Model | runs.Run | Path | str", config: DescribeConfig
) -> tuple[keras.Model, catalog.ModelFacts | None]:
    """Return the graph of a network, at one image size, and the facts of the catalog where it is a published one."""
    fixed = isinstance(model, keras.Model | runs.Run) or Path(model).exists()
    if fixed and config.classes is not None:
        raise UsageError(f"--classes: {model} has a head of its own. Name a backbone, or leave out --classes.")
    if isinstance(model, keras.Model):
        return _at_one_size(model, config.image_size), None
    if isinstance(model, runs.Run):
        model = model.path
    if not fixed:
        if Path(model).name != str(model) and ":" not in str(model):
            raise UsageError(
                f"{model}: expected a run, an exported model or a .keras file, found no such file or folder."
            )
        return _named(str(model), config)
    path = Path(model)
    if path.suffix == ".keras":
        return _at_one_size(_loaded(path), config.image_size), None
    if config.image_size is not None:
        raise UsageError(f"--image-size: {path} has an image size of its own. Leave out --image-size.")
    return _of_folder(path if path.is_dir() else path.parent)


def _named(name: str, config: DescribeConfig) -> tuple[keras.Model, catalog.ModelFacts | None]:
    facts = catalog.get(catalog.DEFAULT if name == catalog.IMAGENET else name)
    if facts is not None and facts.parameters_with_top is not None and config.classes is None:
        # without memory for weights: those of the largest take 1.4 GB
        with keras.StatelessScope(initialize_variables=False):
            if facts.application is not None:
                return backbones.build_with_top(facts.name, weights="none", image_size=config.image_size), facts
            return efficientnet_lite0.build_with_top(config.image_size, weights=False), facts
    source = sources.find(name if facts is None else facts.name, offline=config.offline)
    size = config.image_size or source.facts.image_size
    backbone = source.build(size, sources.NONE, offline=config.offline)
    paper = PUBLICATIONS.get(source.facts.name)
    return classifier.build(backbone, config.classes or (paper and paper.classes) or CLASSES), facts


def _of_folder(folder: Path) -> tuple[keras.Model, catalog.ModelFacts | None]:
    """Return the network of a run or of exported models."""
    try:
        facts = artifact.read(folder)
    except ArtifactError:
        facts = None
    files = [*(facts.files if facts else ()), "model.keras"]
    stored = [folder / name for name in files if name.endswith(".keras") and (folder / name).is_file()]
    if stored:
        return _at_one_size(_loaded(stored[0]), None), None
    if facts is None:
        raise RunError(f"{folder}: expected a run or an exported model of a network, found neither.")
    if not facts.data_sha256:  # with ImageNet's own classes
        return _named(facts.backbone, DescribeConfig(image_size=facts.image_size))
    if facts.backbone == sources.NONE:
        raise RunError(
            f"{folder}: expected a network, found a classifier on features made by hand, which has no layers."
        )
    source = sources.find(facts.backbone)
    return classifier.build(source.build(facts.image_size, sources.NONE), len(facts.labels)), None


def _loaded(path: Path) -> keras.Model:
    try:
        return flattening.load(path)
    except Exception as error:  # a foreign file makes Keras raise nearly anything
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunError(f"{path}: expected a model in Keras's .keras format, found something else ({reason}).") from None


def _at_one_size(model: keras.Model, image_size: int | None) -> keras.Model:
    """Return the same layers as one flat graph of one image size."""
    if not hasattr(getattr(model, "_functional", model), "_run_through_graph") or len(model.inputs) != 1:
        raise UsageError(f"{model.name}: expected a functional or sequential model with one input, found another.")
    shape = tuple(model.inputs[0].shape[1:])
    flat = isinstance(model, keras.Model) and not any(isinstance(layer, keras.Model) for layer in model.layers)
    wanted = shape if image_size is None or len(shape) != 3 else (image_size, image_size, shape[2])
    if None in wanted:
        raise UsageError(f"--image-size: expected a size, since that of {model.name} is open: found {shape}.")
    if wanted == shape and flat and not isinstance(model, keras.Sequential):
        return model
    pixels = keras.Input(wanted, name=model.inputs[0].name)
    try:
        return keras.Model(pixels, flattening.flatten(model, pixels), name=model.name)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--image-size: {wanted[0]} px does not fit {model.name} ({reason}).") from None


def _published(facts: catalog.ModelFacts) -> dict[str, Any] | None:
    paper = PUBLICATIONS.get(facts.name)
    if paper is None and facts.top1 is None:
        return None
    top5 = None if paper is None or paper.top5 is None else round(100 - paper.top5, 1)
    return {
        "top1_error": None if facts.top1 is None else round(100 - facts.top1, 1),
        "top5_error": top5,
        "source": facts.source,
        "year": paper and paper.year,
        "paper": paper and paper.paper,
        "layers": paper and paper.layers,
    }


def _layers(model: keras.Model) -> list[Layer]:
    steps = graph.steps(model)
    fields = receptive_fields(steps)
    found = []
    for step, field in zip(steps, fields, strict=True):
        operation = step.operation
        weights = [] if step.repeated else list(getattr(operation, "weights", []))
        size = [int(side or 1) for side in step.output]
        window, stride = _window(operation)
        found.append(
            Layer(
                name=operation.name,
                type=type_of(operation),
                output=tuple(size),
                kernel=window,
                stride=stride,
                padding=getattr(operation, "padding", None) if window else None,
                parameters=sum(math.prod(weight.shape) for weight in weights),
                formula=formula(operation) if weights else "0",
                multiply_adds=step.multiply_adds or 0,
                memory_bytes=math.prod(size) * BYTES,
                receptive_field=None if field is None else (field.height, field.width),
            )
        )
    return found


def type_of(operation: Any) -> str:
    """Return the class of a layer; of one that wraps another, that of the inner one."""
    return type(operation.inner if isinstance(operation, HubLayer) else operation).__name__


def _window(operation: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Return the sides of a layer's window, and its strides."""
    sides = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if sides is None or not isinstance(operation, layers.Layer) or not hasattr(operation, "strides"):
        return None, None
    strides = operation.strides
    sides = (sides,) if isinstance(sides, int) else tuple(sides)
    return sides, (strides,) * len(sides) if isinstance(strides, int) else tuple(strides)


def formula(layer: Any) -> str:
    """How the number of a layer's parameters follows from its sizes: (F x F x C + 1) x K for a convolution."""
    bias = " + 1" if getattr(layer, "use_bias", False) else ""
    if isinstance(layer, layers.DepthwiseConv2D):
        *sides, channels, multiplier = layer.kernel.shape
        return _product(f"{_times(sides)}{bias}", channels * multiplier)
    if isinstance(layer, layers.SeparableConv2D):
        wide, deep = layer.pointwise_kernel.shape[-2:]
        return f"{_times(layer.depthwise_kernel.shape)} + {_product(f'{wide}{bias}', deep)}"
    if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Dense):
        *sides, count = layer.kernel.shape
        return _product(f"{_times(sides)}{bias}", count)
    shapes = [tuple(weight.shape) for weight in layer.weights]
    if len(shapes) > 1 and len(set(shapes)) == 1:
        return f"{len(shapes)} x {_times(shapes[0])}"
    return " + ".join(_times(shape) for shape in shapes)


def _times(sizes: Any) -> str:
    return " x ".join(map(str, sizes)) or "1"


def _product(inputs: str, count: int) -> str:
    return f"({inputs}) x {count}" if "+" in inputs else f"{inputs} x {count}"


@dataclass(frozen=True)
class Field:
    """What one place of an output depends on: its size in pixels, and the step in pixels to that of the next place."""

    height: int
    width: int
    down: float
    right: float


def receptive_fields(steps: list[Step]) -> list[Field | None]:
    """Return the receptive field of each step; None for the whole image.

    Of a product or a sum of several inputs, those that see the whole image count only where all do: a gate scales the
    channels of the image, but says nothing about places. After a permutation, up to the next one or a change of
    form, windows lie on other axes.
    """
    found: list[Field | None] = []
    permuted = False
    for step in steps:
        if isinstance(step.operation, layers.Permute | layers.Reshape):
            permuted = isinstance(step.operation, layers.Permute) and not permuted
        if not step.sources:
            found.append(Field(1, 1, 1, 1))
            continue
        local = [field for place in step.sources if (field := found[place]) is not None]
        if not local or _sees_all(step):
            found.append(None)
            continue
        largest = Field(
            max(field.height for field in local), max(field.width for field in local), local[0].down, local[0].right
        )
        found.append(largest if permuted else _widened(largest, step))
    return found


def _sees_all(step: Step) -> bool:
    """Whether each place of the output depends on all places of the input: in attention, or where one place is left."""
    if isinstance(step.operation, layers.Layer) and flattening.attends(step.operation):
        return True
    return _window(step.operation)[0] is None and _places(step.inputs[0]) > 1 == _places(step.output)


def _places(shape: tuple[int | None, ...]) -> int:
    return math.prod(side or 1 for side in shape[:-1])


def _widened(field: Field, step: Step) -> Field:
    operation = step.operation
    if isinstance(operation, layers.UpSampling2D):
        rows, columns = operation.size
        return Field(field.height, field.width, field.down / rows, field.right / columns)
    for layer in operation._flatten_layers() if isinstance(operation, HubLayer) else (operation,):
        window, stride = _window(layer)
        if window is None or stride is None or len(window) != 2:
            continue
        spread = getattr(layer, "dilation_rate", 1)
        spread = (spread, spread) if isinstance(spread, int) else spread
        field = Field(
            field.height + round((window[0] - 1) * spread[0] * field.down),
            field.width + round((window[1] - 1) * spread[1] * field.right),
            field.down * stride[0],
            field.right * stride[1],
        )
    return field
