"""Draw a network from top to bottom as SVG: a slab for each size of its maps, the thicker the more channels."""

import math
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from imgclf import storage
from imgclf.errors import UsageError

if TYPE_CHECKING:
    from imgclf.explanation.description import Description, Layer

SINGLE = 16
"""Networks of up to this number of convolutions, dense layers and poolings are drawn layer by layer."""

LEFT, TEXT, ROW = 24, 254, 58
WIDEST = 176
LETTER_PX, TITLE_PX = 7.6, 13.0
"""The widest mean letter among the fonts: a drawing is no wider than its text, so that it can be read on a phone."""

COLORS = {
    "image": ("#e9edf2", "#ccd4de", "#b3bdc9"),
    "map": ("#8fb8e6", "#4c86c6", "#2f69a9"),
    "tokens": ("#c3aee6", "#8f6fc7", "#7353ad"),
    "vector": ("#a4d7ad", "#5fb070", "#459157"),
}
"""Top, front and right of a slab."""


@dataclass
class Block:
    """Layers whose outputs have one size."""

    kind: str
    layers: "list[Layer]" = field(default_factory=list)

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of what the last of them gives."""
        return self.layers[-1].output


def write(found: "Description", path: Path) -> None:
    """Write the drawing.

    Raises:
        UsageError: if the file exists, has another extension, or cannot be written.
    """
    if path.suffix.lower() != ".svg":
        raise UsageError(f"-o {path}: expected a name that ends in .svg, found {path.suffix or 'no extension'}.")
    storage.refuse_existing(path)
    try:
        storage.write_atomic(path, draw(found))
    except OSError as error:
        raise UsageError(f"-o {path}: cannot be written ({error.strerror}).") from None


def blocks(found: "Description") -> list[Block]:
    """Return what is drawn as one slab: each layer of a small network, else all layers whose maps have one size.

    The layers of gates, whose outputs have one place, belong to the maps that they scale. What prepares the pixels,
    before the first layer with weights, is not drawn.
    """
    maps = [place for place, layer in enumerate(found.layers) if _places(layer) > 1]
    head = maps[-1] + 1 if maps else 1
    single = sum(_counts(layer) for layer in found.layers) <= SINGLE
    drawn = [Block("image", [found.layers[0]])]
    by_size: dict[tuple[int, ...], Block] = {}
    first = next((place for place, layer in enumerate(found.layers) if layer.multiply_adds or layer.parameters), 1)
    for place, layer in enumerate(found.layers[first:], first):
        kind = "vector" if place >= head else ("map" if len(layer.output) == 3 else "tokens")
        if (single or kind == "vector") and _counts(layer):
            drawn.append(Block(kind, [layer]))
        elif single or kind == "vector":
            same = drawn[-1].kind in (kind, "image") and drawn[-1].layers[-1].output == layer.output
            if not same and kind == "vector" and drawn[-1].kind != "vector":
                drawn.append(Block(kind))
            elif not same:
                continue  # a change of form alone, such as flattening
            drawn[-1].layers.append(layer)
        elif _places(layer) > 1:
            size = layer.output[:-1]
            if size not in by_size:
                by_size[size] = Block(kind)
                drawn.append(by_size[size])
            by_size[size].layers.append(layer)
        else:
            next(reversed(by_size.values())).layers.insert(0, layer)
    return _joined(drawn)


def _joined(drawn: list[Block]) -> list[Block]:
    """Give the layers of maps that only prepare, such as zero padding, to the next slab."""
    found: list[Block] = []
    waiting: list[Layer] = []
    for block in drawn:
        is_last = block is drawn[-1]
        if block.kind in ("map", "tokens") and not any(map(_counts, block.layers)) and not is_last:
            waiting += block.layers
        else:
            block.layers[:0] = waiting
            waiting = []
            found.append(block)
    return found


def _places(layer: "Layer") -> int:
    return math.prod(layer.output[:-1])


def _counts(layer: "Layer") -> bool:
    return layer.multiply_adds > 0 or (layer.kernel is not None) or layer.type.startswith("Global")


def draw(found: "Description") -> str:
    """Draw the network as SVG."""
    rows, parts = blocks(found), []
    width = LEFT + max(TITLE_PX * len(found.name), LETTER_PX * max(len(_summary(found)), len(_costs(found))))
    top = 92.0
    largest = max(rows[0].output[0], 1)
    for place, block in enumerate(rows):
        parts += ['<g class="block">']
        slab, high = _slab(block, largest, top)
        lines = _lines(block, found)
        width = max(width, TEXT + LETTER_PX * max(map(len, lines)))
        row = max(ROW, high + 16, 20 + 17 * len(lines))
        middle = top + row / 2
        slab, _ = _slab(block, largest, middle - high / 2)
        parts += slab
        for number, line in enumerate(lines):
            y = middle + 5 + 17 * (number - (len(lines) - 1) / 2)
            bold = ' class="b"' if number == 0 else ""
            parts.append(f'<text x="{TEXT}" y="{y:.0f}"{bold}>{escape(line)}</text>')
        parts.append("</g>")
        top += row
        if place + 1 < len(rows):
            x = LEFT + (WIDEST * 1.22) / 2
            parts.append(f'<path class="a" d="M{x:.0f} {top - 5:.0f}v8m-4 -4l4 4l4 -4"/>')
    width, height = width + LEFT, top + 16
    titles = [
        f'<text class="t" x="{LEFT}" y="34">{escape(found.name)}</text>',
        f'<text x="{LEFT}" y="56">{escape(_summary(found))}</text>',
        f'<text x="{LEFT}" y="74">{escape(_costs(found))}</text>',
    ]
    style = (
        "text{font:13px system-ui,-apple-system,Segoe UI,Roboto,Noto Sans,DejaVu Sans,sans-serif;fill:#3d4856}"
        ".b{font-weight:600;fill:#1c2430}.t{font-size:20px;font-weight:600;fill:#1c2430}"
        ".a{fill:none;stroke:#8a95a3;stroke-width:1.4}"
    )
    body = "\n".join([*titles, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(found.name)}">\n<style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _slab(block: Block, largest: int, top: float) -> tuple[list[str], float]:
    """Return a slab at a height, and how high it is."""
    output = block.output
    if block.kind == "vector":
        wide, thick = 26 + 10 * math.log2(output[-1] + 1), 8.0
        deep = 6.0
    else:
        side = output[0] if len(output) == 3 else math.sqrt(output[0])
        wide = max(14.0, WIDEST * math.sqrt(side / largest)) if len(output) == 3 else WIDEST * 0.6
        deep, thick = 0.16 * wide, 3 + 3.0 * math.log2(output[-1] + 1)
    skew = 0.22 * wide
    x = LEFT + (WIDEST * 1.22 - wide - skew) / 2
    front = top + deep
    faces = (
        ((x, front), (x + skew, top), (x + skew + wide, top), (x + wide, front)),
        ((x, front), (x + wide, front), (x + wide, front + thick), (x, front + thick)),
        ((x + wide, front), (x + wide + skew, top), (x + wide + skew, top + thick), (x + wide, front + thick)),
    )
    drawn = [
        f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in face)}" fill="{color}"/>'
        for face, color in zip(faces, COLORS[block.kind], strict=True)
    ]
    return drawn, deep + thick


def _lines(block: Block, found: "Description") -> list[str]:
    size = " x ".join(map(str, block.output))
    if block.kind == "image":
        return [size, "the image"]
    counted = [layer for layer in block.layers if _counts(layer)]
    parameters = sum(layer.parameters for layer in block.layers)
    cost = sum(layer.multiply_adds for layer in block.layers)
    if len(counted) == 1:
        [layer] = counted
        window = "" if layer.kernel is None else " " + " x ".join(map(str, layer.kernel))
        stride = "" if not layer.stride or set(layer.stride) == {1} else f", stride {layer.stride[0]}"
        lines = [size, f"{layer.type}{window}{stride}"]
        if layer.parameters:
            others = "" if parameters == layer.parameters else f", {parameters - layer.parameters:,} others"
            lines.append(f"{layer.formula} = {layer.parameters:,} parameters{others}")
    else:
        kinds = Counter(layer.type for layer in counted if not layer.type.startswith("Global"))
        named = [f"{count} {kind}" for kind, count in kinds.most_common(2)]
        lines = [size, ", ".join(named) or block.layers[-1].type]
        if parameters:
            lines.append(f"{parameters:,} parameters")
    if cost:
        share = cost / found.multiply_adds
        lines.append(f"{_short(cost)} multiply-adds, {'under 1%' if share < 0.01 else f'{share:.0%}'} of all")
    return lines


def _summary(found: "Description") -> str:
    published = found.published or {}
    parts = [f"{found.parameters:,} parameters, {_mb(found.weights_mb)}"]
    if published.get("year"):
        parts.append(f"published {published['year']}")
    if published.get("top1_error") is not None:
        parts.append(f"top-1 error on ImageNet {published['top1_error']:.1f}%")
    return ", ".join(parts)


def _costs(found: "Description") -> str:
    return f"{_short(found.multiply_adds)} multiply-adds and {_mb(found.memory_mb)} of layer outputs for one image"


def _mb(size: float) -> str:
    return f"{size:.1f} MB" if size >= 1 else f"{size:.2g} MB"


def _short(count: float) -> str:
    """Return a count with three digits: 1.35 G."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f}"
