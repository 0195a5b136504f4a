"""Draw the sample images: autumn leaves of five species, from a seed.

A leaf (`leaves.py`) gets a pose, paint and relief, a ground to lie on, light and shadow, at times something on top of
it, and a camera. All of these are drawn alike for every species: only the shape tells them apart.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imgclf import storage
from imgclf.data.demo.leaves import SPECIES, Array, Leaf, Rng, arc, heading
from imgclf.errors import UsageError

SIZE_RANGE_PX = (160, 200)
TURN_DEG = 15  # standard deviation of how far a leaf is from upright
MAX_TILT_DEG = 40
MAX_HIDDEN = 0.22  # how much of a leaf one thing on top may hide
JPEG_QUALITY = 84
FINE = 3  # outlines are drawn this many times larger and averaged down, which smooths their edges

Shape = tuple[int, int]
Light = tuple[float, float, float]

# -- fields and masks: float32 (h, w) in pixels of the picture ---------------------------------------------------------


def _stretch(field: Array, shape: Shape) -> Array:
    image = Image.fromarray(field.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _clouds(rng: Rng, shape: Shape, *cells: float | tuple[float, float]) -> Array:
    """Smooth noise of mean 0 and deviation 1; each cell is a grain's size (or height and width) in pixels.

    The grains of every next size are 0.7 times as strong.
    """
    total = np.zeros(shape, np.float32)
    for octave, cell in enumerate(cells):
        tall, wide = cell if isinstance(cell, tuple) else (cell, cell)
        grid = rng.standard_normal((max(2, round(shape[0] / tall)) + 1, max(2, round(shape[1] / wide)) + 1))
        total += 0.7**octave * _stretch(grid, shape)
    noise: Array = (total - total.mean()) / (total.std() + 1e-6)
    return noise


def _blur(field: Array, radius_px: float) -> Array:
    """Gaussian blur of a field (h, w) or of colors (h, w, 3) with values in 0 to 1."""
    image = Image.fromarray((field * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius_px))
    return np.asarray(image, dtype=np.float32) / 255


def _shifted(field: Array, dx: float, dy: float) -> Array:
    """Return the field moved by whole pixels, right and down; what comes in is 0."""
    x, y, (h, w) = round(dx), round(dy), field.shape
    padded = np.pad(field, ((max(y, 0), max(-y, 0)), (max(x, 0), max(-x, 0))))
    return padded[max(-y, 0) :, max(-x, 0) :][:h, :w]


class _Mask:
    """A field from 0 to 1 that polygons and strokes are drawn on, in pixels of the picture, with smooth edges."""

    def __init__(self, shape: Shape) -> None:
        self._image = Image.new("L", (shape[1] * FINE, shape[0] * FINE))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Array, value: float = 1.0) -> None:
        """Fill the outline (n, 2)."""
        self._draw.polygon([tuple(p) for p in (points * FINE).tolist()], fill=round(value * 255))

    def ellipse(self, center: Array, radii: Array, value: float = 1.0) -> None:
        """Fill an upright ellipse: its center and its radii, each (x, y)."""
        corners = np.concatenate([center - radii, center + radii]) * FINE
        self._draw.ellipse(corners.tolist(), fill=round(value * 255))

    def stroke(self, points: Array, start_px: float, end_px: float, value: float = 1.0) -> None:
        """Draw a line whose width goes evenly from start_px to end_px."""
        along = np.gradient(points, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) / (np.hypot(*along.T)[:, None] + 1e-9)
        half = np.linspace(start_px, end_px, len(points))[:, None] / 2
        self.polygon(np.vstack([points + across * half, (points - across * half)[::-1]]), value)

    def field(self) -> Array:
        """Return what was drawn, float32 (h, w)."""
        return np.asarray(self._image.reduce(FINE), dtype=np.float32) / 255


def _mix(below: Array, above: Array, alpha: Array) -> Array:
    """Lay colors (h, w, 3), or one color (3,), over others by alpha (h, w)."""
    mixed: Array = below + (above - below) * alpha[..., None]
    return mixed


def _lit(color: Array, light: Array) -> Array:
    """One color (3,), or colors (h, w, 3), times light (h, w)."""
    product: Array = color * light[..., None]
    return product


# -- pose: from the flat leaf to pixels and back -----------------------------------------------------------------------


@dataclass(frozen=True)
class Pose:
    """A bent leaf, turned in space and seen in perspective; `matrix` (3, 3) is the plane's homography to pixels."""

    matrix: Array
    bend: float

    def pixels(self, points: Array) -> Array:
        """Leaf coordinates (n, 2) as pixels (n, 2), x right and y down."""
        x, y = points.T
        seen = self.matrix @ np.stack([x + self.bend * (y - 0.5) ** 2, y, np.ones_like(x)])
        flat: Array = (seen[:2] / seen[2]).T
        return flat

    def leaf(self, shape: Shape) -> tuple[Array, Array]:
        """Return the leaf coordinates x and y of every pixel, each (h, w)."""
        rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
        x, y, scale = np.tensordot(np.linalg.inv(self.matrix), np.stack([columns, rows, np.ones_like(rows)]), 1)
        x, y = x / scale, y / scale
        return (x - self.bend * (y - 0.5) ** 2).astype(np.float32), y.astype(np.float32)


