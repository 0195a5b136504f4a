"""Backbones out of `.keras` files: a user's own model, and the network of a run without its head."""

import zipfile
from pathlib import Path
from typing import Any

from imgclf import documents, environment, runs
from imgclf.errors import MissingError, RunError, UsageError
from imgclf.models import backbones, classifier, flattening

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

_IN_FLOAT32 = (layers.Rescaling, layers.Normalization)
"""16 bits would round the pixels."""


def own(path: Path) -> keras.Model:
    """Return a user's own backbone: pixels (n, s, s, 3) -> map (n, h, w, d), tokens (n, t, d) or vector (n, d).

    Raises:
        RunError: if the file is damaged.
        UsageError: if it holds no such model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
        documents.parse(config)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: expected a model in Keras's .keras format, found something else ({error}).") from None
    if '"class_name": "Lambda"' in config or '"__lambda__"' in config:
        raise UsageError(
            f"{path}: the model has a Lambda layer, which is code in a file and would run unseen. Express it with "
            "keras.ops or a layer of Keras, such as Rescaling, and save the model again."
        )
    try:
        model = flattening.load(path)
    except Exception as error:  # a foreign file makes Keras raise nearly anything
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UsageError(
            f"{path}: Keras cannot load this model ({reason[:200]}). A backbone consists of layers of Keras alone."
        ) from None
    _check(path, model)
    return model


def _check(path: Path, model: keras.Model) -> None:
    if not hasattr(getattr(model, "_functional", model), "_run_through_graph"):
        raise UsageError(f"{path}: expected a functional or sequential model, found {type(model).__name__}.")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != shapes[0][2]:
        raise UsageError(f"{path}: expected one input of square images (n, s, s, 3), found {backbones.listed(shapes)}.")
    if shapes[0][3] != 3:
        raise UsageError(f"{path}: expected 3 channels, red, green and blue, found an input of {shapes[0]}.")
    outputs = [tuple(tensor.shape) for tensor in model.outputs]
    if len(outputs) != 1 or len(outputs[0]) not in (2, 3, 4) or outputs[0][-1] is None:
        raise UsageError(
            f"{path}: expected one output, a map (n, h, w, d), tokens (n, t, d) or a vector (n, d), "
            f"found {backbones.listed(outputs)}."
        )
    last = flattening.operations(model.outputs)[-1]
    if isinstance(last, layers.Softmax) or getattr(getattr(last, "activation", None), "__name__", "") == "softmax":
        raise UsageError(
            f"{path}: the model ends in the probabilities of {outputs[0][-1]} classes. "
            "Save it without its head: keras.Model(model.input, model.layers[-2].output)."
        )


def describe(model: keras.Model) -> str:
    """Return what a backbone gives, and how it becomes an embedding, in words."""
    shape = model.output_shape
    what = {4: "a map, which is averaged", 3: "tokens, which are averaged", 2: "a vector"}[len(shape)]
    return f"{what} (d = {shape[-1]})"


def at_size(model: keras.Model, image_size: int) -> keras.Model:
    """Return a user's model as a flat graph of one size, with the names that a classifier expects."""
    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    try:
        outputs = flattening.flatten(model, pixels)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--image-size: images of {image_size} px do not fit {model.name} ({reason}).") from None
    flattening.rename(outputs)
    return keras.Model(pixels, outputs, name=model.name)


def backbone(path: Path) -> keras.Model:
    """Return the network of a run's `model.keras` or `backbone.keras`, without a head.

    Raises:
        RunError: if the file is missing or damaged, or holds no network of imgclf.
    """
    try:
        model = flattening.load(path)
        is_classifier = any(layer.name == "embedding" for layer in model.layers)
        return classifier.backbone(model) if is_classifier else model
    except ImportError as error:
        raise MissingError(
            f"{path}: its backbone is one of KerasHub ({error}). pip install 'imgclf[keras-hub]'"
        ) from None
    except Exception as error:  # a foreign file makes Keras raise nearly anything
        raise RunError(f"{path}: expected a network of imgclf, found something else ({error}).") from None


def with_random_weights(model: keras.Model) -> keras.Model:
    """Return the same graph with new weights."""
    return keras.models.clone_model(model)


def load_weights(model: keras.Model, path: Path) -> None:
    """Fill a network from a run of the same backbone, layer by layer, by their names; or from a `backbone.npz`.

    Raises:
        MissingError, RunError: as `backbones.load_weights` does.
    """
    if not path.is_dir():
        backbones.load_weights(model, path)
        return
    theirs = {layer.name: layer.get_weights() for layer in backbone(runs.find(path).model).layers}
    backbones.fill(model, [(layer, theirs.get(layer.name, [])) for layer in model.layers if layer.weights], path)


def at_precision(model: keras.Model, policy: str) -> keras.Model:
    """Return a classifier in another precision, with its weights; preprocessing and head stay in 32 bits."""

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        is_free = isinstance(layer, layers.Layer) and not isinstance(layer, (*_IN_FLOAT32, layers.InputLayer))
        if is_free and layer.name not in flattening.RESERVED:
            config["dtype"] = policy
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=copy)
    twin.set_weights(model.get_weights())
    return twin
