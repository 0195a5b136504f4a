"""Draw an image above the features that weighed most in its prediction, or above its nearest training images."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from imgclf.evaluation import plots
from imgclf.prediction.decision import Neighbor
from imgclf.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOR, AGAINST, OTHER = "#b2182b", "#2166ac", "0.6"
"""Red speaks for the class and blue against it, as in the maps of `views`."""

WIDTH_IN, TITLE_IN, IMAGE_IN, GAP_IN, BAR_IN, FOOT_IN = 4.6, 0.4, 2.2, 0.12, 0.46, 0.75
EDGE = 0.02
LONGEST = 52
"""Letters of a name on this width."""


def features(image: Image.Image, title: str, facts: Mapping[str, Any]) -> Image.Image:
    """Draw features as bars: to the right those for the class, to the left those against it.

    Args:
        title: the class that is explained, and its probability.
        facts: `features`, `measure`, `score`, `base` and `rest`, as an `Explanation` has them.
    """
    bars = [(f"{each.name} = {each.value:.3g}", each.weight) for each in facts["features"]]
    colors = [FOR if weight > 0 else AGAINST for _, weight in bars]
    if facts["base"] is not None:
        bars += [("all other features", facts["rest"]), ("without features", facts["base"])]
        colors += [OTHER, OTHER]
    figure, axes = _below(image, title, bars, colors)
    least, most = min(0.0, *(weight for _, weight in bars)), max(0.0, *(weight for _, weight in bars))
    room = 0.2 * ((most - least) or 1.0)  # for the numbers at the bars
    axes.set_xlim(least - (room if least < 0 else 0), most + (room if most > 0 else 0))
    axes.axvline(0, color="0.4", linewidth=0.8)
    means = "bars: what it would lose if a feature were average" if facts["base"] is None else "the sum of the bars"
    axes.set_xlabel(f"{facts['measure']} {facts['score']:.3g}\n{means}", parse_math=False)
    return _image(figure)


def neighbors(image: Image.Image, title: str, found: Sequence[Neighbor]) -> Image.Image:
    """Draw the distances of the nearest training images as bars.

    Args:
        title: the predicted class, and its probability.
    """
    bars = [(near.path, near.distance) for near in found]
    figure, axes = _below(image, title, bars, [OTHER] * len(bars))
    axes.set_xlim(0, 1.2 * max(distance for _, distance in bars) or 1.0)
    axes.set_xlabel("distance to the nearest training images")
    return _image(figure)


def _below(
    image: Image.Image, title: str, bars: Sequence[tuple[str, float]], colors: Sequence[str]
) -> "tuple[Figure, Axes]":
    """Draw bars below the image, the first on top, each below its name: long names fit on the width of a phone."""
    bars_in = BAR_IN * len(bars)
    height = TITLE_IN + IMAGE_IN + GAP_IN + bars_in + FOOT_IN
    figure = plots.new_figure(WIDTH_IN, height)
    figure.text(EDGE, 1 - 0.1 / height, plots.drawable(title), fontsize=11, va="top", parse_math=False)
    seen = figure.add_axes((EDGE, 1 - (TITLE_IN + IMAGE_IN) / height, 1 - 2 * EDGE, IMAGE_IN / height))
    seen.imshow(np.asarray(image))
    seen.set_anchor("W")
    seen.set_axis_off()
    axes = figure.add_axes((EDGE, FOOT_IN / height, 1 - 2 * EDGE, bars_in / height))
    places = np.arange(len(bars))
    axes.barh(places + 0.2, [value for _, value in bars], color=list(colors), height=0.4)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_yticks([])
    across = axes.get_yaxis_transform()
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # hides the lines behind a name
    for place, (name, value) in enumerate(bars):
        shown = printable(name)
        if len(shown) > LONGEST:
            shown = f"{shown[: LONGEST // 3]}\N{HORIZONTAL ELLIPSIS}{shown[1 + LONGEST // 3 - LONGEST :]}"
        axes.text(
            0, place - 0.22, shown, fontsize=10, va="center", transform=across, parse_math=False, bbox=behind, zorder=3
        )
        shift, side = (3, "left") if value >= 0 else (-3, "right")
        axes.annotate(
            f"{value:.3g}",
            (value, place + 0.2),
            (shift, 0),
            textcoords="offset points",
            fontsize=9,
            va="center",
            ha=side,
        )
    plots.tidy(axes)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _image(figure: "Figure") -> Image.Image:
    return Image.open(io.BytesIO(plots.to_png(figure))).convert("RGB")
