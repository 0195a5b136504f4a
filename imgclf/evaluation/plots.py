"""Plots as PNG files. Class names are drawn literally; plots share no state."""

import io
import logging
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imgclf import environment
from imgclf.evaluation.areas import curves as curve
from imgclf.evaluation.intervals import wilson
from imgclf.evaluation.metrics import outcomes
from imgclf.storage import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from imgclf.evaluation.outputs import Predictions

MOST_WRITTEN = 30
"""With more classes, the cells have a color only: numbers would be too small to read."""

DPI = 120
BLUE = "#1f5fa8"
TEN = ("#1f77b4", "#d95f02", "#2ca02c", "#c2185b", "#7b5ea7", "#8c564b", "#17a2b8", "#b8860b", "#555555", "#e377c2")
LABEL_PITCH_IN = (
    0.14  # the minimum distance between two labels, in inches; where cells are smaller, labels are left out
)
CELL_IN = 1.0  # the side of an image on a contact sheet
LONGEST_NAME = 28
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")


def confusion_matrix(path: Path, metrics: dict[str, Any]) -> None:
    """Draw and write the confusion matrix; see `draw_confusion_matrix`.

    Raises:
        OSError: if the file cannot be written; an old one stays as it is.
    """
    save(draw_confusion_matrix(metrics), path)


