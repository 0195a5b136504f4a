"""Maps that need the network itself: Grad-CAM for convolutions, attention rollout for Vision Transformers."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.errors import UsageError
from imgclf.models import classifier, flattening, graph

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers, ops  # noqa: E402


def load(path: Path) -> keras.Model:
    """Return the classifier of a run's `model.keras`."""
    return flattening.load(path)


def attention_layers(model: keras.Model) -> list[layers.MultiHeadAttention]:
    """Return the attention layers of a network, in the order of computation, also those inside blocks."""
    return [
        inner
        for layer in model.layers
        for inner in dict.fromkeys(layer._flatten_layers())
        if isinstance(inner, layers.MultiHeadAttention)
    ]


def last_map(model: keras.Model) -> str | None:
    """Return the name of the last layer that gives a map of several places, from the first layer with weights on.

    None for networks without one.
    """
    found, learned = None, False
    for step in graph.steps(model):
        learned = learned or bool(getattr(step.operation, "weights", ()))
        is_map = len(step.output) == 3 and math.prod(side or 1 for side in step.output[:2]) > 1
        if learned and is_map and isinstance(step.operation, layers.Layer):
            found = step.operation.name
    return found


def grad_cam(model: keras.Model, pixels: np.ndarray, classes: list[int]) -> list[np.ndarray]:
    """Grad-CAM at the last map of a network.

    With global average pooling it is the class activation map, divided by the number of places and cut at 0.

    Args:
        model: a classifier, from pixels to probabilities.
        pixels: uint8 (s, s, 3).
        classes: the indices of the classes.

    Returns:
        A map, float32 (h, w), for each class.

    Raises:
        UsageError: if the network has no map, or the backend gives no gradients.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2.
    """
    name = last_map(model)
    if name is None:
        raise UsageError(
            f"--method gradcam: expected a network with convolutions, found {model.name}, whose layers give no map."
        )
    target, logits = model.get_layer(name).output, classifier.logits(model).output
    lower, upper = keras.Model(model.input, target), keras.Model(target, logits)
    features = lower(ops.convert_to_tensor(pixels[None], "float32"), training=False)  # (1, h, w, d)
    maps = []
    for index in classes:

        def score(tensor: Any, index: int = index) -> Any:
            return upper(tensor, training=False)[0, index]

        weights = ops.mean(gradient(score, features), axis=(0, 1, 2))  # (d,)
        found = ops.relu(ops.sum(features[0] * weights, axis=-1))
        maps.append(ops.convert_to_numpy(found).astype(np.float32))
    return maps


