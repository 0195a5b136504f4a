"""The networks of keras.applications, with ImageNet's weights from Keras's server."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from imgclf.models import catalog
from imgclf.models.sources import NONE, Facts, Progress

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
        self,
        image_size: int | None,
        weights: str,
        *,
        offline: bool = False,
        on_progress: Progress | None = None,
    ) -> "keras.Model":
        from imgclf.models import backbones

        source: Literal["hub", "none"] | Path
        source = "hub" if weights == WEIGHTS else "none" if weights == NONE else Path(weights)
        return backbones.build(
            self.facts.name, weights=source, image_size=image_size, offline=offline, on_progress=on_progress
        )
