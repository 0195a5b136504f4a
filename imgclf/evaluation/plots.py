"""Plots as PNG files. Class names are drawn letter by letter, whatever they hold; no state is shared between plots."""

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imgclf import environment
from imgclf.runs import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WRITTEN = 30
"""Above so many classes the cells hold colour only: numbers would be too small to read."""

DPI = 120
LABEL_PITCH_IN = 0.14  # the least distance between two labels, in inches; where cells are smaller, labels are left out
LONGEST_NAME = 28
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")


def confusion_matrix(path: Path, metrics: dict[str, Any]) -> None:
    """Draw the confusion matrix: true classes as rows, predicted ones as columns.

    A cell's colour is its share of its row, so that small classes show as well as large ones, on a square-root scale,
    which lets rare mistakes show. The number in it is the count.

    Args:
        path: the PNG file to write.
        metrics: what `metrics.score` returns.

    Raises:
        OSError: if the file cannot be written; an old one is then untouched.
    """
    names = [_drawable(name) for name in metrics["confusion_matrix"]["labels"]]
    counts = np.array(metrics["confusion_matrix"]["counts"])  # (classes, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_in = float(np.clip(0.5 * len(names), 2.4, 10 if len(names) <= 100 else 14))
    figure = _figure(side_in)
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    _label_classes(axes, names, side_in)
    if len(names) <= MOST_WRITTEN:
        _write_counts(axes, counts, shares, cell_in=side_in / len(names))
    low, high = metrics["intervals"]["accuracy"]
    title = f"accuracy {metrics['accuracy']:.1%}, n = {metrics['n']:,}\n95% interval {low:.1%} to {high:.1%}"
    axes.set_title(title, fontsize=10)
    height = min(1.0, 4 / side_in)
    bar = figure.colorbar(image, cax=figure.add_axes((1 + 0.2 / side_in, 1 - height, 0.14 / side_in, height)))
    ticks = (0, 0.01, 0.1, 0.25, 0.5, 1)
    bar.set_ticks(np.sqrt(ticks).tolist(), labels=[f"{tick:.0%}" for tick in ticks], fontsize=8)
    bar.set_label("share of the true class", fontsize=9)
    bar.outline.set_visible(False)
    _save(figure, path)


def _label_classes(axes: "Axes", names: Sequence[str], side_in: float) -> None:
    written = len(names) <= MOST_WRITTEN
    step = int(np.ceil(LABEL_PITCH_IN * len(names) / side_in))
    places = range(0, len(names), step)
    shown = [names[i] for i in places]
    turned = max(len(name) for name in names) * 0.085 > side_in / len(names) * step
    style: dict[str, Any] = {"fontsize": 9 if written else 7, "parse_math": False}
    axes.set_yticks(places, shown, **style)
    axes.set_xticks(places, shown, rotation=90 if turned else 0, **style)
    axes.tick_params(length=0 if written else 2, color="0.5")
    axes.set_ylabel("true class", fontsize=9)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.spines[:].set_color("0.7")
    if written:
        edges = np.arange(len(names) + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.8)
        axes.tick_params(which="minor", length=0)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, cell_in: float) -> None:
    size = min(10.0, 72 * cell_in / (0.75 * max(2, len(str(counts.max())))))
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.35 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=colour)


def _drawable(name: str) -> str:
    """The name on one line, without characters that have no shape, cut in the middle when long."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    if len(plain) <= LONGEST_NAME:
        return plain
    half = LONGEST_NAME // 2
    return f"{plain[:half]}\N{HORIZONTAL ELLIPSIS}{plain[1 - half :]}"


def _figure(side_in: float) -> "Figure":
    """An empty square figure, drawn by Agg whatever the machine's display; Matplotlib's cache goes under our root."""
    environment.prepare_matplotlib()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side_in, side_in), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", path: Path) -> None:
    from matplotlib import font_manager
    from matplotlib.text import Text

    installed = set(font_manager.fontManager.get_font_names())
    fonts = [name for name in FONTS if name in installed]
    for text in figure.findobj(Text):
        text.set_fontfamily(fonts)
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that no font on this machine has is drawn as a box
        figure.savefig(png, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    write_atomic(path, png.getvalue())
