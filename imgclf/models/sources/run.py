"""The backbone of a run: the network of its `model.keras`, without the head, as the run trained it."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from imgclf import runs
from imgclf.models import sources
from imgclf.models.sources import NONE, Facts, Progress

if TYPE_CHECKING:
    import keras

WEIGHTS = "run"


class OfRun:
    """The backbone of one run, at the run's image size."""

    weights = WEIGHTS
    portable = False

    def __init__(self, folder: Path) -> None:
        self.run = runs.find(folder)
        size = self.run.read_config()["config"]["image_size"]
        self.facts = Facts(str(folder.resolve()), size, WEIGHTS)

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        return cls(Path(name)) if Path(name).is_dir() else None

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        from imgclf.models import stored

        sources.check_size(self.facts, image_size, self.facts.image_size)
        model = stored.backbone(self.run.model)
        if weights == NONE:
            return stored.with_random_weights(model)
        if weights != WEIGHTS:
            stored.load_weights(model, Path(weights))
        return model
