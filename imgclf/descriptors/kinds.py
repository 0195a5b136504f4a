"""The kinds of feature vectors by name, and concatenations of them, such as `hog+color-grid:4x4`."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imgclf import environment
from imgclf.descriptors import color, texture
from imgclf.errors import UsageError

EMBEDDING = "embedding"
EXTRA = "'imgclf[classical]'"
SIZE_PX = 128
"""The side of the images, where none is given."""


@dataclass(frozen=True)
class Kind:
    """One kind of feature vector.

    Args:
        compute: from an image uint8 (s, s, 3) and the numbers after the colon to float32 (d,).
        names: from the side of the images in px and the numbers to the names of the columns.
        numbers: the numbers where none are given.
        argument: what stands after the colon, for messages; empty where nothing can.
        smallest: from the numbers to the side in px that an image has at least.
        unit: what the values are, and between which limits.
        package: what it needs besides NumPy and Pillow.
    """

    compute: Callable[..., np.ndarray]
    names: Callable[..., list[str]]
    unit: str
    numbers: tuple[int, ...] = ()
    argument: str = ""
    smallest: Callable[..., int] = lambda *_: 1
    package: str | None = None


def _bins(prefix: str) -> Callable[[int, int], list[str]]:
    return lambda size_px, bins: [f"{prefix}{place}" for place in range(bins)]


KINDS = {
    "mean-color": Kind(lambda p: color.grid(p, 1, 1), lambda s: list(color.CHANNELS), "mean, 0 to 255"),
    "color-grid": Kind(
        color.grid, lambda s, r, c: color.grid_names(r, c), "mean, 0 to 255", (3, 3), "RxC", lambda r, c: max(r, c)
    ),
    "intensity-histogram": Kind(color.intensity_histogram, _bins("bin"), "share of the pixels, 0 to 1", (32,), "BINS"),
    "color-histogram": Kind(
        color.color_histogram,
        lambda s, bins: [f"{name}_bin{place}" for name in color.CHANNELS for place in range(bins)],
        "share of the pixels, 0 to 1",
        (16,),
        "BINS",
    ),
    "spatial-histogram": Kind(
        color.spatial_histogram,
        lambda s, bins: [f"{axis}{place}" for axis in "xy" for place in range(bins)],
        "share of the brightness, 0 to 1",
        (16,),
        "BINS",
        lambda bins: bins,
    ),
    "texture": Kind(
        texture.responses,
        lambda s: texture.response_names(),
        "filter response to channels from 0 to 1",
        smallest=texture.largest_px,
        package="skimage",
    ),
    "lbp": Kind(
        texture.lbp, lambda s: texture.lbp_names(), "share of the pixels, 0 to 1", smallest=lambda: 3, package="skimage"
    ),
    "hog": Kind(
        texture.hog,
        texture.hog_names,
        "normalized gradient, 0 to 1",
        (16,),
        "CELL_PX",
        lambda cell: cell * texture.HOG_BLOCK,
        "skimage",
    ),
    "pixels": Kind(
        color.small, lambda s, size: color.small_names(size), "mean, 0 to 255", (16,), "SIZE_PX", lambda size: size
    ),
}
"""All that are made by hand; `embedding` is the vector of a network."""


@dataclass(frozen=True)
class Part:
    """One kind with its numbers."""

    name: str
    numbers: tuple[int, ...] = ()


class Descriptor:
    """A feature vector: one kind, or several behind one another.

    Args:
        text: such as `hog+color-grid:4x4`.
        size_px: the side of the images.

    Raises:
        UsageError: if a kind is unknown, its numbers are impossible, or the images are too small for it.
        MissingError: if scikit-image is needed and not installed.
    """

    def __init__(self, text: str, size_px: int) -> None:
        self.text, self.size_px = text, size_px
        self._parts = parse(text)
        for part in self._parts:
            if part.name != EMBEDDING:
                _check(part, size_px)

    @property
    def has_embedding(self) -> bool:
        """Whether the vector of a network is a part of it."""
        return any(part.name == EMBEDDING for part in self._parts)

    def names(self, embedding: int = 0) -> list[str]:
        """Return the columns, such as `hog:block0_0_cell0_0_20deg`.

        Args:
            embedding: the length of the network's vector.
        """
        found = []
        for part in self._parts:
            own = (
                [str(place) for place in range(embedding)]
                if part.name == EMBEDDING
                else KINDS[part.name].names(self.size_px, *part.numbers)
            )
            found += [f"{part.name}:{name}" for name in own]
        return found

    def vectors(self, pixels: np.ndarray, embeddings: np.ndarray | None = None) -> np.ndarray:
        """float32 (n, d), of images uint8 (n, s, s, 3); embeddings float32 (n, e) where they are a part of it."""
        columns = []
        for part in self._parts:
            if part.name == EMBEDDING:
                assert embeddings is not None
                columns.append(embeddings)
            else:
                compute = KINDS[part.name].compute
                columns.append(np.stack([compute(image, *part.numbers) for image in pixels]))
        return np.concatenate(columns, axis=1).astype(np.float32)


def parse(text: str) -> tuple[Part, ...]:
    """Return the parts of a feature vector.

    Raises:
        UsageError: if one is unknown, naming the nearest, or its numbers are impossible.
    """
    return tuple(_part(item.strip()) for item in text.split("+"))


def _part(item: str) -> Part:
    name, colon, argument = item.partition(":")
    known = (*KINDS, EMBEDDING)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"The kinds are {', '.join(known)}."
        raise UsageError(f"--features: expected kinds of feature vectors, found {name!r}. {hint}")
    kind = KINDS.get(name)
    if not colon:
        return Part(name, kind.numbers if kind else ())
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", argument)
    numbers = tuple(int(number) for number in found.groups() if number) if found else ()
    if kind is None or not kind.argument or len(numbers) != len(kind.numbers) or not all(numbers):
        if kind is None or not kind.argument:
            raise UsageError(f"--features: expected {name}, found {item!r}.")
        wanted = "two whole numbers" if len(kind.numbers) > 1 else "a whole number"
        raise UsageError(f"--features: expected {name}:{kind.argument}, {wanted} from 1 to 9999, found {item!r}.")
    return Part(name, numbers)


def _check(part: Part, size_px: int) -> None:
    kind = KINDS[part.name]
    if kind.package:
        environment.require(kind.package, EXTRA)
    smallest = kind.smallest(*part.numbers)
    if size_px < smallest:
        raise UsageError(
            f"--features {part.name}: expected images of at least {smallest} px, found --image-size {size_px}."
        )
