"""The one way a file becomes pixels: decode, orient, RGB, resize.

Training, prediction and the server call these functions and nothing else, so that an image means the same everywhere.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from imgclf.config import Resize as Resize
from imgclf.errors import ImageError

MAX_PIXELS = 178_956_970
"""Larger images are refused: a small file can claim a size that fills the memory (a decompression bomb). The
number is the one from which Pillow itself refuses."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""How the names of image files end, in lower case. The content then decides which format it is."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "DIB")
"""Pillow's names of the formats that are opened. Others are not: EPS, for one, would run a PostScript program."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class _Quiet:
    """Silence warnings while any thread is inside.

    `warnings.catch_warnings` changes the whole process and, left by threads in another order than entered, would
    never put the filters back. Here the first one in changes them and the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_QUIET = _Quiet()


@dataclass(frozen=True)
class Header:
    """What a file says of itself: stored pixels (before EXIF orientation) and Pillow's name of the format."""

    width: int
    height: int
    format: str


def read_bytes(path: Path | str) -> bytes:
    """A file's bytes.

    Raises:
        ImageError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise ImageError(_reason(error)) from None


def inspect(data: bytes) -> Header:
    """Open an encoded image without decoding it, except where its end looks cut off: then it is decoded to be sure.

    Raises:
        ImageError: if it is not an image, is cut short, or has more than MAX_PIXELS pixels.
    """
    with _opened(data) as image:
        header = Header(image.width, image.height, image.format or "")
        if not _ends_whole(data, header.format):
            image.load()
    return header


def decode(source: Path | str | bytes) -> Image.Image:
    """Decode a file, or the bytes of one, to an upright RGB image.

    EXIF orientation is applied. Of an animation the first frame is taken. Transparent pixels are laid over white.
    16-bit and 32-bit integer grey is scaled from its full range of 16 bits to 8, float grey from its own minimum
    and maximum; grey becomes R = G = B; CMYK is converted as Pillow does, without a colour profile.

    Raises:
        ImageError: if it is not an image, is cut short, or has more than MAX_PIXELS pixels.
    """
    with _opened(source if isinstance(source, bytes) else read_bytes(source)) as image:
        image.load()
        return to_rgb(_upright(image))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The image, not yet decoded; whatever goes wrong inside the block comes out as an ImageError with a reason."""
    if not data:
        raise ImageError("an empty file")
    with _QUIET:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
                yield image
        except ImageError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged input; one bad image is one bad image
            raise ImageError(_reason(error)) from None


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission to read it"
        case IsADirectoryError():
            return "a folder, not a file"
        case MemoryError():
            return "too large for the memory"
        case UnidentifiedImageError():
            return "not an image, or a format that cannot be read"
        case Image.DecompressionBombError():
            return f"more than {MAX_PIXELS:,} pixels"
    return f"damaged or truncated ({str(error) or type(error).__name__})"


def _ends_whole(data: bytes, format: str) -> bool:
    """Whether the file ends as its format ends. False also where a format has no end mark."""
    if format in ("JPEG", "MPO"):
        return b"\xff\xd9" in data[-64:]
    if format == "PNG":
        return b"IEND" in data[-64:]
    if format == "WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF: the pixels decide, not the metadata
        return image
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB by the rules of `decode`."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((grey // 257).astype(np.uint8), "L").convert("RGB")
    if image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        finite = grey[np.isfinite(grey)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low)
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
        channels = source.shape[2] if source.ndim == 3 else 1
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or channels not in (1, 3, 4) or source.size == 0:
            raise ImageError(
                f"expected a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), found {source.dtype} {source.shape}"
            )
        image = to_rgb(Image.fromarray(source.reshape(source.shape[:2]) if channels == 1 else source))
    else:
        image = decode(source)
    return np.asarray(resize(image, size_px, mode))
