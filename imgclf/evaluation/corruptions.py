"""Corruptions of images by kind and severity, made from pixels and a seed.

Each is applied to the square that the model sees, uint8 (s, s, 3). What a rotation, a shift or a smaller scale uncovers
is filled with the mirrored image, since black borders would be a corruption of their own.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

SEVERITIES = (1, 2, 3)
"""0 leaves an image as it is."""

CENTER = 0.6
"""Clutter stays outside this share of the width and height, around the center."""

MESH = 6
"""Elastic deformation moves the inner corners of this many by this many tiles."""

Change = Callable[[np.ndarray, float, np.random.Generator, np.ndarray], np.ndarray]
"""Called with the pixels, the strength, a source of randomness, and the pixels of an image of another class."""


@dataclass(frozen=True)
class Kind:
    """One kind of corruption.

    Args:
        aspect: what it tests.
        strengths: by severity, 1 to 3.
        unit: what the strengths mean.
    """

    aspect: str
    change: Change
    strengths: tuple[float, float, float]
    unit: str


def corrupt(pixels: np.ndarray, kind: str, severity: int, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """Corrupt an image.

    Args:
        pixels: uint8 (s, s, 3).
        kind: a key of `KINDS`.
        severity: 0 to 3; 0 returns the pixels as they are.
        other: uint8 (s, s, 3), an image of another class.
    """
    if severity == 0:
        return pixels
    found = KINDS[kind]
    return found.change(pixels, found.strengths[severity - 1], rng, other)


def _warped(pixels: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Resample by a projective map (3, 3) from places in the result to places in the image, both around the center."""
    size = len(pixels)
    border = size // 2
    wide = Image.fromarray(np.pad(pixels, ((border, border), (border, border), (0, 0)), "symmetric"))
    to_center = np.array([[1, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1]])
    back = np.array([[1, 0, size / 2 + border], [0, 1, size / 2 + border], [0, 0, 1]])
    matrix = back @ inverse @ to_center
    data = (matrix / matrix[2, 2]).ravel()[:8].tolist()
    return np.asarray(wide.transform((size, size), Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC))


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


def _rotate(pixels: np.ndarray, degrees: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    angle = math.radians(degrees) * _sign(rng)
    cos, sin = math.cos(angle), math.sin(angle)
    return _warped(pixels, np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]))


def _tilt(pixels: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """Return the far edge, one of four, becomes shorter by the share."""
    lean = 2 * share / (2 - share) / len(pixels) * _sign(rng)
    place = rng.integers(2)
    return _warped(pixels, np.array([[1, 0, 0], [0, 1, 0], [lean * (1 - place), lean * place, 1]]))


def _shift(pixels: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    moved = np.array([_sign(rng), 0.0]) * share * len(pixels)
    right, down = moved if rng.random() < 0.5 else moved[::-1]
    return _warped(pixels, np.array([[1, 0, right], [0, 1, down], [0, 0, 1]]))


def _resize(pixels: np.ndarray, factor: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    return _warped(pixels, np.diag([1 / factor, 1 / factor, 1]))


def _brighten(pixels: np.ndarray, factor: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    return _clipped(pixels * factor)


def _fade(pixels: np.ndarray, factor: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    mean = pixels.mean()
    return _clipped(mean + (pixels - mean) * factor)


def _tint(pixels: np.ndarray, strength: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    gains = np.array([1 + strength, 1.0, 1 - strength])  # as of a lamp, or of shade
    return _clipped(pixels * (gains if rng.random() < 0.5 else gains[::-1]))


def _elastic(pixels: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """Move the inner corners of a mesh at random, by up to a share of a tile."""
    size = len(pixels)
    edges = np.linspace(0, size, MESH + 1)
    corners = np.stack(np.meshgrid(edges, edges, indexing="xy"), axis=2)  # (7, 7, 2): x and y
    moved = corners.copy()
    moved[1:-1, 1:-1] += rng.uniform(-1, 1, (MESH - 1, MESH - 1, 2)) * share * size / MESH
    ends = np.round(edges).astype(int)
    mesh = []
    for row in range(MESH):
        for column in range(MESH):
            box = (int(ends[column]), int(ends[row]), int(ends[column + 1]), int(ends[row + 1]))
            quad = [moved[row, column], moved[row + 1, column], moved[row + 1, column + 1], moved[row, column + 1]]
            mesh.append((box, tuple(np.concatenate(quad).tolist())))
    return np.asarray(
        Image.fromarray(pixels).transform((size, size), Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
    )


def _cover(pixels: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """Cover a share of the area with one gray square, somewhere."""
    size = len(pixels)
    side = round(math.sqrt(share) * size)
    top, left = rng.integers(0, size - side + 1, 2)
    covered = pixels.copy()
    covered[top : top + side, left : left + side] = 128
    return covered


def _clutter(pixels: np.ndarray, count: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """Paste patches of an image of another class along the border, outside the central part."""
    size = len(pixels)
    side = int((1 - CENTER) / 2 * size)
    cluttered = pixels.copy()
    for _ in range(int(count)):
        across, along = rng.choice((0, size - side)), rng.integers(0, size - side + 1)
        top, left = (across, along) if rng.random() < 0.5 else (along, across)
        y, x = rng.integers(0, size - side + 1, 2)
        cluttered[top : top + side, left : left + side] = other[y : y + side, x : x + side]
    return cluttered


def _noise(pixels: np.ndarray, deviation: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    return _clipped(pixels + rng.normal(0, deviation, pixels.shape))


def _blur(pixels: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(share * len(pixels))))


def _jpeg(pixels: np.ndarray, quality: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


KINDS: Mapping[str, Kind] = {
    "rotation": Kind("viewpoint", _rotate, (10, 20, 40), "degrees"),
    "perspective": Kind("viewpoint", _tilt, (0.2, 0.35, 0.5), "shorter far edge"),
    "translation": Kind("translation", _shift, (0.05, 0.1, 0.2), "of the side"),
    "smaller": Kind("scale", _resize, (0.8, 0.65, 0.5), "times"),
    "larger": Kind("scale", _resize, (1.25, 1.5, 2.0), "times"),
    "darker": Kind("illumination", _brighten, (0.6, 0.4, 0.2), "times"),
    "brighter": Kind("illumination", _brighten, (1.4, 1.8, 2.5), "times"),
    "low contrast": Kind("illumination", _fade, (0.6, 0.4, 0.2), "times"),
    "color cast": Kind("illumination", _tint, (0.2, 0.4, 0.6), "in red and blue"),
    "elastic": Kind("deformation", _elastic, (0.15, 0.3, 0.45), "of a tile"),
    "occlusion": Kind("occlusion", _cover, (0.1, 0.2, 0.35), "of the area"),
    "clutter": Kind("clutter", _clutter, (3, 6, 12), "patches"),
    "noise": Kind("noise", _noise, (10, 25, 50), "gray levels"),
    "blur": Kind("blur", _blur, (0.006, 0.012, 0.025), "of the side"),
    "jpeg": Kind("JPEG", _jpeg, (30, 15, 6), "quality"),
}
"""By name, in the order of tables and plots."""
