"""Augment training images: layers for every operation of a policy.

Two halves. The random crop is cut on the host, straight out of the cached pixels (`Crop`), so that only what a batch
shows is ever copied and enlarging and shrinking are antialiased. All the rest runs batch-wise on the device, compiled
into the training step, as Keras layers (`Augmenter`); where Keras has none that does what it should, as one of the
layers below:

- `Affine`: rotation, zoom, shift and shear as one resampling, where Keras's layers blur four times; and its shear moves
  the picture off its place.
- `Perspective`: Keras's layer never moves the upper left corner, and fills what it uncovers with black.
- `Elastic`: Keras's layer takes 9 s to be traced.
- `Blur`: Keras's layer stops at a deviation of 1 px, draws one for the whole batch, and darkens the border.
- picking and chains: Keras's RandAugment does the same to all images of a batch, computes every operation to throw
  nearly all away (more than a whole training step of a small network), and its AugMix chooses its operations
  while it is traced: a compiled step repeats them for ever.

Nothing here is part of the classifier's graph, so no export holds any of it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from imgclf import environment
from imgclf.policies import FRAMING
from imgclf.policies import POLICIES as POLICIES
from imgclf.policies import Policy as Policy

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers, ops  # noqa: E402

VERSION = 2
"""Changes with anything here that changes pixels: features of augmented views are kept by it."""

_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)

_DRAWS_PER_STEP = 1024
"""More than a policy draws in one step, so that no two steps draw the same."""


class Crop:
    """The random crop of a policy, as a transform for `data.loading.training_batches`.

    That of Inception (Szegedy et al. 2015, arXiv:1409.4842, section 6): a share of the area and an aspect ratio are
    drawn, and the crop is resized, antialiased, to the wanted size. The filter is drawn, too, so that no filter's
    smoothness is part of what is learned.
    """

    def __init__(self, policy: Policy, size_px: int) -> None:
        self.least_area = 1 - policy.strength("crop")
        self.aspect = 1 + policy.strength("stretch")
        self.size_px = size_px

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (b, S, S, 3) -> uint8 (b, s, s, 3)."""
        count, side = len(pixels), pixels.shape[1]
        size = self.size_px
        cropping = self.least_area < 1 or self.aspect > 1
        if not cropping and side == size:
            return pixels
        boxes = self._boxes(count, side, rng)
        filters = rng.choice(_FILTERS, count) if cropping else [Image.Resampling.BILINEAR] * count
        resized = np.empty((count, size, size, 3), np.uint8)
        for i, box in enumerate(boxes):
            image = Image.fromarray(pixels[i]).resize((size, size), filters[i], box=tuple(box))
            resized[i] = np.asarray(image)
        return resized

    def _boxes(self, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """float (count, 4): left, top, right, bottom in pixels."""
        area = rng.uniform(self.least_area, 1.0, count)
        ratio = np.exp(rng.uniform(-1, 1, count) * np.log(self.aspect))
        width = np.minimum(np.sqrt(area * ratio), 1.0) * side
        height = np.minimum(np.sqrt(area / ratio), 1.0) * side
        left = rng.random(count) * (side - width)
        top = rng.random(count) * (side - height)
        return np.stack([left, top, left + width, top + height], axis=1)


class Augmenter:
    """The rest of a policy, and the mixing of images with their labels: a function of a batch and a step's number.

    It has no state: what it draws follows from the seed and the number alone, compiled or not. Keras's TensorFlow and
    JAX draw differently from the same seed.

    Args:
        mixup: alpha of the Beta distribution of the share of another image that is laid over each one, 0 for none
            (Zhang et al. 2018, arXiv:1710.09412).
        cutmix: the same for the share of the area that is cut out of another image, 0 for none (Yun et al. 2019,
            arXiv:1905.04899). With both, each image takes one of them, drawn evenly.
    """

    def __init__(self, policy: Policy, *, seed: int, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        self.policy = policy
        self._random = keras.random.SeedGenerator(seed)
        stages = _stages(policy, self._random)
        self._framing = [stage for stage in stages if set(stage.operations) <= set(FRAMING)]
        self._others = [stage for stage in stages if stage not in self._framing]
        self._mixers: list[keras.layers.Layer] = []
        if mixup:
            self._mixers.append(_seeded(layers.MixUp(mixup, dtype="float32"), self._random))
        if cutmix:  # of a pair Keras takes alpha itself, of a number one between 0 and it
            self._mixers.append(_seeded(layers.CutMix((cutmix, cutmix), dtype="float32"), self._random))

    def __bool__(self) -> bool:
        """Whether it does anything."""
        return bool(self._framing or self._others or self._mixers)

    @property
    def supports_jit(self) -> bool:
        """Whether XLA can compile it; under TensorFlow it has neither affine resampling nor the gamma distribution."""
        return keras.backend.backend() != "tensorflow" or not (
            self._mixers or any(isinstance(stage, Affine | Perspective) for stage in self._others)
        )

    def __call__(self, pixels: Any, targets: Any, step: Any) -> tuple[Any, Any]:
        """Augment a batch.

        Args:
            pixels: uint8 or float (b, s, s, 3), 0-255.
            targets: float (b, classes), rows summing to 1.
            step: an int, or a tensor of one: the number of the training step.

        Returns:
            Pixels float32 (b, s, s, 3), 0-255, and targets, which are other ones only if images are mixed.
        """
        images = ops.cast(pixels, "float32")
        state = self._random.state
        start = ops.cast(step, state.dtype) * ops.cast(_DRAWS_PER_STEP, state.dtype)
        with keras.StatelessScope(state_mapping=[(state, ops.stack([state.value[0], start]))]):
            for stage in self._framing:
                images = stage(images, None)
            if self.policy.chains:
                images = self._chained(images)
            else:
                on = self._pick(images, self.policy.pick) if self.policy.pick else None
                for stage in self._others:
                    images = stage(images, on)
            return self._mix(images, targets)

    def _pick(self, images: Any, most: Any) -> dict[str, Any]:
        """For each operation, which images take it: bool (b,). Each image takes `most`, int or int (b,), in all."""
        drawn = [name for stage in self._others for name in stage.operations]
        scores = keras.random.uniform((ops.shape(images)[0], len(drawn)), seed=self._random)
        ranks = ops.argsort(ops.argsort(scores, axis=1), axis=1)  # (b, operations)
        on = ranks < ops.reshape(most, (-1, 1))
        return {name: on[:, place] for place, name in enumerate(drawn)}

    def _chained(self, images: Any) -> Any:
        """AugMix: a Dirichlet mean of chains, then a Beta mean with the image itself, both flat."""
        count, chains = ops.shape(images)[0], self.policy.chains
        waits = -ops.log(keras.random.uniform((count, chains), minval=1e-6, seed=self._random))  # exponential
        shares = waits / ops.sum(waits, axis=1, keepdims=True)
        kept = keras.random.uniform((count, 1, 1, 1), seed=self._random)
        mixed = kept * images
        for chain in range(chains):
            lengths = ops.floor(keras.random.uniform((count,), seed=self._random) * self.policy.pick) + 1
            on = self._pick(images, ops.cast(lengths, "int32"))
            changed = images
            for stage in self._others:
                changed = stage(changed, on)
            mixed = mixed + (1 - kept) * ops.reshape(shares[:, chain], (-1, 1, 1, 1)) * changed
        return mixed

    def _mix(self, images: Any, targets: Any) -> tuple[Any, Any]:
        if not self._mixers:
            return images, targets
        batch = {"images": images, "labels": targets}
        mixed = [mixer(batch, training=True) for mixer in self._mixers]
        if len(mixed) == 1:
            return mixed[0]["images"], mixed[0]["labels"]
        first = keras.random.uniform((ops.shape(images)[0],), seed=self._random) < 0.5
        pairs = ((mixed[0][name], mixed[1][name]) for name in ("images", "labels"))
        images, targets = (ops.where(_per_image(first, one), one, other) for one, other in pairs)
        return images, targets


class Augment:
    """A whole policy at an image size, for pixels that are no training batch: views to take features of, and sheets."""

    def __init__(self, policy: Policy, size_px: int) -> None:
        self._crop = Crop(policy, size_px)
        self._augmenter = Augmenter(policy, seed=0)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (b, S, S, 3) -> uint8 (b, s, s, 3)."""
        cropped = self._crop(pixels, rng)
        if not self._augmenter:
            return cropped
        unused = np.zeros((len(cropped), 1), np.float32)
        changed, _ = self._augmenter(cropped, unused, int(rng.integers(1 << 31)))
        return ops.convert_to_numpy(changed).round().clip(0, 255).astype(np.uint8)


def training_model(model: keras.Model, augmenter: Augmenter) -> keras.Model:
    """The same layers and weights, but what `fit` gives to it is augmented first, inside the compiled step.

    `predict` and `evaluate` see the pixels as they are.
    """
    return _TrainingModel(model, augmenter) if augmenter else model


class _TrainingModel(keras.Model):
    def __init__(self, model: keras.Model, augmenter: Augmenter) -> None:
        super().__init__(inputs=model.input, outputs=model.output, name=model.name)
        self._augmenter = augmenter
        self.supports_jit = augmenter.supports_jit

    def fit(self, *arguments: Any, **options: Any) -> Any:
        """TensorFlow would trace a second image size as one that is not known, and layers here build on it."""
        if keras.backend.backend() == "tensorflow":
            self.make_train_function(force=True)
        return super().fit(*arguments, **options)

    def train_step(self, *arguments: Any) -> Any:
        """Keras passes the batch under TensorFlow, and under JAX the variables' values before it."""
        *state, data = arguments
        pixels, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        iterations = self.optimizer.iterations
        if state:
            place = next(i for i, v in enumerate(self.optimizer.variables) if v is iterations)
            iterations = state[0][2][place]
        return super().train_step(*state, self._augmenter(pixels, targets, iterations))


def _per_image(values: Any, like: Any) -> Any:
    """(b,) -> (b, 1, ...), to be combined with `like`."""
    return ops.reshape(values, (-1,) + (1,) * (len(like.shape) - 1))


def _seeded(layer: keras.layers.Layer, generator: keras.random.SeedGenerator) -> keras.layers.Layer:
    """One of Keras's random layers, drawing from the augmenter's generator."""
    layer.generator = generator
    return layer


On = dict[str, Any] | None
"""Which images take an operation, bool (b,), by its name; None for all of them."""


class _Layer:
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
        return changed if chosen is None else ops.where(_per_image(chosen, images), changed, images)


class _Own:
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
        return drawn * _per_image(ops.cast(on[name], "float32"), drawn) if on else drawn


class Affine(_Own):
    """Rotation, zoom, shift and shear about the image's centre, in one resampling; what is uncovered is mirrored."""

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


class Perspective(_Own):
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


class Elastic(_Own):
    """Smooth waves: a coarse grid of random displacements, with soft steps between them."""

    names = ("elastic",)
    grid = 5

    def __call__(self, images: Any, on: On) -> Any:
        height, width = images.shape[1:3]
        knots = self.draw("elastic", images, on, (2, self.grid, self.grid))
        waves = ops.einsum("yi,bdij,xj->dbyx", self._weights(height), knots, self._weights(width))
        x = np.arange(width, dtype=np.float32) + waves[0] * width
        y = np.arange(height, dtype=np.float32)[:, None] + waves[1] * height
        return _sampled(images, x, y)

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


class Blur(_Own):
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
        variance = ops.reshape(deviation, (-1, 1, 1)) ** 2 + 1e-3  # so little is no blur: exp(-500) of the neighbour
        weights = ops.exp(-squares / (2 * variance))
        return weights / ops.sum(weights, axis=2, keepdims=True)


def _sampled(images: Any, x: Any, y: Any) -> Any:
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


def _stages(policy: Policy, generator: keras.random.SeedGenerator) -> list[Any]:
    """What a policy does on the device, in the order of OPERATIONS."""

    def keras_layer(name: str, make: Callable[[float], keras.layers.Layer], share: float = 1.0, margin: int = 0) -> Any:
        strength = policy.strength(name)
        return _Layer(name, _seeded(make(strength), generator), share, margin) if strength else None

    def own(kind: type[_Own]) -> Any:
        stage = kind(policy, generator)
        return stage if stage.operations else None

    flip, flip_vertical = (2 * policy.strength(name) for name in ("flip", "flip-vertical"))  # Keras mirrors half
    stages = [
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
    return [stage for stage in stages if stage]
