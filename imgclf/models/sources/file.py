"""Backbones of one's own: a `.keras` file of a functional model with one image input and one output."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from imgclf.errors import MissingError
from imgclf.models import sources
from imgclf.models.sources import NONE, Facts, Progress

if TYPE_CHECKING:
    import keras

WEIGHTS = "file"
SUFFIX = ".keras"
DEFAULT_SIZE = 224
"""Of images, in px, for a model that takes any size."""


class File:
    """A model of the user's own. Its preprocessing is in it: it gets pixels from 0 to 255."""

    weights = WEIGHTS
    portable = False

    def __init__(self, path: Path) -> None:
        from imgclf.models import stored

        self.path = path
        self.model = stored.own(path)
        self.size = self.model.input_shape[1]
        note = f"backbone: {path}, which gets pixels from 0 to 255 and gives {stored.describe(self.model)}"
        self.facts = Facts(str(path), self.size or DEFAULT_SIZE, WEIGHTS, note=note)

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        path = Path(name)
        if path.suffix != SUFFIX:
            return None
        if not path.is_file():
            raise MissingError(f"--backbone {name}: expected a Keras model, found no such file.")
        return cls(path)

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        from imgclf.models import stored

        if self.size is not None:
            sources.check_size(self.facts, image_size, self.size)
        model = stored.at_size(self.model, image_size or self.facts.image_size)
        if weights == NONE:
            return stored.with_random_weights(model)
        if weights != WEIGHTS:
            stored.load_weights(model, Path(weights))
        return model
