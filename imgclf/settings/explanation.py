"""How to look inside: convolutions step by step, networks layer by layer, and why an image got its class."""

from dataclasses import dataclass
from fractions import Fraction

from imgclf.settings.base import Check, Config, at_least, names, setting
from imgclf.settings.reading import Truncation

KERNELS = {
    "sobel-x": "-1,0,1;-2,0,2;-1,0,1",
    "sobel-y": "-1,-2,-1;0,0,0;1,2,1",
    "prewitt": "-1,0,1;-1,0,1;-1,0,1",
    "laplacian": "0,1,0;1,-4,1;0,1,0",
    "sharpen": "0,-1,0;-1,5,-1;0,-1,0",
    "box": "1/9,1/9,1/9;1/9,1/9,1/9;1/9,1/9,1/9",
    "gaussian": "1/16,1/8,1/16;1/8,1/4,1/8;1/16,1/8,1/16",
    "emboss": "-2,-1,0;-1,1,1;0,1,2",
}
"""Kernels by name, as rows of numbers. Sobel and Prewitt respond where values rise, to the right or downward."""

CHANNELS = {"gray": (0.299, 0.587, 0.114), "red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
"""Weights of red, green and blue. Gray is luma as in ITU-R BT.601, which Pillow uses, too."""

PADDINGS = ("valid", "same", "full")

MOST_PADDING_PX = 1000
"""More zeros than this on each side are a slip of the finger, and fill the memory."""

LARGEST_NUMBER = 1e12
"""Magnitude of pixels and weights. Sums of their products have a float64's digits left to show."""


def _number(text: str) -> float:
    """Return a number or a fraction such as 1/9."""
    value = float(Fraction(text.strip())) if "/" in text else float(text)
    if not abs(value) <= LARGEST_NUMBER:  # NaN, too
        raise ValueError(text)
    return value


def rows_of(text: str) -> tuple[tuple[float, ...], ...] | None:
    """Return the numbers of a matrix such as "1,0;0,-1", row by row; None if it is no rectangle of numbers."""
    try:
        rows = tuple(tuple(_number(item) for item in row.split(",")) for row in text.split(";"))
    except (ValueError, ZeroDivisionError):
        return None
    return rows if len({len(row) for row in rows}) == 1 else None


def _weights(text: str) -> tuple[float, ...]:
    if text in CHANNELS:
        return CHANNELS[text]
    rows = rows_of(text)
    return rows[0] if rows is not None and len(rows) == 1 else ()


def _place(text: str) -> tuple[int, int] | None:
    items = names(text)
    return (int(items[0]), int(items[1])) if len(items) == 2 and all(map(str.isdecimal, items)) else None


@dataclass(frozen=True)
class ConvolveConfig(Config):
    """How to convolve one image with one kernel, as the first layers of a network do."""

    kernel: str = setting(
        "sobel-x",
        "Kernel",
        choices=tuple(KERNELS),
        other=("rows such as 1,0,-1;2,0,-2;1,0,-1",),
        metavar="KERNEL",
        check=Check(
            lambda text: text in KERNELS or rows_of(text) is not None,
            f"{', '.join(KERNELS)}, or rows of equal length such as 1,0,-1;2,0,-2;1,0,-1",
        ),
        everyday=True,
    )
    stride: int = setting(1, "Move the kernel by N pixels.", check=at_least(1), everyday=True)
    padding: str = setting(
        "valid",
        "Zeros around the image",
        metavar="PADDING",
        choices=PADDINGS,
        other=("a number of pixels",),
        check=Check(
            lambda text: text in PADDINGS or (text.isdecimal() and int(text) <= MOST_PADDING_PX),
            f"{', '.join(PADDINGS)} or a number of pixels from 0 to {MOST_PADDING_PX}",
        ),
        everyday=True,
    )
    flip: bool = setting(False, "Turn the kernel by 180 degrees first.", everyday=True)
    relu: bool = setting(False, "Set negative values to 0.", everyday=True)
    pooling: str = setting(
        "none", "Pooling after the convolution", choices=("none", "max", "average"), metavar="POOLING", everyday=True
    )
    pool_size: int = setting(2, "Side and stride of the pooling window.", check=at_least(1), everyday=True)
    channel: str = setting(
        "gray",
        "Channel, or weights that sum the channels",
        metavar="CHANNEL",
        choices=tuple(CHANNELS),
        other=("R,G,B",),
        check=Check(
            lambda text: len(_weights(text)) == 3 and any(_weights(text)),
            f"{', '.join(CHANNELS)}, or three weights such as 1,1,1, not all of them 0",
        ),
        everyday=True,
    )
    at: str | None = setting(
        None,
        "Place of the feature map to write out, from 0.",
        metavar="ROW,COLUMN",
        check=Check(lambda text: _place(text) is not None, "a row and a column such as 0,2, counted from 0"),
        everyday=True,
    )

    @property
    def matrix(self) -> tuple[tuple[float, ...], ...]:
        """The numbers of the kernel, as given."""
        rows = rows_of(KERNELS.get(self.kernel, self.kernel))
        assert rows is not None
        return rows

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of red, green and blue."""
        return _weights(self.channel)

    @property
    def place(self) -> tuple[int, int] | None:
        """Row and column of the feature map that are written out; None for the strongest response."""
        return None if self.at is None else _place(self.at)


@dataclass(frozen=True)
class DescribeConfig(Config):
    """Which form of a network is described. None means: the published one."""

    image_size: int | None = setting(
        None, "Side of the model's square input, in pixels.", check=at_least(1), everyday=True
    )
    classes: int | None = setting(
        None, "Describe the backbone with a head of N classes.", check=at_least(2), everyday=True
    )
    offline: bool = setting(False, "Never use the network.")


METHODS = ("auto", "cam", "gradcam", "rollout", "occlusion", "features", "neighbors")


@dataclass(frozen=True)
class ExplainConfig(Truncation):
    """How to find what decided: the part of an image, or its features."""

    method: str = setting("auto", "Method", choices=METHODS, metavar="METHOD", everyday=True)
    top: int = setting(1, "Explain the N most probable classes.", check=at_least(1), everyday=True)
    grid: int = setting(
        7,
        "Places along each side that --method occlusion covers.",
        check=Check(lambda value: 2 <= value <= 32, "a whole number from 2 to 32"),
    )
    count: int = setting(5, "Features or neighbors to list (classical models).", check=at_least(1), everyday=True)
    offline: bool = setting(False, "Never use the network.")
