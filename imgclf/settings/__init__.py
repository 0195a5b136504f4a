"""Every setting of every command: its default, its validation, its JSON. A default lives here and nowhere else."""

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from imgclf import policies
from imgclf.errors import UsageError

METHODS = ("auto", "probe", "finetune", "full", "scratch")
Resize = Literal["squash", "crop", "pad"]
RESIZES = get_args(Resize)
PERCENTILE = "percentile"
CACHES = ("auto", "off", "memory")
EXPORT_FORMATS = ("litert", "savedmodel", "onnx", "openvino", "keras")
QUANTIZATIONS = ("none", "float16", "int8")
ENGINES = ("auto", "litert", "onnx", "openvino", "savedmodel", "keras", "ray")
ENGINE_PRECISIONS = ("float32", "float16", "int8", "bf16")
OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("float32", "mixed_bfloat16", "bf16")
BALANCES = ("none", "weights", "sampling")
BATCH_NORMS = ("frozen", "train")
AUTO = "auto"
DEVICES = ("auto", "cpu", "gpu", "tpu")
_UNITS_S = {"s": 1, "m": 60, "h": 3600}
SIZE_RANGE = (16, 1024)
REPORT_FORMATS = ("html", "md", "json")
NEAR_DUPLICATES = ("group", "off")
LAYOUTS = ("auto", "folders", "table", "imagenet", "idx", "cifar", "voc", "coco")


def _check(condition: bool, option: str, expected: str, found: object) -> None:
    if not condition:
        raise UsageError(f"--{option.replace('_', '-')}: expected {expected}, found {found!r}.")


def _choice(value: str, option: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, option, "one of " + ", ".join(choices), value)


def names(value: str | None) -> tuple[str, ...]:
    """The items of a comma-separated option, without spaces around them; empty for None."""
    return tuple(item.strip() for item in (value or "").split(",") if item.strip())


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


@dataclass(frozen=True)
class Config:
    """What all settings share: a check on creation, and a way to and from JSON."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
            kinds = tuple(str if get_origin(k) is Literal else k for k in kinds)
            fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
            if not fits or (isinstance(value, bool) and bool not in kinds):
                expected = " or ".join("nothing" if k is type(None) else k.__name__ for k in kinds)
                _check(False, name, expected, value)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings of a `config.json`.

        Raises:
            UsageError: if there is a setting that this version does not know, or an impossible value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UsageError(f"unknown setting {unknown[0]!r}; the known ones are {', '.join(sorted(known))}.")
        return cls(**values)


@dataclass(frozen=True)
class Decoding(Config):
    """How a file becomes pixels: all that a user may choose about it. The rest are the rules of `data.images`.

    Args:
        window: for grey of more than 8 bits, what becomes black and what white: "MIN,MAX" in stored units, or
            "percentile" for the image's own 1st and 99th. None is the full range of 16 bits; for floats, the image's
            own minimum and maximum.
        allow_truncated: whether the part that is there of a file cut short is an image. What is missing is grey in
            JPEG and black elsewhere.
    """

    resize: Resize = "squash"
    window: str | None = None
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice(self.resize, "resize", RESIZES)
        if self.window not in (None, PERCENTILE):
            low, high = self.bounds or (0, 0)
            _check(low < high, "window", f"two rising numbers such as 0,4095, or {PERCENTILE}", self.window)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The window in stored units; None where the image itself decides."""
        try:
            low, high = (float(item) for item in names(self.window))
        except ValueError:
            return None
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None


@dataclass(frozen=True)
class Thresholds(Config):
    """From where on the doctor speaks of an image or a class. docs/doctor.md says what each measure is, and how often
    it is wrong.

    Args:
        near: how alike two thumbnails are, laid onto each other; from there they show the same picture.
        near_group: the share of all images above which a group of near-duplicates is not kept together.
        blank: the share of pixels within 8 of the median grey; from there an image is near-blank.
        dark: the 95th percentile of grey, 0 to 255, up to which an image is very dark.
        bright: the 5th percentile from which on it is very bright.
        blurry: the blur seen at 128 px, 0 to 1.
        information: the entropy of the grey histogram in bits, 0 to 8, up to which there is little in an image.
        grey: the mean difference of the channels, 0 to 255, up to which an image is grey.
        grey_share: the share of all images up to which grey ones are worth a word.
        small_px: the shorter side in px below which an image is very small.
        large_mp: the megapixels above which it is very large.
        outlier: how many times its sides are longer or shorter than the median's.
        aspect: the longer side over the shorter one.
        rare: the share of all files up to which a format or an ending is odd.
        imbalance: the images of the largest class over those of the smallest.
        small_class: the different images below which a class is too small to split.
    """

    near: float = 0.95
    near_group: float = 0.01
    blank: float = 0.97
    dark: float = 40.0
    bright: float = 215.0
    blurry: float = 0.66
    information: float = 3.0
    grey: float = 1.0
    grey_share: float = 0.2
    small_px: float = 32.0
    large_mp: float = 50.0
    outlier: float = 4.0
    aspect: float = 3.0
    rare: float = 0.01
    imbalance: float = 10.0
    small_class: float = 10.0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """The defaults, changed by NAME=VALUE,NAME=VALUE.

        Raises:
            UsageError: if a name is unknown or a value is no number from 0 on.
        """
        known = [field.name.replace("_", "-") for field in dataclasses.fields(cls)]
        values: dict[str, float] = {}
        for item in names(text):
            name, _, number = (part.strip() for part in item.partition("="))
            near = ", ".join(difflib.get_close_matches(name, known, 1)) or ", ".join(known)
            _check(name in known, "thresholds", f"names such as {near}, each with =VALUE", item)
            try:
                values[name.replace("-", "_")] = float(number)
            except ValueError:
                _check(False, "thresholds", f"a number as {name}", number)
        for name, value in values.items():
            _check(0 <= value < math.inf, "thresholds", f"a number of at least 0 as {name.replace('_', '-')}", value)
        return cls(**values)


