"""imgclf convolve"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings.explanation import ConvolveConfig

if TYPE_CHECKING:
    import numpy as np

MOST = 16
"""Rows and columns of a table, at most."""


def convolve(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image, or CSV file of numbers.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Image, kernel and feature map, a new PNG file."),
    ] = None,
    numbers: Annotated[bool, typer.Option("--numbers", help="Print image and feature map as numbers.")] = False,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Print the image's own numbers by channel, and exit.")
    ] = False,
    *,
    settings: ConvolveConfig,
    given: options.Given,
    json: options.Json = False,
) -> None:
    """Convolve one image with one kernel, step by step."""
    from imgclf.cli import console
    from imgclf.explanation import convolution

    if pixels:
        given.refuse_others(("image", "pixels", "at", "json"), "--pixels prints the image as it is.")
        found = convolution.pixels(image)
        names = ("red", "green", "blue") if found.ndim == 3 else ("values",)
        named = dict(zip(names, found.reshape(*found.shape[:2], -1).transpose(2, 0, 1), strict=True))
        if json:
            console.print_json({name: values.tolist() for name, values in named.items()})
        for name, values in {} if json else named.items():
            _print_numbers(name, values, settings.place or (0, 0))
        return
    result = imgclf.convolve(image, settings, output=output)
    if json:
        console.print_json(result.to_dict(values=numbers))
        return
    if numbers:
        _print_numbers("image", result.image, result.corner)
        _print_numbers("feature map", result.feature_map, result.place)
        if result.pooled is not None:
            _print_numbers("after pooling", result.pooled, (0, 0))
    console.out.print(result.summary)
    if output:
        console.out.print(str(output))


def _print_numbers(name: str, values: "np.ndarray", place: tuple[int, int]) -> None:
    """Print a table of numbers: all, or the part around a place."""
    from imgclf.cli import console
    from imgclf.explanation.convolution import size, text

    first = [min(max(at - MOST // 2, 0), max(length - MOST, 0)) for at, length in zip(place, values.shape, strict=True)]
    rows, columns = (range(start, min(start + MOST, length)) for start, length in zip(first, values.shape, strict=True))
    part = "" if (len(rows), len(columns)) == values.shape else ", a part"
    console.out.print(f"{name}: {size(values)}{part}")
    cells = [(row, *(text(values[row, column]) for column in columns)) for row in rows]
    console.table(None, ("", *map(str, columns)), cells)
