"""Every setting of every command: default, help, choices and check, declared once in the field of a dataclass.

The options of a command, the arguments of the library's functions and a run's `config.json` follow from these classes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.settings.augmentation import SIZE_RANGE, AugmentConfig
    from imgclf.settings.base import Config, names
    from imgclf.settings.dataset import DataConfig, IngestConfig
    from imgclf.settings.doctor import Thresholds
    from imgclf.settings.evaluation import REPORT_FORMATS, CalibrateConfig, EvaluateConfig
    from imgclf.settings.explanation import ConvolveConfig, DescribeConfig
    from imgclf.settings.exporting import ExportConfig
    from imgclf.settings.prediction import PredictConfig
    from imgclf.settings.reading import PERCENTILE, RESIZES, Decoding, ReadConfig, Resize
    from imgclf.settings.training import AUTO, KfoldConfig, TrainConfig

_MODULES = {
    "augmentation": ("SIZE_RANGE", "AugmentConfig"),
    "base": ("Config", "names"),
    "dataset": ("DataConfig", "IngestConfig"),
    "doctor": ("Thresholds",),
    "evaluation": ("REPORT_FORMATS", "CalibrateConfig", "EvaluateConfig"),
    "explanation": ("ConvolveConfig", "DescribeConfig"),
    "exporting": ("ExportConfig",),
    "prediction": ("PredictConfig",),
    "reading": ("PERCENTILE", "RESIZES", "Decoding", "ReadConfig", "Resize"),
    "training": ("AUTO", "KfoldConfig", "TrainConfig"),
}
_HOMES = {name: f"imgclf.settings.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "AUTO",
    "PERCENTILE",
    "REPORT_FORMATS",
    "RESIZES",
    "SIZE_RANGE",
    "AugmentConfig",
    "CalibrateConfig",
    "Config",
    "ConvolveConfig",
    "DataConfig",
    "Decoding",
    "DescribeConfig",
    "EvaluateConfig",
    "ExportConfig",
    "IngestConfig",
    "KfoldConfig",
    "PredictConfig",
    "ReadConfig",
    "Resize",
    "Thresholds",
    "TrainConfig",
    "names",
]


def __getattr__(name: str) -> Any:
    """Import a class on first use (PEP 562): prediction needs two of them, and each costs about a millisecond."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
