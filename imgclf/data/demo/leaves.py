"""Draw the outlines and veins of leaves of five species."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator
Array = np.ndarray


@dataclass(frozen=True)
class Leaf:
    """A flat leaf. The petiole joins at (0, 0), the tip is near (0, 1), x goes right.

    `outline` is float (n, 2). Each vein is a polyline from thick to thin, with its thickness relative to the midrib's.
    """

    outline: Array
    veins: list[tuple[Array, float]]


def heading(angle: float) -> Array:
    """Return the unit vector at an angle in radians from the x axis towards the y axis: float (2,)."""
    return np.array([math.cos(angle), math.sin(angle)])


def arc(start: Array, end: Array, sag: float, n: int = 9) -> Array:
    """Return a curve from start to end that bows to its left by `sag` times its length: float (n, 2)."""
    t = (np.arange(n) / (n - 1))[:, None]
    step = np.asarray(end) - start
    left = np.array([-step[1], step[0]])
    curve: Array = start + step * t + left * (sag * 4 * t * (1 - t))
    return curve


def _spline(points: list[tuple[float, float]], n: int = 240) -> Array:
    """Return a Catmull-Rom curve through the points: float (n, 2), evenly spaced along its length."""
    p = np.array(points, dtype=float)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return _even(np.vstack([*parts, p[-2:-1]]), n)


def _even(curve: Array, n: int) -> Array:
    """Return the same curve by n points at equal distances."""
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    at = np.linspace(0, length[-1], n)
    return np.stack([np.interp(at, length, curve[:, 0]), np.interp(at, length, curve[:, 1])], axis=1)


def _serrate(rng: Rng, margin: Array, teeth: float, depth: float, double: bool = False) -> Array:
    """Cut forward-leaning teeth into a margin that runs from base to tip on the right side."""
    curve = _even(margin, 420)
    s = np.linspace(0, 1, len(curve))
    along = np.gradient(curve, axis=0)
    along /= np.hypot(*along.T)[:, None] + 1e-9
    out = np.stack([along[:, 1], -along[:, 0]], axis=1)
    phase = s * teeth + rng.uniform()
    size = rng.uniform(0.6, 1.3, int(teeth) + 3)[phase.astype(int)]
    saw = (phase % 1.0) * size
    if double:
        saw += 0.5 * (phase * 3 % 1.0)
    fade = np.minimum(1, np.minimum(s * 3, (1 - s) * 9))
    cut: Array = curve + (out + 0.8 * along) * (depth * saw * fade)[:, None]
    return cut


def _feathered(right: Array, left: Array, veins: Array, rise: float, sag: float) -> Leaf:
    """Return a leaf with one midrib: two margins (x > 0, from base to tip) and side veins that end at `veins` of each.

    `rise` is how far a side vein climbs per unit of width.
    """
    lines = [(np.array([[0.0, y] for y in np.linspace(0, 0.98, 12)]), 1.0)]
    for margin, side in ((right, 1.0), (left, -1.0)):
        for end in margin[(np.clip(veins, 0, 1) * (len(margin) - 1)).astype(int)]:
            start = np.array([0.0, max(0.02, end[1] - rise * end[0])])
            lines.append((arc(start, start + (end - start) * 0.96, sag) * [side, 1.0], 0.5))
    mirrored = left[::-1] * [-1.0, 1.0]
    return Leaf(np.vstack([right, mirrored]), lines)


def _sides(rng: Rng, points: list[tuple[float, float]], width: float) -> tuple[Array, Array]:
    """Return the right and the left margin through jittered points; the two differ a little, as on a tree."""
    margins = []
    for _ in range(2):
        side = width * rng.uniform(0.88, 1.1)
        middle = [(x * side * rng.uniform(0.94, 1.06), y + rng.normal(0, 0.012)) for x, y in points[1:-1]]
        margins.append(_spline([points[0], *middle, points[-1]]))
    return margins[0], margins[1]


def _beech(rng: Rng) -> Leaf:
    points = [(0, 0), (0.16, 0.05), (0.28, 0.2), (0.335, 0.44), (0.27, 0.68), (0.11, 0.89), (0, 1)]
    right, left = _sides(rng, points, rng.uniform(0.85, 1.2))
    pairs = int(rng.integers(6, 10))
    ends = (np.arange(pairs) + 0.7) / pairs * 0.9
    waves = 1 + rng.uniform(0.015, 0.045) * np.cos(2 * np.pi * (np.linspace(0, 1, len(right)) / 0.9 * pairs - 0.7))
    wavy = [side * np.stack([waves, np.ones_like(waves)], axis=1) for side in (right, left)]
    return _feathered(wavy[0], wavy[1], ends, rng.uniform(0.75, 1.0), -0.03)


def _birch(rng: Rng) -> Leaf:
    points = [(0, 0), (0.2, 0.015), (0.35, 0.12), (0.385, 0.28), (0.28, 0.5), (0.14, 0.7), (0.05, 0.86), (0, 1)]
    right, left = _sides(rng, points, rng.uniform(0.85, 1.12))
    pairs = int(rng.integers(5, 8))
    depth = rng.uniform(0.018, 0.032)
    teeth = [_serrate(rng, side, pairs * 1.6 + 2, depth, double=True) for side in (right, left)]
    ends = 0.2 + (np.arange(pairs) + 0.3) / pairs * 0.68
    return _feathered(teeth[0], teeth[1], ends, rng.uniform(0.7, 0.95), -0.03)


def _willow(rng: Rng) -> Leaf:
    points = [(0, 0), (0.075, 0.1), (0.125, 0.3), (0.13, 0.5), (0.09, 0.74), (0.035, 0.92), (0, 1)]
    right, left = _sides(rng, points, rng.uniform(0.8, 1.35))
    teeth = [_serrate(rng, side, 26, 0.012) for side in (right, left)]
    pairs = int(rng.integers(9, 13))
    return _feathered(teeth[0], teeth[1], 0.06 + np.arange(pairs) / pairs * 0.86, rng.uniform(1.0, 1.4), 0.06)


def _oak(rng: Rng) -> Leaf:
    points = [(0, 0), (0.08, 0.04), (0.15, 0.18), (0.24, 0.42), (0.31, 0.66), (0.27, 0.85), (0.15, 0.97), (0, 1)]
    lobes = int(rng.integers(4, 7))
    depth = rng.uniform(0.35, 0.6)
    margins = []
    for side in _sides(rng, points, rng.uniform(0.9, 1.2)):
        s = np.linspace(0, 1, len(side))
        lobe = (np.sin(np.pi * (lobes + 0.5) * s ** rng.uniform(0.9, 1.1)) ** 2 + 0.03) ** 0.3
        size = np.interp(s * lobes, np.arange(lobes + 2), rng.uniform(0.7, 1.15, lobes + 2))
        x = side[:, 0] * (1 - depth * size * (1 - lobe) * np.minimum(1, (1 - s) * 6)) * (0.88 + 0.12 * size)
        margins.append(np.stack([x, side[:, 1] + 0.2 * side[:, 0] * (lobe - 0.7)], axis=1))
    ends = (np.arange(lobes) + 0.5) / (lobes + 0.5)
    return _feathered(margins[0], margins[1], ends, rng.uniform(0.8, 1.1), 0.02)


def _maple(rng: Rng) -> Leaf:
    """Five lobes around the petiole's end, each with pointed teeth and hollow margins between them."""
    spread, slim = rng.uniform(0.94, 1.1), rng.uniform(0.88, 1.2)
    veins: list[tuple[Array, float]] = []
    halves = []
    for side in (1.0, -1.0):
        corners = [np.array([0.0, 0.0])]
        for angle, length, reaches in ((116, 0.42, (0.62,)), (57, 0.7, (0.58, 0.8)), (0, 0.74, (0.6, 0.8))):
            turn = math.radians(angle * spread + (rng.normal(0, 3) if angle else 0))
            ahead = heading(math.pi / 2 - turn)
            below = heading(-turn)  # the side of the lobe that faces the petiole
            length *= rng.uniform(0.92, 1.06)
            lower: list[Array] = []
            upper: list[Array] = []
            for edge, way in ((lower, below), (upper, -below)):
                for reach in reaches if angle or edge is lower else ():
                    out = slim * (0.36 - 0.28 * reach) * rng.uniform(0.85, 1.15)
                    tooth = ahead * length * reach * rng.uniform(0.97, 1.03) + way * out
                    edge += [tooth, ahead * length * (reach + 0.07) + way * out * 0.5]
                    start = ahead * max(0.08, length * reach - 0.14)
                    veins.append((arc(start, start + (tooth - start) * 0.92, 0.0) * [side, 1.0], 0.45))
            tip = ahead * length
            corners += [*lower, tip, *upper[::-1]]
            if angle:
                hollow = turn - math.radians(29)
                depth = rng.uniform(0.24, 0.33) * (0.75 if angle > 100 else 1.0)
                corners.append(heading(math.pi / 2 - hollow) * depth)
            veins.append((arc(np.zeros(2), tip, 0.02, 12) * [side, 1.0], 0.9))
        margin = [arc(a, b, 0.07, 7)[:-1] for a, b in itertools.pairwise(corners)]
        halves.append(np.vstack([*margin, corners[-1:]]) * [side, 1.0])
    return Leaf(np.vstack([halves[0], halves[1][::-1]]), veins)


SPECIES: dict[str, Callable[[Rng], Leaf]] = {
    "beech": _beech,
    "birch": _birch,
    "maple": _maple,
    "oak": _oak,
    "willow": _willow,
}
