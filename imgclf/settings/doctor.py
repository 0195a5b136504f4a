"""Thresholds of the data checks."""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Self

from imgclf.settings.base import names, require

FORMER = {"grey": "gray", "grey-share": "gray-share", "look-alikes": "large-group"}
"""Former names of thresholds and findings, which still work for one release."""


@dataclass(frozen=True)
class Thresholds:
    """Above or below which value the doctor reports an image or a class. docs/doctor.md defines each measure and gives
    its error rate.

    Args:
        near: similarity of two aligned thumbnails at which they count as near-duplicates.
        near_group: the fraction of all images above which a group of near-duplicates is not kept together.
        blank: the fraction of pixels within 8 of the median gray at which an image is near-blank.
        flat_block: the fraction of the image that is one flat block from which data count as lost.
        narrow: the largest value of 16-bit gray, as a fraction of the range, below which the range is too wide.
        dark: the 95th percentile of gray, 0 to 255, up to which an image is very dark.
        bright: the 5th percentile from which an image is very bright.
        blurry: the blur measured at 128 px, 0 to 1.
        information: the entropy of the gray histogram in bits, 0 to 8, up to which an image shows little.
        gray: the mean difference of the channels, 0 to 255, up to which an image is gray.
        gray_share: the fraction of all images up to which gray ones are reported.
        small_px: the shorter side in px below which an image is very small.
        large_mp: the megapixels above which it is very large.
        outlier: how many times its sides are longer or shorter than the median's.
        aspect: the longer side over the shorter one.
        rare: the fraction of all files up to which a format or a suffix is odd.
        imbalance: the images of the largest class over those of the smallest.
        small_class: the number of distinct images below which a class is too small to split.
    """

    near: float = 0.95
    near_group: float = 0.01
    blank: float = 0.97
    flat_block: float = 0.2
    narrow: float = 0.1
    dark: float = 40.0
    bright: float = 215.0
    blurry: float = 0.66
    information: float = 3.0
    gray: float = 1.0
    gray_share: float = 0.2
    small_px: float = 32.0
    large_mp: float = 50.0
    outlier: float = 4.0
    aspect: float = 3.0
    rare: float = 0.01
    imbalance: float = 10.0
    small_class: float = 10.0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Return the defaults, changed by NAME=VALUE,NAME=VALUE.

        Raises:
            UsageError: if a name is unknown, or a value is negative or not a number.
        """
        known = [field.name.replace("_", "-") for field in dataclasses.fields(cls)]
        values: dict[str, float] = {}
        for item in names(text):
            name, _, number = (part.strip() for part in item.partition("="))
            name = FORMER.get(name, name)
            near = ", ".join(difflib.get_close_matches(name, known, 1)) or ", ".join(known)
            require(name in known, "thresholds", f"names such as {near}, each with =VALUE", item)
            try:
                values[name.replace("-", "_")] = float(number)
            except ValueError:
                require(False, "thresholds", f"a number as {name}", number)
        for name, value in values.items():
            require(0 <= value < math.inf, "thresholds", f"a number of at least 0 as {name.replace('_', '-')}", value)
        return cls(**values)
