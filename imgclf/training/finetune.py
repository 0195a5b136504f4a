"""Choose the layers that fine-tuning trains."""

import logging

import keras

from imgclf.models import classifier, graph

log = logging.getLogger("imgclf")

UNFROZEN_SHARE = 1 / 3
"""Of the backbone's multiply-adds."""


def freeze(model: keras.Model) -> None:
    """Hold the whole backbone still; the head stays free."""
    for layer in classifier.backbone_layers(model):
        layer.trainable = False


def unfreeze(model: keras.Model, request: str | None = None, *, batch_norm: str = "frozen") -> graph.Cut | None:
    """Free the upper layers of the backbone, and the head.

    Frozen batch normalisation, which in Keras means inference mode, keeps the statistics of the pretraining, which
    small batches must not spoil.

    Args:
        model: a classifier of one fixed image size.
        request: the layer or block from which on layers move, or a share of the multiply-adds; None is UNFROZEN_SHARE.
        batch_norm: `frozen`, or `train` where that of the free layers moves, too.

    Returns:
        The boundary below the free layers; None where none is near, and layers move from the one asked for on.

    Raises:
        UsageError: if there is no layer of that name.
    """
    wanted = graph.requested_share(model, request or str(UNFROZEN_SHARE))
    cut = graph.nearest(model, wanted)
    still = graph.below(model, cut.layer) if cut else graph.first_layers(model, wanted)
    free = 0
    for layer in classifier.backbone_layers(model):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name not in still and (batch_norm == "train" or not normalises)
        free += layer.trainable and bool(layer.weights)
    asked = f"{request or f'{UNFROZEN_SHARE:.0%} of the arithmetic'}"
    if cut:
        log.info(
            "fine-tune: asked for %s; everything above %s moves: %d layers, %.0f %% of the multiply-adds",
            asked,
            cut.layer,
            free,
            100 * cut.share,
        )
    else:
        log.info(
            "fine-tune: asked for %s; no single tensor near there holds all that passes, so there is no boundary to "
            "keep activations at: %d layers move",
            asked,
            free,
        )
    return cut