@dataclass(frozen=True)
class ReadConfig(Config):
    """How data become samples. None means: recognised from the data themselves."""

    layout: str = "auto"
    depth: int | None = None
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    class_names: str | None = None
    box_margin: float = 0.0
    box_min_size: int = 1
    crowd: bool = False
    difficult: bool = False
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice(self.layout, "layout", LAYOUTS)
        _check(self.depth is None or self.depth >= 1, "depth", "a whole number of at least 1", self.depth)
        _check(0 <= self.box_margin < 100, "box_margin", "a share of the box, from 0 to below 100", self.box_margin)
        _check(self.box_min_size >= 1, "box_min_size", "a whole number of at least 1", self.box_min_size)


@dataclass(frozen=True)
class DataConfig(ReadConfig):
    """How data are read, labelled and split: all that decides which images there are, as what, and on which side."""

    labels: str | None = None
    rename: str | None = None
    class_map: str | None = None
    classes: str | None = None
    limit: int | None = None
    exclude: str | None = None
    near_duplicates: str = "group"
    thresholds: str | None = None
    val_as: str = "test"
    validation_fraction: float = 0.15
    test_fraction: float = 0.15
    group_by: str | None = None
    test_group: str | None = None
    split_from: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.limit is None or self.limit >= 1, "limit", "a whole number of at least 1", self.limit)
        _choice(self.near_duplicates, "near_duplicates", NEAR_DUPLICATES)
        _ = self.doctor_thresholds
        _choice(self.val_as, "val_as", ("test", "validation"))
        for option in ("validation_fraction", "test_fraction"):
            _check(0 <= getattr(self, option) < 1, option, "a number from 0 to below 1", getattr(self, option))
        total = self.validation_fraction + self.test_fraction
        _check(total < 1, "test_fraction", "validation and test together under 1", total)
        _check(0 <= self.seed < 2**32, "seed", "a whole number from 0 to 4294967295", self.seed)
        _check(_is_pattern(self.group_by or "."), "group_by", "a regular expression, parent or a column", self.group_by)
        _check(len(self.renames) == len(names(self.rename)), "rename", "old=new, each class once", self.rename)

    @property
    def doctor_thresholds(self) -> Thresholds:
        """From where on the doctor speaks.

        Raises:
            UsageError: if there is no such threshold, or it cannot be.
        """
        return Thresholds.parse(self.thresholds)

    @property
    def class_filter(self) -> tuple[str, ...]:
        return names(self.classes)

    @property
    def renames(self) -> dict[str, str]:
        """Old names of classes and the new ones."""
        pairs = (item.split("=") for item in names(self.rename))
        return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2 and all(map(str.strip, pair))}

    @property
    def relabels(self) -> bool:
        """Whether the names of classes, by which images are chosen, are known only after reading."""
        return bool(self.labels or self.rename or self.class_map)