def _pose(rng: Rng, outline: Array, shape: Shape) -> Pose:
    """Return a random turn, tilt and bend that puts most of the outline on a picture of this shape."""
    turn = math.radians(rng.normal(0, TURN_DEG))
    axis, tilt = rng.uniform(0, 2 * np.pi), math.radians(rng.triangular(0, 10, MAX_TILT_DEG))
    u = np.array([math.cos(axis), math.sin(axis), 0])
    cross = np.array([[0, 0, u[1]], [0, 0, -u[0]], [-u[1], u[0], 0]])
    tilted = np.eye(3) + math.sin(tilt) * cross + (1 - math.cos(tilt)) * cross @ cross  # Rodrigues' formula
    c, s = math.cos(turn), math.sin(turn)
    space = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ tilted
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    plane = np.column_stack([space[:, 0], space[:, 1], -space[:, :2] @ middle])
    eye = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 0.3]]) @ plane + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1.0]])
    flat = Pose(eye, rng.normal(0, 0.16))
    seen = flat.pixels(outline)
    low, high = seen.min(axis=0), seen.max(axis=0)
    room = np.array([shape[1], shape[0]])
    scale = rng.uniform(0.78, 1.02) * (room / (high - low)).min()
    slack = 0.45 * np.maximum((room - scale * (high - low)) / 2, 0) + 0.03 * room
    place = room / 2 + rng.uniform(-1, 1, 2) * slack - scale * (low + high) / 2
    return Pose(np.array([[scale, 0, place[0]], [0, scale, place[1]], [0, 0, 1]]) @ eye, flat.bend)


# -- grounds: what the leaf lies on, each float32 (h, w, 3), 0 to 255 --------------------------------------------------


def _tint(rng: Rng, *colors: tuple[int, int, int]) -> Array:
    """One of the colors, varied: more in brightness than in hue."""
    color = np.array(colors[rng.integers(len(colors))]) * rng.uniform(0.85, 1.15) + rng.normal(0, 4, 3)
    return color.astype(np.float32)


def _soil(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (92, 70, 50), (66, 52, 42), (128, 100, 72), (104, 82, 66))
    crumbs = _Mask(shape)
    for _ in range(int(rng.integers(60, 160))):
        crumbs.ellipse(rng.uniform(0, max(shape), 2), rng.uniform(0.8, 4.5, 2), rng.uniform(0.15, 1))
    lumps = crumbs.field()
    relief = 10 * _clouds(rng, shape, 40, 14, 5) + 16 * lumps - 22 * _shifted(_blur(lumps, 1), 1.6, 1.6)
    return _lit(base, 1 + relief / 90)


