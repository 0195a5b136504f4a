"""Make thumbnails as data URIs, so that a page needs no other file."""

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from imgclf import environment
from imgclf.data import images
from imgclf.errors import ImageError, MissingError
from imgclf.settings import Decoding

SIDE_PX = 128
QUALITY = 72


def draw(path: Path, rules: Decoding = images.DEFAULT, side_px: int = SIDE_PX) -> str | None:
    """Draw the whole image, upright, with its longer side at most `side_px`; None if it cannot be read."""
    try:
        image = images.decode(path, rules)
    except (ImageError, MissingError):
        return None
    image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return to_uri(image)


def to_uri(image: Image.Image) -> str:
    """Return a small image as a data URI."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return data_uri(file.getvalue(), "image/jpeg")


def draw_all(paths: Iterable[Path], rules: Decoding = images.DEFAULT, side_px: int = SIDE_PX) -> list[str | None]:
    """Draw many images, on all processors."""
    with ThreadPoolExecutor(environment.cpu_count(), thread_name_prefix="thumbnail") as pool:
        return list(pool.map(lambda path: draw(path, rules, side_px), paths))


def data_uri(content: bytes, kind: str) -> str:
    """Return a file's content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
