"""Resolve settings: `auto` and None become a backbone, weights, a method and numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from imgclf import runs
from imgclf.errors import UsageError
from imgclf.models import classifier, sources, stored
from imgclf.models.sources import Facts
from imgclf.settings import AUTO, SIZE_RANGE, TrainConfig

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
        "lr": 1e-4,
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "ema": 0.98,
        "augment": "light",
    },
}
_NUMBERS["full"] = _NUMBERS["scratch"]
_NUMBERS["probe"] = {"batch_size": 32, "augment": "none"}
_NUMBERS["auto"] = {name: value for name, value in _NUMBERS["finetune"].items() if name != "lr"} | {
    "ema": 0.0,
    "cached_augmentations": 3,
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


def resolve(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Settle every open setting.

    Returns:
        The settings without `auto` and None, and plain sentences on what was chosen where it may surprise.

    Raises:
        UsageError: if the backbone is unknown, or the settings exclude one another.
    """
    notes: list[str] = []
    name = config.backbone
    if name == AUTO and config.weights != AUTO and not sources.is_word(config.weights):
        config = _as_in_run(config)
        name = config.backbone
    if name == AUTO:
        name, note = sources.default(config.weights, scratch=config.method == "scratch")
        notes.append(note)
    facts = sources.find(name, offline=config.offline).facts
    notes += [facts.note] if facts.note else []
    weights = _choose_weights(facts, config)
    method = config.method
    if method == "auto":
        method = "scratch" if weights == "none" else "auto"
    if method != "scratch" and weights == "none" and config.weights == "auto":
        raise UsageError(
            f"--method {method} needs pretrained weights and {facts.name} has none. "
            "Use --method scratch, another --backbone, or --weights FILE."
        )
    if method == "scratch" and weights != "none":
        raise UsageError(f"--method scratch starts from random weights and takes no --weights {weights}.")
    if config.precision == "bf16" and method != "probe":
        raise UsageError(
            f"--precision bf16 is for the features of --method probe, found --method {method}. "
            "Training in half precision is --precision mixed_bfloat16."
        )
    if method == "probe":
        config, steps_notes = _without_steps(config)
        notes += steps_notes
    steps = config.size_steps
    if steps and not facts.any_size:
        raise UsageError(f"--image-sizes: {facts.name} is trained at one size. Use --image-size.")
    size = config.image_size or (steps[-1] if steps else facts.image_size)
    if method == "auto":
        if not steps and not config.image_size and facts.any_size:
            steps = (size, _larger(size))
            config = replace(config, image_sizes=",".join(map(str, steps)))
        size = steps[0] if steps else size
    elif steps and max(steps) > size:
        raise UsageError(f"--image-sizes: expected none above --image-size {size}, found {max(steps)}.")
    if config.unfreeze_from and method != "finetune":
        notes.append(f"no effect with --method {method}, which chooses by itself what moves: --unfreeze-from")
    numbers = _NUMBERS[method]
    settled = {
        key: value
        for key, value in numbers.items()
        if getattr(config, key) is None or (key == "augment" and config.augment == "auto")
    }
    resolved = replace(config, backbone=facts.name, weights=weights, method=method, image_size=size, **settled)
    policy, losses = resolved.policy.upright() if config.keep_orientation else (resolved.policy, [])
    return replace(resolved, augment=policy.name or str(policy)), [
        *notes,
        *(f"augmentation: {loss}" for loss in losses),
    ]


def _larger(size_px: int) -> int:
    """A third more, in whole multiples of what most networks divide the size by."""
    return min(round(size_px * 4 / 3 / 32) * 32, SIZE_RANGE[1])


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
    return cleared, [f"no effect on a probe, whose head is solved and not stepped towards: {options}"] if given else []


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
        has = f"{facts.pretrained}, auto" if facts.pretrained else "auto"
        raise UsageError(
            f"--weights {config.weights}: {facts.name} has no weights of this kind. Use {has}, none, FILE or RUN."
        )
    return weights


def build(config: TrainConfig, classes: int, *, kept: Path | None = None) -> keras.Model:
    """The classifier graph of resolved settings, in float32, with its weights and a random head.

    Args:
        kept: a file of the run that contains the backbone, for one that its name alone does not give again.
    """
    backbone = stored.backbone(kept) if kept else _backbone(config, config.image_size, config.weights)
    return _classifier(backbone, config, classes)


def for_steps(model: keras.Model, config: TrainConfig) -> keras.Model:
    """The same classifier as gradient descent wants it: at `config.precision`, and of any size if sizes grow."""
    if config.precision == "float32" and not config.size_steps:
        return model
    if not sources.portable(config.backbone):
        return stored.at_precision(model, config.precision)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        backbone = _backbone(config, None if config.size_steps else config.image_size, sources.NONE)
        twin = _classifier(backbone, config, model.output_shape[-1])
    finally:
        keras.config.set_dtype_policy(policy)
    twin.set_weights(model.get_weights())
    return twin


def _classifier(backbone: keras.Model, config: TrainConfig, classes: int) -> keras.Model:
    return classifier.build(backbone, classes, dropout=config.dropout, seed=config.seed)


def _backbone(config: TrainConfig, size: int | None, weights: str) -> keras.Model:
    source = sources.find(config.backbone, offline=config.offline)
    return source.build(size, weights, offline=config.offline)