def _grass(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (88, 122, 56), (108, 130, 70), (148, 138, 84), (78, 106, 66))
    image = Image.new("RGB", (shape[1] * 2, shape[0] * 2), tuple((base * 0.42).astype(int).tolist()))
    draw = ImageDraw.Draw(image)
    slant, count = rng.uniform(0, 2 * np.pi), 360
    for k in range(count):  # from the dark ones below to the light ones on top
        start = rng.uniform(-20, 2 * max(shape) + 20, 2)
        end = start + rng.uniform(30, 110) * heading(slant + rng.normal(0, 0.6))
        color = base * (0.45 + 0.6 * k / count) * rng.uniform(0.8, 1.2) + rng.normal(0, 6, 3)
        blade = arc(start, end, rng.normal(0, 0.12), 6)
        ink = tuple(color.clip(0, 255).astype(int).tolist())
        draw.line([tuple(p) for p in blade.tolist()], fill=ink, width=int(rng.integers(3, 8)))
    return np.asarray(image.reduce(2), dtype=np.float32)


def _paper(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (236, 232, 222), (222, 206, 176), (204, 214, 224), (228, 196, 190), (150, 160, 150))
    paper = _lit(base, 1 + 0.02 * _clouds(rng, shape, 70, 2.2))
    if rng.uniform() < 0.4:  # ruled
        step, across = rng.uniform(9, 16), rng.integers(2)
        rows = np.arange(shape[across]) % step < 1
        lines = (rows[:, None] if across == 0 else rows[None, :]) * np.ones(shape)
        paper = _mix(paper, base * 0.78, lines.astype(np.float32))
    return paper


def _stone(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (142, 140, 136), (116, 118, 124), (170, 158, 142), (150, 120, 104))
    grain = 0.07 * _clouds(rng, shape, 60, 20, 7) + 0.09 * _clouds(rng, shape, 1.6)
    for _ in range(int(rng.integers(0, 3))):
        crack = _Mask(shape)
        steps = rng.normal(0, 9, (26, 2)) + 10 * heading(rng.uniform(0, 2 * np.pi))
        crack.stroke(rng.uniform(0, 120, 2) + np.cumsum(steps, axis=0), 2.2, 0.8)
        field = crack.field()
        grain += 0.2 * _shifted(field, 1, 1) - 0.5 * field
    return _lit(base, 1 + grain)


def _rotated(rng: Rng, shape: Shape, draw: Callable[[Shape], Array]) -> Array:
    """Return a field that was drawn upright on a larger square, seen at a random angle."""
    side = int(1.5 * max(shape))
    image = Image.fromarray(draw((side, side)).astype(np.float32))
    image = image.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    return np.asarray(image)[top : top + shape[0], left : left + shape[1]]


def _bark(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (112, 94, 78), (132, 122, 110), (88, 70, 56), (150, 130, 108))
    ridges = _rotated(rng, shape, lambda s: np.abs(_clouds(rng, s, (60, 13), (24, 6))))
    fissures = np.exp(-((ridges / 0.22) ** 2))
    light = 0.1 * _clouds(rng, shape, 18, 5, 2) - 0.5 * fissures + 0.22 * _shifted(fissures, 1.5, 1.5)
    return _lit(base, 1 + light)


def _wood(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (176, 132, 88), (204, 172, 130), (120, 84, 58), (150, 146, 138))

    def planks(size: Shape) -> Array:
        grain = np.sin(3.2 * _clouds(rng, size, (160, 26), (70, 9))) + 0.5 * _clouds(rng, size, (40, 1.6))
        seams = np.arange(size[1]) % rng.uniform(55, 110) < 2
        return 0.08 * grain - 0.5 * seams[None, :]

    return _lit(base, 1 + _rotated(rng, shape, planks))


