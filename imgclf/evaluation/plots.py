"""Plots as PNG files. Class names are drawn letter by letter, whatever they hold; no state is shared between plots."""

import io
import logging
import os
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
LABEL_PITCH_IN = 0.13  # the least distance between two labels, in inches; where cells are smaller, labels are left out
LONGEST_NAME = 28
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")


def confusion_matrix(path: Path, metrics: dict[str, Any]) -> None:
    """Draw the confusion matrix: true classes as rows, predicted ones as columns.

    A cell's colour is its share of its row, from 0 to 1, so that small classes show as well as large ones; the number in
    it is the count.

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
    margin_in = 0.9 + 0.075 * max(len(name) for name in names)
    figure = _figure(side_in + margin_in + 1.0, side_in + margin_in + 0.4)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    _label_classes(axes, names, side_in)
    if len(names) <= MOST_WRITTEN:
        _write_counts(axes, counts, shares, cell_in=side_in / len(names))
    low, high = metrics["intervals"]["accuracy"]
    axes.set_title(f"accuracy {metrics['accuracy']:.1%} ({low:.1%} to {high:.1%}), n = {metrics['n']:,}", fontsize=10)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, format="{x:.0%}")
    bar.set_label("share of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    _save(figure, path)


def _label_classes(axes: "Axes", names: Sequence[str], side_in: float) -> None:
    step = int(np.ceil(LABEL_PITCH_IN * len(names) / side_in))
    places = range(0, len(names), step)
    shown = [names[i] for i in places]
    size = 9 if len(names) <= MOST_WRITTEN else 7
    turned = max(len(name) for name in names) * 0.085 > side_in / len(names) * step
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.set_xticks(places, shown, fontsize=size, parse_math=False, rotation=90 if turned else 0, ha="center", va="top")
    axes.tick_params(length=0 if len(names) <= MOST_WRITTEN else 2)
    axes.set_ylabel("true class", fontsize=9)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.spines[:].set_color("0.7")
    edges = np.arange(len(names) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.8 if len(names) <= MOST_WRITTEN else 0.3)
    axes.tick_params(which="minor", length=0)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, cell_in: float) -> None:
    size = min(10.0, 72 * cell_in / (0.75 * max(2, len(str(counts.max())))))
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black" if counts[row, column] else "0.75"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=colour)


def _drawable(name: str) -> str:
    """The name on one line, without characters that have no shape, cut in the middle when long."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    if len(plain) <= LONGEST_NAME:
        return plain
    half = LONGEST_NAME // 2
    return f"{plain[:half]}\N{HORIZONTAL ELLIPSIS}{plain[1 - half :]}"


def _figure(width_in: float, height_in: float) -> "Figure":
    """An empty figure, drawn by Agg whatever the machine's display; Matplotlib's cache goes under our root."""
    os.environ.setdefault("MPLCONFIGDIR", str(environment.cache_root() / "matplotlib"))
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
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
        figure.savefig(png, format="png", metadata={"Software": None})
    write_atomic(path, png.getvalue())
