"""Fine-tuning: which layers move."""

import keras

from imgclf.models import classifier

UNFROZEN_SHARE = 1 / 3


def freeze(model: keras.Model) -> None:
    """Hold the whole backbone still; the head stays free."""
    for layer in classifier.backbone_layers(model):
        layer.trainable = False


def unfreeze_upper(model: keras.Model, share: float = UNFROZEN_SHARE) -> int:
    """Free the upper layers of the backbone and the head.

    Batch normalisation stays frozen, which in Keras means inference mode: its statistics are those of the pretraining,
    and small batches must not spoil them.

    Returns:
        How many layers with weights were freed in the backbone.
    """
    weighted = [layer for layer in classifier.backbone_layers(model) if layer.weights]
    kept_still = weighted[: round(len(weighted) * (1 - share))]
    free = 0
    for layer in weighted:
        layer.trainable = layer not in kept_still and not isinstance(layer, keras.layers.BatchNormalization)
        free += layer.trainable
    return free
