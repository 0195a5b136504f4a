"""imgclf: from a folder of images to a tested, exported classifier."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.data.dataset import Dataset
    from imgclf.data.readers import read
    from imgclf.prediction import load
    from imgclf.prediction.classifier import Classifier, Prediction
    from imgclf.runs import Run
    from imgclf.settings import EvaluateConfig, PredictConfig, TrainConfig
    from imgclf.training.train import train

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "imgclf.prediction.classifier",
    "Dataset": "imgclf.data.dataset",
    "EvaluateConfig": "imgclf.settings",
    "PredictConfig": "imgclf.settings",
    "Prediction": "imgclf.prediction.classifier",
    "Run": "imgclf.runs",
    "TrainConfig": "imgclf.settings",
    "load": "imgclf.prediction",
    "read": "imgclf.data.readers",
    "train": "imgclf.training.train",
}

__all__ = [
    "Classifier",
    "Dataset",
    "EvaluateConfig",
    "PredictConfig",
    "Prediction",
    "Run",
    "TrainConfig",
    "load",
    "read",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562), so that `import imgclf` costs nothing."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
