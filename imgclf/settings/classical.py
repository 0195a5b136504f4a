"""Which kind of classifier to train, and how the classical ones are fitted."""

from dataclasses import dataclass
from typing import Any

from imgclf.settings.base import Check, Config, at_least, setting

MODEL = "Model"
CLASSICAL = "Classical models"
NETWORK = "network"
MODELS = (NETWORK, "knn")
FEATURES = (
    *("embedding", "mean-color", "color-grid", "intensity-histogram", "color-histogram", "spatial-histogram"),
    *("texture", "lbp", "hog", "pixels"),
)


def kind_setting(help: str, *, panel: str, everyday: bool = False) -> Any:
    """The kind of a feature vector, or several joined by +."""
    check = Check(lambda text: bool(text.strip()), "kinds of feature vectors")
    return setting(
        "embedding",
        help,
        panel=panel,
        metavar="KIND+...",
        choices=FEATURES,
        check=check,
        everyday=everyday,
    )


@dataclass(frozen=True)
class Kind(Config):
    """The kind of classifier, and the parameters of the classical ones."""

    model: str = setting(NETWORK, "Kind of classifier", panel=MODEL, choices=MODELS, everyday=True)
    features: str = kind_setting("Feature vector of a classical model", panel=CLASSICAL)
    k: int = setting(5, "Number of neighbors (knn).", panel=CLASSICAL, check=at_least(1))
    neighbor_weights: str = setting(
        "uniform", "Weights of the neighbors (knn)", panel=CLASSICAL, choices=("uniform", "distance")
    )
    search_algorithm: str = setting(
        "brute", "Search for neighbors (knn)", panel=CLASSICAL, choices=("brute", "kd-tree")
    )
