"""imgclf: from a folder of images to a tested, exported classifier.

The commands of the command line call exactly these functions; docs/python.md shows an example of each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.data.dataset import Dataset as Dataset
    from imgclf.data.ingest import Ingestion as Ingestion
    from imgclf.data.ingest import ingest as ingest
    from imgclf.data.reading import read as read
    from imgclf.errors import ArtifactError as ArtifactError
    from imgclf.errors import DatasetError as DatasetError
    from imgclf.errors import ExportError as ExportError
    from imgclf.errors import GateError as GateError
    from imgclf.errors import ImageError as ImageError
    from imgclf.errors import ImgclfError as ImgclfError
    from imgclf.errors import MissingError as MissingError
    from imgclf.errors import RunError as RunError
    from imgclf.errors import UsageError as UsageError
    from imgclf.evaluation.compare import compare as compare
    from imgclf.evaluation.decisions import calibrate as calibrate
    from imgclf.evaluation.evaluate import Evaluation as Evaluation
    from imgclf.evaluation.evaluate import evaluate as evaluate
    from imgclf.explanation.convolution import Convolution as Convolution
    from imgclf.explanation.convolution import convolve as convolve
    from imgclf.explanation.description import Description as Description
    from imgclf.explanation.description import describe as describe
    from imgclf.explanation.explaining import Explanation as Explanation
    from imgclf.explanation.explaining import explain as explain
    from imgclf.exporting.artifacts import export as export
    from imgclf.prediction import Classifier as Classifier
    from imgclf.prediction import Prediction as Prediction
    from imgclf.prediction import load as load
    from imgclf.questions.baseline import Baseline as Baseline
    from imgclf.questions.baseline import baseline as baseline
    from imgclf.questions.curves import Curves as Curves
    from imgclf.questions.curves import curves as curves
    from imgclf.questions.drift import Drift as Drift
    from imgclf.questions.drift import drift as drift
    from imgclf.questions.feature_table import FeatureTable as FeatureTable
    from imgclf.questions.feature_table import features as features
    from imgclf.questions.search import Match as Match
    from imgclf.questions.search import SearchResult as SearchResult
    from imgclf.questions.search import search as search
    from imgclf.questions.suggest import Suggestions as Suggestions
    from imgclf.questions.suggest import suggest as suggest
    from imgclf.questions.suspects import Suspects as Suspects
    from imgclf.questions.suspects import suspects as suspects
    from imgclf.questions.tune import Tuning as Tuning
    from imgclf.questions.tune import tune as tune
    from imgclf.runs import Run as Run
    from imgclf.settings import AugmentConfig as AugmentConfig
    from imgclf.settings import BaselineConfig as BaselineConfig
    from imgclf.settings import CalibrateConfig as CalibrateConfig
    from imgclf.settings import ConvolveConfig as ConvolveConfig
    from imgclf.settings import CurvesConfig as CurvesConfig
    from imgclf.settings import DataConfig as DataConfig
    from imgclf.settings import DescribeConfig as DescribeConfig
    from imgclf.settings import DriftConfig as DriftConfig
    from imgclf.settings import EvaluateConfig as EvaluateConfig
    from imgclf.settings import ExplainConfig as ExplainConfig
    from imgclf.settings import ExportConfig as ExportConfig
    from imgclf.settings import FeaturesConfig as FeaturesConfig
    from imgclf.settings import IngestConfig as IngestConfig
    from imgclf.settings import KfoldConfig as KfoldConfig
    from imgclf.settings import PredictConfig as PredictConfig
    from imgclf.settings import SearchConfig as SearchConfig
    from imgclf.settings import SuggestConfig as SuggestConfig
    from imgclf.settings import SuspectsConfig as SuspectsConfig
    from imgclf.settings import TrainConfig as TrainConfig
    from imgclf.settings import TuneConfig as TuneConfig
    from imgclf.training.augment_preview import Augmented as Augmented
    from imgclf.training.augment_preview import augment as augment
    from imgclf.training.crossval import CrossValidation as CrossValidation
    from imgclf.training.crossval import kfold as kfold
    from imgclf.training.train import resume as resume
    from imgclf.training.train import train as train

__version__ = "0.1.0"

_MODULES = {
    "data.dataset": "Dataset",
    "data.ingest": "Ingestion ingest",
    "data.reading": "read",
    "errors": "ArtifactError DatasetError ExportError GateError ImageError ImgclfError MissingError RunError "
    "UsageError",
    "evaluation.compare": "compare",
    "evaluation.decisions": "calibrate",
    "evaluation.evaluate": "Evaluation evaluate",
    "explanation.convolution": "Convolution convolve",
    "explanation.description": "Description describe",
    "explanation.explaining": "Explanation explain",
    "exporting.artifacts": "export",
    "prediction": "Classifier Prediction load",
    "questions.baseline": "Baseline baseline",
    "questions.curves": "Curves curves",
    "questions.drift": "Drift drift",
    "questions.feature_table": "FeatureTable features",
    "questions.search": "Match SearchResult search",
    "questions.suggest": "Suggestions suggest",
    "questions.suspects": "Suspects suspects",
    "questions.tune": "Tuning tune",
    "runs": "Run",
    "settings": "AugmentConfig BaselineConfig CalibrateConfig ConvolveConfig CurvesConfig DataConfig DescribeConfig "
    "DriftConfig EvaluateConfig ExplainConfig ExportConfig FeaturesConfig IngestConfig KfoldConfig PredictConfig "
    "SearchConfig SuggestConfig SuspectsConfig TrainConfig TuneConfig",
    "training.augment_preview": "Augmented augment",
    "training.crossval": "CrossValidation kfold",
    "training.train": "resume train",
}
_HOMES = {name: f"imgclf.{module}" for module, names in _MODULES.items() for name in names.split()}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that `import imgclf` stays cheap."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