def _cloth(rng: Rng, shape: Shape) -> Array:
    base = _tint(rng, (120, 50, 48), (60, 78, 120), (190, 180, 160), (70, 96, 66), (196, 150, 70), (90, 88, 92))
    pitch = rng.uniform(3.2, 6.5)

    def weave(size: Shape) -> Array:
        rows, columns = np.mgrid[: size[0], : size[1]] * (2 * np.pi / pitch)
        bent = 0.8 * _clouds(rng, size, 50)
        threads: Array = np.sin(rows + bent) * np.sin(columns + bent)
        return threads

    folds = 0.12 * _clouds(rng, shape, 70, 30)
    return _lit(base, 1 + folds + 0.13 * _rotated(rng, shape, weave) + 0.05 * _clouds(rng, shape, 1.5))


GROUNDS = (_soil, _grass, _paper, _stone, _bark, _wood, _cloth)

# -- the leaf's paint and relief ---------------------------------------------------------------------------------------

AUTUMN = ((84, 118, 46), (128, 138, 50), (222, 186, 58), (218, 138, 44), (196, 84, 38), (158, 44, 36), (134, 88, 52))
"""From summer's green through yellow, orange and red to brown. A leaf takes two that are near each other."""


def _painted(rng: Rng, leaf: Leaf, pose: Pose, shape: Shape, light: Light) -> tuple[Array, Array]:
    """Return the leaf's lit colors, float32 (h, w, 3), and how much of each pixel it covers, (h, w) from 0 to 1."""
    outline = pose.pixels(leaf.outline)
    size_px = math.sqrt(np.ptp(outline[:, 0]) * np.ptp(outline[:, 1]))
    blade, veins = _Mask(shape), _Mask(shape)
    blade.polygon(outline)
    for line, width in leaf.veins:
        veins.stroke(pose.pixels(line), 0.024 * size_px * width, 0.008 * size_px * width)
    if rng.uniform() < 0.3:  # eaten by insects
        for place in outline[rng.integers(len(outline), size=rng.integers(1, 4))]:
            blade.ellipse(place + rng.normal(0, 6, 2), rng.uniform(1.5, 5, 2), 0)
    cover, ribs = blade.field(), veins.field()
    glow = _blur(ribs, 0.035 * size_px)
    glow /= glow.max() + 1e-6
    rim = 1 - np.clip(2 * _blur(cover, 0.07 * size_px) - 1, 0, 1)
    x, y = pose.leaf(shape)

    # The blade bulges between its veins, folds along the midrib, curls at the rim and undulates; light shows it.
    height = -rng.uniform(1.2, 3.2) * glow - rng.uniform(0.0, 0.8) * ribs + rng.normal(0, 3) * rim
    height += rng.uniform(0.5, 2) * _clouds(rng, shape, 45) + rng.normal(0, 0.16) * size_px * np.abs(x)
    dy, dx = np.gradient(height)
    lit = (light[2] - light[0] * dx - light[1] * dy) / np.sqrt(1 + dx**2 + dy**2)
    shade = 0.45 + 0.62 / light[2] * lit + 0.05 * _clouds(rng, shape, 3, 1.5)
    shine = rng.uniform(0, 50) * np.clip(lit, 0, 1) ** rng.uniform(12, 30)

    trend = rng.normal(0, 0.8) * (y - 0.5) + rng.normal(0, 0.3) * np.sign(x)
    trend += rng.normal(0, 1.5) * (rim - 0.4) + rng.normal(0, 1.5) * (glow - 0.4)
    color = _pigment(rng, trend, rim)
    rib = _tint(rng, (206, 190, 130)) if rng.uniform() < 0.65 else _tint(rng, (84, 50, 34))
    color = _mix(color, (color.mean(axis=(0, 1)) + rib) / 2, ribs * rng.uniform(0.45, 0.9))
    return _lit(color, shade) + shine[..., None], cover


