"""Artefact + images -> probabilities. Nothing here imports TensorFlow, unless the artefact is a SavedModel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.prediction.classifier import Classifier, Prediction, load

__all__ = ["Classifier", "Prediction", "load"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: whoever writes `artifact.json` needs no decoder and no runtime."""
    if name in __all__:
        return getattr(import_module("imgclf.prediction.classifier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
