"""The networks of imgclf itself: EfficientNet-Lite0, whose weights come with it, and the small CNN, which has none."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from imgclf.models import catalog
from imgclf.models.sources import DEFAULT, NONE, Facts, Progress

if TYPE_CHECKING:
    import keras

WEIGHTS = "bundled"


class Bundled:
    """A network of this package."""

    weights = WEIGHTS
    portable = True

    def __init__(self, known: catalog.ModelFacts) -> None:
        has_weights = known.name == DEFAULT
        pretrained = WEIGHTS if has_weights else None
        self.facts = Facts(known.name, known.image_size, pretrained, any_size=True, imagenet=has_weights)

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        known = catalog.get(name)
        return cls(known) if known is not None and known.application is None else None

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        from imgclf.models import backbones, convnets, efficientnet_lite0

        build = efficientnet_lite0.build if self.facts.name == DEFAULT else convnets.small_cnn
        model = build(image_size)
        if weights == WEIGHTS:
            efficientnet_lite0.load_weights(model)
        elif weights != NONE:
            backbones.load_weights(model, Path(weights))
        return model