def _pigment(rng: Rng, trend: Array, rim: Array) -> Array:
    """Autumn colors, float32 (h, w, 3): the second one where `trend` (h, w) is high, withered and spotted at times."""
    shape = trend.shape
    first = int(rng.integers(len(AUTUMN)))
    second = int(np.clip(first + rng.integers(-2, 3), 0, len(AUTUMN) - 1))
    clouds = _clouds(rng, shape, 50, 22, 9)
    share = 1 / (1 + np.exp(-2 * (trend + 0.7 * clouds + rng.normal(0, 0.6))))
    color = _mix(_tint(rng, AUTUMN[first]), _tint(rng, AUTUMN[second]), share)
    if rng.uniform() < 0.4:  # withering from the margin
        color = _mix(color, np.array([118, 78, 46], np.float32), np.clip(1.6 * rim - 0.8 + 0.35 * clouds, 0, 0.9))
    if rng.uniform() < 0.4:
        spots = _Mask(shape)
        for _ in range(int(rng.integers(4, 30))):
            spots.ellipse(rng.uniform(0, max(shape), 2), rng.uniform(0.6, 2.6, 2), rng.uniform(0.3, 0.9))
        color = _mix(color, np.array([70, 46, 32], np.float32), spots.field())
    return color


# -- what lies on top, each a color (h, w, 3) and a cover (h, w) ------------------------------------------------------


def _from_the_edge(rng: Rng, shape: Shape) -> tuple[Array, Array, Array]:
    """Return a point near the picture's border, and unit vectors that lead inwards and across."""
    angle = rng.uniform(0, 2 * np.pi)
    inwards = heading(angle)
    border = np.array(shape[::-1]) * (0.5 - 0.52 * inwards)
    return border + rng.normal(0, 10, 2), inwards, heading(angle + np.pi / 2)


def _rounded(mask: Array, radius_px: float, light: Light) -> Array:
    """Light and dark of a round thing, (h, w) around 1: brighter on the side of the light."""
    soft, dx, dy = _blur(mask, radius_px), 2 * radius_px * light[0], 2 * radius_px * light[1]
    brightness: Array = 1 + 0.5 * (_shifted(soft, dx, dy) - _shifted(soft, -dx, -dy))
    return brightness


def _twig(rng: Rng, shape: Shape, light: Light) -> tuple[Array, Array]:
    start, inwards, across = _from_the_edge(rng, shape)
    mask, thick = _Mask(shape), rng.uniform(3.5, 8)
    end = start + inwards * rng.uniform(0.6, 1.3) * max(shape) + across * rng.normal(0, 60)
    path = arc(start, end, rng.normal(0, 0.08), 14) + rng.normal(0, 1, (14, 2))
    mask.stroke(path, thick, 0.5 * thick)
    for _ in range(int(rng.integers(0, 3))):
        fork = path[rng.integers(3, 12)]
        mask.stroke(arc(fork, fork + inwards * 22 + across * rng.choice([-30, 30]), 0.1), 0.5 * thick, 1)
    field = mask.field()
    base = _tint(rng, (96, 74, 56), (126, 112, 96), (72, 58, 50))
    return _lit(base, _rounded(field, 0.35 * thick, light) + 0.1 * _clouds(rng, shape, 5, 2)), field


def _finger(rng: Rng, shape: Shape, light: Light) -> tuple[Array, Array]:
    start, inwards, across = _from_the_edge(rng, shape)
    half = rng.uniform(11, 17)  # of its breadth, px
    tip = start + inwards * rng.uniform(0.18, 0.36) * max(shape)
    t = np.linspace(-np.pi / 2, np.pi / 2, 24)[:, None]
    end = tip + half * (1.25 * inwards * np.cos(t) + across * np.sin(t))
    hand = start - 90 * inwards
    mask, nail = _Mask(shape), _Mask(shape)
    mask.polygon(np.vstack([hand - 1.3 * half * across, end, hand + 1.3 * half * across]))
    nail.polygon(tip + half * (inwards * (0.55 + 0.6 * np.cos(2 * t)) + across * 0.62 * np.sin(2 * t)))
    field = mask.field()
    skin = _tint(rng, (226, 180, 152), (196, 144, 112), (142, 98, 74), (94, 64, 48))
    color = _lit(skin, _rounded(field, 0.5 * half, light) + 0.02 * _clouds(rng, shape, 3))
    if rng.uniform() < 0.6:
        color = _mix(color, skin * 0.5 + np.array([120, 100, 96], np.float32), 0.75 * nail.field())
    return color, field


