"""How to train and to cross-validate."""

from dataclasses import dataclass

from imgclf import policies
from imgclf.settings.augmentation import (
    AUGMENTATION,
    OTHER_POLICY,
    POLICY_NAMES,
    SIZE,
    SIZE_RANGE,
    Orientation,
)
from imgclf.settings.base import FRACTION, POSITIVE, Check, Config, at_least, between, names, seconds, setting, some_of
from imgclf.settings.classical import MODEL, NETWORK, Kind
from imgclf.settings.dataset import DataConfig
from imgclf.settings.reading import DECODING
from imgclf.settings.small_cnn import SmallCnn

AUTO = "auto"
METHODS = ("auto", "probe", "finetune", "full", "scratch")
OPTIMIZERS = ("adamw", "adam", "sgd", "nesterov", "rmsprop", "lion", "nadam", "adagrad")
EXPORT_FORMATS = ("litert", "savedmodel", "onnx", "openvino", "keras")
TRAINING, DISTILLATION, SYSTEM = "Training", "Distillation", "System"


def _sizes(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in names(text))
    except ValueError:
        return (0,)


def _is_share_or_name(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return True


_ALPHA = between(0, 1)
_LOW, _HIGH = SIZE_RANGE


@dataclass(frozen=True)
class TrainConfig(DataConfig, Kind, SmallCnn, Orientation):
    """How to train. None means: what suits the backbone and the method; the run's `config.json` contains the value."""

    backbone: str = setting(
        AUTO,
        "Backbone",
        panel=MODEL,
        choices=(AUTO, "efficientnet-lite0", "small-cnn"),
        other=("a name from imgclf models", "keras-hub:PRESET", "FILE.keras"),
        everyday=True,
    )
    weights: str = setting(
        AUTO,
        "Initial weights",
        panel=MODEL,
        metavar="WEIGHTS",
        choices=(AUTO, "imagenet", "none"),
        other=("FILE", "RUN"),
    )
    method: str = setting(AUTO, "Training method", panel=TRAINING, choices=METHODS, everyday=True)
    image_size: int | None = setting(
        None, "Side of the model's square input, in pixels.", panel=MODEL, check=SIZE, everyday=True
    )
    image_sizes: str | None = setting(
        None,
        "Progressive image sizes, such as 40,48,64.",
        panel=MODEL,
        metavar="N,...",
        check=Check(
            lambda text: all(_LOW <= size <= _HIGH for size in _sizes(text)),
            f"numbers such as 48,64, each {_LOW} to {_HIGH} pixels",
        ),
    )
    cache: str = setting(
        AUTO,
        "Cache of pixels and features",
        panel=DECODING,
        metavar="CACHE",
        choices=(AUTO, "off", "memory"),
        other=("DIR",),
        check=Check(lambda text: text.strip() != "", "auto, off, memory or a folder"),
    )
    cache_limit_gb: float = setting(20.0, "Maximum size of the cache on disk, in GB.", panel=DECODING, check=POSITIVE)
    epochs: int | None = setting(None, "Train for N epochs.", panel=TRAINING, check=at_least(1))
    patience: int | None = setting(None, "Stop after N epochs without improvement.", panel=TRAINING, check=at_least(1))
    batch_size: int | str | None = setting(
        None,
        "Batch size; auto picks the largest that fits in memory.",
        panel=TRAINING,
        metavar="N",
        check=Check(
            lambda value: value == AUTO or (isinstance(value, int) and value >= 1),
            "a whole number of at least 1, or auto",
        ),
    )
    accumulate: int = setting(1, "Accumulate the gradients of N batches.", panel=TRAINING, check=at_least(1))
    lr: float | str | None = setting(
        None,
        "Peak learning rate; auto runs a range test first.",
        panel=TRAINING,
        metavar="X",
        check=Check(
            lambda value: value == AUTO or (isinstance(value, int | float) and 0 <= value < 100),
            "a number from 0 to 100, or auto",
        ),
    )
    optimizer: str = setting("adamw", "Optimizer", panel=TRAINING, choices=OPTIMIZERS)
    clip_norm: float | None = setting(None, "Maximum global norm of the gradients.", panel=TRAINING, check=POSITIVE)
    warmup_epochs: float = setting(
        1.0,
        "Number of epochs of learning-rate warmup.",
        panel=TRAINING,
        check=Check(lambda value: 0 <= value < 1e6, "a number of at least 0"),
    )
    weight_decay: float | None = setting(None, "Decoupled weight decay.", panel=TRAINING, check=FRACTION)
    label_smoothing: float | None = setting(None, "Label smoothing.", panel=TRAINING, check=FRACTION)
    dropout: float = setting(0.2, "Dropout rate before the head.", panel=TRAINING, check=FRACTION)
    ema: float | None = setting(None, "EMA momentum of the weights; 0 turns it off.", panel=TRAINING, check=FRACTION)
    balance: str = setting("none", "Class balancing", panel=TRAINING, choices=("none", "weights", "sampling"))
    augment: str = setting(
        AUTO,
        "Augmentation",
        panel=AUGMENTATION,
        metavar="POLICY",
        choices=(AUTO, *POLICY_NAMES),
        other=OTHER_POLICY,
        check=Check(lambda text: text == AUTO or bool(policies.find(text)), "a policy"),
        everyday=True,
    )
    mixup: float = setting(0.0, "MixUp alpha, such as 0.2; 0 turns it off.", panel=AUGMENTATION, check=_ALPHA)
    cutmix: float = setting(0.0, "CutMix alpha, such as 1; 0 turns it off.", panel=AUGMENTATION, check=_ALPHA)
    cached_augmentations: int | None = setting(
        None,
        "Cache N augmentations of each image.",
        panel=AUGMENTATION,
        check=between(0, 100),
        aliases=("views",),
    )
    unfreeze_from: str | None = setting(
        None,
        "First trainable layer or block, or a fraction such as 0.3.",
        panel=TRAINING,
        metavar="LAYER",
        check=Check(_is_share_or_name, "a layer's name, or a fraction above 0, up to 1"),
    )
    layer_decay: float = setting(
        1.0,
        "Layer-wise decay of the learning rate.",
        panel=TRAINING,
        check=Check(lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    )
    batch_norm: str = setting(
        "frozen", "Batch normalization in fine-tuning", panel=TRAINING, choices=("frozen", "train")
    )
    precision: str = setting(
        "float32",
        "Numeric precision",
        panel=SYSTEM,
        choices=("float32", "mixed_bfloat16", "bf16"),
    )
    time_limit: str | None = setting(
        None,
        "Finish within this time, such as 90s, 5m or 1h.",
        panel=TRAINING,
        metavar="TIME",
        check=Check(lambda text: (seconds(text) or 0) > 0, "a time such as 90s, 5m or 1h"),
        everyday=True,
    )
    distill: str | None = setting(None, "Learn from the predictions of a run, too.", panel=DISTILLATION, metavar="RUN")
    unlabeled: str | None = setting(
        None, "Folder of unlabeled images to learn from, too.", panel=DISTILLATION, metavar="DIR"
    )
    distill_temperature: float = setting(
        2.0,
        "Temperature of both predictions in distillation.",
        panel=DISTILLATION,
        check=Check(lambda value: 1 <= value <= 100, "a number from 1 to 100"),
    )
    label_weight: float = setting(
        0.5, "Weight of the true labels in distillation.", panel=DISTILLATION, check=between(0, 1)
    )
    device: str = setting("auto", "Device to train on", panel=SYSTEM, choices=("auto", "cpu", "gpu", "tpu"))
    deterministic: bool = setting(False, "Use deterministic operations (TensorFlow, XLA).", panel=SYSTEM)
    tensorboard: bool = setting(False, "Write TensorBoard logs into the run.", panel=SYSTEM)
    mlflow: bool = setting(False, "Log the run with MLflow.", panel=SYSTEM)
    offline: bool = setting(False, "Never use the network.", panel=SYSTEM)
    export: str = setting(
        "litert,savedmodel",
        "Export formats, separated by commas",
        metavar="FORMAT,...",
        choices=(*EXPORT_FORMATS, "none"),
        check=some_of(EXPORT_FORMATS, alone="none"),
        everyday=True,
    )

    @property
    def policy(self) -> policies.Policy:
        """The augmentation of the training images.

        Raises:
            UsageError: if it is still `auto`.
        """
        return policies.find(self.augment)

    @property
    def export_formats(self) -> tuple[str, ...]:
        """The formats to export; empty for "none"."""
        return () if self.export.strip() == "none" else names(self.export)

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of imgclf whose packages these settings need, of `environment.EXTRAS`."""
        trackers = {"tensorboard": self.tensorboard, "mlflow": self.mlflow, "classical": self.model != NETWORK}
        return (*self.export_formats, *(name for name, wanted in trackers.items() if wanted))

    @property
    def limit_s(self) -> float | None:
        """The time limit in seconds."""
        return seconds(self.time_limit)

    @property
    def size_steps(self) -> tuple[int, ...]:
        """Progressive image sizes, in the order of the epochs; empty where one size serves throughout."""
        return _sizes(self.image_sizes)


FOLDS = "Folds"


@dataclass(frozen=True)
class KfoldConfig(Config):
    """How to cross-validate."""

    folds: int = setting(5, "Number of folds.", panel=FOLDS, check=at_least(2), everyday=True)
    repeats: int = setting(1, "Repeat the cross-validation N times.", panel=FOLDS, check=at_least(1))
    ensemble: bool = setting(
        False, "Average the heads of the folds into one exported model.", panel=FOLDS, everyday=True
    )
    jobs: int = setting(1, "Train N folds in parallel.", panel=FOLDS, check=at_least(1))
