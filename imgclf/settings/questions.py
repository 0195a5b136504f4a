"""How questions are asked: of which images, with which features, and how often."""

from dataclasses import dataclass

from imgclf.settings.augmentation import SIZE
from imgclf.settings.base import Check, Config, at_least, between, setting
from imgclf.settings.classical import MODELS, NETWORK
from imgclf.settings.dataset import DataConfig
from imgclf.settings.reading import Decoding

FEATURES = "Features"

AUTO = "auto"
"""The capacity that the model has of its own."""


@dataclass(frozen=True)
class EmbeddingConfig(DataConfig, Decoding):
    """Which images to ask about, and the backbone whose embedding stands for them."""

    backbone: str = setting("auto", "Backbone of the embedding.", panel=FEATURES, metavar="NAME", everyday=True)
    image_size: int | None = setting(None, "Side of the square images, in pixels.", panel=FEATURES, check=SIZE)


@dataclass(frozen=True)
class SuspectsConfig(EmbeddingConfig):
    """How to look for wrong labels."""

    top: int = setting(50, "Number of suspects, the worst first.", check=at_least(1), everyday=True)
    folds: int = setting(5, "Number of folds.", check=at_least(2), everyday=True)


@dataclass(frozen=True)
class DriftConfig(Config):
    """How to compare new images with those of a run."""

    false_alarms: float = setting(
        0.01,
        "Probability of a false alarm, over all tests together.",
        check=Check(lambda value: 0 < value < 1, "a number above 0 and below 1"),
        everyday=True,
    )
    seed: int = setting(0, "Random seed.", check=between(0, 2**32 - 1, "for the seed"))


@dataclass(frozen=True)
class CurvesConfig(EmbeddingConfig):
    """How to draw learning curves."""

    model: str = setting(NETWORK, "Kind of classifier", choices=MODELS, everyday=True)
    sizes: int = setting(8, "Number of training sizes.", check=between(3, 50), everyday=True)
    capacity: str = setting(
        AUTO, "What to vary besides the size", choices=(AUTO, "features", "C", "k", "max-depth"), everyday=True
    )
    repeats: int = setting(5, "Training sets of each size.", check=between(2, 100), everyday=True)


@dataclass(frozen=True)
class SuggestConfig(Config):
    """How to choose images to label."""

    top: int = setting(100, "Number of images to suggest.", check=at_least(1), everyday=True)
    by: str = setting("both", "What to choose by", choices=("both", "uncertainty", "diversity"), everyday=True)
    seed: int = setting(0, "Random seed.", check=between(0, 2**32 - 1, "for the seed"))
