"""Draw what is inside a run's network: filters, feature maps, top activations, and a map of its embeddings."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from imgclf import prediction, storage, tasks
from imgclf.data import images
from imgclf.data.dataset import Dataset
from imgclf.errors import DatasetError, ImageError, MissingError, UsageError
from imgclf.evaluation import feature_map
from imgclf.explanation import explaining
from imgclf.prediction import heatmaps
from imgclf.prediction.classifier import Named

MOST_UNITS = 64
"""Filters or channels on a drawing, at most."""

MOST_CHANNELS = 8
"""Slices of a filter on many channels that are drawn."""

UNITS, EACH = 12, 6
"""Units whose top activations are drawn, and images for each."""

TILE_PX, GAP_PX, TEXT_PX, FONT_PX = 84, 6, 24, 18
"""Letters can be read where a sheet is scaled to the width of a phone, 400 px."""

ACROSS = 8
"""Tiles in a row, at most."""

SMOOTH_FROM = 24
"""Maps of at least this size are drawn smoothly; of smaller ones each place is a square."""


def draw_filters(run: Path | str, layer: str, output: Path) -> None:
    """Draw the kernels of a convolution, as a PNG file.

    Those on red, green and blue as small images, gray where a weight is 0, each on its own scale; others slice by
    slice, red above zero and blue below, on one scale.

    Raises:
        UsageError: if there is no such layer, it has no kernels to see, or the file exists.
        ArtifactError, RunError: if the run has no network, or it is damaged.
    """
    from imgclf.explanation import units

    _check(output)
    model = explaining.network(Path(run))
    weights = units.filters(units.find_layer(model, layer, "--filters"))
    title = f"{layer}: {len(weights)} filters"
    if weights.shape[1] == 3:
        weights = weights.transpose(0, 2, 3, 1)
        most = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
        levels = (128 + weights / np.maximum(most, most.max() / 50) * 127).astype(np.uint8)
        size = f"{weights.shape[1]} x {weights.shape[2]}"
        sheet = _wrapped([_tile(image) for image in levels[:MOST_UNITS]], f"{title} of {size} on red, green and blue")
    else:
        most = float(np.abs(weights).max()) or 1.0
        size = f"{weights.shape[2]} x {weights.shape[3]} on {weights.shape[1]} channels"
        if weights.shape[1] == 1:
            tiles = [_tile(signed(image[0], most)) for image in weights[:MOST_UNITS]]
            sheet = _wrapped(tiles, f"{title} of {size.removesuffix('s')}")
        else:
            rows = [
                [_tile(signed(part, most)) for part in image[:MOST_CHANNELS]] for image in weights[: MOST_UNITS // 4]
            ]
            sheet = _table(rows, f"{title} of {size}; rows are filters, columns the first channels")
    _save(sheet, output)


def draw_feature_maps(run: Path | str, layer: str, source: str | Named, output: Path) -> None:
    """Draw what the channels of a layer make of one image, the strongest first, as a PNG file.

    Raises:
        As `draw_filters`; and DatasetError: if the image cannot be read.
    """
    from imgclf.explanation import units

    _check(output)
    model, load = explaining.network(Path(run)), _loader(run)
    found = units.find_layer(model, layer, "--feature-maps")
    pixels = load(source)
    if pixels is None:
        raise DatasetError(f"{source}: the image cannot be read.")
    maps = units.feature_maps(model, found, pixels[None], "--feature-maps")[0]
    order = np.argsort(-maps.max(axis=(0, 1)), kind="stable")[: MOST_UNITS - 1]  # with the image, full rows
    tiles = [_tile(pixels)] + [
        _tile(_heat(maps[..., channel]), smooth=maps.shape[0] >= SMOOTH_FROM) for channel in order.tolist()
    ]
    names = ["image", *(f"{channel}" for channel in order.tolist())]
    title = f"{layer}: {maps.shape[2]} channels of {maps.shape[0]} x {maps.shape[1]}, each on its own scale"
    _save(_wrapped(tiles, title, names), output)


def draw_top_activations(run: Path | str, layer: str, sources: Sequence[str | Named], output: Path) -> None:
    """Draw the patches that excite the units of a layer most, as a PNG file.

    A patch is the receptive field of the strongest place. Of many units, those are drawn that respond most selectively:
    whose strongest response is the farthest above their mean one.

    Raises:
        As `draw_filters`; and DatasetError: if no image can be read.
    """
    from imgclf.explanation import units

    _check(output)
    model, load = explaining.network(Path(run)), _loader(run)
    found = units.find_layer(model, layer, "--top-activations")
    pixels = [each for each in map(load, sources) if each is not None]
    if not pixels:
        raise DatasetError("--top-activations: expected images, found none that can be read.")
    batches = [np.stack(pixels[start : start + units.BATCH]) for start in range(0, len(pixels), units.BATCH)]
    best = units.top_activations(model, found, batches, len(pixels), "--top-activations")
    spread = [np.array([each.value for each in unit]) for unit in best]
    selective = [float((values[0] - values.mean()) / (values.std() + 1e-9)) for values in spread]
    order = np.argsort(-np.array(selective), kind="stable")[:UNITS].tolist()
    rows = []
    for unit in order:
        patches = [Image.fromarray(pixels[each.image]).crop(each.box) for each in best[unit][:EACH]]
        rows.append([_tile(np.asarray(patch), smooth=True) for patch in patches])
    box = best[order[0]][0].box
    seen = f"{box[2] - box[0]}\N{NO-BREAK SPACE}px"
    title = f"{layer}: what excites {len(order)} of {len(best)} units most, seen through {seen}"
    _save(_table(rows, title, [f"unit {unit}" for unit in order]), output)


def draw_embedding_map(run: Path | str, dataset: Dataset, output: Path) -> tuple[int, int]:
    """Draw labeled images by their embeddings in two dimensions (t-SNE), colored by correct and incorrect.

    Args:
        output: a new PNG or HTML file.

    Returns:
        The number of images, and of correct predictions among them.

    Raises:
        UsageError: if the file exists or ends otherwise, or the model gives no embedding.
        DatasetError: if no image can be read.
    """
    _check(output, feature_map.SUFFIXES)
    classifier = prediction.load(run)
    tasks.refuse(classifier.task, "--embedding-map")
    found = classifier.stream([os.fspath(path) for path in dataset.paths], embeddings=True)
    kept = [
        (each.embedding, "correct" if each.argmax == sample.label else "incorrect", path)
        for each, sample, path in zip(found, dataset.samples, dataset.paths, strict=True)
        if each.embedding is not None
    ]
    if not kept:
        raise DatasetError(f"{dataset.root}: expected images, found none that can be read.")
    vectors, labels, files = zip(*kept, strict=True)
    points = feature_map.project(np.stack(vectors), "tsne")
    feature_map.write(output, points, labels, files, classifier.decoding)
    return len(labels), labels.count("correct")


def signed(values: np.ndarray, most: float) -> np.ndarray:
    """Numbers (h, w) as colors, uint8 (h, w, 3): white for 0, red for `most`, blue for its negative."""
    share = np.clip(values / most, -1, 1)[..., None]
    ends = np.where(share > 0, np.array([178, 24, 43]), np.array([33, 102, 172]))
    colors: np.ndarray = (255 + np.abs(share) * (ends - 255)).astype(np.uint8)
    return colors


def _heat(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    levels: np.ndarray = ((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return levels


def _loader(run: Path | str) -> Callable[[str | Named], np.ndarray | None]:
    """Return what decodes images as the run's model sees them; it gives None for those that cannot be read."""
    classifier = prediction.load(run)

    def load(source: str | Named) -> np.ndarray | None:
        try:
            place = source.path if isinstance(source, Named) else source
            return images.load(place, classifier.image_size, classifier.decoding)
        except (ImageError, MissingError):
            return None

    return load


