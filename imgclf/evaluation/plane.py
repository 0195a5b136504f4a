"""Two features of images as a plane: the images as points, and the decision regions of a classifier behind them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from imgclf.evaluation import feature_map, plots

STEPS = 300
"""Points of the grid on which regions are drawn, along each axis."""


def draw(
    points: np.ndarray,
    labels: Sequence[str],
    axes_names: Sequence[str],
    *,
    title: str = "",
    predict: Callable[[np.ndarray], np.ndarray] | None = None,
    value: Callable[[np.ndarray], np.ndarray] | None = None,
    supports: np.ndarray | None = None,
) -> bytes:
    """Draw a plane as PNG.

    Args:
        points: float (n, 2), in the features' own units.
        labels: (n,), class names.
        axes_names: of the two features.
        predict: from points (m, 2) to the indices of classes, in the order of their sorted names; None for no regions.
        value: from points (m, 2) to decision values, whose lines 0, -1 and 1 are the border and its margin.
        supports: rows of the support vectors, which get a ring.
    """
    from matplotlib.colors import ListedColormap

    figure = plots.new_figure(7.0, 6.0)
    axes = figure.add_subplot()
    by_class = feature_map.colors(labels)
    low, high = points.min(axis=0), points.max(axis=0)
    edge = 0.06 * np.maximum(high - low, 1e-9)
    (left, bottom), (right, top) = low - edge, high + edge
    across, up = np.linspace(left, right, STEPS), np.linspace(bottom, top, STEPS)
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    if predict is not None:
        regions = predict(grid).reshape(STEPS, STEPS)
        tints = ListedColormap(list(by_class.values()))
        axes.pcolormesh(
            across, up, regions, cmap=tints, vmin=-0.5, vmax=len(by_class) - 0.5, alpha=0.25, shading="nearest"
        )
    if value is not None:
        lines = value(grid).reshape(STEPS, STEPS)
        axes.contour(across, up, lines, levels=[-1, 0, 1], colors="black", linestyles=["--", "-", "--"], linewidths=1)
    for name, color in by_class.items():
        own = points[[label == name for label in labels]]
        shown: dict[str, Any] = {"color": color, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axes.plot(own[:, 0], own[:, 1], "o", label=plots.drawable(name), **shown)
    if supports is not None:
        ringed = points[supports]
        axes.plot(
            ringed[:, 0], ringed[:, 1], "o", markersize=9, fillstyle="none", color="black", label="support vectors"
        )
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel=axes_names[0], ylabel=axes_names[1])
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, frameon=False)
    return plots.to_png(figure)
