"""The operations of an augmentation policy that run on the device: Keras's layers, and own ones where none fits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.policies import Policy

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers, ops  # noqa: E402


def per_image(values: Any, like: Any) -> Any:
    """(b,) -> (b, 1, ...), to be combined with `like`."""
    return ops.reshape(values, (-1,) + (1,) * (len(like.shape) - 1))


def seeded(layer: keras.layers.Layer, generator: keras.random.SeedGenerator) -> keras.layers.Layer:
    """One of Keras's random layers, drawing from the augmenter's generator."""
    layer.generator = generator
    return layer


On = dict[str, Any] | None
"""Which images take an operation, bool (b,), by its name; None for all of them."""


class KerasLayer:
    """One of Keras's layers for one operation.

    Args:
        share: of the images that are changed at all.
        margin: how far the layer looks beyond the image's border, in px. The border's pixels are mirrored there; Keras
            takes what is not there for black.
    """

    def __init__(self, operation: str, layer: keras.layers.Layer, share: float = 1.0, margin: int = 0) -> None:
        self.operations = (operation,)
        self.layer = layer
        self.share = share
        self.margin = margin

    def __call__(self, images: Any, on: On) -> Any:
        margin = self.margin
        if margin:
            wider = ops.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
            changed = self.layer(wider, training=True)[:, margin:-margin, margin:-margin]
        else:
            changed = self.layer(images, training=True)
        chosen = on[self.operations[0]] if on else None
        if self.share < 1:
            drawn = keras.random.uniform((ops.shape(images)[0],), seed=self.layer.generator) < self.share
            chosen = drawn if chosen is None else ops.logical_and(chosen, drawn)
        changed = ops.clip(changed, 0, 255)  # which RandomSaturation leaves to others
        return changed if chosen is None else ops.where(per_image(chosen, images), changed, images)


class Own:
    """An operation, or several in one, that Keras has no fitting layer for. Strength 0 changes nothing."""

    names: tuple[str, ...] = ()

    def __init__(self, policy: Policy, generator: keras.random.SeedGenerator) -> None:
        self.strengths = {name: policy.strength(name) for name in self.names if policy.strength(name)}
        self.operations = tuple(self.strengths)
        self.generator = generator

    def draw(self, name: str, images: Any, on: On, shape: tuple[int, ...] = ()) -> Any:
        """Float (b, *shape), evenly from -strength to strength; 0 for images that do not take the operation."""
        count = ops.shape(images)[0]
        strength = self.strengths.get(name, 0.0)
        if not strength:
            return ops.zeros((count, *shape))
        drawn = keras.random.uniform((count, *shape), -strength, strength, seed=self.generator)
        return drawn * per_image(ops.cast(on[name], "float32"), drawn) if on else drawn


class Affine(Own):
    """Rotation, zoom, shift and shear about the image's center, in one resampling; what is uncovered is mirrored."""

    names = ("rotate", "zoom", "shift", "shear")

    def __call__(self, images: Any, on: On) -> Any:
        height, width = images.shape[1:3]
        angle = self.draw("rotate", images, on) * (math.pi / 180)
        zoom = self.draw("zoom", images, on)
        further = 1 + ops.abs(zoom)
        scale = ops.where(zoom > 0, further, 1 / further)
        shear = ops.tan(self.draw("shear", images, on, (2,)) * (math.pi / 180))
        shift = self.draw("shift", images, on, (2,))
        cos, sin = scale * ops.cos(angle), scale * ops.sin(angle)
        a0, a1 = cos - sin * shear[:, 1], cos * shear[:, 0] - sin
        b0, b1 = sin + cos * shear[:, 1], sin * shear[:, 0] + cos
        x, y = (width - 1) / 2, (height - 1) / 2
        a2 = x + shift[:, 0] * width - a0 * x - a1 * y
        b2 = y + shift[:, 1] * height - b0 * x - b1 * y
        zero = ops.zeros_like(a0)
        transform = ops.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)  # output place -> input place
        return ops.image.affine_transform(images, transform, interpolation="bilinear", fill_mode="reflect")


class Perspective(Own):
    """Each corner of the view moves inwards: a projection that shows nothing beyond the image."""

    names = ("perspective",)

    def __call__(self, images: Any, on: On) -> Any:
        height, width = images.shape[1:3]
        inwards = ops.abs(self.draw("perspective", images, on, (4, 2)))
        signs = np.array([(1, 1), (-1, 1), (1, -1), (-1, -1)], np.float32)
        corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float32)
        size = np.array([width - 1, height - 1], np.float32)
        seen = (corners + signs * inwards) * size  # (b, 4, 2): x, y
        shown = ops.zeros_like(seen) + corners * size
        return ops.image.perspective_transform(images, seen, shown, interpolation="bilinear")