@dataclass(frozen=True)
class TrainConfig(DataConfig):
    """How to train. None means: what suits the backbone and the method; the run's `config.json` holds the answer."""

    backbone: str = "auto"
    weights: str = "auto"
    method: str = "auto"
    image_size: int | None = None
    image_sizes: str | None = None
    resize: Resize = "squash"
    window: str | None = None
    cache: str = "auto"
    cache_limit_gb: float = 20.0
    epochs: int | None = None
    patience: int | None = None
    batch_size: int | str | None = None
    accumulate: int = 1
    lr: float | str | None = None
    optimizer: str = "adamw"
    clip_norm: float | None = None
    warmup_epochs: float = 1.0
    weight_decay: float | None = None
    label_smoothing: float | None = None
    dropout: float = 0.2
    ema: float | None = None
    balance: str = "none"
    augment: str = "auto"
    keep_orientation: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    views: int | None = None
    unfreeze_from: str | None = None
    layer_decay: float = 1.0
    batch_norm: str = "frozen"
    precision: str = "float32"
    time_limit: str | None = None
    device: str = "auto"
    deterministic: bool = False
    tensorboard: bool = False
    mlflow: bool = False
    offline: bool = False
    export: str = "litert,savedmodel"

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = SIZE_RANGE
        _choice(self.method, "method", METHODS)
        _ = self.decoding  # which checks its own settings
        _ = self.augment == "auto" or self.policy  # which checks itself
        _choice(self.optimizer, "optimizer", OPTIMIZERS)
        _choice(self.precision, "precision", PRECISIONS)
        _check(self.cache.strip() != "", "cache", ", ".join(CACHES) + " or a folder", self.cache)
        _check(0 < self.cache_limit_gb < math.inf, "cache_limit_gb", "a number above 0", self.cache_limit_gb)
        if self.image_size is not None:
            _check(low <= self.image_size <= high, "image_size", f"{low} to {high} pixels", self.image_size)
        for size in self.size_steps:
            _check(low <= size <= high, "image_sizes", f"{low} to {high} pixels", size)
        _choice(self.device, "device", DEVICES)
        limit = self.limit_s
        _check(limit is None or limit > 0, "time_limit", "a time such as 90s, 5m or 1h", self.time_limit)
        _choice(self.balance, "balance", BALANCES)
        _choice(self.batch_norm, "batch_norm", BATCH_NORMS)
        for option in ("epochs", "accumulate", "patience"):
            value = getattr(self, option)
            _check(value is None or value >= 1, option, "a whole number of at least 1", value)
        count, lr = self.batch_size, self.lr
        fits = count in (None, AUTO) or (isinstance(count, int) and count >= 1)
        _check(fits, "batch_size", "a whole number of at least 1, or auto", count)
        fits = lr in (None, AUTO) or (isinstance(lr, int | float) and 0 <= lr < 100)
        _check(fits, "lr", "a number from 0 to 100, or auto", lr)
        _check(self.views is None or 0 <= self.views <= 100, "views", "a whole number from 0 to 100", self.views)
        _check(self.clip_norm is None or 0 < self.clip_norm < math.inf, "clip_norm", "a number above 0", self.clip_norm)
        _check(0 < self.layer_decay <= 1, "layer_decay", "a number above 0, up to 1", self.layer_decay)
        share = self.unfrozen_share
        expected = "a layer's name, or a share above 0, up to 1"
        _check(share is None or 0 < share <= 1, "unfreeze_from", expected, self.unfreeze_from)
        _check(0 <= self.warmup_epochs < 1e6, "warmup_epochs", "a number of at least 0", self.warmup_epochs)
        for option in ("weight_decay", "label_smoothing", "dropout", "ema"):
            value = getattr(self, option)
            _check(value is None or 0 <= value < 1, option, "a number from 0 to below 1", value)
        for option in ("mixup", "cutmix"):
            _check(0 <= getattr(self, option) <= 1, option, "a number from 0 (off) to 1", getattr(self, option))
        for name in self.export_formats:
            _check(name in EXPORT_FORMATS, "export", ", ".join(EXPORT_FORMATS) + " or none alone", self.export)

    @property
    def decoding(self) -> Decoding:
        """What shapes the pixels of a file.

        Raises:
            UsageError: if a setting is impossible.
        """
        return Decoding(self.resize, self.window, self.allow_truncated)

    @property
    def policy(self) -> policies.Policy:
        """What is done to the training images.

        Raises:
            UsageError: if there is no such policy, or it is still `auto`.
        """
        return policies.find(self.augment)

    @property
    def export_formats(self) -> tuple[str, ...]:
        """What to export; empty for "none"."""
        return () if self.export.strip() == "none" else names(self.export)

    @property
    def limit_s(self) -> float | None:
        """The time limit in seconds; 0 for what is no time."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", (self.time_limit or "").strip())
        if self.time_limit is None:
            return None
        return float(found[1]) * _UNITS_S[found[2]] if found else 0.0

    @property
    def unfrozen_share(self) -> float | None:
        """The share of the backbone's multiply-adds that fine-tuning moves; None where a layer is named, or nothing."""
        try:
            return None if self.unfreeze_from is None else float(self.unfreeze_from)
        except ValueError:
            return None

    @property
    def size_steps(self) -> tuple[int, ...]:
        """Progressive image sizes, one after the other through the epochs; empty when one size serves throughout."""
        try:
            return tuple(int(item) for item in names(self.image_sizes))
        except ValueError:
            raise UsageError(f"--image-sizes: expected numbers such as 48,64, found {self.image_sizes!r}.") from None