def _neighbor(rng: Rng, shape: Shape, light: Light) -> tuple[Array, Array]:
    """Return the tip of another leaf of any species, reaching in from the border."""
    leaf = list(SPECIES.values())[rng.integers(len(SPECIES))](rng)
    start, inwards, across = _from_the_edge(rng, shape)
    size = rng.uniform(0.5, 0.9) * max(shape)
    tip = start + inwards * rng.uniform(0.14, 0.3) * max(shape)
    base = tip - inwards * size
    pose = Pose(np.array([[*(across * size), 0], [*(inwards * size), 0], [*base, 1]]).T, 0.0)
    return _painted(rng, leaf, pose, shape, light)


def _blade(rng: Rng, shape: Shape, light: Light) -> tuple[Array, Array]:
    """Return a blade of grass."""
    start, inwards, across = _from_the_edge(rng, shape)
    mask = _Mask(shape)
    end = start + inwards * rng.uniform(0.6, 1.1) * max(shape) + across * rng.normal(0, 30)
    path = arc(start, end, rng.normal(0, 0.2), 20)
    mask.stroke(path, rng.uniform(4, 9), 0.5)
    field = mask.field()
    base = _tint(rng, (98, 140, 56), (170, 160, 90), (70, 110, 52))
    return _lit(base, _rounded(field, 2, light) + 0.06 * _clouds(rng, shape, 20, 4)), field


COVERS = (_twig, _finger, _neighbor, _blade)

# -- the picture -------------------------------------------------------------------------------------------------------


def _shaded(rng: Rng, scene: Array, light: Light) -> Array:
    """Uneven light: a slope across the picture, and at times the shadow of something that stands outside."""
    shape = scene.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    slope = 1 + rng.uniform(0, 0.3) * (columns * light[0] + rows * light[1])
    if (kind := rng.uniform()) < 0.5:
        if kind < 0.25:  # a straight edge: a wall, the photographer
            way = heading(rng.uniform(0, 2 * np.pi))
            field = (columns * way[0] + rows * way[1] + rng.normal(0, 0.35)) / rng.uniform(0.03, 0.2)
        else:  # dappled, under a tree
            field = (_clouds(rng, shape, 55, 25) + rng.normal(0, 0.4)) / rng.uniform(0.15, 0.5)
        slope *= 1 - rng.uniform(0.2, 0.5) / (1 + np.exp(-np.clip(field, -30, 30)))
    return _lit(scene, slope.astype(np.float32))


def _photographed(rng: Rng, scene: Array) -> Array:
    """Return the camera: white balance, exposure, contrast, blur, noise. uint8 (h, w, 3)."""
    warm, green = rng.normal(0, 0.05), rng.normal(0, 0.012)
    scene = scene * np.array([1 + warm, 1 + green, 1 - warm], np.float32) / 255
    scene = 255 * scene.clip(0, 1) ** rng.uniform(0.72, 1.12)
    scene = 128 + (scene - 128) * rng.uniform(0.85, 1.1) + rng.normal(0, 8)
    image = Image.fromarray(scene.clip(0, 255).astype(np.uint8))
    if rng.uniform() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.triangular(0.2, 0.5, 1.4)))
    seen = np.asarray(image, dtype=np.float32)
    noise = rng.standard_normal(seen.shape[:2], dtype=np.float32)
    return (seen + (rng.uniform(0.5, 4.5) * noise)[..., None]).clip(0, 255).astype(np.uint8)


