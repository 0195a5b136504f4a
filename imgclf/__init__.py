"""imgclf: from a folder of images to a tested, exported classifier.

The commands of the command line call exactly these functions; docs/python.md shows an example of each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.data.dataset import Dataset
    from imgclf.data.ingest import Ingestion, ingest
    from imgclf.data.reading import read
    from imgclf.errors import (
        ArtifactError,
        DatasetError,
        GateError,
        ImageError,
        ImgclfError,
        MissingError,
        RunError,
        UsageError,
    )
    from imgclf.evaluation.compare import compare
    from imgclf.evaluation.decisions import calibrate
    from imgclf.evaluation.evaluate import Evaluation, evaluate
    from imgclf.explanation.convolution import Convolution, convolve
    from imgclf.explanation.description import Description, describe
    from imgclf.exporting.artifacts import export
    from imgclf.prediction import Classifier, Prediction, load
    from imgclf.runs import Run
    from imgclf.settings import (
        AugmentConfig,
        CalibrateConfig,
        ConvolveConfig,
        DataConfig,
        DescribeConfig,
        EvaluateConfig,
        ExportConfig,
        IngestConfig,
        KfoldConfig,
        PredictConfig,
        TrainConfig,
    )
    from imgclf.training.augment_preview import Augmented, augment
    from imgclf.training.crossval import CrossValidation, kfold
    from imgclf.training.train import resume, train

__version__ = "0.1.0"

_MODULES = {
    "data.dataset": ("Dataset",),
    "data.ingest": ("Ingestion", "ingest"),
    "data.reading": ("read",),
    "errors": (
        "ArtifactError",
        "DatasetError",
        "GateError",
        "ImageError",
        "ImgclfError",
        "MissingError",
        "RunError",
        "UsageError",
    ),
    "evaluation.compare": ("compare",),
    "evaluation.decisions": ("calibrate",),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "explanation.convolution": ("Convolution", "convolve"),
    "explanation.description": ("Description", "describe"),
    "exporting.artifacts": ("export",),
    "prediction": ("Classifier", "Prediction", "load"),
    "runs": ("Run",),
    "settings": (
        "AugmentConfig",
        "CalibrateConfig",
        "ConvolveConfig",
        "DataConfig",
        "DescribeConfig",
        "EvaluateConfig",
        "ExportConfig",
        "IngestConfig",
        "KfoldConfig",
        "PredictConfig",
        "TrainConfig",
    ),
    "training.crossval": ("CrossValidation", "kfold"),
    "training.train": ("resume", "train"),
    "training.augment_preview": ("Augmented", "augment"),
}
_HOMES = {name: f"imgclf.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "ArtifactError",
    "AugmentConfig",
    "Augmented",
    "CalibrateConfig",
    "Classifier",
    "Convolution",
    "ConvolveConfig",
    "CrossValidation",
    "DataConfig",
    "Dataset",
    "DatasetError",
    "DescribeConfig",
    "Description",
    "EvaluateConfig",
    "Evaluation",
    "ExportConfig",
    "GateError",
    "ImageError",
    "ImgclfError",
    "IngestConfig",
    "Ingestion",
    "KfoldConfig",
    "MissingError",
    "PredictConfig",
    "Prediction",
    "Run",
    "RunError",
    "TrainConfig",
    "UsageError",
    "augment",
    "calibrate",
    "compare",
    "convolve",
    "describe",
    "evaluate",
    "export",
    "ingest",
    "kfold",
    "load",
    "read",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that `import imgclf` stays cheap."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
