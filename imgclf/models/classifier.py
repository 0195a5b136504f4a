"""Preprocessing + backbone + head -> one classifier graph, flat, with the names that exports and explanations rely on:

`pixels` -> backbone layers -> `feature_map` -> `embedding` -> `dropout` -> `logits` -> `probabilities`

With two scales, the same backbone layers also see the image at two thirds of its size, and the embedding is the average
over both of what the maps show on average and at most. One small network on two sizes errs less than on either
(tests/benchmarks/features.py).
"""

from imgclf import environment

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

_HEAD = frozenset({
    *("doubled", "two_thirds", "feature_map", "feature_map_small"),
    *("means", "means_small", "maxima", "maxima_small", "pooled", "pooled_small"),
    *("embedding", "dropout", "logits", "probabilities"),
})  # fmt: skip


def build(
    backbone: keras.Model, classes: int, *, two_scales: bool = False, dropout: float = 0.0, seed: int = 0
) -> keras.Model:
    """Put a classification head on a backbone.

    Args:
        backbone: pixels float32 0-255 (n, s, s, 3) -> feature map (n, h, w, d).
        classes: how many classes, at least 2.
        two_scales: embed the image at its size and at two thirds of it, (n, 2 d), rather than once, (n, d).
        dropout: share of the embedding set to zero while training, in [0, 1).

    Returns:
        A model from pixels to probabilities (n, classes), float32, rows summing to 1.
    """
    x = layers.Activation("linear", dtype="float32", name="feature_map")(backbone.output)  # (n, h, w, d)
    if two_scales:
        x = layers.Average(dtype="float32", name="embedding")([_pool(x, ""), _pool(_small(backbone), "_small")])
    else:
        x = layers.GlobalAveragePooling2D(dtype="float32", name="embedding")(x)  # -> (n, d)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    head = layers.Dense(
        classes, kernel_initializer=keras.initializers.GlorotUniform(seed), dtype="float32", name="logits"
    )
    x = layers.Softmax(dtype="float32", name="probabilities")(head(x))  # -> (n, classes)
    return keras.Model(backbone.input, x, name=backbone.name)


def _small(backbone: keras.Model) -> keras.KerasTensor:
    """The map of the image at two thirds of its size: each pixel is the mean of the area that it covers."""
    x = layers.UpSampling2D(2, dtype="float32", name="doubled")(backbone.input)
    x = layers.AveragePooling2D(3, dtype="float32", name="two_thirds")(x)
    x = backbone.call(x)  # the layers themselves, which so have two places in one flat graph
    return layers.Activation("linear", dtype="float32", name="feature_map_small")(x)


def _pool(feature_map: keras.KerasTensor, suffix: str) -> keras.KerasTensor:
    """What a map shows on average and at most: (n, h, w, d) -> (n, 2 d)."""
    means = layers.GlobalAveragePooling2D(dtype="float32", name=f"means{suffix}")(feature_map)
    maxima = layers.GlobalMaxPooling2D(dtype="float32", name=f"maxima{suffix}")(feature_map)
    return layers.Concatenate(dtype="float32", name=f"pooled{suffix}")([means, maxima])


def logits(model: keras.Model) -> keras.Model:
    """The same layers up to the logits: numerically the better end for a loss.

    Args:
        model: a classifier, or the upper part of one, whose layers answer in two graphs.
    """
    history = model.output._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return keras.Model(model.input, node.input_tensors[0])


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers before the head, in the order of the graph."""
    return [layer for layer in model.layers if layer.name not in _HEAD]