def _tile(values: np.ndarray, *, smooth: bool = False) -> Image.Image:
    """Return an image of the size of a tile; without `smooth`, with sharp pixels."""
    image = Image.fromarray(values).convert("RGB")
    large = max(image.size) > TILE_PX
    method = Image.Resampling.BILINEAR if smooth or large else Image.Resampling.NEAREST
    scale = TILE_PX / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)


def _wrapped(tiles: list[Image.Image], title: str, names: Sequence[str] = ()) -> Image.Image:
    """Tiles in rows of about the same number, each with its name below."""
    across = min(len(tiles), max(6, min(ACROSS, math.ceil(math.sqrt(1.4 * len(tiles))))))
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    texts = [list(names[start : start + across]) for start in range(0, len(names), across)]
    return _sheet(rows, title, texts, [])


def _table(rows: list[list[Image.Image]], title: str, names: Sequence[str] = ()) -> Image.Image:
    """Rows of tiles, each with its name to the left."""
    return _sheet(rows, title, [], names)


def _sheet(
    rows: list[list[Image.Image]], title: str, below: Sequence[Sequence[str]], left: Sequence[str]
) -> Image.Image:
    font = heatmaps.font(FONT_PX)
    margin = max((round(font.getlength(name)) for name in left), default=-GAP_PX) + 2 * GAP_PX
    step_x, step_y = TILE_PX + GAP_PX, TILE_PX + GAP_PX + (TEXT_PX if below else 0)
    width = max(margin + max(map(len, rows)) * step_x + GAP_PX, 6 * TILE_PX)
    lines = _lines(title, font, width - 2 * GAP_PX)
    top = TEXT_PX * len(lines) + 2 * GAP_PX
    sheet = Image.new("RGB", (width, top + len(rows) * step_y), "white")
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((GAP_PX, GAP_PX + TEXT_PX * (number + 0.5)), line, "#1c2430", font, anchor="lm")
    for row, tiles in enumerate(rows):
        y = top + row * step_y
        if left:
            pen.text((GAP_PX, y + TILE_PX / 2), left[row], "#3d4856", font, anchor="lm")
        for column, tile in enumerate(tiles):
            x = margin + column * step_x
            sheet.paste(tile, (x + (TILE_PX - tile.width) // 2, y + (TILE_PX - tile.height) // 2))
            if below:
                pen.text((x + TILE_PX / 2, y + TILE_PX + TEXT_PX / 2), below[row][column], "#3d4856", font, anchor="mm")
    return sheet


def _lines(title: str, font: Any, width_px: int) -> list[str]:
    """Break a title between words; a word that is longer than a line is cut."""
    lines = [""]
    for word in title.split(" "):
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width_px:
            lines.append("")
        while font.getlength(word) > width_px:
            word = word[:-2] + "\N{HORIZONTAL ELLIPSIS}"
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _check(output: Path, suffixes: Sequence[str] = (".png",)) -> None:
    storage.refuse_suffix(output, *suffixes)
    storage.refuse_existing(output)


def _save(sheet: Image.Image, output: Path) -> None:
    try:
        with storage.replacing(output) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written ({error.strerror}).") from None
