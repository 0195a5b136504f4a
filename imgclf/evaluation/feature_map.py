"""Feature vectors as a map: two dimensions, thumbnails, a color for each class; a PNG file or a page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imgclf import storage
from imgclf.data import images
from imgclf.errors import ImageError, MissingError, UsageError
from imgclf.evaluation import plots, report, thumbnails
from imgclf.settings import Decoding

SUFFIXES = (".png", ".html")
LEGEND_COLUMNS = 3
MOST_SHOWN = 400
"""Thumbnails of a map; with more images, a random part of them is drawn, and the others as dots."""

THUMB_PX = 40
"""Side of a thumbnail on a map of many images; on one of few they are up to LARGEST_PX."""

LARGEST_PX = 96
PERPLEXITY = 30.0
"""Perplexity of t-SNE; a third of the images where they are few. Source: van der Maaten and Hinton 2008."""


def project(vectors: np.ndarray, projection: str, seed: int = 0) -> np.ndarray:
    """Standardize the columns and project the rows to float32 (n, 2), each column from 0 to 1.

    Args:
        vectors: float32 (n, d).
        projection: `pca` or `tsne`.

    Raises:
        UsageError: if there are fewer than 4 images.
    """
    if len(vectors) < 4:
        raise UsageError(f"--map: expected at least 4 images, found {len(vectors)}.")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(vectors)
    if scaled.shape[1] == 1:
        scaled = np.concatenate([scaled, np.zeros_like(scaled)], axis=1)
    if projection == "pca":
        points = PCA(2, random_state=seed).fit_transform(scaled)
    else:
        start = PCA(min(50, *scaled.shape), random_state=seed).fit_transform(scaled)
        points = TSNE(perplexity=min(PERPLEXITY, (len(scaled) - 1) / 3), random_state=seed).fit_transform(start)
    low, high = points.min(axis=0), points.max(axis=0)
    return ((points - low) / np.maximum(high - low, 1e-12)).astype(np.float32)


def write(
    path: Path, points: np.ndarray, labels: Sequence[str], files: Sequence[Path], rules: Decoding, seed: int = 0
) -> None:
    """Write the map as PNG or, with a name that ends in .html, as a page.

    Args:
        points: float (n, 2), 0 to 1.
        labels: (n,), class names.
        files: (n,), the images.

    Raises:
        UsageError: if the name ends otherwise, or the file cannot be written.
    """
    storage.refuse_suffix(path, *SUFFIXES, option="--map")
    shown = np.arange(len(points))
    if len(shown) > MOST_SHOWN:
        shown = np.sort(np.random.default_rng(seed).choice(len(points), MOST_SHOWN, replace=False))
    draw = _png if path.suffix.lower() == ".png" else _page
    storage.write_named(path, draw(points, labels, files, rules, shown), "--map")


def colors(labels: Sequence[str]) -> dict[str, str]:
    """Return a color for each class, repeated after ten."""
    return {name: plots.TEN[place % len(plots.TEN)] for place, name in enumerate(sorted(set(labels)))}


def side_px(count: int) -> int:
    """Return the side of each of `count` thumbnails: few cover as much of the map as 160 small ones do."""
    return int(np.clip(THUMB_PX * (160 / max(count, 1)) ** 0.5, THUMB_PX, LARGEST_PX))


def _png(points: np.ndarray, labels: Sequence[str], files: Sequence[Path], rules: Decoding, shown: np.ndarray) -> bytes:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure = plots.new_figure(9.0, 9.0)
    axes = figure.add_axes((0, 0, 1, 1))
    by_class, side = colors(labels), side_px(len(shown))
    for name, color in by_class.items():
        own = points[[label == name for label in labels]]
        axes.plot(own[:, 0], own[:, 1], "o", color=color, markersize=4, label=plots.drawable(name))
    counts = Counter(labels)
    for row in sorted(shown.tolist(), key=lambda row: -counts[labels[row]]):  # so that nothing hides what is rare
        try:
            image = images.decode(files[row], rules).convert("RGB")
        except (ImageError, MissingError):
            continue
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
        box = OffsetImage(np.asarray(image), zoom=0.5)
        frame = {"edgecolor": by_class[labels[row]], "linewidth": 1.5}
        place = (float(points[row, 0]), float(points[row, 1]))
        axes.add_artist(AnnotationBbox(box, place, pad=0.1, bboxprops=frame))
    axes.set_xticks([])
    axes.set_yticks([])
    # above and large: on a phone, a legend beside the map takes a fifth of the width and cannot be read
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=LEGEND_COLUMNS, fontsize=15, markerscale=2.5, frameon=False
    )
    return plots.to_png(figure)


def _page(
    points: np.ndarray, labels: Sequence[str], files: Sequence[Path], rules: Decoding, shown: np.ndarray
) -> bytes:
    kept, side = [int(row) for row in shown], side_px(len(shown))
    drawn = thumbnails.draw_all([files[row] for row in kept], rules, 2 * side)
    by_class = colors(labels)
    marks = [
        {"x": float(points[row, 0]), "y": 1 - float(points[row, 1]), "label": labels[row], "file": str(files[row])}
        | {"color": by_class[labels[row]], "source": source}
        for row, source in zip(kept, drawn, strict=True)
    ]
    text: str = (
        report.environment()
        .get_template("feature_map.html")
        .render(marks=marks, classes=by_class, count=len(points), side_px=side)
    )
    return text.encode("utf-8", "backslashreplace")
