"""Turn a file into pixels: decode, orient, RGB, resize, preprocess.

Training, prediction and the server call these functions and nothing else, so that an image means the same everywhere.
"""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from imgclf import environment
from imgclf.data import content, deep_gray, losses, memory, preprocessing, signatures, tiffs
from imgclf.errors import ImageError
from imgclf.settings import Decoding as Decoding
from imgclf.settings import Resize

VERSION = 2
"""Part of every key: raised when a file may give other pixels than before."""

DEFAULT = Decoding()
"""The default rules."""

MAX_PIXELS = 178_956_970
"""Larger images are refused: a small file can claim a size that fills the memory (a decompression bomb). The
number is the one from which Pillow itself refuses. What fewer pixels may take, `memory` decides."""

MAX_ASPECT = 100_000
"""Images that are more times as long as wide are refused: nothing of them is left in a square."""

_TOO_MANY = f"more than {MAX_PIXELS:,}, the limit: scale the image down, or cut it into tiles"
_TOO_LONG = f"more than {MAX_ASPECT:,} to 1, the limit: crop the image"

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
NO_HEIF = "a HEIC image, which needs the package pillow-heif: pip install 'imgclf[heif]'"
"""Two reasons why an image cannot be decoded that other modules and tests distinguish."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints the errors of a damaged file


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


def fingerprint() -> str:
    """Describe what else determines pixels, beside file and rules: the versions of this decoder and its libraries."""
    from PIL import __version__, features

    codecs = [f"{name} {features.version(name)}" for name in ("jpg", "libjpeg_turbo", "webp", "avif", "libtiff")]
    heif = environment.version("pillow-heif") if environment.has_package("pillow_heif") else None
    return ", ".join([f"imgclf {VERSION}", f"Pillow {__version__}", *codecs, f"pillow-heif {heif}"])


def inspect(data: bytes, allow_truncated: bool = False) -> Header:
    """Read the header of an encoded image; if its end looks truncated, decode it to be sure.

    Raises:
        ImageError: if it is not an image, is truncated (unless that is allowed), or has more than MAX_PIXELS pixels.
    """
    with _opened(data, allow_truncated) as image:
        header = Header(image.width, image.height, image.format or "")
        if not _ends_whole(data, header.format):
            with _memory_for(image, data):
                image.load()
    return header


@dataclass(frozen=True)
class Look:
    """A first look at a file: its header, and how it is stored.

    `is_gray` is of the stored mode, `is_turned` of the EXIF orientation, `is_animated` of more frames than one.
    `lost` is the share of the image that its file has no data for, 0 to 1, and `lacks_scans` whether a progressive
    JPEG ends early. `largest` is the largest stored value of gray of 16 bits, else 0. `without_number` is the share of
    pixels that are NaN, 0 to 1.
    """

    header: Header
    is_gray: bool
    is_turned: bool
    is_animated: bool
    lost: float
    lacks_scans: bool
    largest: float
    without_number: float


@contextlib.contextmanager
def look(data: bytes, side_px: int, allow_truncated: bool = False) -> Iterator[tuple[Look, Image.Image]]:
    """Decode all of an encoded image, to a smaller size where that is cheaper: its shorter side then has `side_px` at
    least. Give the facts, and the upright RGB image, whose memory is held as long. For statistics; the pixels are not
    those of `decode`.

    A JPEG decoder reads the whole file, and finds what is wrong with it, also where it draws every eighth pixel only.

    Raises:
        As `inspect`.
    """
    with _opened(data, allow_truncated) as image:
        header = Header(image.width, image.height, image.format or "")
        is_animated = header.format != "MPO" and bool(getattr(image, "is_animated", False))
        is_gray = image.mode in ("1", "L", "LA", "La", *deep_gray.MODES)
        stored = tiffs.stored(image)
        full_px = image.width * image.height
        image.draft(None, (side_px, side_px))
        with _memory_for(image, data, full_px=full_px):
            image.load()
            lost = losses.share(image, data)
            lacks_scans = bool(image.info.get("progressive")) and losses.lacks_scans(data)
            largest = deep_gray.largest(image, stored) if image.mode in ("I;16", "I;16B", "I") else 0.0
            without_number = deep_gray.without_number(image)
            opaque = _opaque(image)
            upright = _upright(opaque)
            is_turned = upright is not opaque
            rgb = to_rgb(upright, stored=stored)
            yield Look(header, is_gray, is_turned, is_animated, lost, lacks_scans, largest, without_number), rgb


def decode(source: Path | str | bytes, rules: Decoding = DEFAULT) -> Image.Image:
    """Decode a file, or the bytes of one, to an upright RGB image.

    EXIF orientation is applied. Of an animation the first frame is taken. Transparent pixels are laid over white; a BMP
    that is transparent everywhere is opaque. Integer gray of more than 8 bits is scaled from its full range to 8;
    float gray, and integers beyond 16 bits, from the image's own minimum and maximum, either from `rules.window` where
    there is one; color of 16 bits keeps the upper 8. Gray becomes R = G = B; CMYK is converted as Pillow does, without
    a color profile. The whole file is decoded at full size: the JPEG decoder's own scaling would change the pixels.
    It is used only for a JPEG that exceeds the memory for decoding.

    Raises:
        ImageError: if it is not an image, is cut short (unless the rules allow it), has more than MAX_PIXELS pixels, or
            takes more memory than there is for decoding.
    """
    with _decoded(source, rules) as image:
        return image


@contextlib.contextmanager
def _decoded(source: Path | str | bytes, rules: Decoding, side_px: int = 0) -> Iterator[Image.Image]:
    """Decode an image, and hold its memory while it is used."""
    with (
        _PROCESS.prepared(rules.allow_truncated),
        content.of(source) as data,
        _opened(data, rules.allow_truncated) as image,
    ):
        stored = tiffs.stored(image)
        full_px = image.width * image.height
        _reduce(image, side_px)
        with _memory_for(image, data, side_px=side_px, full_px=full_px):
            image.load()
            yield to_rgb(_upright(_opaque(image)), rules, stored)


def _reduce(image: Image.Image, side_px: int) -> None:
    """Let the JPEG decoder scale an image down that would not fit into the memory, as far as `side_px` allows."""
    if image.format not in ("JPEG", "MPO") or memory.needed(image, side_px=side_px) <= memory.BUDGET.limit:
        return
    scales = [scale for scale in (2, 4, 8) if min(image.size) >= scale * max(side_px, 1)]
    fitting = [scale for scale in scales if memory.needed(image, scale=scale, side_px=side_px) <= memory.BUDGET.limit]
    if fitting:
        image.draft(None, (image.width // fitting[0], image.height // fitting[0]))


def _memory_for(
    image: Image.Image, data: bytes, *, side_px: int = 0, full_px: int | None = None
) -> contextlib.AbstractContextManager[None]:
    """Hold the memory to decode an opened image."""
    need = memory.needed(image, side_px=side_px, full_px=full_px)
    if len(data) >= memory.LARGE_FILE_BYTES:
        need += len(data)
    return memory.BUDGET.hold(need, f"{image.width} x {image.height} pixels take")


def upright_size(source: Path | str | bytes) -> tuple[int, int]:
    """Width and height of an image as `decode` gives it, from the head of the file alone.

    Raises:
        ImageError: if it is not an image.
    """
    with content.of(source) as data, _opened(data, True) as image:
        try:
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        except Exception:  # damaged EXIF, which `decode` ignores, too
            turn = None
        return (image.height, image.width) if turn in _ON_THE_SIDE else image.size


def decode_deep(source: Path | str | bytes, allow_truncated: bool = False) -> tuple[Image.Image, bool]:
    """Decode, but keep gray of more than 8 bits as stored (I;16, I or F), so that its window can be chosen later.

    Returns:
        The image, and whether its zero is white.

    Raises:
        As `decode`.
    """
    with _PROCESS.prepared(allow_truncated), content.of(source) as data, _opened(data, allow_truncated) as image:
        stored = tiffs.stored(image)
        with _memory_for(image, data):
            image.load()
            upright = _upright(_opaque(image))
            if upright.mode not in deep_gray.MODES:
                return to_rgb(upright), False
            return deep_gray.signed(upright, stored), stored.inverted


@contextlib.contextmanager
def _opened(data: bytes, allow_truncated: bool) -> Iterator[Image.Image]:
    """Open an image without decoding it; any error inside the block becomes an ImageError with a reason."""
    if not data:
        raise ImageError(EMPTY)
    formats = _heif_formats() if signatures.is_heif(data) else FORMATS
    if data[:4] in tiffs.MAGIC:
        tiffs.prepare()
    with _PROCESS.prepared(allow_truncated):
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                short, long = sorted(image.size)
                if short * long > MAX_PIXELS:
                    raise ImageError(f"{image.width} x {image.height} pixels are {_TOO_MANY}")
                if long > MAX_ASPECT * short:
                    raise ImageError(f"{image.width} x {image.height} pixels are {_TOO_LONG}")
                if image.format == "TIFF":
                    tiffs.correct(image)
                yield image
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(signatures.describe(data)) from None
        except Exception as error:  # decoders raise nearly anything on damaged input; one bad image is one bad image
            if tiffs.cannot_read(data, error):
                raise ImageError(signatures.describe(data)) from None
            raise ImageError(reason(error)) from None


def _heif_formats() -> tuple[str, ...]:
    if not environment.has_package("pillow_heif"):
        raise ImageError(NO_HEIF)
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def is_lasting(reason: str) -> bool:
    """Whether an image that cannot be decoded for this reason never can: the memory may be larger another time."""
    return not reason.startswith(memory.TOO_LARGE)


def reason(error: Exception) -> str:
    """Say in a few words why an image cannot be decoded, from the exception of its decoder."""
    if isinstance(error, Image.DecompressionBombError):
        return f"its pixels are {_TOO_MANY}"
    if isinstance(error, ValueError) and "MAX_TEXT_CHUNK" in str(error):
        return "text or a color profile that unpacks to more than 1 MB, the limit: save the image without it"
    if isinstance(error, MemoryError):
        return memory.TOO_LARGE
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


_ON_THE_SIDE = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF: the pixels decide, not the metadata
        return image
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Drop the alpha channel of a BMP where it is zero everywhere: programs that know no alpha leave the byte empty."""
    if image.mode == "RGBA" and image.format in ("BMP", "DIB") and not image.getchannel("A").getbbox():
        return image.convert("RGB")
    return image


def to_rgb(image: Image.Image, rules: Decoding = DEFAULT, stored: tiffs.Stored = tiffs.PLAIN) -> Image.Image:
    """Convert any Pillow mode to RGB by the rules of `decode`."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in deep_gray.MODES:
        return deep_gray.to_eight_bits(image, rules, stored).convert("RGB")
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image.convert("RGB")
    if image.width * image.height <= STRIP_PIXELS:
        return _over_white(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, step := max(1, STRIP_PIXELS // image.width)):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        result.paste(_over_white(strip), (0, top))
    return result


STRIP_PIXELS = 1 << 20
"""Larger transparent images are converted in strips, since the layers take 16 bytes a pixel."""


def _over_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


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
    """Turn a file, bytes, or an array into the model's pixels: decoded, resized, then preprocessed as the rules say.

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
        return _finished(image, size_px, rules)
    with _decoded(source, rules, size_px) as image:
        return _finished(image, size_px, rules)


def _finished(image: Image.Image, size_px: int, rules: Decoding) -> np.ndarray:
    return np.asarray(preprocessing.apply(resize(image, size_px, rules.resize), rules.steps))
