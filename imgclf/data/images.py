"""The one way a file becomes pixels: decode, orient, RGB, resize.

Training, prediction and the server call these functions and nothing else, so that an image means the same everywhere.
"""

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from imgclf.errors import ImageError

Resize = Literal["squash", "crop", "pad"]

MAX_PIXELS = 200_000_000
"""Larger images are refused: a small file can claim a size that fills the memory (a decompression bomb)."""

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .dib .gif .tif .tiff .avif .ppm .pgm .pbm .pnm".split()
)

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def decode(source: Path | str | bytes) -> Image.Image:
    """Decode a file, or the bytes of one, to an upright RGB image.

    EXIF orientation is applied. Of an animation the first frame is taken. Transparent pixels are laid over white.
    16-bit and 32-bit integer grey is scaled from its full range of 16 bits to 8, float grey from its own minimum
    and maximum; grey becomes R = G = B; CMYK is converted as Pillow does, without a colour profile.

    Raises:
        ImageError: if it is not an image, is cut short, or has more than MAX_PIXELS pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and the like: the pixels decide, not the metadata
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ImageError(f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS:,}")
                opened.load()
                return to_rgb(ImageOps.exif_transpose(opened))
        except ImageError:
            raise
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except PermissionError:
            raise ImageError("no permission to read it") from None
        except IsADirectoryError:
            raise ImageError("a folder, not a file") from None
        except MemoryError:
            raise ImageError("too large for the memory") from None
        except Image.UnidentifiedImageError:
            raise ImageError(_what_it_is(source)) from None
        except Exception as error:  # decoders raise nearly anything on damaged input; one bad image is one bad image
            raise ImageError(f"damaged or truncated ({str(error) or type(error).__name__})") from None


def _what_it_is(source: Path | str | bytes) -> str:
    head = source[:1] if isinstance(source, bytes) else Path(source).open("rb").read(1)
    return "not an image, or a format that cannot be read" if head else "an empty file"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB by the rules of `decode`."""
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((grey // 257).astype(np.uint8), "L").convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        low, high = grey.min(), grey.max()
        scaled = (grey - low) * (255.0 / (high - low)) if high > low else np.zeros_like(grey)
        return Image.fromarray(np.rint(scaled).astype(np.uint8), "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, size_px: int, mode: Resize = "squash") -> Image.Image:
    """Resize to a square with antialiased bilinear sampling.

    `squash` ignores the aspect ratio, `crop` takes the central square, `pad` adds black bars.
    """
    target = (size_px, size_px)
    if image.size == target:
        return image
    if mode == "squash":
        return image.resize(target, Image.Resampling.BILINEAR)
    if mode == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.resize(target, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    scale = size_px / max(image.size)
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", target)
    square.paste(
        image.resize(fitted, Image.Resampling.BILINEAR),
        ((size_px - fitted[0]) // 2, (size_px - fitted[1]) // 2),
    )
    return square


def load(source: Path | str | bytes | np.ndarray, size_px: int, mode: Resize = "squash") -> np.ndarray:
    """A file, bytes, or an array as the model's pixels.

    Args:
        source: a path, encoded bytes, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), 0-255.

    Returns:
        uint8 (size_px, size_px, 3), RGB.

    Raises:
        ImageError: if it cannot be decoded, or an array has another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (1, 3, 4)):
            raise ImageError(
                f"expected a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), found {source.dtype} {source.shape}"
            )
        squeezed = source[:, :, 0] if source.ndim == 3 and source.shape[2] == 1 else source
        image = to_rgb(Image.fromarray(squeezed))
    else:
        image = decode(source)
    return np.asarray(resize(image, size_px, mode))
