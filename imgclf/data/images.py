"""Turn a file into pixels: decode, orient, RGB, resize.

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
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from imgclf import environment
from imgclf.errors import ImageError
from imgclf.settings import PERCENTILE, Resize
from imgclf.settings import Decoding as Decoding

VERSION = 1
"""Part of every key: raised when a file may give other pixels than before."""

DEFAULT = Decoding()
"""The default rules."""

MAX_PIXELS = 178_956_970
"""Larger images are refused: a small file can claim a size that fills the memory (a decompression bomb). The
number is the one from which Pillow itself refuses."""

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Pillow's names of the formats, and the extensions of their files, in lower case."""

SUFFIXES = tuple(suffix for suffixes in ENDINGS.values() for suffix in suffixes)
"""Extensions of image files, in lower case. The content then decides the format."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "DIB")
"""Pillow's names of the formats that are opened, HEIF beside them where pillow-heif is installed. Others are not: EPS,
for one, would run a PostScript program."""

EMPTY = "an empty file"
NO_IMAGE = "not an image, or a format that cannot be read"
"""Two reasons why an image cannot be decoded that other modules distinguish."""

NO_MEMORY = "too large for the memory"
"""The one reason why an image cannot be decoded that is due to the machine, not the file."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of gray of more than 8 bits."""


class _Process:
    """Settings of the whole process while decoding: silent warnings, and Pillow's treatment of truncated files.

    Both are global. `warnings.catch_warnings`, left by threads in another order than entered, would never put the
    filters back, so the first one in changes them and the last one out restores them. Threads that want the same of
    half files run side by side; one that wants the other thing waits until they are out.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._allow_truncated = False

    @contextlib.contextmanager
    def prepared(self, allow_truncated: bool) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: self._inside == 0 or self._allow_truncated == allow_truncated)
            self._inside += 1
            if self._inside == 1:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
                self._allow_truncated = ImageFile.LOAD_TRUNCATED_IMAGES = allow_truncated
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                if self._inside == 0:
                    self._warnings.__exit__(None, None, None)
                    ImageFile.LOAD_TRUNCATED_IMAGES = self._before
                    self._change.notify_all()


_PROCESS = _Process()


def prepared(allow_truncated: bool = False) -> contextlib.AbstractContextManager[None]:
    """Prepare the process once for opening many images."""
    return _PROCESS.prepared(allow_truncated)


@dataclass(frozen=True)
class Header:
    """The header of a file: size in stored pixels (before EXIF orientation) and Pillow's name of the format."""

    width: int
    height: int
    format: str


def read_bytes(path: Path | str) -> bytes:
    """Read the bytes of a file.

    Raises:
        ImageError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise ImageError(reason(error)) from None


def fingerprint() -> str:
    """Describe what else determines pixels, beside file and rules: the versions of this decoder and its libraries."""
    from PIL import __version__, features

    codecs = [f"{name} {features.version(name)}" for name in ("jpg", "libjpeg_turbo", "webp", "avif", "libtiff")]
    heif = environment.version("pillow-heif")
    return ", ".join([f"imgclf {VERSION}", f"Pillow {__version__}", *codecs, f"pillow-heif {heif}"])


def inspect(data: bytes, allow_truncated: bool = False) -> Header:
    """Read the header of an encoded image; if its end looks truncated, decode it to be sure.

    Raises:
        ImageError: if it is not an image, is truncated (unless that is allowed), or has more than MAX_PIXELS pixels.
        MissingError: if it is HEIC and pillow-heif is not installed.
    """
    with _opened(data, allow_truncated) as image:
        header = Header(image.width, image.height, image.format or "")
        if not _ends_whole(data, header.format):
            image.load()
    return header


@dataclass(frozen=True)
class Look:
    """A first look at a file: its header, how it is stored, and a small upright RGB image.

    `is_gray` is of the stored mode, `is_turned` of the EXIF orientation, `is_animated` of more frames than one.
    """

    header: Header
    is_gray: bool
    is_turned: bool
    is_animated: bool
    image: Image.Image


def look(data: bytes, side_px: int, allow_truncated: bool = False) -> Look:
    """Decode all of an encoded image, to a smaller size where that is cheaper: its shorter side then has `side_px` at
    least. For statistics; the pixels are not those of `decode`.

    A JPEG decoder reads the whole file, and finds what is wrong with it, also where it draws every eighth pixel only.

    Raises:
        As `inspect`.
    """
    with _opened(data, allow_truncated) as image:
        header = Header(image.width, image.height, image.format or "")
        is_animated = header.format != "MPO" and bool(getattr(image, "is_animated", False))
        is_gray = image.mode in ("1", "L", "LA", "La", *_DEEP)
        image.draft(None, (side_px, side_px))
        image.load()
        upright = _upright(image)
        return Look(header, is_gray, upright is not image, is_animated, to_rgb(upright))


def decode(source: Path | str | bytes, rules: Decoding = DEFAULT) -> Image.Image:
    """Decode a file, or the bytes of one, to an upright RGB image.

    EXIF orientation is applied. Of an animation the first frame is taken. Transparent pixels are laid over white.
    16-bit and 32-bit integer gray is scaled from its full range of 16 bits to 8, float gray from its own minimum
    and maximum, either from `rules.window` where there is one; color of 16 bits keeps the upper 8. Gray becomes
    R = G = B; CMYK is converted as Pillow does, without a color profile. The whole file is decoded at full size: the
    JPEG decoder's own scaling would change the pixels.

    Raises:
        ImageError: if it is not an image, is cut short (unless the rules allow it), or has more than MAX_PIXELS pixels.
        MissingError: if it is HEIC and pillow-heif is not installed.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    with _opened(data, rules.allow_truncated) as image:
        image.load()
        return to_rgb(_upright(image), rules)


