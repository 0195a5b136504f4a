"""The networks of keras.applications, with ImageNet's weights from Keras's server."""

from typing import TYPE_CHECKING, Self

from imgclf.models import catalog
from imgclf.models.sources import Facts, Progress

if TYPE_CHECKING:
    import keras

WEIGHTS = "hub"


class Application:
    """A network of keras.applications."""

    weights = WEIGHTS
    portable = True

    def __init__(self, known: catalog.ModelFacts) -> None:
        self.facts = Facts(known.name, known.image_size, WEIGHTS, any_size=True, imagenet=True)

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        known = catalog.get(name)
        return cls(known) if known is not None and known.application is not None else None

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        from imgclf.models import backbones

        return backbones.build(
            self.facts.name, weights=weights, image_size=image_size, offline=offline, on_progress=on_progress
        )
