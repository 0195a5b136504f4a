"""Build the backbones of keras.applications, with weights from the hub, a file, a run, or none.

Each starts at `pixels`, float32 0-255 RGB (n, s, s, 3), does its own preprocessing, and ends in its last feature map
(n, h, w, d). The graph is flat and its layers are named the same in every process: Keras numbers layers without a name
by what the process has built before.
"""

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, environment, runs
from imgclf.errors import MissingError, RunError, UsageError
from imgclf.models import catalog, flattening, hub
from imgclf.models.catalog import ModelFacts

environment.prepare_keras()

import h5py  # type: ignore[import-untyped]  # noqa: E402  (it comes with Keras)
import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers, ops  # noqa: E402

Progress = Callable[[int, int], None]

# of ImageNet's training images, RGB, as share of 255
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def build(
    name: str,
    *,
    weights: str | Path,
    image_size: int | None,
    offline: bool = False,
    on_progress: Progress | None = None,
) -> keras.Model:
    """Return a backbone: pixels float32 0-255 (n, s, s, 3) -> feature map (n, h, w, d).

    Args:
        name: as `catalog.find` knows it.
        weights: "hub" for ImageNet's, "none" for random ones, or a file or a run folder as `load_weights` takes it.
        image_size: s in px; None leaves it open, where the network allows that.
        offline: never touch the network.
        on_progress: called with done and total MB while weights are downloaded.

    Raises:
        UsageError: if there is no such network in keras.applications, or the images are too small for it.
        MissingError: if the weights are not on this machine and cannot be had.
        RunError: if the weights cannot be read, or belong to another network.
    """
    return _build(catalog.find(name), weights, image_size, offline, on_progress)


def build_with_top(
    name: str,
    *,
    weights: str = "hub",
    image_size: int | None = None,
    offline: bool = False,
    on_progress: Progress | None = None,
) -> keras.Model:
    """Return the whole network: pixels float32 0-255 (n, s, s, 3) -> ImageNet probabilities (n, 1000).

    Args:
        weights: "hub" for ImageNet's, or "none" for random ones.
        image_size: s in px; None is the published size. Weights of a network that flattens its map fit that one alone.

    Raises:
        UsageError, MissingError, RunError: as `build` does.
    """
    facts = catalog.find(name)
    return _build(facts, weights, image_size or facts.image_size, offline, on_progress, include_top=True)


def _build(
    facts: ModelFacts,
    weights: str | Path,
    image_size: int | None,
    offline: bool,
    on_progress: Progress | None,
    include_top: bool = False,
) -> keras.Model:
    file = facts.with_top if include_top else facts.without_top
    if file is None:
        raise UsageError(f"{facts.name}: expected a network of keras.applications, found one of imgclf's own.")
    if weights == "hub":
        advice = "" if include_top else "Or pass a file of weights with --weights FILE."
        weights = hub.fetch(file, offline=offline, on_progress=on_progress, advice=advice)
    if image_size is None and facts.application in ("NASNetLarge", "NASNetMobile"):
        raise UsageError(f"{facts.name} needs one fixed --image-size.")
    if image_size is not None and image_size < facts.min_image_size:
        raise UsageError(f"--image-size: {facts.name} expects at least {facts.min_image_size}, found {image_size}.")
    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    application = getattr(keras.applications, str(facts.application))
    model = application(weights=None, include_top=include_top, input_tensor=preprocess(pixels, facts))
    if _is_first_efficientnet(facts):
        _normalize_as_imagenet(model)
    _rename(model)
    model = keras.Model(pixels, model.output, name=facts.name)
    if weights != "none":
        load_weights(model, Path(weights))
    return model


def preprocess(pixels: keras.KerasTensor, facts: ModelFacts) -> keras.KerasTensor:
    """Return what `keras.applications.<family>.preprocess_input` does, as layers: (n, s, s, 3) -> (n, s, s, 3).

    Always in float32: under mixed precision, preprocessing in 16 bits would round the pixels.
    """
    mean, deviation = np.array(IMAGENET_MEAN), np.array(IMAGENET_DEVIATION)
    scale: float | np.ndarray
    offset: float | np.ndarray
    if facts.preprocessing == "tf":
        scale, offset = 1 / 127.5, -1.0
    elif facts.preprocessing == "torch":
        scale, offset = 1 / (255 * deviation), -mean / deviation
    elif facts.preprocessing == "caffe":
        pixels = ops.flip(pixels, axis=-1)  # RGB -> BGR
        scale, offset = 1.0, -np.array(IMAGENET_MEAN_BGR)
    elif _is_first_efficientnet(facts):
        # Its Normalization layer divides by the root of the deviation. Keras adds the missing division behind it, but
        # only in a network built with weights="imagenet"; in front of it, it takes this form.
        scale = 1 / np.sqrt(deviation)
        offset = 255 * mean * (1 - scale)
    else:
        return pixels
    return layers.Rescaling(_plain(scale), _plain(offset), dtype="float32", name="preprocess")(pixels)


def _plain(value: float | np.ndarray) -> float | list[float]:
    """Numbers as JSON has them, for the layer's config."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _is_first_efficientnet(facts: ModelFacts) -> bool:
    return str(facts.application).startswith("EfficientNetB")


def _normalize_as_imagenet(model: keras.Model) -> None:
    """Give EfficientNet's Normalization layer the state that its ImageNet weights carry; Keras leaves it at 0 and 1."""
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.set_weights([np.array(IMAGENET_MEAN), np.array(IMAGENET_DEVIATION), np.array(0)])
            layer.finalize_state()