class Elastic(Own):
    """Smooth waves: a coarse grid of random displacements, with soft steps between them."""

    names = ("elastic",)
    grid = 5

    def __call__(self, images: Any, on: On) -> Any:
        height, width = images.shape[1:3]
        knots = self.draw("elastic", images, on, (2, self.grid, self.grid))
        waves = ops.einsum("yi,bdij,xj->dbyx", self._weights(height), knots, self._weights(width))
        x = np.arange(width, dtype=np.float32) + waves[0] * width
        y = np.arange(height, dtype=np.float32)[:, None] + waves[1] * height
        return sampled(images, x, y)

    def _weights(self, side: int) -> np.ndarray:
        """Float32 (side, grid): what each place takes of the two knots around it."""
        places = np.linspace(0, self.grid - 1, side)
        low = np.minimum(places.astype(int), self.grid - 2)
        share = places - low
        share = share * share * (3 - 2 * share)
        weights = np.zeros((side, self.grid), np.float32)
        weights[np.arange(side), low] = 1 - share
        weights[np.arange(side), low + 1] = share
        return weights


class Blur(Own):
    """A Gaussian blur with another deviation for each image.

    It is a product with a matrix from either side, whose rows sum to 1 at the border, too.
    """

    names = ("blur",)

    def __call__(self, images: Any, on: On) -> Any:
        height, width = images.shape[1:3]
        deviation = ops.abs(self.draw("blur", images, on)) * max(height, width)  # px
        rows, columns = (self._weights(deviation, side) for side in (height, width))
        images = ops.einsum("bij,bjwc->biwc", rows, images)
        return ops.einsum("bij,bhjc->bhic", columns, images)

    def _weights(self, deviation: Any, side: int) -> Any:
        """Float (b, side, side): what each place takes of each other."""
        places = np.arange(side, dtype=np.float32)
        squares = (places[:, None] - places) ** 2
        variance = ops.reshape(deviation, (-1, 1, 1)) ** 2 + 1e-3  # so little is no blur: exp(-500) of the neighbor
        weights = ops.exp(-squares / (2 * variance))
        return weights / ops.sum(weights, axis=2, keepdims=True)


def sampled(images: Any, x: Any, y: Any) -> Any:
    """Bilinear values of images (b, h, w, c) at places x and y, float (b, h, w) in px; beyond the border, mirrored."""
    height, width, channels = images.shape[1:]
    flat = ops.reshape(images, (-1, channels))
    first = ops.reshape(ops.arange(ops.shape(images)[0]) * (height * width), (-1, 1, 1))

    def split(place: Any, side: int) -> tuple[Any, Any, Any]:
        mirrored = side - ops.abs(side - ops.mod(ops.abs(place + 0.5), 2 * side))
        inside = ops.clip(mirrored - 0.5, 0, side - 1)
        low = ops.floor(inside)
        index = ops.cast(low, "int32")
        return index, ops.minimum(index + 1, side - 1), (inside - low)[..., None]

    left, right, across = split(x, width)
    upper, lower, down = split(y, height)

    def row(place: Any) -> Any:
        one = ops.take(flat, first + place * width + left, axis=0)
        other = ops.take(flat, first + place * width + right, axis=0)
        return one + (other - one) * across

    top = row(upper)
    return top + (row(lower) - top) * down


def stages(policy: Policy, generator: keras.random.SeedGenerator) -> list[Any]:
    """Return what a policy does on the device, in the order of OPERATIONS."""

    def keras_layer(name: str, make: Callable[[float], keras.layers.Layer], share: float = 1.0, margin: int = 0) -> Any:
        strength = policy.strength(name)
        return KerasLayer(name, seeded(make(strength), generator), share, margin) if strength else None

    def own(kind: type[Own]) -> Any:
        stage = kind(policy, generator)
        return stage if stage.operations else None

    flip, flip_vertical = (2 * policy.strength(name) for name in ("flip", "flip-vertical"))  # Keras mirrors half
    found = [
        keras_layer("flip", lambda s: layers.RandomFlip("horizontal", dtype="float32"), flip),
        keras_layer("flip-vertical", lambda s: layers.RandomFlip("vertical", dtype="float32"), flip_vertical),
        own(Affine),
        own(Perspective),
        own(Elastic),
        # of one number Keras would take the upper half only: more contrast, never less
        keras_layer("contrast", lambda s: layers.RandomContrast((s, s), dtype="float32")),
        keras_layer("brightness", lambda s: layers.RandomBrightness(s, dtype="float32")),
        # Keras multiplies by f / (1 - f)
        keras_layer("saturation", lambda s: layers.RandomSaturation((1 / (2 + s), (1 + s) / (2 + s)), dtype="float32")),
        keras_layer("hue", lambda s: layers.RandomHue((0.0, s / 180), dtype="float32")),
        keras_layer("gray", lambda s: layers.RandomGrayscale(s, dtype="float32")),
        own(Blur),
        keras_layer("sharpen", lambda s: layers.RandomSharpness((0.5, 0.5 + s / 2), dtype="float32"), margin=1),
        keras_layer(
            "erase", lambda s: layers.RandomErasing((0.5, 0.5), (min(s, 0.02), s), fill_value=127, dtype="float32")
        ),
    ]
    return [stage for stage in found if stage]
