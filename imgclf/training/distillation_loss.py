"""The loss and the accuracy of a student: see `distillation`."""

from collections.abc import Callable
from typing import Any

from imgclf import environment

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)


def loss(temperature: float, label_weight: float, label_smoothing: float) -> Callable[[Any, Any], Any]:
    """Return the loss of logits (b, classes) for targets as `distillation.Lessons` has them, float32 (b,)."""

    def mixed(targets: Any, logits: Any) -> Any:
        classes = logits.shape[-1]
        targets = keras.ops.cast(targets, logits.dtype)
        truth, soft = targets[:, :classes], targets[:, classes:]
        labeled = keras.ops.sum(truth, axis=-1)  # 1 or 0; where images are mixed, between the two
        smooth = truth * (1 - label_smoothing) + labeled[:, None] * label_smoothing / classes
        hard = -keras.ops.sum(smooth * keras.ops.log_softmax(logits), axis=-1)
        match = -keras.ops.sum(soft * keras.ops.log_softmax(logits / temperature), axis=-1)
        return label_weight * hard + (1 - label_weight * labeled) * temperature**2 * match

    return mixed


def accuracy() -> keras.metrics.Metric:
    """Return the share of training images classified correctly; an unlabeled one counts as what the teacher says."""

    def is_correct(targets: Any, logits: Any) -> Any:
        classes = logits.shape[-1]
        label = keras.ops.argmax(2 * targets[:, :classes] + targets[:, classes:], axis=-1)
        return keras.ops.cast(keras.ops.equal(label, keras.ops.argmax(logits, axis=-1)), "float32")

    return keras.metrics.MeanMetricWrapper(is_correct, name="accuracy")