def decode_deep(source: Path | str | bytes, allow_truncated: bool = False) -> Image.Image:
    """Decode, but keep gray of more than 8 bits as stored (I;16, I or F), so that its window can be chosen later.

    Raises:
        As `decode`.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    with _opened(data, allow_truncated) as image:
        image.load()
        upright = _upright(image)
        return upright if upright.mode in _DEEP else to_rgb(upright)


@contextlib.contextmanager
def _opened(data: bytes, allow_truncated: bool) -> Iterator[Image.Image]:
    """Open an image without decoding it; any error inside the block becomes an ImageError with a reason."""
    if not data:
        raise ImageError(EMPTY)
    formats = _heif_formats() if _is_heif(data) else FORMATS
    with _PROCESS.prepared(allow_truncated):
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
                yield image
        except ImageError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged input; one bad image is one bad image
            raise ImageError(reason(error)) from None


def _is_heif(data: bytes) -> bool:
    """Whether the brands of the file name HEIF. Pillow itself reads AVIF, which shares the container."""
    box = data[: min(int.from_bytes(data[:4], "big"), 256)]
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in box


def _heif_formats() -> tuple[str, ...]:
    environment.require("pillow_heif", "'imgclf[heif]'")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def reason(error: Exception) -> str:
    """Say in a few words why an image cannot be read, from the exception of its decoder or of the system."""
    match error:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission to read it"
        case IsADirectoryError():
            return "a folder, not a file"
        case MemoryError():
            return NO_MEMORY
        case UnidentifiedImageError():
            return NO_IMAGE
        case Image.DecompressionBombError():
            return f"more than {MAX_PIXELS:,} pixels"
    return f"damaged or truncated ({str(error) or type(error).__name__})"


def _ends_whole(data: bytes, format: str) -> bool:
    """Whether the file has the end mark of its format; False for formats without one."""
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


def to_rgb(image: Image.Image, rules: Decoding = DEFAULT) -> Image.Image:
    """Convert any Pillow mode to RGB by the rules of `decode`."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _DEEP:
        return Image.fromarray(_to_eight_bits(np.asarray(image), rules)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(gray: np.ndarray, rules: Decoding) -> np.ndarray:
    """Convert gray of 16 or 32 bits (h, w) to uint8; values outside the window are clipped, NaN is black."""
    if rules.window is None and gray.dtype.kind != "f":
        return (gray.clip(0, 65535) // 257).astype(np.uint8)
    low, high = rules.bounds or _ends(gray[np.isfinite(gray)], 100 if rules.window == PERCENTILE else 0)
    if low == high:
        return np.zeros(gray.shape, np.uint8)
    inside = np.nan_to_num(gray.astype(np.float64), nan=low, posinf=high, neginf=low).clip(low, high)
    return np.rint((inside - low) * (255.0 / (high - low))).astype(np.uint8)


def _ends(values: np.ndarray, share: int) -> tuple[float, float]:
    """Find the smallest and the largest value, after leaving out one in `share` at both ends; none if share is 0."""
    if not values.size:
        return 0.0, 0.0
    first = (values.size - 1) // share if share else 0
    last = values.size - 1 - first
    ordered = np.partition(values, (first, last))
    return float(ordered[first]), float(ordered[last])


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


def load(source: Path | str | bytes | np.ndarray, size_px: int, rules: Decoding = DEFAULT) -> np.ndarray:
    """Turn a file, bytes, or an array into the model's pixels.

    Args:
        source: a path, encoded bytes, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), 0-255.

    Returns:
        uint8 (size_px, size_px, 3), RGB.

    Raises:
        ImageError: if it cannot be decoded, or an array has another shape or dtype.
        MissingError: if it is HEIC and pillow-heif is not installed.
    """
    if isinstance(source, np.ndarray):
        channels = source.shape[2] if source.ndim == 3 else 1
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or channels not in (1, 3, 4) or source.size == 0:
            raise ImageError(
                f"expected a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), found {source.dtype} {source.shape}"
            )
        image = to_rgb(Image.fromarray(source.reshape(source.shape[:2]) if channels == 1 else source))
    else:
        image = decode(source, rules)
    return np.asarray(resize(image, size_px, rules.resize))
