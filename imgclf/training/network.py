"""Build the classifier of a recipe."""

from pathlib import Path

from imgclf import environment
from imgclf.models import classifier, sources, stored
from imgclf.training import devices
from imgclf.training.recipe import Recipe

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)


def build(recipe: Recipe, classes: int, *, kept: Path | None = None) -> keras.Model:
    """Build the classifier in float32, with its weights, and with the initial head that the seed gives.

    Args:
        kept: a file of the run that contains the backbone, for one that its name alone does not give again.
    """
    if recipe.settings.deterministic:
        devices.make_deterministic()
    keras.utils.set_random_seed(recipe.seed)
    backbone = stored.backbone(kept) if kept else _backbone(recipe, recipe.image_size, recipe.weights)
    return _classifier(backbone, recipe, classes)


def resized(model: keras.Model, recipe: Recipe) -> keras.Model:
    """Return the same classifier, with the same weights, at the recipe's image size."""
    return _twin(model, recipe, recipe.image_size)


def for_steps(model: keras.Model, recipe: Recipe) -> keras.Model:
    """Return the same classifier for gradient descent: at the recipe's precision, and of any size if sizes change."""
    if recipe.precision == "float32" and not recipe.changes_size:
        return model
    if not sources.portable(recipe.backbone):
        return stored.at_precision(model, recipe.precision)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        return _twin(model, recipe, None if recipe.changes_size else recipe.image_size)
    finally:
        keras.config.set_dtype_policy(policy)


def _twin(model: keras.Model, recipe: Recipe, size: int | None) -> keras.Model:
    twin = _classifier(_backbone(recipe, size, sources.NONE), recipe, model.output_shape[-1])
    twin.set_weights(model.get_weights())
    return twin


def _classifier(backbone: keras.Model, recipe: Recipe, classes: int) -> keras.Model:
    task = recipe.settings.task
    return classifier.build(backbone, classes, dropout=recipe.dropout, seed=recipe.seed, task=task)


def _backbone(recipe: Recipe, size: int | None, weights: str) -> keras.Model:
    offline = recipe.settings.offline
    return sources.find(recipe.backbone, offline=offline).build(size, weights, offline=offline)
