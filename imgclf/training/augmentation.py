"""Augment training images: layers for every operation of a policy.

Two halves. The random crop is cut on the host, straight out of the cached pixels (`Crop`), so that only what a batch
shows is ever copied and enlarging and shrinking are antialiased. All the rest runs batch-wise on the device, compiled
into the training step, as Keras layers (`Augmenter`); where Keras has none that does what it should, as one of
`augmentation_layers`:

- `Affine`: rotation, zoom, shift and shear as one resampling, where Keras's layers blur four times; and its shear moves
  the image off its place.
- `Perspective`: Keras's layer never moves the upper left corner, and fills what it uncovers with black.
- `Elastic`: Keras's layer takes 9 s to be traced.
- `Blur`: Keras's layer stops at a deviation of 1 px, draws one for the whole batch, and darkens the border.
- picking and chains: Keras's RandAugment does the same to all images of a batch, computes every operation to throw
  nearly all away (more than a whole training step of a small network), and its AugMix chooses its operations
  while it is traced: a compiled step repeats them for ever.

Nothing here is part of the classifier's graph, so no export holds any of it.
"""

from typing import Any

import numpy as np
from PIL import Image

from imgclf import environment
from imgclf.policies import FRAMING
from imgclf.policies import POLICIES as POLICIES
from imgclf.policies import Policy as Policy
from imgclf.training.augmentation_layers import Affine, Perspective, per_image, seeded, stages

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers, ops  # noqa: E402

VERSION = 2
"""Changes with anything here that changes pixels: features of augmented images are cached by it."""

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
        found = stages(policy, self._random)
        self._framing = [stage for stage in found if set(stage.operations) <= set(FRAMING)]
        self._others = [stage for stage in found if stage not in self._framing]
        self._mixers: list[keras.layers.Layer] = []
        if mixup:
            self._mixers.append(seeded(layers.MixUp(mixup, dtype="float32"), self._random))
        if cutmix:  # of a pair Keras takes alpha itself, of a number one between 0 and it
            self._mixers.append(seeded(layers.CutMix((cutmix, cutmix), dtype="float32"), self._random))

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
        images, targets = (ops.where(per_image(first, one), one, other) for one, other in pairs)
        return images, targets


class Augment:
    """A whole policy at an image size, for what is no training batch: cached augmentations and contact sheets."""

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
    """Return the same layers and weights, but what `fit` gives to it is augmented first, inside the compiled step.

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
