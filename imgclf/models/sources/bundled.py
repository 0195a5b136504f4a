"""The networks of imgclf itself: EfficientNet-Lite0, whose weights come with it, and those to train from scratch."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from imgclf.models import catalog
from imgclf.models.sources import DEFAULT, NONE, SCRATCH, Facts, Progress
from imgclf.settings import small_cnn

if TYPE_CHECKING:
    import keras

WEIGHTS = "bundled"
_ANY_SIZE = (DEFAULT, SCRATCH)
"""The others end in flattened pixels."""


class Bundled:
    """A network of this package."""

    weights = WEIGHTS
    portable = True

    def __init__(self, known: catalog.ModelFacts, layers: small_cnn.SmallCnn | None = None) -> None:
        self._layers = layers
        has_weights = known.name == DEFAULT
        pretrained = WEIGHTS if has_weights else None
        name = small_cnn.backbone_name(layers) if layers else known.name
        any_size = not layers.flatten if layers else known.name in _ANY_SIZE
        self.facts = Facts(name, known.image_size, pretrained, any_size=any_size, imagenet=has_weights)
        self._smallest_px = known.min_image_size

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        layers = small_cnn.parse(name)
        if layers is not None:
            return cls(catalog.MODELS[SCRATCH], layers)
        known = catalog.get(name)
        return cls(known) if known is not None and known.application is None else None

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        from imgclf.models import backbones, convnets, efficientnet_lite0, textbook

        if self._layers is not None:
            model = convnets.stack(self._layers, image_size)
        elif self.facts.name in _ANY_SIZE:
            build = efficientnet_lite0.build if self.facts.name == DEFAULT else convnets.small_cnn
            model = build(image_size)
        else:
            model = textbook.build(self.facts.name, image_size, self._smallest_px)
        if weights == WEIGHTS:
            efficientnet_lite0.load_weights(model)
        elif weights != NONE:
            backbones.load_weights(model, Path(weights))
        return model