@dataclass(frozen=True)
class CalibrateConfig(Config):
    """By which rules a model answers. None leaves a rule as it is, "none" takes it away."""

    reject_below: str | None = None
    precision: float = 0.95
    coverage: str | None = None
    outliers: str | None = None
    positive: str | None = None
    threshold: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = self.reject_below in (None, "auto", "none") or _is_share(self.reject_below)
        _check(allowed, "reject_below", "auto, none, or a number from above 0 to below 1", self.reject_below)
        _check(0 < self.precision <= 1, "precision", "a number from above 0 to 1", self.precision)
        allowed = self.coverage in (None, "none") or _is_share(self.coverage)
        _check(allowed, "coverage", "none, or a number from above 0 to below 1", self.coverage)
        _check(self.outliers in (None, "none"), "outliers", "none", self.outliers)
        paired = self.positive is None or self.threshold not in (None, "none")
        _check(paired, "positive", "--threshold beside it", self.positive)


def _is_share(text: str | None) -> bool:
    try:
        return 0 < float(text or "") < 1
    except ValueError:
        return False


@dataclass(frozen=True)
class KfoldConfig(Config):
    """How to cross-validate."""

    folds: int = 5
    repeats: int = 1
    jobs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.folds >= 2, "folds", "a whole number of at least 2", self.folds)
        for option in ("repeats", "jobs"):
            _check(getattr(self, option) >= 1, option, "a whole number of at least 1", getattr(self, option))


@dataclass(frozen=True)
class AugmentConfig(DataConfig):
    """What augmentation does to which images, and how many variants of each are shown or written."""

    policy: str = "standard"
    keep_orientation: bool = False
    image_size: int = 224
    resize: Resize = "squash"
    window: str | None = None
    variants: int = 8
    copies: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        policies.find(self.policy, "policy")
        _ = self.decoding  # which checks its own settings
        low, high = SIZE_RANGE
        _check(low <= self.image_size <= high, "image_size", f"{low} to {high} pixels", self.image_size)
        _check(1 <= self.variants <= 50, "variants", "1 to 50", self.variants)
        _check(self.copies >= 1, "copies", "a whole number of at least 1", self.copies)

    @property
    def decoding(self) -> Decoding:
        """What shapes the pixels of a file.

        Raises:
            UsageError: if a setting is impossible.
        """
        return Decoding(self.resize, self.window, self.allow_truncated)


@dataclass(frozen=True)
class EvaluateConfig(ReadConfig):
    """How to read the images to score, and how to score."""

    top_k: int = 5
    batch_size: int = 32
    missing_classes: str = "error"
    unknown_classes: str = "error"
    format: str = "html"
    kfold: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.kfold is None or self.kfold >= 2, "kfold", "a whole number of at least 2", self.kfold)
        for name in self.formats:
            _check(name in REPORT_FORMATS, "format", ", ".join(REPORT_FORMATS) + " or several of them", self.format)
        _check(bool(self.formats), "format", ", ".join(REPORT_FORMATS) + " or several of them", self.format)
        _check(self.top_k >= 1, "top_k", "a whole number of at least 1", self.top_k)
        _check(self.batch_size >= 1, "batch_size", "a whole number of at least 1", self.batch_size)
        _choice(self.missing_classes, "missing_classes", ("error", "allow"))
        _choice(self.unknown_classes, "unknown_classes", ("error", "skip"))

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the report."""
        return names(self.format)


@dataclass(frozen=True)
class PredictConfig(Config):
    """How to predict."""

    top: int = 1
    format: str = "table"
    batch_size: int = 32
    engine: str = "auto"
    precision: str = "float32"
    tta: bool = False
    reject_below: float | None = None
    shard: str | None = None
    allow_truncated: bool = False
    strict: bool = False
    offline: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.top >= 1, "top", "a whole number of at least 1", self.top)
        _check(self.batch_size >= 1, "batch_size", "a whole number of at least 1", self.batch_size)
        _choice(self.format, "format", ("table", "jsonl", "csv", "parquet"))
        _choice(self.engine, "engine", ENGINES)
        _choice(self.precision, "precision", ENGINE_PRECISIONS)
        limit = self.reject_below
        _check(limit is None or 0 <= limit <= 1, "reject_below", "a number from 0 to 1", limit)
        part, parts = self.shards
        _check(1 <= part <= parts, "shard", "I/N such as 1/4, I from 1 to N", self.shard)

    @property
    def shards(self) -> tuple[int, int]:
        """Which part of how many, from (1, 1) on; (0, 0) where the text says neither."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.shard if self.shard is not None else "1/1")
        return (int(found[1]), int(found[2])) if found else (0, 0)
