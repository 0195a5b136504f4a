"""The picture of a range test, as a PNG file."""

from collections.abc import Sequence
from pathlib import Path

from imgclf.evaluation import plots


def rates(path: Path, tried: Sequence[float], losses: Sequence[float], chosen: float) -> None:
    """Draw the range test of the learning rate.

    Args:
        path: the PNG file to write.
        tried: learning rates, rising.
        losses: the smoothed loss at each.
        chosen: the rate that was chosen.
    """
    figure = plots.new_figure(6.0, 4.0)
    axes = figure.subplots()
    axes.plot(tried, losses)
    axes.axvline(chosen, color="C1", linestyle="--", label=f"chosen: {chosen:g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("smoothed training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    plots.save(figure, path)
