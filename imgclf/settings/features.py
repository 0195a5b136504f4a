"""Which feature vectors to compute, and how to draw them."""

from dataclasses import dataclass

from imgclf.settings.augmentation import SIZE
from imgclf.settings.base import setting
from imgclf.settings.classical import kind_setting
from imgclf.settings.dataset import DataConfig
from imgclf.settings.reading import Decoding

VECTORS = "Feature vectors"


@dataclass(frozen=True)
class FeaturesConfig(DataConfig, Decoding):
    """Which feature vectors to compute, and how to draw them."""

    features: str = kind_setting("Kinds of feature vectors", panel=VECTORS, everyday=True)
    image_size: int | None = setting(
        None, "Side of the square images, in pixels.", panel=VECTORS, check=SIZE, everyday=True
    )
    backbone: str = setting("auto", "Backbone of the embedding.", panel=VECTORS, metavar="NAME", everyday=True)
    projection: str = setting("pca", "Projection of the map", panel=VECTORS, choices=("pca", "tsne"), everyday=True)
