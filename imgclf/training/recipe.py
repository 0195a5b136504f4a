"""Resolve settings to a recipe: `auto` and None become a backbone, weights, a method and numbers."""

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from imgclf import runs, tasks
from imgclf.errors import UsageError
from imgclf.models import sources
from imgclf.models.sources import Facts
from imgclf.policies import Policy
from imgclf.settings import AUTO, TrainConfig, small_cnn
from imgclf.settings.base import flag_of
from imgclf.training import devices

BATCH_SIZE = 32
LARGE_BATCH_SIZE = 256
"""The first try of `--batch-size auto` on an accelerator; it is halved as long as it does not fit in memory."""

LEARNING_RATE = 1e-4
"""Learning rate of fine-tuning."""

AUTO_LEARNING_RATE = 3e-4
"""Learning rate of the upper layers in automatic training, which has few epochs."""

LR_MULTIPLIER = 10 / 3
"""Multiplier of the learning rate where automatic training makes all layers trainable, unless training the upper ones
alone helped: to change features in a few epochs takes large steps."""

SMALL_PX, SMALL_SIZE_PX = 64, 160
"""Where the median of the images' shorter sides is at most the first, the default image size is the second, if the
backbone takes any size: to enlarge such images further adds nothing but time."""

DEFAULT_LIMIT_S = 300.0
"""For `--method auto` without a time limit: no stage begins that would end later, but everything is exported."""

_NUMBERS: dict[str, dict[str, Any]] = {
    "scratch": {
        "epochs": 30,
        "batch_size": 32,
        "lr": 2e-3,
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
        "ema": 0.0,
        "augment": "standard",
    },
    "finetune": {
        "epochs": 10,
        "batch_size": 32,
        "lr": LEARNING_RATE,
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "ema": 0.98,
        "augment": "light",
    },
}
_NUMBERS["full"] = _NUMBERS["scratch"]
_NUMBERS["probe"] = {"batch_size": 32, "augment": "none"}
_NUMBERS["auto"] = {name: value for name, value in _NUMBERS["finetune"].items() if name != "lr"} | {
    "epochs": 5,
    "cached_augmentations": 1,
}
"""Each stage has its own learning rate, unless one is given, and is judged by itself."""

_STEPS_ONLY = (
    *("image_sizes", "epochs", "patience", "lr", "weight_decay", "label_smoothing", "ema", "clip_norm"),
    *("unfreeze_from", "time_limit"),
)
_STEPS_DEFAULTS = (
    *("optimizer", "warmup_epochs", "dropout", "accumulate", "layer_decay", "batch_norm", "tensorboard", "mlflow"),
    *("mixup", "cutmix"),
)
"""Settings of gradient descent, with and without a fixed default; the probe's head is fitted by L-BFGS."""