def gradient(score: Callable[[Any], Any], tensor: Any) -> Any:
    """Return the gradient of a number with respect to a tensor.

    Raises:
        UsageError: if the backend gives none.
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = score(tensor)
        return tape.gradient(value, tensor)
    if backend == "jax":
        import jax

        return jax.grad(score)(tensor)
    raise UsageError(f"KERAS_BACKEND: expected tensorflow or jax for gradients, found {backend}.")


def rollout(model: keras.Model, pixels: np.ndarray, classes: list[int] | None = None) -> list[np.ndarray]:
    """Attention rollout: how much of each patch reaches the output through all attention layers.

    Args:
        model: a Vision Transformer whose layers attend to all tokens.
        pixels: uint8 (s, s, 3).
        classes: the indices of the classes, for the gradient-weighted form; None for the plain one, which knows no
            class.

    Returns:
        A map, float32 (h, w), for each class; one without classes.

    Raises:
        UsageError: if the network has no such attention, or the backend gives no gradients.

    Source: Abnar and Zuidema 2020, arXiv:2005.00928. Gradient-weighted: Chefer et al. 2021, arXiv:2103.15679, eq. 5, 6.
    """
    attending = attention_layers(model)
    if not attending:
        raise UsageError(
            f"--method rollout: expected a Vision Transformer, found {model.name}, which has no attention."
        )
    network = classifier.logits(model)
    image = ops.convert_to_tensor(pixels[None], "float32")
    with recorded(attending) as (found, _):
        network(image, training=False)
    matrices = [ops.convert_to_numpy(item)[0] for item in found]  # each (heads, tokens, tokens)
    if len({matrix.shape[1:] for matrix in matrices}) != 1 or matrices[0].shape[1] != matrices[0].shape[2]:
        raise UsageError(
            f"--method rollout: expected layers that attend to all tokens, found {model.name}, which attends within "
            "windows or between different tokens. --method occlusion works for it."
        )
    if classes is None:
        return [_grid(rolled([matrix.mean(axis=0) for matrix in matrices]))]
    maps = []
    for index in classes:
        weights = _attention_gradients(network, attending, image, matrices, index)
        weighted = [np.maximum(w * m, 0).mean(axis=0) for w, m in zip(weights, matrices, strict=True)]
        maps.append(_grid(_relevance(weighted)))
    return maps


def _attention_gradients(
    network: keras.Model, attending: list[Any], image: Any, matrices: list[np.ndarray], index: int
) -> list[np.ndarray]:
    """Return the gradient of a logit with respect to each attention matrix: of a change that is added to it."""
    sizes = [matrix.size for matrix in matrices]
    starts = np.cumsum([0, *sizes])

    def score(changes: Any) -> Any:
        with recorded(attending) as (_, added):
            added += [
                ops.reshape(changes[start : start + size], (1, *matrix.shape))
                for start, size, matrix in zip(starts, sizes, matrices, strict=False)
            ]
            return network(image, training=False)[0, index]

    found = ops.convert_to_numpy(gradient(score, ops.zeros((sum(sizes),))))
    return [
        found[start : start + size].reshape(matrix.shape)
        for start, size, matrix in zip(starts, sizes, matrices, strict=False)
    ]


@contextmanager
def recorded(attending: list[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Note the attention matrices of some layers while the block runs, and add changes to them.

    Yields:
        The matrices in the order of computation, each (n, heads, tokens, tokens); and a list for what to add to them.
    """
    found: list[Any] = []
    added: list[Any] = []

    def attend(
        layer: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, *_: Any, **__: Any
    ) -> tuple[Any, Any]:
        query = ops.multiply(query, ops.cast(layer._inverse_sqrt_key_dim, query.dtype))
        scores = ops.einsum(layer._dot_product_equation, key, query)
        weights = layer._masked_softmax(scores, attention_mask)
        if len(found) < len(added):
            weights = weights + ops.cast(added[len(found)], weights.dtype)
        found.append(weights)
        return ops.einsum(layer._combine_equation, weights, value), weights

    for layer in attending:
        vars(layer)["_compute_attention"] = attend.__get__(layer)
    try:
        yield found, added
    finally:
        for layer in attending:
            del vars(layer)["_compute_attention"]


def rolled(matrices: list[np.ndarray]) -> np.ndarray:
    """Multiply attention matrices, each averaged with the identity, which stands for the residual connection.

    Args:
        matrices: each float (tokens, tokens), rows summing to 1, from the input up.

    Returns:
        float (tokens,): how much of each token reaches the mean of the outputs.
    """
    total = np.eye(len(matrices[0]))
    for matrix in matrices:
        total = (0.5 * matrix + 0.5 * np.eye(len(matrix))) @ total
    found: np.ndarray = total.mean(axis=0)
    return found


def _relevance(matrices: list[np.ndarray]) -> np.ndarray:
    """As `rolled`, for matrices whose rows sum to anything: each adds to what came before."""
    total = np.eye(len(matrices[0]))
    for matrix in matrices:
        total = total + matrix @ total
    found: np.ndarray = (total - np.eye(len(total))).mean(axis=0)
    return found


def _grid(tokens: np.ndarray) -> np.ndarray:
    """Return the patches among the tokens as a square; class and register tokens come before them."""
    side = math.isqrt(len(tokens))
    return tokens[len(tokens) - side * side :].reshape(side, side).astype(np.float32)
