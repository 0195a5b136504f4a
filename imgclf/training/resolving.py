"""From what was asked to what will be done: `auto` and None become a backbone, weights, a method and numbers."""

from dataclasses import replace
from pathlib import Path

import keras

from imgclf.config import TrainConfig
from imgclf.errors import UsageError
from imgclf.models import backbones, catalog, classifier, convnets, embedded

STRONGEST = "efficientnetv2-b0"
FROM_SCRATCH = ("small-cnn",)

_NUMBERS: dict[str, dict[str, float | int | str]] = {
    "scratch": {
        "epochs": 40,
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
        "ema": 0.0,
        "augment": "light",
    },
}
_NUMBERS["probe"] = _NUMBERS["finetune"] | {"epochs": 1, "augment": "none"}


def resolve(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Settle every open setting.

    Returns:
        The settings without `auto` and None, and plain sentences on what was chosen where it may surprise.

    Raises:
        UsageError: if the backbone is unknown, or the settings exclude one another.
    """
    notes: list[str] = []
    name = config.backbone
    if name == "auto":
        name, note = _choose_backbone(config)
        notes.append(note)
    facts = catalog.find(name)
    weights = _choose_weights(facts.name, config)
    method = config.method
    if method == "auto":
        method = "scratch" if weights == "none" else "probe"
    if method != "scratch" and weights == "none" and config.weights == "auto":
        raise UsageError(
            f"--method {method} needs pretrained weights and {facts.name} has none. "
            "Use --method scratch, another --backbone, or --weights FILE."
        )
    steps = config.size_steps
    size = config.image_size or (steps[-1] if steps else facts.image_size)
    if steps and steps[-1] != size:
        raise UsageError(f"--image-sizes: expected the last one to be --image-size {size}, found {steps[-1]}.")
    numbers = _NUMBERS[method]
    settled = {
        key: value
        for key, value in numbers.items()
        if getattr(config, key) is None or (key == "augment" and config.augment == "auto")
    }
    resolved = replace(config, backbone=facts.name, weights=weights, method=method, image_size=size, **settled)
    return resolved, notes


def _choose_backbone(config: TrainConfig) -> tuple[str, str]:
    if config.method == "scratch" or config.weights == "none":
        return "small-cnn", "backbone: small-cnn, to be trained from scratch"
    if backbones.hub_available(STRONGEST, offline=config.offline):
        return STRONGEST, f"backbone: {STRONGEST}, with ImageNet weights from the hub"
    reason = "--offline" if config.offline else "the hub with stronger weights cannot be reached"
    if embedded.available():
        return (
            "embedded",
            f"backbone: the embedded one ({reason}). With network, --backbone {STRONGEST} is stronger.",
        )
    return "small-cnn", f"backbone: small-cnn, trained from scratch ({reason})"


def _choose_weights(name: str, config: TrainConfig) -> str:
    if config.weights == "auto":
        if name == "embedded" and embedded.available() and config.method != "scratch":
            return "embedded"
        return "none" if name in (*FROM_SCRATCH, "embedded") or config.method == "scratch" else "hub"
    return config.weights


def build(config: TrainConfig, classes: int, *, precision: str = "float32", load: bool = True) -> keras.Model:
    """The classifier graph of resolved settings.

    Args:
        precision: the dtype policy of the backbone while training.
        load: whether to read the weights; without, they are random.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        backbone = _backbone(config, load)
        return classifier.build(backbone, classes, dropout=config.dropout, seed=config.seed)
    finally:
        keras.config.set_dtype_policy(policy)


def _backbone(config: TrainConfig, load: bool) -> keras.Model:
    size = None if config.size_steps else config.image_size
    weights = config.weights if load else "none"
    if config.backbone in ("small-cnn", "embedded"):
        model = convnets.small_cnn(size) if config.backbone == "small-cnn" else embedded.build(size)
        if weights == "embedded":
            embedded.load(model)
        elif weights not in ("none", "hub"):
            backbones.load_weights(model, Path(weights))
        return model
    source = weights if weights in ("hub", "none") else Path(weights)
    return backbones.build(config.backbone, weights=source, image_size=size, offline=config.offline)
