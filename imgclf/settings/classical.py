"""Which kind of classifier to train, and how the classical ones are fitted."""

from dataclasses import dataclass

from imgclf.settings.base import Config, at_least, setting

MODEL = "Model"
CLASSICAL = "Classical models"
NETWORK = "network"
MODELS = (NETWORK, "knn")


@dataclass(frozen=True)
class Kind(Config):
    """The kind of classifier, and the parameters of the classical ones."""

    model: str = setting(NETWORK, "Kind of classifier", panel=MODEL, choices=MODELS, everyday=True)
    k: int = setting(5, "Number of neighbors (knn).", panel=CLASSICAL, check=at_least(1))
    neighbor_weights: str = setting(
        "uniform", "Weights of the neighbors (knn)", panel=CLASSICAL, choices=("uniform", "distance")
    )
    search_algorithm: str = setting(
        "brute", "Search for neighbors (knn)", panel=CLASSICAL, choices=("brute", "kd-tree")
    )
