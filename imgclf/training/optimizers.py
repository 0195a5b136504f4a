"""The optimizer and the learning rate of a recipe."""

from typing import Any

from imgclf import environment
from imgclf.training.recipe import Recipe

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

_KINDS: dict[str, tuple[type[keras.optimizers.Optimizer], dict[str, Any]]] = {
    "adamw": (keras.optimizers.Adam, {}),  # with decoupled decay this is AdamW (arXiv:1711.05101)
    "adam": (keras.optimizers.Adam, {}),
    "sgd": (keras.optimizers.SGD, {"momentum": 0.9}),
    "nesterov": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (keras.optimizers.RMSprop, {}),
    "lion": (keras.optimizers.Lion, {}),
    "nadam": (keras.optimizers.Nadam, {}),
    "adagrad": (keras.optimizers.Adagrad, {}),
}
"""By `--optimizer`, with their own arguments."""

Blocks = tuple[tuple[str, ...], ...]
"""The names of the layers of each block, from the top down; the head is above them all."""


def build(recipe: Recipe, steps: int, model: keras.Model, blocks: Blocks = ()) -> keras.optimizers.Optimizer:
    """Build the optimizer: warmup, then a cosine to 0 (Loshchilov 2017, arXiv:1608.03983).

    Args:
        steps: batches in an epoch.
        blocks: where the learning rate decays by layers.
    """
    top = with_rate(recipe, _schedule(recipe, steps, 1.0), model)
    if recipe.layer_decay == 1 or not blocks:
        return top
    below = {
        name: optimizer
        for depth, block in enumerate(blocks, start=1)
        for optimizer in [with_rate(recipe, _schedule(recipe, steps, recipe.layer_decay**depth), model)]
        for name in block
    }
    layer_of = {id(v): layer.name for layer in model.layers for v in layer.trainable_variables}
    return keras.optimizers.MultiOptimizer(lambda variable: below.get(layer_of[id(variable)], top))


def with_rate(recipe: Recipe, learning_rate: Any, model: keras.Model) -> keras.optimizers.Optimizer:
    """Build one optimizer with a learning rate or a schedule of it."""
    shared: dict[str, Any] = {
        "learning_rate": learning_rate,
        "weight_decay": recipe.weight_decay or None,
        "use_ema": bool(recipe.ema),
        "ema_momentum": recipe.ema ** (1 / recipe.accumulate) if recipe.ema else 0.99,  # it is updated every batch
        "gradient_accumulation_steps": recipe.accumulate if recipe.accumulate > 1 else None,
        "global_clipnorm": recipe.clip_norm or None,
    }
    kind, own = _KINDS[recipe.optimizer]
    optimizer = kind(**own, **shared)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])
    return optimizer


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the current learning rate of the head, whose variables come last in the graph and whose optimizer, too."""
    head = getattr(optimizer, "optimizers", [optimizer])[-1]
    return float(keras.ops.convert_to_numpy(head.learning_rate))


def _schedule(recipe: Recipe, steps: int, share: float) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warmup and cosine at a share of the recipe's learning rate."""
    total = max(1, recipe.epochs * steps // recipe.accumulate)
    warmup = min(round(recipe.warmup_epochs * steps / recipe.accumulate), total // 2)
    lr = recipe.lr * share
    cosine = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else lr,
        decay_steps=max(1, total - warmup),
        warmup_target=lr if warmup else None,
        warmup_steps=warmup,
    )
    return _PerStep(cosine, recipe.accumulate) if recipe.accumulate > 1 else cosine


class _PerStep(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule by steps; Keras 3.15 counts batches where gradients accumulate, whatever its documentation says."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, batches: int) -> None:
        super().__init__()
        self._schedule, self._batches = schedule, batches

    def __call__(self, step: Any) -> Any:
        return self._schedule(keras.ops.floor_divide(step, self._batches))
