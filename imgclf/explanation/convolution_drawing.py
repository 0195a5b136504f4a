"""Draw a convolution: image and kernel, and below them the feature map."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgclf.errors import UsageError
from imgclf.evaluation import plots
from imgclf.explanation.convolution import Convolution, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN = 12
"""Up to this number of rows and columns, each number is written into its cell."""

PANEL_IN, KERNEL_IN = 2.8, 1.7
GAP_IN, TITLE_IN = 0.5, 0.9
MARK = "#e07b00"


def write(found: Convolution, path: Path) -> None:
    """Write the drawing as PNG.

    Raises:
        UsageError: if the file cannot be written.
    """
    try:
        plots.save(draw(found), path)
    except OSError as error:
        raise UsageError(f"-o {path}: cannot be written ({error.strerror}).") from None


def draw(found: Convolution) -> "Figure":
    """Draw the panels in two rows; those of a 1-D signal over one another."""
    return _signals(found) if len(found.image) == 1 else _maps(found)


def _panels(found: Convolution) -> list[tuple[str, np.ndarray]]:
    config = found.settings
    kernel = config.kernel if config.kernel[0].isalpha() else "kernel"
    named = [
        (found.name or "image", found.image),
        (f"{kernel}, turned" if config.flip else kernel, found.kernel),
        ("feature map" + (", ReLU" if config.relu else ""), found.feature_map),
    ]
    if found.pooled is not None:
        window = f"{config.pool_size}" if len(found.image) == 1 else f"{config.pool_size} x {config.pool_size}"
        named.append((f"{config.pooling} pooling {window}", found.pooled))
    return named


def _size(values: np.ndarray) -> str:
    return f"{values.shape[0]} x {values.shape[1]}"


def _maps(found: Convolution) -> "Figure":
    """Image and kernel above, feature map and pooled map below: side by side, four panels are too small for a phone."""
    panels = _panels(found)
    aspect = found.image.shape[0] / found.image.shape[1]
    height = float(np.clip(PANEL_IN * aspect, KERNEL_IN, 1.6 * PANEL_IN))
    width = height / aspect
    kernel = KERNEL_IN * min(1.0, found.kernel.shape[1] / found.kernel.shape[0])
    total, whole = width + GAP_IN + max(width if len(panels) > 3 else 0, kernel), 2 * height + TITLE_IN
    figure = plots.new_figure(total, whole)
    signs = ("", "\N{ASTERISK OPERATOR}", "=", "\N{RIGHTWARDS ARROW}")
    for number, ((name, values), sign) in enumerate(zip(panels, signs, strict=False)):
        left, bottom = (width + GAP_IN) * (number % 2), 0.0 if number > 1 else height + TITLE_IN
        wide = kernel if number == 1 else width
        high = wide * values.shape[0] / values.shape[1] if number == 1 else height
        axes = figure.add_axes((left / total, (bottom + (height - high) / 2) / whole, wide / total, high / whole))
        _draw(axes, values, kind="kernel" if number == 1 else "image" if number == 0 else "map")
        note = "" if number == 1 else f"\n{text(values.min())} to {text(values.max())}"
        axes.set_title(f"{plots.drawable(name)}\n{_size(values)}{note}", fontsize=12, parse_math=False)
        if number in (0, 2):
            _mark(axes, found, on_image=number == 0)
        middle = (left - GAP_IN / 2) / total, (bottom + height / 2) / whole
        figure.text(*middle, sign, fontsize=20, ha="center", va="center")
    return figure


def _draw(axes: "Axes", values: np.ndarray, kind: str) -> None:
    """Gray for what is never negative, else red and blue around 0.

    The strongest half per cent of a large feature map share one color, since a single edge would leave the rest blank.
    """
    low, high = float(values.min()), float(values.max())
    if kind == "map" and max(values.shape) > WRITTEN:
        low, high = (float(end) for end in np.percentile(values, (0.5, 99.5)))
    if kind == "image" and low >= 0:
        low, high = 0.0, max(high, 255.0 if high > 9 else high)
    signed = low < 0
    if signed:
        high = max(-low, high)
        low = -high
    elif kind != "image":
        low = min(low, 0.0)
    shown = axes.imshow(values, cmap="RdBu_r" if signed else "gray", vmin=low, vmax=high if high > low else low + 1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#9aa3af")
    if max(values.shape) > WRITTEN:
        return
    points = 72 / plots.DPI * axes.get_window_extent().width / values.shape[1]
    longest = max(len(text(value)) for value in values.flat)
    font = float(np.clip(min(0.42 * points, 1.35 * points / longest), 4, 15))
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = shown.cmap(shown.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        axes.text(column, row, text(value), ha="center", va="center", fontsize=font, color=ink)


def _mark(axes: "Axes", found: Convolution, *, on_image: bool) -> None:
    """Frame the window on the image, and its place on the feature map."""
    from matplotlib.patches import Rectangle

    (row, column), (high, wide) = (found.corner, found.kernel.shape) if on_image else (found.place, (1, 1))
    values = found.image if on_image else found.feature_map
    points = 72 / plots.DPI * axes.get_window_extent().width / values.shape[1]
    grow = max(0.0, (9 / points - wide) / 2)  # a frame of at least 9 points can be seen on a slide
    corner = (column - 0.5 - grow, row - 0.5 - grow)
    frame = Rectangle(corner, wide + 2 * grow, high + 2 * grow, fill=False, color=MARK, linewidth=2.2)
    axes.add_patch(frame)
    frame.set_clip_on(False)


def _signals(found: Convolution) -> "Figure":
    """Return a signal of one row: bars over one another, in the same units."""
    panels = _panels(found)
    heights = [1.5, 1.5, 1.5, 1.5][: len(panels)]
    figure = plots.new_figure(5.6, sum(heights) + 0.75 * (len(panels) - 1))
    rows = figure.subplots(len(panels), 1, gridspec_kw={"height_ratios": heights, "hspace": 0.75})
    for number, (axes, (name, values)) in enumerate(zip(rows, panels, strict=True)):
        signal, places = values[0], np.arange(values.shape[1])
        colors = [plots.BLUE] * len(signal)
        if number == 0:
            start = found.corner[1]
            colors = [MARK if start <= place < start + found.kernel.shape[1] else plots.BLUE for place in places]
        elif number == 2:
            colors = [MARK if place == found.place[1] else plots.BLUE for place in places]
        axes.bar(places, signal, width=0.8 if len(signal) <= 60 else 1.0, color=colors)
        axes.axhline(0, color="#5b6675", linewidth=0.8)
        axes.set_title(f"{plots.drawable(name)}, {len(signal)} values", fontsize=12, loc="left", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=10)
        axes.margins(x=0.01, y=0.35)
        if len(signal) <= 2 * WRITTEN:
            axes.set_xticks(places)
            for place, value in zip(places, signal, strict=True):
                above = value >= 0
                axes.annotate(
                    text(value), (place, value), (0, 3 if above else -3), textcoords="offset points", fontsize=11,
                    ha="center", va="bottom" if above else "top",
                )  # fmt: skip
    left, right = -0.6, max(found.image.shape[1], found.feature_map.shape[1]) - 0.4
    for axes in rows:
        axes.set_xlim(left, right)
    return figure