def _rename(model: keras.Model) -> None:
    """Give numbers to the layers and operations that Keras named by itself from the start of this network."""
    numbers: Counter[str] = Counter()
    for operation in model.operations:
        operation.name = flattening.stable_name(operation, numbers)


def load_weights(model: keras.Model, path: Path) -> None:
    """Fill a network from a file (`.h5`, `.weights.h5`, `.keras`, `backbone.npz`) or from a run of the same backbone.

    Layers that the file has beyond those of the model, such as a head, are left out.

    Raises:
        MissingError: if there is no such file.
        RunError: if it cannot be read, or belongs to another network; the model is then unchanged.
    """
    if not path.exists():
        raise MissingError(f"{path}: expected a file of weights or a run folder, found nothing there.")
    file = path
    if path.is_dir():
        file = runs.find(path).model
        if not file.is_file():
            raise RunError(f"{path}: expected a run with a backbone, found no {file.name} in it.")
    try:
        pairs = list(_stored(model, file))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise RunError(
            f"{file}: expected weights in Keras's .h5, .weights.h5 or .keras format, or a backbone.npz, found another "
            "or a damaged file. Copy or download it again."
        ) from None
    fill(model, pairs, file)


def fill(model: keras.Model, pairs: "Sequence[Pair]", origin: Path) -> None:
    """Set the weights of layers.

    Args:
        pairs: layers, each with the arrays for it in the order of `layer.weights`.
        origin: where they come from, for messages.

    Raises:
        RunError: if the shapes differ; the model is then unchanged.
    """
    for layer, arrays in pairs:
        expected, found = [tuple(v.shape) for v in layer.weights], [a.shape for a in arrays]
        if expected != found:
            raise RunError(
                f"{origin}: these weights belong to another network than {model.name}. Layer {layer.name}: expected "
                f"{listed(expected)}, found {listed(found)}. Choose the --backbone that they were made with."
            )
    for layer, arrays in pairs:
        for variable, array in zip(layer.weights, arrays, strict=True):
            variable.assign(array)
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()


def listed(shapes: Sequence[tuple[int | None, ...]]) -> str:
    """Shapes in words."""
    return " and ".join(map(str, shapes)) or "nothing"


Pair = tuple[layers.Layer, list[np.ndarray]]
Stored = Iterator[Pair]


def _stored(model: keras.Model, file: Path) -> Stored:
    """Each layer of the model that has weights, with its arrays in the file, in the order of `layer.weights`."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            keras_file = "model.weights.h5" in archive.namelist()
            weights = archive.read("model.weights.h5") if keras_file else b""
        if not keras_file:
            yield from _by_name(model.layers, file)
            return
        with h5py.File(io.BytesIO(weights)) as opened:
            yield from _by_class(model.layers, opened["layers"])
        return
    with h5py.File(file) as opened:
        if "layers" in opened and "layer_names" not in opened.attrs:
            yield from _by_class(model.layers, opened["layers"])
        else:
            yield from _by_order(model.layers, opened.get("model_weights", opened))


def _by_name(model_layers: Sequence[layers.Layer], file: Path) -> Stored:
    """Of a `backbone.npz` as `export --format backbone` writes it: `<layer>/<variable>` names each array."""
    known = documents.arrays(file)
    if not any("/" in name for name in known):
        raise ValueError("no array in it is named as <layer>/<variable>")
    for layer in model_layers:
        names = variable_names(layer)
        if names:
            yield layer, [known[name] for name in names if name in known]


def variable_names(layer: layers.Layer) -> list[str]:
    """`<layer>/<variable>` for each of a layer's weights; numbered where a layer of layers repeats a name."""
    names = [variable.name for variable in layer.weights]
    if len(set(names)) < len(names):
        names = [f"{number}_{name}" for number, name in enumerate(names)]
    return [f"{layer.name}/{name}" for name in names]


def _by_order(model_layers: Sequence[layers.Layer], group: h5py.Group) -> Stored:
    """Of a `.h5` file as Keras 2 wrote it, and the hub holds it: the n-th layer there is the n-th layer here."""
    saved = []
    for name in _names(group, "layer_names"):
        arrays = [np.asarray(group[name][weight]) for weight in _names(group[name], "weight_names")]
        if arrays:
            saved.append(arrays)
    here = [layer for layer in model_layers if layer.weights]
    for place, layer in enumerate(here):
        yield layer, saved[place] if place < len(saved) else []


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names; one too long for HDF5 is in pieces: `layer_names0`, `layer_names1`..."""
    pieces = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(pieces)}" in group.attrs:
        pieces.append(group.attrs[f"{attribute}{len(pieces)}"])
    if not pieces:
        raise KeyError(attribute)
    return [name.decode() if isinstance(name, bytes) else str(name) for piece in pieces for name in piece]


def _by_class(model_layers: Sequence[layers.Layer], group: Mapping[str, Any]) -> Stored:
    """Of a file as Keras 3 writes it: a layer is found by its class and its number among those of its class."""
    numbers: Counter[str] = Counter()
    for layer in model_layers:
        key = flattening.numbered(_snake_case(type(layer).__name__), numbers)
        inner = getattr(layer, "layers", None)
        if inner:
            yield from _by_class(inner, group[key]["layers"] if key in group else {})
        elif layer.weights:
            variables = group[key]["vars"] if key in group else {}
            yield layer, [np.asarray(variables[number]) for number in sorted(variables, key=int)]


def _snake_case(name: str) -> str:
    """Return a class's name as Keras writes it into its files: `SeparableConv2D` -> `separable_conv2d`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
