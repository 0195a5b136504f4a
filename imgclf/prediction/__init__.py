"""Artifact + images -> predictions. TensorFlow is imported only for a SavedModel or a Keras file."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.prediction.classifier import Classifier
    from imgclf.prediction.decision import Prediction
    from imgclf.prediction.loading import load

_MODULES = {"Classifier": "classifier", "Prediction": "decision", "load": "loading"}

__all__ = ["Classifier", "Prediction", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: writing `artifact.json` needs no decoder and no runtime."""
    if name in _MODULES:
        return getattr(import_module(f"imgclf.prediction.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