def _with_stalk(rng: Rng, color: Array, cover: Array, pose: Pose) -> tuple[Array, Array]:
    """Return a leaf's colors and cover together with its petiole's, which goes on where the midrib ends."""
    joint, below = pose.pixels(np.array([[0.0, 0.02], [0.0, -0.03]]))
    length = rng.uniform(3, 8) * (below - joint)
    end = joint + length + rng.normal(0, 0.12, 2) * np.hypot(*length)
    thick = rng.uniform(1.6, 3)
    mask = _Mask(cover.shape)
    mask.stroke(arc(joint, end, rng.normal(0, 0.1)), thick, 1.2 * thick)
    stalk = mask.field()
    paint = _tint(rng, (150, 120, 60), (120, 70, 48), (130, 140, 70))
    return _mix(color, paint, stalk * (1 - cover)), np.maximum(cover, stalk)


def picture(species: str, index: int, seed: int = 0) -> Image.Image:
    """One picture of the set: RGB, 160 to 200 pixels a side. The same arguments give the same picture.

    Args:
        species: a key of SPECIES.
    """
    rng = np.random.default_rng([seed, list(SPECIES).index(species), index])
    height, width = rng.integers(SIZE_RANGE_PX[0], SIZE_RANGE_PX[1] + 1, 2).tolist()
    shape = (height, width)
    angle, low = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75)
    light = (low * math.cos(angle), low * math.sin(angle), math.sqrt(1 - low**2))
    scene = GROUNDS[rng.integers(len(GROUNDS))](rng, shape)
    if rng.uniform() < 0.3:  # out of focus
        scene = _blur(scene.clip(0, 255) / 255, rng.uniform(0.8, 2.5)) * 255

    leaf = SPECIES[species](rng)
    pose = _pose(rng, leaf.outline, shape)
    color, cover = _painted(rng, leaf, pose, shape, light)
    layers = [(*_with_stalk(rng, color, cover, pose), rng.uniform(1, 6))]
    for kind in rng.permutation(len(COVERS))[: rng.choice(3, p=[0.6, 0.32, 0.08])]:
        above, hides = COVERS[kind](rng, shape, light)
        lift = rng.uniform(1.5, 6)
        if (hides * cover).sum() < MAX_HIDDEN * cover.sum():
            layers.append((above, hides, lift))
    depth = rng.uniform(0.3, 0.65)
    for above, hides, lift in layers:
        shadow = _blur(_shifted(hides, -2 * lift * light[0], -2 * lift * light[1]), 0.4 + 0.6 * lift)
        scene = _mix(_lit(scene, 1 - depth * shadow), above, hides)
    return Image.fromarray(_photographed(rng, _shaded(rng, scene, light)))


def render(
    directory: Path | str,
    *,
    seed: int = 0,
    per_class: int = 60,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the set as JPEG files, `directory/<species>/<species>-001.jpg` and so on, and return the directory.

    Nothing is written before all is drawn, so that an interrupted call leaves nothing behind.

    Args:
        per_class: pictures a species, at least 1.
        on_progress: called with (pictures drawn, pictures to draw).

    Raises:
        UsageError: if the directory exists and is not empty, or cannot be written, or a number is out of range.
    """
    target = Path(directory)
    if per_class < 1 or seed < 0:
        raise UsageError(f"expected per_class of at least 1 and seed of at least 0, found {per_class} and {seed}.")
    names = [(species, index) for species in SPECIES for index in range(1, per_class + 1)]
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(f"{target}: expected a new or an empty folder, found something there. Choose another.")
        files = {}
        for species, index in names:
            data = io.BytesIO()
            picture(species, index, seed).save(data, "JPEG", quality=JPEG_QUALITY, optimize=True)
            files[Path(species, f"{species}-{index:03}.jpg")] = data.getvalue()
            if on_progress:
                on_progress(len(files), len(names))
        with storage.new_folder(target) as place:
            for path, content in files.items():
                (place / path).parent.mkdir(exist_ok=True)
                (place / path).write_bytes(content)
    except OSError as error:
        raise UsageError(f"{target}: the folder cannot be written ({error.strerror}). Choose another one.") from None
    return target
