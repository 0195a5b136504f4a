"""The memory that decoding may take: estimated from the header of an image, and shared by all threads.

A file of a few kilobytes can claim pixels for many gigabytes, and a hundred large images decoded at once can fill a
machine that holds each of them. So nothing is decoded before its share of the budget is free.
"""

import contextlib
import threading
from collections.abc import Iterator

from PIL import Image

from imgclf import environment
from imgclf.errors import ImageError

MOST_BYTES = 1_000_000_000
"""The default budget of a machine with enough memory."""

LEAST_BYTES = 128_000_000
"""The default budget of a machine without, enough for a photograph of 20 megapixels."""

LARGE_FILE_BYTES = 16_000_000
"""Files from this size on are read and decoded one at a time."""

TOO_LARGE = "too large for the memory"
"""The begin of every reason that is due to the machine, not the file."""

_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
"""Bytes of a pixel in Pillow's memory; 4 in other modes."""

_DECODER = {"WEBP": 14, "AVIF": 8, "HEIF": 8, "GIF": 4}
"""Further bytes of a pixel that a decoder takes."""


class Budget:
    """Bytes that threads take for a while, and wait for where others hold them."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._used = 0
        self._change = threading.Condition()
        self._held = threading.local()

    @property
    def limit(self) -> int:
        """The budget in bytes; by default, half of the memory that was available at first, within bounds."""
        if self._limit is None:
            self._limit = min(MOST_BYTES, max(LEAST_BYTES, environment.available_memory() // 2))
        return self._limit

    def set_limit(self, gigabytes: float | None) -> None:
        """Set the budget of this process; None is the default."""
        with self._change:
            self._limit = None if gigabytes is None else round(gigabytes * 1e9)
            self._change.notify_all()

    @contextlib.contextmanager
    def hold(self, need: int, what: str) -> Iterator[None]:
        """Hold bytes of the budget, waiting until they are free. What the thread holds already counts.

        Args:
            what: names the need in the message of an error, such as "9000 x 9000 pixels take".

        Raises:
            ImageError: if the whole budget is less.
        """
        if need > self.limit:
            raise ImageError(
                f"{TOO_LARGE}: {what} {need / 1e9:.1f} GB, more than the {self.limit / 1e9:.1f} GB for decoding "
                "(--memory-gb)"
            )
        more = max(0, need - getattr(self._held, "bytes", 0))
        if not more:
            yield
            return
        with self._change:
            self._change.wait_for(lambda: self._used == 0 or self._used + more <= self.limit)
            self._used += more
        self._held.bytes = getattr(self._held, "bytes", 0) + more
        try:
            yield
        finally:
            self._held.bytes -= more
            with self._change:
                self._used -= more
                self._change.notify_all()


BUDGET = Budget()
"""The budget of this process."""


def needed(image: Image.Image, *, scale: int = 1, side_px: int = 0, full_px: int | None = None) -> int:
    """Estimate the peak of bytes to decode an opened image, turn it upright, convert it to RGB, and resize it.

    Args:
        image: opened, not decoded: only its header is read.
        scale: by which its decoder will divide the sides.
        side_px: the side in pixels of the square to resize it to; 0 for none.
        full_px: its number of pixels before its decoder was told to scale it down; by default, that of `image`.
    """
    width, height = -(-image.width // scale), -(-image.height // scale)
    pixels = width * height
    full_px = image.width * image.height if full_px is None else full_px
    stored = _NARROW.get(image.mode, 4) * pixels
    of_decoder = _DECODER.get(image.format or "", 0) * pixels
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        of_decoder = 2 * len(image.getbands()) * full_px  # the coefficients of all scans, whatever the scale
    elif image.format == "TIFF":
        of_decoder = pixels if image.mode == "1" else stored  # a strip may be the whole image
    converted = 0 if image.mode == "RGB" and "transparency" not in image.info else 4 * pixels
    if image.mode in ("I", "F", "I;16", "I;16B"):
        converted = 3 * max(stored, 2 * pixels)  # gray values are sorted for a window of percentiles
    turned = stored if "exif" in image.info or image.format in ("TIFF", "HEIF") else 0
    resized = 4 * side_px * max(width, height) + 32 * (width + height)
    return stored + max(of_decoder, converted + turned) + resized
