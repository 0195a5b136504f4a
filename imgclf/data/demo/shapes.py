"""Sample data for other tasks, from a seed: several shapes in an image, and leaves with a share of damage."""

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imgclf import storage
from imgclf.data.demo.leaves import Rng
from imgclf.errors import UsageError

SIDE_PX = 128
COUNT = 240
SHAPES = ("cross", "disc", "ring", "square", "triangle")
TABLE = "labels.csv"

Row = dict[str, object]


def shapes(index: int, seed: int = 0) -> tuple[Image.Image, Row]:
    """Return an image with some of SHAPES, perhaps none, and its row of the table: 0 or 1 for each. RGB."""
    rng = np.random.default_rng([seed, 1, index])
    image = _ground(rng)
    has = rng.uniform(size=len(SHAPES)) < 0.4
    places = rng.permutation([(x, y) for x in (22, 64, 106) for y in (22, 64, 106)])
    for name, (x, y) in zip((s for s, own in zip(SHAPES, has, strict=True) if own), places, strict=False):
        _draw(ImageDraw.Draw(image), name, x, y, rng)
    return _photographed(image, rng), {name: int(own) for name, own in zip(SHAPES, has, strict=True)}


def damage(index: int, seed: int = 0) -> tuple[Image.Image, Row]:
    """Draw a leaf with brown spots, RGB, and give its row of the table: the share that they cover, 0 to about 0.8."""
    rng = np.random.default_rng([seed, 2, index])
    image = _ground(rng)
    center, radii, turn = rng.uniform(60, 68, 2), rng.uniform((50, 34), (58, 42)), rng.uniform(0, 180)
    leaf = Image.new("L", image.size)
    box = [*(center - radii), *(center + radii)]
    ImageDraw.Draw(leaf).ellipse(box, fill=255)
    leaf = leaf.rotate(turn, center=tuple(center))
    spots, wanted = Image.new("L", image.size), rng.uniform(0, 0.75)
    inside = np.asarray(leaf) > 127
    rows, columns = np.nonzero(inside)
    for _ in range(400):
        if (np.asarray(spots)[inside] > 127).mean() >= wanted:
            break
        place = rng.integers(len(rows))
        size = rng.uniform(5, 11)
        x, y = float(columns[place]), float(rows[place])
        ImageDraw.Draw(spots).ellipse([x - size, y - size, x + size, y + size], fill=255)
    green = tuple(int(v) for v in rng.uniform((50, 130, 30), (80, 160, 50)))
    brown = tuple(int(v) for v in rng.uniform((95, 50, 15), (125, 70, 30)))
    image.paste(Image.new("RGB", image.size, green), mask=leaf)
    both = Image.fromarray(np.minimum(np.asarray(leaf), np.asarray(spots)))
    image.paste(Image.new("RGB", image.size, brown), mask=both)
    share = float((np.asarray(spots)[inside] > 127).mean())
    return _photographed(image, rng), {"damage": round(share, 4)}


Drawing = Callable[[int, int], tuple[Image.Image, Row]]
"""From a number and a seed to an image and its row of the table."""

SETS: dict[str, Drawing] = {"multilabel": shapes, "regression": damage}
"""What is drawn for each task; for multi-class, `rendering` draws leaves of five species."""


def render(
    directory: Path | str,
    draw: Drawing,
    *,
    seed: int = 0,
    count: int = COUNT,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a set as JPEG files with a table TABLE, and return the directory.

    Nothing is written before all is drawn.

    Args:
        on_progress: called with (images drawn, images to draw).

    Raises:
        UsageError: if the directory is not empty or cannot be written.
    """
    target = Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: expected a new or an empty folder, found something there. Choose another.")
    files, rows = {}, []
    for index in range(1, count + 1):
        image, row = draw(index, seed)
        data = io.BytesIO()
        image.save(data, "JPEG", quality=88, optimize=True)
        name = f"{index:03}.jpg"
        files[name] = data.getvalue()
        rows.append({"path": name, **row})
        if on_progress:
            on_progress(index, count)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files[TABLE] = text.getvalue().encode()
    try:
        with storage.new_folder(target) as place:
            for name, content in files.items():
                (place / name).write_bytes(content)
    except OSError as error:
        raise UsageError(f"{target}: the folder cannot be written ({error.strerror}). Choose another one.") from None
    return target


def _ground(rng: Rng) -> Image.Image:
    """Return a pale ground with soft spots."""
    coarse = rng.uniform(-40, 40, (9, 9, 1)) + rng.uniform(-10, 10, (9, 9, 3)) + rng.uniform(170, 225, 3)
    small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def _draw(canvas: ImageDraw.ImageDraw, name: str, x: float, y: float, rng: Rng) -> None:
    """One shape around a point, in a dark color of its own."""
    color = tuple(int(v) for v in rng.uniform(10, 120, 3))
    size, turn = rng.uniform(14, 20), rng.uniform(-0.4, 0.4)
    if name == "disc":
        canvas.ellipse([x - size, y - size, x + size, y + size], fill=color)
    elif name == "ring":
        canvas.ellipse([x - size, y - size, x + size, y + size], outline=color, width=5)
    elif name == "cross":
        for angle in (turn, turn + math.pi / 2):
            dx, dy = size * math.cos(angle), size * math.sin(angle)
            canvas.line([x - dx, y - dy, x + dx, y + dy], fill=color, width=6)
    else:
        corners = 4 if name == "square" else 3
        angles = [turn + math.pi / 4 + 2 * math.pi * k / corners for k in range(corners)]
        canvas.polygon([(x + size * math.cos(a), y + size * math.sin(a)) for a in angles], fill=color)


def _photographed(image: Image.Image, rng: Rng) -> Image.Image:
    """Slightly out of focus, with noise."""
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8))), np.float32)
    noisy = soft * rng.uniform(0.85, 1.1) + rng.normal(0, 4, soft.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
