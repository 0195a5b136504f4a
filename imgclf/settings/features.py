"""Which feature vectors to compute, and how to draw them."""

from dataclasses import dataclass

from imgclf.settings.augmentation import SIZE
from imgclf.settings.base import Check, items, setting
from imgclf.settings.classical import CLASSICAL_MODELS, Kind, kind_setting
from imgclf.settings.dataset import DataConfig
from imgclf.settings.reading import Decoding

VECTORS = "Feature vectors"
NO_MODEL = "none"


@dataclass(frozen=True)
class FeaturesConfig(DataConfig, Kind, Decoding):
    """Which feature vectors to compute, and how to draw them."""

    features: str = kind_setting("Kinds of feature vectors", panel=VECTORS, everyday=True)
    image_size: int | None = setting(
        None, "Side of the square images, in pixels.", panel=VECTORS, check=SIZE, everyday=True
    )
    backbone: str = setting("auto", "Backbone of the embedding.", panel=VECTORS, metavar="NAME", everyday=True)
    projection: str = setting("pca", "Projection of the map", panel=VECTORS, choices=("pca", "tsne"), everyday=True)
    columns: str | None = setting(
        None,
        "Two columns as the axes of the map.",
        panel=VECTORS,
        metavar="X,Y",
        check=Check(lambda text: len(items(text)) == 2, "two columns, separated by a comma"),
        everyday=True,
    )
    model: str = setting(
        NO_MODEL,
        "Decision regions on two columns",
        panel=VECTORS,
        choices=(NO_MODEL, *CLASSICAL_MODELS),
        everyday=True,
    )