def draw_confusion_matrix(metrics: dict[str, Any]) -> "Figure":
    """Draw the confusion matrix: true classes as rows, predicted ones as columns.

    The color of a cell is its share of its row, so that small classes show as well as large ones, on a square-root
    scale, so that rare mistakes show. The number in it is the count. Rejected images have a last column.

    Args:
        metrics: what `metrics.score` returned.
    """
    counts, columns = outcomes(metrics)  # (classes, classes or one more)
    names, columns = ([drawable(name) for name in kind] for kind in (metrics["confusion_matrix"]["labels"], columns))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_in = float(np.clip(0.5 * len(names), 2.4, 10 if len(names) <= 100 else 14))
    figure = new_figure(side_in)
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    _label_classes(axes, names, columns, side_in)
    if len(names) <= MOST_WRITTEN:
        _write_counts(axes, counts, shares, cell_in=side_in / len(names))
    low, high = metrics["intervals"]["accuracy"]
    title = f"accuracy {metrics['accuracy']:.1%} (95% CI {low:.1%} to {high:.1%})\nn = {metrics['n']:,}"
    axes.set_title(title, fontsize=10)
    height = min(1.0, 4 / side_in)
    bar = figure.colorbar(image, cax=figure.add_axes((1 + 0.2 / side_in, 1 - height, 0.14 / side_in, height)))
    ticks = (0, 0.01, 0.1, 0.25, 0.5, 1)
    bar.set_ticks(np.sqrt(ticks).tolist(), labels=[f"{tick:.0%}" for tick in ticks], fontsize=8)
    bar.set_label("share of the true class", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def reliability(metrics: dict[str, Any]) -> bytes:
    """Draw accuracy against confidence, and below it the number of images. A PNG file.

    Dots have 95% intervals, so that few images do not look like poor calibration.

    Args:
        metrics: what `metrics.score` returned.
    """
    bins = metrics["calibration"]["bins"]
    confidence, accuracy = ([row[key] for row in bins] for key in ("confidence", "accuracy"))
    ends = np.array([wilson(round(row["accuracy"] * row["n"]), row["n"]) for row in bins])
    figure = new_figure(4.2, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot((0, 1), (0, 1), color="0.7", linewidth=1, linestyle="--")
    reach = np.maximum(np.abs(ends.T - np.array(accuracy)), 0)
    upper.errorbar(confidence, accuracy, yerr=reach, fmt="o", color=BLUE, ecolor="0.6", markersize=5, elinewidth=1)
    upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy")
    left, width = [row["from"] for row in bins], [row["to"] - row["from"] for row in bins]
    lower.bar(left, [row["n"] for row in bins], width=width, align="edge", color=BLUE, edgecolor="white")
    lower.set(xlabel="confidence", ylabel="images")
    tidy(upper, lower)
    figure.align_ylabels()
    return to_png(figure)


def curves(predictions: "Predictions") -> bytes:
    """Draw ROC and precision-recall curves, each class against the rest: by name for up to ten classes, else the mean
    in color and each class in gray. A PNG file, b"" if fewer than two classes have images."""
    lines = [curve(predictions.labels, predictions.probabilities, i) for i in range(len(predictions.class_names))]
    known = [(name, line) for name, line in zip(predictions.class_names, lines, strict=True) if len(line["fpr"])]
    if not known:
        return b""
    named = len(known) <= len(TEN)
    figure = new_figure(8.4, 4.2)
    roc, precision = figure.subplots(1, 2)
    roc.plot((0, 1), (0, 1), color="0.7", linewidth=1, linestyle="--")
    for place, (name, line) in enumerate(known):
        style: dict[str, Any] = {"color": TEN[place], "label": drawable(name)} if named else {"color": "0.8"}
        roc.plot(line["fpr"], line["tpr"], linewidth=1.5 if named else 0.5, **style)
        precision.plot(line["recall"], line["precision"], linewidth=1.5 if named else 0.5, **style)
    if not named:
        at = np.linspace(0, 1, 101)
        mean = np.mean([np.interp(at, line["fpr"], line["tpr"]) for _, line in known], axis=0)
        roc.plot(at, mean, color=BLUE, linewidth=2, label=f"mean of {len(known)} classes")
        mean = np.mean([np.interp(at, line["recall"][::-1], line["precision"][::-1]) for _, line in known], axis=0)
        precision.plot(at, mean, color=BLUE, linewidth=2, label=f"mean of {len(known)} classes")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    precision.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    for axes in (roc, precision):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.title.set_fontsize(10)
    legend = precision.legend(fontsize=8, frameon=False, loc="lower left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    tidy(roc, precision)
    figure.subplots_adjust(wspace=0.28)
    return to_png(figure)


def history(rows: Sequence[dict[str, str]]) -> bytes:
    """Draw the rows of `history.csv`: loss and score on training and validation images. A PNG file, b"" for fewer than
    two epochs."""
    if len(rows) < 2:
        return b""
    figure = new_figure(8.4, 3.2)
    at = range(1, len(rows) + 1)
    pair = figure.subplots(1, 2)
    keys = (name.removeprefix("val_") for name in rows[0] if name.startswith("val_"))
    score = next((key for key in keys if key != "loss"), "accuracy")
    for axes, key in zip(pair, ("loss", score), strict=True):
        for prefix, color, label in (("", "0.55", "training"), ("val_", BLUE, "validation")):
            values = [float(row.get(prefix + key) or "nan") for row in rows]
            if np.isfinite(values).any():
                axes.plot(at, values, color=color, label=label, linewidth=1.5, marker="o", markersize=3)
        axes.set(xlabel="epoch", ylabel=key)
        axes.xaxis.get_major_locator().set_params(integer=True)
    pair[0].legend(fontsize=8, frameon=False)
    tidy(*pair)
    figure.subplots_adjust(wspace=0.25)
    return to_png(figure)


def learning_rates(tried: Sequence[float], losses: Sequence[float], chosen: float) -> bytes:
    """Draw the range test of the learning rate. A PNG file.

    Args:
        tried: learning rates, rising.
        losses: the smoothed loss at each.
        chosen: the rate that was chosen.
    """
    figure = new_figure(6.0, 3.6)
    axes = figure.subplots()
    axes.plot(tried, losses, color=BLUE, linewidth=1.5)
    axes.axvline(chosen, color="0.4", linestyle="--", label=f"chosen: {chosen:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed training loss")
    axes.legend(fontsize=8, frameon=False)
    tidy(axes)
    return to_png(figure)


def tidy(*several: "Axes") -> None:
    """Draw axes in quiet colors, with a grid."""
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[:].set_color("0.7")
        axes.tick_params(labelsize=8, color="0.7")
        axes.grid(color="0.93", linewidth=0.8)
        axes.set_axisbelow(True)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(9)


def contact_sheet(
    path: Path, rows: np.ndarray, names: Sequence[str], title: str, firsts: Sequence[str] = ("original",)
) -> None:
    """Draw rows of images: first the original, perhaps what preprocessing made of it, then its variants.

    Args:
        path: the PNG file to write.
        rows: uint8 (n, m, s, s, 3).
        names: of the rows.
        title: wrapped to the width of the sheet.
        firsts: the names of the columns before the variants.

    Raises:
        OSError: if the file cannot be written; an old one stays as it is.
    """
    count, columns = rows.shape[:2]
    cells = rows.transpose(0, 2, 1, 3, 4).reshape(count * rows.shape[2], columns * rows.shape[3], 3)
    figure = new_figure(columns * CELL_IN)
    axes = figure.add_axes((0, 0, 1, count / columns))
    axes.imshow(cells, extent=(0, columns, count, 0), aspect="auto", interpolation="antialiased")
    style: dict[str, Any] = {"fontsize": 9, "parse_math": False}
    axes.set_yticks(np.arange(count) + 0.5, [drawable(name) for name in names], **style)
    shown = [*firsts, *map(str, range(1, columns - len(firsts) + 1))]
    axes.set_xticks(np.arange(columns) + 0.5, shown, **style)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.vlines(range(1, columns), 0, count, color="white", linewidth=1)
    axes.hlines(range(1, count), 0, columns, color="white", linewidth=1)
    axes.vlines(range(1, len(firsts) + 1), 0, count, color="white", linewidth=5)
    axes.spines[:].set_visible(False)
    axes.set_title(textwrap.fill(title, round(14 * columns * CELL_IN)), fontsize=10, loc="left", parse_math=False)
    save(figure, path)


def _label_classes(axes: "Axes", names: Sequence[str], columns: Sequence[str], side_in: float) -> None:
    written = len(names) <= MOST_WRITTEN
    step = int(np.ceil(LABEL_PITCH_IN * len(names) / side_in))
    turned = max(len(name) for name in names) * 0.085 > side_in / len(names) * step
    style: dict[str, Any] = {"fontsize": 9 if written else 7, "parse_math": False}
    axes.set_yticks(range(0, len(names), step), names[::step], **style)
    axes.set_xticks(range(0, len(columns), step), columns[::step], rotation=90 if turned else 0, **style)
    axes.tick_params(length=0 if written else 2, color="0.5")
    axes.set_ylabel("true class", fontsize=9)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.spines[:].set_color("0.7")
    if written:
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.8)
        axes.tick_params(which="minor", length=0)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, cell_in: float) -> None:
    size = min(10.0, 72 * cell_in / (0.75 * max(2, len(str(counts.max())))))
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.35 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=color)


def drawable(name: str) -> str:
    """Return the name on one line, without unprintable characters, cut in the middle when long."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    if len(plain) <= LONGEST_NAME:
        return plain
    half = LONGEST_NAME // 2
    return f"{plain[:half]}\N{HORIZONTAL ELLIPSIS}{plain[1 - half :]}"


def new_figure(width_in: float, height_in: float | None = None) -> "Figure":
    """Return an empty figure, square by default. Agg draws it without a display; caches go under our root."""
    environment.prepare_matplotlib()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in or width_in), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        OSError: if the file cannot be written; an old one stays as it is.
    """
    write_atomic(path, to_png(figure))


def to_png(figure: "Figure") -> bytes:
    """Return a figure as PNG, in fonts that this machine has."""
    from matplotlib import font_manager
    from matplotlib.text import Text

    installed = set(font_manager.fontManager.get_font_names())
    fonts = [name for name in FONTS if name in installed]
    for text in figure.findobj(Text):
        text.set_fontfamily(fonts)
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that no font on this machine has becomes a box
        figure.savefig(png, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return png.getvalue()
