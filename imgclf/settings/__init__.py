"""Every setting of every command: default, help, choices and check, declared once in the field of a dataclass.

The options of a command, the arguments of the library's functions and a run's `config.json` follow from these classes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.settings.augmentation import SIZE_RANGE as SIZE_RANGE
    from imgclf.settings.augmentation import AugmentConfig as AugmentConfig
    from imgclf.settings.base import Config as Config
    from imgclf.settings.base import names as names
    from imgclf.settings.baseline import BaselineConfig as BaselineConfig
    from imgclf.settings.dataset import DataConfig as DataConfig
    from imgclf.settings.dataset import IngestConfig as IngestConfig
    from imgclf.settings.doctor import Thresholds as Thresholds
    from imgclf.settings.evaluation import REPORT_FORMATS as REPORT_FORMATS
    from imgclf.settings.evaluation import CalibrateConfig as CalibrateConfig
    from imgclf.settings.evaluation import EvaluateConfig as EvaluateConfig
    from imgclf.settings.explanation import ConvolveConfig as ConvolveConfig
    from imgclf.settings.explanation import DescribeConfig as DescribeConfig
    from imgclf.settings.explanation import ExplainConfig as ExplainConfig
    from imgclf.settings.exporting import ExportConfig as ExportConfig
    from imgclf.settings.features import FeaturesConfig as FeaturesConfig
    from imgclf.settings.prediction import PredictConfig as PredictConfig
    from imgclf.settings.questions import CurvesConfig as CurvesConfig
    from imgclf.settings.questions import DriftConfig as DriftConfig
    from imgclf.settings.questions import SuggestConfig as SuggestConfig
    from imgclf.settings.questions import SuspectsConfig as SuspectsConfig
    from imgclf.settings.reading import PERCENTILE as PERCENTILE
    from imgclf.settings.reading import RESIZES as RESIZES
    from imgclf.settings.reading import Decoding as Decoding
    from imgclf.settings.reading import ReadConfig as ReadConfig
    from imgclf.settings.reading import Resize as Resize
    from imgclf.settings.search import SearchConfig as SearchConfig
    from imgclf.settings.training import AUTO as AUTO
    from imgclf.settings.training import KfoldConfig as KfoldConfig
    from imgclf.settings.training import TrainConfig as TrainConfig
    from imgclf.settings.tuning import TuneConfig as TuneConfig

_MODULES = {
    "augmentation": "SIZE_RANGE AugmentConfig",
    "base": "Config names",
    "baseline": "BaselineConfig",
    "dataset": "DataConfig IngestConfig",
    "doctor": "Thresholds",
    "evaluation": "REPORT_FORMATS CalibrateConfig EvaluateConfig",
    "explanation": "ConvolveConfig DescribeConfig ExplainConfig",
    "exporting": "ExportConfig",
    "features": "FeaturesConfig",
    "prediction": "PredictConfig",
    "questions": "CurvesConfig DriftConfig SuggestConfig SuspectsConfig",
    "reading": "PERCENTILE RESIZES Decoding ReadConfig Resize",
    "search": "SearchConfig",
    "training": "AUTO KfoldConfig TrainConfig",
    "tuning": "TuneConfig",
}
_HOMES = {name: f"imgclf.settings.{module}" for module, names in _MODULES.items() for name in names.split()}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a class on first use (PEP 562): prediction needs two of them, and each costs about a millisecond."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
