"""imgclf describe"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings.explanation import DescribeConfig

if TYPE_CHECKING:
    from imgclf import Description


OPTIONAL = ("padding", "stride", "formula", "type", "kernel")
"""The columns that a narrow terminal lacks, in this order."""


def describe(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, exported model, .keras file, or a name in imgclf models.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Drawing of the network, a new SVG file.")
    ] = None,
    *,
    settings: DescribeConfig,
    json: options.Json = False,
) -> None:
    """Describe a network layer by layer."""
    from imgclf.cli import console

    with console.phases(console.LOADING):
        found = imgclf.describe(model, settings, output=output)
    if json:
        console.print_json(found.to_dict())
        return
    columns = (
        "layer",
        "type",
        "output",
        "kernel",
        "stride",
        "padding",
        "parameters",
        "formula",
        "multiply-adds",
        "sees px",
    )
    rows = [
        (
            layer.name,
            layer.type,
            _short(layer.output),
            layer.kernel and _short(layer.kernel),
            layer.stride and _short(layer.stride),
            layer.padding,
            f"{layer.parameters:,}" if layer.parameters else "",
            layer.formula if layer.parameters else "",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
            _square(layer.receptive_field) if layer.receptive_field else "all",
        )
        for layer in found.layers
    ]
    left_out = console.table(None, columns, rows, optional=OPTIONAL)
    if left_out:
        console.note(f"Left out to fit: {', '.join(left_out)}. A wider terminal, COLUMNS=160 or --json shows them.")
    for line in _totals(found):
        console.out.print(line)
    if output:
        console.out.print(str(output))


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _short(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _square(sizes: tuple[int, ...]) -> str:
    """One number where both sides are equal."""
    return str(sizes[0]) if len(set(sizes)) == 1 else _short(sizes)


def _totals(found: "Description") -> list[str]:
    lines = [
        f"{found.name}: {found.parameters:,} parameters ({found.weights_mb:.1f} MB in float32), "
        f"{found.multiply_adds:,} multiply-adds and {found.memory_mb:.1f} MB of layer outputs for one image of "
        f"{_times(found.input)}, {found.weighted_layers} layers that multiply"
    ]
    published = found.published
    if published is None:
        return lines
    if published["year"]:
        counted = f", which counts {published['layers']} layers" if published["layers"] else ""
        lines.append(f"Paper: {published['year']}, {published['paper']}{counted}")
    if published["top1_error"] is not None:
        second = "" if published["top5_error"] is None else f", top-5 {published['top5_error']:.1f}%"
        lines.append(
            f"Error on ImageNet, one model and one crop: top-1 {published['top1_error']:.1f}%{second} "
            f"({published['source']})"
        )
    return lines