@dataclass(frozen=True)
class Recipe:
    """How to train, with nothing left open.

    `repr` has what decides about the weights: by it a checkpoint knows its training.

    Args:
        settings: what the recipe was resolved from, with what was chosen filled in, as `config.json` records it.
            Decoding, cache, exports and trackers are read from here.
        image_size: the side of the model's input, in px.
        sizes: image sizes in px, each for an equal share of the epochs. Random crops enlarge what they contain, so the
            last may be a little smaller than `image_size` (Touvron 2019, arXiv:1906.06423). For `auto`: the sizes that
            it may try.
        epochs: 0 for a probe.
        lr: peak learning rate, reached after `warmup_epochs`; `lr_multiplier` is for `auto` with all layers trainable.
        weight_decay: decoupled from the gradient, on kernels only, as a share of the learning rate.
        ema: momentum of the EMA of the weights, which is then what is validated and kept; 0 for none.
        patience: stop after N epochs in a row without a better validation; 0 never stops.
        clip_norm: the largest norm of all gradients together; 0 does not clip.
        distill: the run that teaches; empty for none.
        unfreeze_from: the lowest trainable layer, or a share of the multiply-adds; empty for the default.
        caches_activations: whether activations of frozen layers may be computed once for all epochs, for each image and
            `cached_augmentations` augmentations of it.
        limit_s: inf for none.
        may_halve_batch: where it does not fit in memory.
    """

    settings: TrainConfig = field(repr=False)
    backbone: str
    weights: str
    method: str
    image_size: int
    sizes: tuple[int, ...]
    epochs: int
    batch_size: int
    accumulate: int
    lr: float
    lr_multiplier: float
    optimizer: str
    clip_norm: float
    warmup_epochs: float
    weight_decay: float
    label_smoothing: float
    dropout: float
    ema: float
    balance: str
    distill: str
    distill_temperature: float
    label_weight: float
    policy: Policy
    mixup: float
    cutmix: float
    caches_activations: bool
    cached_augmentations: int
    unfreeze_from: str
    layer_decay: float
    batch_norm: str
    precision: str
    patience: int
    seed: int
    limit_s: float = field(repr=False)
    may_halve_batch: bool = field(repr=False)

    def size(self, epoch: int) -> int:
        """Return the image size of an epoch, counted from 0."""
        return self.sizes[epoch * len(self.sizes) // self.epochs]

    @property
    def changes_size(self) -> bool:
        """Whether epochs have other image sizes than the model's."""
        return set(self.sizes) != {self.image_size}

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another, which needs their pixels at every step."""
        return bool(self.mixup or self.cutmix)

    @property
    def is_limited(self) -> bool:
        """Whether a time limit was given."""
        return self.settings.time_limit is not None

    @property
    def finds_lr(self) -> bool:
        """Whether a range test is to find the learning rate before training."""
        return self.settings.lr == AUTO

    def settle(self, **found: Any) -> "Recipe":
        """Return the recipe with numbers that training itself found, for `config.json`, too."""
        return replace(self, settings=replace(self.settings, **found), **found)


_OFF: dict[str, Any] = {
    **dict.fromkeys(("epochs", "patience", "cached_augmentations"), 0),
    **dict.fromkeys(("lr", "clip_norm", "weight_decay", "label_smoothing", "ema"), 0.0),
    **dict.fromkeys(("unfreeze_from", "distill"), ""),
}
"""What None means in settings that are resolved otherwise."""


def resolve(settings: TrainConfig, side_px: float = math.inf) -> tuple[Recipe, list[str]]:
    """Settle every open setting.

    Args:
        side_px: the median of the images' shorter sides.

    Returns:
        The recipe, and plain sentences on what was chosen where it may surprise.

    Raises:
        UsageError: if the backbone is unknown, or the settings exclude one another.
    """
    settings = _for_task(settings)
    config, facts, notes = _with_backbone(settings)
    config = replace(config, method=_choose_method(config, settings.weights))
    if config.method == "probe":
        config, steps_notes = _without_steps(config)
        notes += steps_notes
    config, size_notes = _with_sizes(config, facts, side_px)
    notes += size_notes
    if config.unfreeze_from and config.method != "finetune":
        notes.append(f"--unfreeze-from: no effect with --method {config.method}, which chooses the trainable layers.")
    numbers = {
        name: value
        for name, value in _NUMBERS[config.method].items()
        if getattr(config, name) is None or (name == "augment" and config.augment == AUTO)
    }
    if config.optimizer == "adam" and "weight_decay" in numbers:
        numbers["weight_decay"] = 0.0  # by which it differs from AdamW
    config = replace(config, **numbers)
    policy, losses = config.policy.upright() if config.keep_orientation else (config.policy, [])
    config = replace(config, augment=policy.name or str(policy))
    return from_resolved(config), [*notes, *(f"augmentation: {loss}" for loss in losses)]


def _for_task(config: TrainConfig) -> TrainConfig:
    """Refuse what the task does not support; what is automatic is then a probe."""
    if config.method == AUTO and f"--method {AUTO}" in tasks.find(config.task).LACKS:
        config = replace(config, method="probe")
    tasks.refuse(config.task, f"--method {config.method}")
    tasks.refuse(config.task, f"--balance {config.balance}")
    for each in fields(config):
        if getattr(config, each.name) != each.default:
            tasks.refuse(config.task, flag_of(each.name))
    return config


def from_resolved(config: TrainConfig) -> Recipe:
    """Make the recipe of settings that are resolved already, as `config.json` records them."""
    assert config.image_size
    is_auto = config.method == AUTO
    same = {f.name: getattr(config, f.name) for f in fields(Recipe) if hasattr(config, f.name)}
    values: dict[str, Any] = {name: _OFF.get(name) if value is None else value for name, value in same.items()}
    values |= {
        "settings": config,
        "sizes": config.size_steps or (config.image_size,),
        "lr_multiplier": LR_MULTIPLIER if is_auto and config.lr is None else 1.0,
        "caches_activations": config.cached_augmentations is not None or config.augment == "none",
        "limit_s": config.limit_s or (DEFAULT_LIMIT_S if is_auto else math.inf),
        "may_halve_batch": config.batch_size == AUTO,
    }
    if config.lr == AUTO or (config.lr is None and is_auto):
        values["lr"] = AUTO_LEARNING_RATE if is_auto else LEARNING_RATE
    if config.batch_size == AUTO:
        values["batch_size"] = BATCH_SIZE if devices.on_cpu() else LARGE_BATCH_SIZE
    return Recipe(**values)


def _with_backbone(config: TrainConfig) -> tuple[TrainConfig, Facts, list[str]]:
    """Choose the backbone and the weights."""
    notes: list[str] = []
    if config.backbone == AUTO and config.weights != AUTO and not sources.is_word(config.weights):
        config = _as_in_run(config)
    name = _with_layers(config)
    if name == AUTO:
        name, note = sources.default(config.weights, scratch=config.method == "scratch")
        notes.append(note)
    facts = sources.find(name, offline=config.offline).facts
    notes += [facts.note] if facts.note else []
    return replace(config, backbone=facts.name, weights=_choose_weights(facts, config)), facts, notes


def _with_layers(config: TrainConfig) -> str:
    """Return the name of the backbone with the layers that were asked for.

    Raises:
        UsageError: if it is another one than the small network, which alone has them.
    """
    asked = config.layer_options
    if not asked:
        return config.backbone
    named = small_cnn.parse(config.backbone)
    if named is None and config.backbone not in (AUTO, small_cnn.SMALL_CNN):
        raise UsageError(
            f"{', '.join(map(flag_of, asked))}: expected --backbone {small_cnn.SMALL_CNN}, which alone has these "
            f"options, found --backbone {config.backbone}."
        )
    return small_cnn.backbone_name(small_cnn.SmallCnn(**(named.layer_options if named else {}) | asked))


def _choose_method(config: TrainConfig, asked: str) -> str:
    """Return the method for a chosen backbone.

    Args:
        asked: the weights that were asked for.
    """
    method = config.method
    if method == AUTO:
        method = "scratch" if config.weights == "none" else "finetune" if config.distill else AUTO
    if config.distill:
        _check_student(config, method)
    if method != "scratch" and config.weights == "none" and asked == AUTO:
        raise UsageError(
            f"--method {method} needs pretrained weights and {config.backbone} has none. "
            "Use --method scratch, another --backbone, or --weights FILE."
        )
    if method == "scratch" and config.weights != "none":
        raise UsageError(f"--method scratch starts from random weights and takes no --weights {config.weights}.")
    if config.precision == "bf16" and method != "probe":
        raise UsageError(
            f"--precision bf16 is for the features of --method probe, found --method {method}. "
            "Training in half precision is --precision mixed_bfloat16."
        )
    return method


def _check_student(config: TrainConfig, method: str) -> None:
    """Refuse what cannot learn from soft labels."""
    if method in (AUTO, "probe"):
        raise UsageError(
            f"--distill: expected a student trained by gradient descent, found --method {method}. Use --method "
            "finetune, full or scratch."
        )
    if config.balance != TrainConfig.balance:
        raise UsageError(f"--distill: expected --balance none, found {config.balance}: soft labels have no one class.")


def _with_sizes(config: TrainConfig, facts: Facts, side_px: float) -> tuple[TrainConfig, list[str]]:
    steps, notes = config.size_steps, []
    if steps and not facts.any_size:
        raise UsageError(f"--image-sizes: {facts.name} is trained at one size. Use --image-size.")
    size = config.image_size or (steps[-1] if steps else facts.image_size)
    if not config.image_size and not steps and facts.any_size and side_px <= SMALL_PX and size > SMALL_SIZE_PX:
        notes.append(
            f"Image size: {SMALL_SIZE_PX} px, since the median image is {side_px:.0f} px. --image-size {size} is the "
            "backbone's own."
        )
        size = SMALL_SIZE_PX
    if config.method == AUTO:
        size = steps[0] if steps else size
    elif steps and max(steps) > size:
        raise UsageError(f"--image-sizes: expected none above --image-size {size}, found {max(steps)}.")
    return replace(config, image_size=size), notes


def _without_steps(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    given = [name for name in _STEPS_ONLY if getattr(config, name) is not None]
    given += [name for name in _STEPS_DEFAULTS if getattr(config, name) != getattr(TrainConfig, name)]
    augments = config.augment not in ("auto", "none")
    if config.cached_augmentations and not augments:
        config = replace(config, augment="light")
    given += ["augment"] if augments and not config.cached_augmentations else []
    given += ["keep_orientation"] if config.keep_orientation and not config.cached_augmentations else []
    given += ["precision"] if config.precision == "mixed_bfloat16" else []
    dropped = (*_STEPS_ONLY, *(name for name in ("batch_size",) if config.batch_size == AUTO))
    kept = {name: value for name, value in config.to_dict().items() if name not in dropped}
    off: dict[str, Any] = {"mixup": 0.0, "cutmix": 0.0}
    if config.precision == "mixed_bfloat16":
        off["precision"] = "float32"
    if not config.cached_augmentations:
        off |= {"augment": "none", "keep_orientation": False}
    cleared = TrainConfig.from_dict(kept | off)
    options = ", ".join("--" + name.replace("_", "-") for name in given)
    return cleared, [f"{options}: no effect on a probe, whose head is fitted without steps."] if given else []


def _as_in_run(config: TrainConfig) -> TrainConfig:
    """Take the backbone and the image size of the run that gives the weights."""
    path = Path(config.weights)
    if not path.is_dir():
        raise UsageError(f"--weights {path}: a file does not say which network it is for. Give --backbone as well.")
    theirs = TrainConfig.from_dict(runs.find(path).read_config()["config"])
    size = config.image_size or (None if config.image_sizes else theirs.image_size)
    if sources.portable(theirs.backbone):
        return replace(config, backbone=theirs.backbone, image_size=size)
    return replace(config, backbone=str(path.resolve()), weights=AUTO, image_size=size)


def _choose_weights(facts: Facts, config: TrainConfig) -> str:
    if config.weights == AUTO:
        return sources.NONE if config.method == "scratch" else facts.pretrained or sources.NONE
    if config.weights == "imagenet" and facts.imagenet and facts.pretrained:
        return facts.pretrained
    weights = sources.word(config.weights)
    if sources.is_word(weights) and weights not in (facts.pretrained, sources.NONE):
        has = f"{'imagenet' if facts.imagenet else facts.pretrained}, auto" if facts.pretrained else "auto"
        raise UsageError(
            f"--weights {config.weights}: {facts.name} has no weights of this kind. Use {has}, none, FILE or RUN."
        )
    return weights
