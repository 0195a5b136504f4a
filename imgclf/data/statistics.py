"""Statistics of a small copy of an image: brightness, contrast, information, sharpness, color, a thumbnail.

Sharpness is of single images; the rest is computed for many at once, where calls would cost more than arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE_PX = 128
"""Size of the gray square from which brightness, information and sharpness are computed; less for smaller images."""

THUMB_PX = 32
"""Size of the gray thumbnail by which near-duplicates are found."""

_NEAR = 8

DTYPE = np.dtype(
    [
        ("mean", "f4"),
        ("spread", "f4"),
        ("low", "f4"),
        ("high", "f4"),
        ("entropy", "f4"),
        ("flat", "f4"),
        ("blur", "f4"),
        ("chroma", "f4"),
        ("thumb", "u1", (THUMB_PX, THUMB_PX)),
    ]
)
"""Of one image: the luminance's mean, standard deviation, 5th and 95th percentile, all 0 to 255; the entropy of its
histogram in bits, 0 to 8; the share of pixels within 8 of the median, 0 to 1; how blurred it is, 0 to 1; how far the
channels are apart, the mean of the largest less the smallest, 0 to 255; and a gray thumbnail."""


@dataclass(frozen=True)
class Tiles:
    """The input of `measure` for one image.

    Luminance uint8 (t, t), its histogram (256,) in pixels, luminance as (32, 32), and RGB uint8 (32, 32, 3).
    """

    gray: np.ndarray
    histogram: list[int]
    thumb: np.ndarray
    colors: np.ndarray


def tiles(image: Image.Image) -> Tiles:
    """Reduce an RGB image to small squares; t is SIDE_PX, or half of it for a smaller image."""
    side = SIDE_PX if min(image.size) >= SIDE_PX else SIDE_PX // 2
    gray = image.convert("L")
    if gray.size != (side, side):
        gray = gray.resize((side, side), Image.Resampling.BOX)
    colors = image.resize((THUMB_PX, THUMB_PX), Image.Resampling.NEAREST)  # a sample of pixels
    return Tiles(np.asarray(gray), gray.histogram(), np.asarray(gray.reduce(side // THUMB_PX)), np.asarray(colors))


def measure(squares: Sequence[Tiles]) -> np.ndarray:
    """Compute the statistics of images from the results of `tiles`, as an array (n,) of DTYPE."""
    result = np.zeros(len(squares), DTYPE)
    if not squares:
        return result
    counts = np.array([one.histogram for one in squares])  # (n, 256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256.0)
    mean = shares @ levels
    result["mean"] = mean
    result["spread"] = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
    cumulated = shares.cumsum(axis=1)
    result["low"], median, result["high"] = ((cumulated < share).sum(axis=1) for share in (0.05, 0.5, 0.95))
    result["entropy"] = -(shares * np.log2(shares, where=shares > 0, out=np.zeros_like(shares))).sum(axis=1)
    result["flat"] = (shares * (np.abs(levels - median[:, None]) <= _NEAR)).sum(axis=1)
    result["blur"] = [max(_blur(one.gray), _blur(one.gray.T)) for one in squares]
    red, green, blue = np.moveaxis(np.stack([one.colors for one in squares]), 3, 0)  # (n, 32, 32) each
    apart = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    result["chroma"] = apart.mean(axis=(1, 2))
    result["thumb"] = np.stack([one.thumb for one in squares])
    return result


def _blur(gray: np.ndarray) -> float:
    """Measure how little a further blur along the rows of uint8 (t, t) changes it, from 0 (sharp) to 1 (blurred).

    Source: Crete et al. 2007, "The blur effect: perception and estimation with a new no-reference perceptual blur
    metric". The step of a running mean over `span` pixels is the difference of the pixels at its ends over `span`.
    """
    span = len(gray) // 16 + 1
    half = span // 2
    gray = np.ascontiguousarray(gray[:: len(gray) // 64])  # 64 rows say enough
    steps = np.uint16(span) * _distance(gray[:, half + 1 : -half], gray[:, half : -half - 1])
    ends = _distance(gray[:, span:], gray[:, :-span])
    total = int(steps.sum(dtype=np.int64))
    lost = int((np.maximum(steps, ends) - ends).sum(dtype=np.int64))
    return 1 - lost / total if total else 1.0


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.maximum(one, other) - np.minimum(one, other)
    return distance
