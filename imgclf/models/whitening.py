"""Features of a backbone, half-way to as telling as one another.

A few directions hold most of what features of photographs differ in: how bright, how busy, how much of a texture. A
head with an L2 penalty leans on them, since small weights suffice there. Whitening would make all directions equal, and
what is mostly noise as long as what tells. Half-way, at the fourth root, a probe of the embedded backbone errs least
(tests/benchmarks/whitening.py and the model card).
"""

import io
from dataclasses import dataclass

import numpy as np

RANK = 128
"""Directions that are made shorter, those of the largest variance; all others are as long as each other."""

RIDGE = 0.1
"""What is added to each variance, as a part of the mean."""

POWER = 0.25
"""Of one over the variance: 0 changes nothing, 0.5 whitens."""


@dataclass(frozen=True)
class Whitening:
    """A linear map of features (n, d) to features (n, d).

    Args:
        deviation: by which each feature is divided, float32 (d,).
        directions: of unit length, at right angles to one another, float32 (d, r).
        gains: what each of them is multiplied by, less 1, float32 (r,).
    """

    deviation: np.ndarray
    directions: np.ndarray
    gains: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Whitening":
        """That of float (n, d); RANK < d."""
        deviation = np.maximum(features.std(axis=0), 1e-6)
        scaled = (features - features.mean(axis=0)) / deviation
        variances, directions = np.linalg.eigh((scaled.T @ scaled / len(scaled)).astype(np.float64))  # rising
        variances = np.maximum(variances, 0.0)
        ridge, rest = RIDGE * variances.mean(), variances[:-RANK].mean()
        gains = ((variances[-RANK:] + ridge) / (rest + ridge)) ** -POWER - 1
        return cls(*(each.astype(np.float32) for each in (deviation, directions[:, -RANK:], gains)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Float32 (..., d) -> float32 (..., d)."""
        scaled = features / self.deviation
        return scaled + (scaled @ self.directions * self.gains) @ self.directions.T

    def fold(self, kernel: np.ndarray) -> np.ndarray:
        """The kernel (d, c) that answers to features as this one does to what the map makes of them."""
        turned = kernel + self.directions @ (self.gains[:, np.newaxis] * (self.directions.T @ kernel))
        return turned / self.deviation[:, np.newaxis]

    def to_bytes(self) -> bytes:
        """A `.npz` file, the directions in 16 bits."""
        file = io.BytesIO()
        directions = self.directions.astype(np.float16)
        np.savez(file, allow_pickle=False, deviation=self.deviation, directions=directions, gains=self.gains)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Whitening":
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(*(arrays[name].astype(np.float32) for name in ("deviation", "directions", "gains")))
