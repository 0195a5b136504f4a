"""Fine-tuning: which layers are trainable."""

import logging

from imgclf import environment
from imgclf.models import classifier, graph

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

log = logging.getLogger("imgclf")

UNFROZEN_SHARE = 1 / 3
"""Share of the backbone's multiply-adds."""


def freeze(model: keras.Model) -> None:
    """Freeze the whole backbone; the head stays trainable."""
    for layer in classifier.backbone_layers(model):
        layer.trainable = False


def unfreeze(model: keras.Model, request: str = "", *, batch_norm: str = "frozen") -> graph.Cut | None:
    """Unfreeze the upper layers of the backbone.

    Frozen batch normalization, which in Keras means inference mode, keeps the statistics of the pretraining, which
    small batches must not spoil.

    Args:
        model: a classifier of one fixed image size.
        request: the lowest trainable layer or block, or a share of the multiply-adds; UNFROZEN_SHARE if empty.
        batch_norm: `frozen`, or `train` for trainable batch normalization in the unfrozen layers.

    Returns:
        The cut below the unfrozen layers; None where none is near, and the first unfrozen layer is the one asked for.

    Raises:
        UsageError: if there is no layer of that name.
    """
    wanted = graph.requested_share(model, request or str(UNFROZEN_SHARE))
    cut = graph.nearest(model, wanted)
    frozen = graph.below(model, cut.layer) if cut else graph.first_layers(model, wanted)
    count = 0
    for layer in classifier.backbone_layers(model):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name not in frozen and (batch_norm == "train" or not normalizes)
        count += layer.trainable and bool(layer.weights)
    text = f"Fine-tuning {request or f'{UNFROZEN_SHARE:.0%} of the arithmetic'}: "
    if cut:
        share = f"{100 * cut.share:.0f}% of the multiply-adds"
        log.info("%sthe layers above %s are trainable (%d with weights, %s).", text, cut.layer, count, share)
    else:
        log.info(
            "%s%d layers with weights are trainable. No cut is near, so activations cannot be cached.", text, count
        )
    return cut
