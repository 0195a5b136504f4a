"""Build a classifier graph: preprocessing, backbone, head, and the outputs that exports use.

`pixels` -> backbone layers -> `feature_map` -> `embedding` -> `dropout` -> `logits` -> the output of the task

There is a `feature_map` where the backbone gives one. The output is called `probabilities` or `values`.
"""

from imgclf import environment, tasks
from imgclf.models.flattening import RESERVED

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402


def build(
    backbone: keras.Model, classes: int, *, dropout: float = 0.0, seed: int = 0, task: str = tasks.DEFAULT
) -> keras.Model:
    """Put the head of a task on a backbone.

    Args:
        backbone: pixels float32 0-255 (n, s, s, 3) -> map (n, h, w, d) or tokens (n, t, d), whose average is the
            embedding, or the embedding itself (n, d).
        classes: number of outputs: for `multiclass` at least 2.
        dropout: share of the embedding set to zero in training, in [0, 1).

    Returns:
        A model from pixels to the task's output (n, classes), float32.
    """
    x = backbone.output
    if len(x.shape) == 4:
        x = layers.Activation("linear", dtype="float32", name="feature_map")(x)  # (n, h, w, d)
        x = layers.GlobalAveragePooling2D(dtype="float32", name="embedding")(x)  # -> (n, d)
    elif len(x.shape) == 3:
        x = layers.GlobalAveragePooling1D(dtype="float32", name="embedding")(x)  # (n, t, d) -> (n, d)
    else:
        x = layers.Activation("linear", dtype="float32", name="embedding")(x)  # (n, d)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    head = layers.Dense(
        classes, kernel_initializer=keras.initializers.GlorotUniform(seed), dtype="float32", name="logits"
    )
    output = _output(classes, tasks.find(task))
    return keras.Model(backbone.input, output(head(x)), name=backbone.name)  # -> (n, classes)


def _output(classes: int, task: tasks.Task) -> keras.layers.Layer:
    """Return the last layer, which is not trained: its weights give the logits the units of the outputs, if any."""
    if task.ACTIVATION == "softmax":
        return layers.Softmax(dtype="float32", name=task.OUTPUT)
    if task.ACTIVATION != "linear":
        return layers.Activation(task.ACTIVATION, dtype="float32", name=task.OUTPUT)
    return layers.Dense(classes, kernel_initializer="identity", dtype="float32", name=task.OUTPUT, trainable=False)


def logits(model: keras.Model) -> keras.Model:
    """Return the same layers up to the logits: numerically the better end for a loss.

    Args:
        model: a classifier, or the upper part of one.
    """
    history = model.output._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return keras.Model(model.input, node.input_tensors[0])


def backbone(model: keras.Model) -> keras.Model:
    """Return what a classifier stands on: pixels -> map, tokens or vector; the layers are the classifier's own."""
    head = model.get_layer("feature_map" if has_map(model) else "embedding")
    return keras.Model(model.input, head._inbound_nodes[0].input_tensors[0], name=model.name)


def has_map(model: keras.Model) -> bool:
    """Whether the embedding is the average of a feature map, which class activation maps need."""
    return any(layer.name == "feature_map" for layer in model.layers)


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers before the head, in the order of the graph."""
    return [layer for layer in model.layers if layer.name not in RESERVED]
