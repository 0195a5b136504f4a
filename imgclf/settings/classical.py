"""Which kind of classifier to train, and how the classical ones are fitted."""

from dataclasses import dataclass
from typing import Any

from imgclf.settings.base import POSITIVE, Check, Config, at_least, setting

MODEL = "Model"
CLASSICAL = "Classical models"
NETWORK = "network"
GENERATIVE, DISCRIMINATIVE = "generative", "discriminative"
CLASSICAL_MODELS = {
    "knn": ("k nearest neighbors", DISCRIMINATIVE),
    "tree": ("decision tree", DISCRIMINATIVE),
    "forest": ("random forest", DISCRIMINATIVE),
    "svm": ("support vector machine", DISCRIMINATIVE),
    "logreg": ("logistic regression", DISCRIMINATIVE),
    "naive-bayes": ("Gaussian naive Bayes", GENERATIVE),
}
"""By `--model`: what it is, and whether it models how images of a class look, or only what tells the classes apart."""

MODELS = (NETWORK, *CLASSICAL_MODELS)
FEATURES = (
    *("embedding", "mean-color", "color-grid", "intensity-histogram", "color-histogram", "spatial-histogram"),
    *("texture", "lbp", "hog", "pixels"),
)


def kind_setting(help: str, *, panel: str, everyday: bool = False) -> Any:
    """Return the kind of a feature vector, or several joined by +."""
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
    kernel: str = setting("rbf", "Kernel (svm)", panel=CLASSICAL, choices=("linear", "rbf", "poly"))
    C: float = setting(1.0, "Inverse strength of regularization (svm, logreg).", panel=CLASSICAL, check=POSITIVE)
    gamma: float | None = setting(
        None, "Width of the kernel (svm); the default follows the data.", panel=CLASSICAL, check=POSITIVE
    )
    max_depth: int | None = setting(None, "Maximum depth (tree, forest).", panel=CLASSICAL, check=at_least(1))
    max_leaves: int | None = setting(None, "Most leaves (tree, forest).", panel=CLASSICAL, check=at_least(2))
    prune: float = setting(
        0.0,
        "Cost-complexity pruning (tree, forest); 0 is none.",
        panel=CLASSICAL,
        check=Check(lambda value: 0 <= value < 1e9, "a number of at least 0"),
    )
    one_vs_rest: bool = setting(False, "Fit one classifier for each class.", panel=CLASSICAL)
    search_algorithm: str = setting(
        "brute", "Search for neighbors (knn)", panel=CLASSICAL, choices=("brute", "kd-tree")
    )
