"""Auxiliary heads: classifiers amid a deep network, which exist while it is trained from random weights.

Their losses, each with the weight WEIGHT, add to that of the network's own head, so that gradients reach the lower
layers. The model that `fit` trains returns all logits side by side, the network's own first; what is stored has no
others.

Source: Szegedy et al. 2014, arXiv:1409.4842, section 5.
"""

from collections.abc import Callable, Sequence
from typing import Any

from imgclf import environment

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

WEIGHT = 0.3


def attach(logits: keras.Model, places: Sequence[str], seed: int = 0) -> keras.Model:
    """Return the same layers with a head at each place: pixels (n, s, s, 3) -> logits (n, (1 + places) * classes).

    Args:
        logits: pixels -> logits (n, classes).
        places: names of layers with a map of at least 5 px.
    """
    classes, found = logits.output_shape[-1], [logits.output]
    for number, place in enumerate(places, start=seed):
        name = f"auxiliary_{place}"
        x = layers.AveragePooling2D(5, 3, dtype="float32", name=f"{name}_pool")(logits.get_layer(place).output)
        x = layers.Conv2D(
            128, 1, activation="relu", dtype="float32", name=f"{name}_conv", **_init("he_normal", number)
        )(x)
        x = layers.Flatten(name=f"{name}_flatten")(x)
        x = layers.Dense(1024, activation="relu", dtype="float32", name=f"{name}_dense", **_init("he_normal", number))(
            x
        )
        x = layers.Dropout(0.7, seed=number, dtype="float32", name=f"{name}_dropout")(x)
        x = layers.Dense(classes, dtype="float32", name=f"{name}_logits", **_init("glorot_uniform", number))(x)
        found.append(x)
    return keras.Model(logits.input, layers.Concatenate(dtype="float32", name="all_logits")(found), name=logits.name)


def _init(name: str, seed: int) -> dict[str, Any]:
    return {"kernel_initializer": keras.initializers.get({"class_name": name, "config": {"seed": seed}})}


def loss(own: Callable[[Any, Any], Any], classes: int) -> Callable[[Any, Any], Any]:
    """Return the loss of all logits: that of the network's own, and WEIGHT times that of each other head's.

    Args:
        own: the loss of logits (b, classes).
    """

    def summed(targets: Any, logits: Any) -> Any:
        heads = [logits[:, start : start + classes] for start in range(0, logits.shape[-1], classes)]
        return own(targets, heads[0]) + WEIGHT * sum(own(targets, head) for head in heads[1:])

    return summed


class OfOwnHead(keras.metrics.Metric):
    """A metric of the network's own logits.

    Args:
        metric: of logits (b, classes), or the name of one.
    """

    def __init__(self, metric: Any, classes: int) -> None:
        is_name = isinstance(metric, str)
        super().__init__(name=metric if is_name else metric.name)
        self._own = keras.metrics.CategoricalAccuracy() if is_name else metric
        self._classes = classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """See Keras."""
        self._own.update_state(y_true, y_pred[:, : self._classes], sample_weight)

    def result(self) -> Any:
        """See Keras."""
        return self._own.result()

    def reset_state(self) -> None:
        """See Keras."""
        self._own.reset_state()
