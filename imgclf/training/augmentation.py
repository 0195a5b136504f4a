"""What training does to its pictures so that the network learns the object and not the picture."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Policy:
    """How far each operation may go; 0 and 1 mean that it is off where noted.

    Args:
        flip: whether to mirror left and right, half of the time.
        crop_area: the smallest share of the picture's area that a random crop may keep, in (0, 1]; 1 is off.
        aspect: the largest change of the crop's aspect ratio, at least 1; 1 is off.
        brightness: the largest shift, as a share of the full range, in [0, 1].
        contrast: the largest relative change, in [0, 1).
    """

    flip: bool = False
    crop_area: float = 1.0
    aspect: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0


POLICIES = {
    "none": Policy(),
    "light": Policy(flip=True, crop_area=0.8, aspect=1.1),
    "standard": Policy(flip=True, crop_area=0.5, aspect=4 / 3, brightness=0.1, contrast=0.2),
    "heavy": Policy(flip=True, crop_area=0.25, aspect=4 / 3, brightness=0.2, contrast=0.4),
}

VERSION = 1
"""Changes with anything here that changes pixels: features of augmented views are kept by it."""

_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


class Augment:
    """A policy at an image size, as a transform for `data.loading.training_batches`.

    The random crop of Inception (Szegedy et al. 2015, arXiv:1409.4842, section 6): a share of the area and an aspect
    ratio are drawn, and the crop is resized, antialiased, to the wanted size. The filter is drawn, too, so that
    no filter's smoothness is part of what is learned.
    """

    def __init__(self, policy: Policy, size_px: int) -> None:
        self.policy = policy
        self.size_px = size_px

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (b, S, S, 3) -> uint8 (b, s, s, 3)."""
        count, side = len(pixels), pixels.shape[1]
        policy, size = self.policy, self.size_px
        flips = rng.random(count) < 0.5 if policy.flip else np.zeros(count, bool)
        boxes = self._boxes(count, side, rng)
        filters = rng.choice(_FILTERS, count) if policy.crop_area < 1 else [Image.Resampling.BILINEAR] * count
        resized = np.empty((count, size, size, 3), np.uint8)
        for i, box in enumerate(boxes):
            image = Image.fromarray(pixels[i]).resize((size, size), filters[i], box=tuple(box))
            resized[i] = np.asarray(image)[:, ::-1] if flips[i] else np.asarray(image)
        if not (policy.brightness or policy.contrast):
            return resized
        shape = (count, 1, 1, 1)
        gain = 1 + rng.uniform(-policy.contrast, policy.contrast, shape).astype(np.float32)
        shift = 255 * rng.uniform(-policy.brightness, policy.brightness, shape).astype(np.float32)
        means = resized.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
        jittered = (resized - means) * gain + (means + shift)
        return np.clip(jittered, 0, 255, out=jittered).astype(np.uint8)

    def _boxes(self, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """float (count, 4): left, top, right, bottom in pixels."""
        area = rng.uniform(self.policy.crop_area, 1.0, count)
        ratio = np.exp(rng.uniform(-1, 1, count) * np.log(self.policy.aspect))
        width = np.minimum(np.sqrt(area * ratio), 1.0) * side
        height = np.minimum(np.sqrt(area / ratio), 1.0) * side
        left = rng.random(count) * (side - width)
        top = rng.random(count) * (side - height)
        return np.stack([left, top, left + width, top + height], axis=1)
