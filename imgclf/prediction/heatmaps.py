"""Where a model looked: class activation maps from an artifact's feature map, and maps drawn over their image.

A map has one value for each place of a coarse grid over the model's square input. This module says where that is on the
original image, which `squash`, `crop` and `pad` bring to a square in different ways.
"""

import os
import re
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgclf import tasks
from imgclf.data import images
from imgclf.errors import ArtifactError, ImgclfError, UsageError
from imgclf.prediction.classifier import Classifier
from imgclf.prediction.litert import LiteRTRuntime
from imgclf.settings import Decoding, Resize

SIDE_PX = 448
"""The longer side of an overlay, at most."""

LEAST_PX = 224
"""Smaller images are enlarged by a whole factor, up to about this side: on 28 px nobody sees a map."""

_UP = 2
"""PNG's filter that takes the difference from the row above."""

CAPTION_PX = 22
TOLERANCE = 1e-3
"""By how much log probabilities may differ between the last layer as it was read and the model itself."""

SMALLEST = 1e-30
"""Smaller probabilities are taken for this one: float32 ends soon after."""

_ANCHORS = (
    (0.0, (48, 18, 120)),
    (0.25, (40, 110, 230)),
    (0.5, (60, 200, 120)),
    (0.75, (250, 200, 40)),
    (1.0, (215, 25, 20)),
)
"""Colors of a map, from no evidence to the most."""


class Head(NamedTuple):
    """The last layer of a classifier: kernel float32 (d, classes) and bias float32 (classes,).

    `embedding @ kernel + bias` are the logits before the temperature, or the numbers.
    """

    kernel: np.ndarray
    bias: np.ndarray


def has_map(classifier: Classifier) -> bool:
    """Whether a model's embedding is the average of a feature map that it gives, and its last layer can be read."""
    return "feature_map" in classifier.runtime.names and isinstance(classifier.runtime, LiteRTRuntime)


def head(classifier: Classifier, temperature: float = 1.0) -> Head:
    """Read the last layer of a LiteRT model. What it gives is compared with the model's probabilities or numbers.

    Args:
        temperature: by which the model divides its logits.

    Raises:
        ArtifactError: if the model gives no feature map, is not LiteRT, or has another last layer.
    """
    runtime, classes = classifier.runtime, len(classifier.labels)
    logs_of = _LOGS.get(tasks.find(classifier.task).ACTIVATION)
    if "feature_map" not in runtime.names:
        raise ArtifactError(
            "expected a model whose embedding is the average of a feature map, found one that gives no feature map. "
            "imgclf explain --method auto takes another method."
        )
    if not isinstance(runtime, LiteRTRuntime):
        raise ArtifactError("expected a LiteRT model, found another. imgclf export RUN --format litert makes one.")
    size = (classifier.image_size, classifier.image_size, 3)
    noise = np.modf(np.sin(np.arange(1.0, 1 + np.prod(size))) * 43758.5453)[0].reshape(size)  # no 30 ms for np.random
    spreads = (0, 8, 32, 64, 96, 127) if logs_of is None else (0, 8, 127)
    found = classifier.outputs(np.stack([128 + spread * noise for spread in spreads]).astype(np.float32))
    if logs_of is None:
        return _of_numbers(runtime, found["embedding"], found[tasks.find(classifier.task).OUTPUT])
    biases = [*runtime.constants((classes,)), np.zeros(classes, np.float32)]
    for stored in runtime.constants((classes, found["embedding"].shape[1])):
        for bias in biases:
            logits = found["embedding"] @ stored.T + bias
            for scale in (1.0, temperature):  # LiteRT may have folded the temperature into the weights
                if _agree(logs_of(logits / scale), found["probabilities"]):
                    unfold = temperature / scale
                    return Head(stored.T * unfold, bias * unfold)
    raise ArtifactError("expected a model that ends in one dense layer and a softmax or sigmoid, found another.")


def _of_numbers(runtime: LiteRTRuntime, embeddings: np.ndarray, values: np.ndarray) -> Head:
    """Return the last layer of a model of numbers, with the units that the model gives back after it.

    Raises:
        ArtifactError: if the model has another last layer.
    """
    for stored in runtime.constants((values.shape[1], embeddings.shape[1])):
        logits = embeddings @ stored.T  # (n, numbers), in other units
        fits = [np.polyfit(own, truth, 1) for own, truth in zip(logits.T, values.T, strict=True) if np.ptp(own) > 0]
        if len(fits) == values.shape[1]:
            scale, bias = np.array(fits, np.float32).T
            if (np.abs(logits * scale + bias - values).max(axis=0) <= TOLERANCE * np.ptp(values, axis=0)).all():
                return Head(stored.T * scale, bias)
    raise ArtifactError("expected a model of numbers that ends in one dense layer and their units, found another.")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logs = logits - logits.max(axis=1, keepdims=True)
    found: np.ndarray = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return found


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = -np.logaddexp(0, -logits)
    return found


_LOGS = {"softmax": _log_softmax, "sigmoid": _log_sigmoid}
"""From logits to log probabilities, by the activation of tasks with classes."""


def _agree(logs: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether log probabilities are those of the probabilities, also where these are small."""
    expected = np.log(np.maximum(probabilities, SMALLEST))
    return bool(np.allclose(np.maximum(logs, np.log(SMALLEST)), expected, atol=TOLERANCE, rtol=TOLERANCE))


def activation_map(feature_map: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Class activation map: what each place adds to the logit of a class.

    Args:
        feature_map: float (h, w, d).
        kernel: float (d,), the weights of the class.

    Returns:
        float32 (h, w); its mean and the bias are the logit.

    Source: Zhou et al. 2016, arXiv:1512.04150.
    """
    values: np.ndarray = (feature_map @ kernel).astype(np.float32)
    return values


def region(size: tuple[int, int], resize: Resize) -> tuple[float, float, float, float]:
    """Return the part of an image that the model's square input shows: left, top, right, bottom in pixels.

    With `pad` it is larger than the image.

    Args:
        size: width and height of the image.
    """
    width, height = size
    if resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    side = min(size) if resize == "crop" else max(size)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def peak(values: np.ndarray, size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """Return the pixel of the original image, x and y, in the middle of the place with the most evidence."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    left, top, right, bottom = region(size, resize)
    x = left + (int(column) + 0.5) / values.shape[1] * (right - left)
    y = top + (int(row) + 0.5) / values.shape[0] * (bottom - top)
    return min(max(int(x), 0), size[0] - 1), min(max(int(y), 0), size[1] - 1)


def spread(values: np.ndarray, size: tuple[int, int], resize: Resize) -> np.ndarray:
    """Resize a map to an image, float32 (height, width): bilinear between places, 0 where the model saw nothing.

    Args:
        values: float (h, w).
        size: width and height of the image.
    """
    left, top, right, bottom = region(size, resize)
    square = (max(1, round(right - left)), max(1, round(bottom - top)))
    heat = Image.fromarray(values.astype(np.float32)).resize(square, Image.Resampling.BICUBIC)
    x, y = -round(left), -round(top)  # of the image in the square; negative where the square is inside the image
    whole: np.ndarray = np.asarray(heat.crop((x, y, x + size[0], y + size[1])), np.float32)
    return whole


def overlay(image: Image.Image, values: np.ndarray, resize: Resize, most: float | None = None) -> Image.Image:
    """Lay a map over its image: the more evidence, the stronger and the redder. Negative evidence is not drawn.

    Args:
        image: RGB, of any size with the original's aspect ratio.
        values: float (h, w).
        most: the evidence of the strongest color; None takes that of this map.
    """
    heat = spread(values, image.size, resize)
    scale = 255 / max(float(heat.max()) if most is None else most, 1e-12)
    levels = Image.fromarray(np.clip(heat * scale, 0, 255).astype(np.uint8))
    palette, strengths = _tables()
    strength = levels.point(strengths)
    levels.putpalette(palette)
    gray = Image.blend(image, image.convert("L").convert("RGB"), 0.45)  # so that the colors are the map's
    return Image.composite(levels.convert("RGB"), gray, strength)


@cache
def _tables() -> tuple[bytes, list[int]]:
    """Return the color of each level, as a palette, and how strongly it covers the image, 0 to 255."""
    places, levels = [place for place, _ in _ANCHORS], np.linspace(0, 1, 256)
    channels = [np.interp(levels, places, [color[channel] for _, color in _ANCHORS]) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8).tobytes(), (levels**0.8 * 165).astype(int).tolist()


def small(
    source: Path | str | bytes | np.ndarray, rules: Decoding, side_px: int = SIDE_PX
) -> tuple[Image.Image, tuple[int, int]]:
    """Return an upright RGB image with its longer side at most `side_px`, and the width and height of the original.

    A small one is enlarged.

    Args:
        source: a file, encoded bytes, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).

    Raises:
        ImageError, MissingError: as `images.decode` does.
    """
    if isinstance(source, np.ndarray):
        image = images.to_rgb(Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source))
    else:
        image = images.decode(source, rules)
    size = image.size
    image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return enlarged(image, side_px), size


def enlarged(image: Image.Image, most_px: int = LEAST_PX) -> Image.Image:
    """Return a small image with each pixel as a square, its longer side at most LEAST_PX and `most_px`."""
    factor = min(LEAST_PX, most_px) // max(image.size)
    return (
        image if factor < 2 else image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    )


def with_caption(image: Image.Image, text: str) -> Image.Image:
    """Return an image with a line of text below it, cut where it is too long."""
    whole = Image.new("RGB", (max(image.width, 160), image.height + CAPTION_PX), "white")
    whole.paste(image, ((whole.width - image.width) // 2, 0))
    letters = font()
    while text and letters.getlength(text) > whole.width - 8:
        text = text[:-2].rstrip("\N{HORIZONTAL ELLIPSIS} ") + "\N{HORIZONTAL ELLIPSIS}" if len(text) > 2 else ""
    pen = ImageDraw.Draw(whole)
    pen.text((4, image.height + CAPTION_PX / 2), text, "#1c2430", letters, anchor="lm")
    return whole


@cache
def font(size_px: int = 13) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Matplotlib's font, found without importing it; Pillow's own has Latin letters only."""
    spec = find_spec("matplotlib")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(place, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if file.is_file():
            return ImageFont.truetype(str(file), size_px)
    return ImageFont.load_default(size_px)


def png(image: Image.Image) -> bytes:
    """Return a photograph as a PNG file, three times as fast as Pillow does and about as small.

    Pillow tries all filters of PNG on each row. This takes the difference from the row above, and zlib's faster
    strategy: photographs repeat nothing.
    """
    rows = np.asarray(image.convert("RGB")).reshape(image.height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((len(rows), 1), _UP, np.uint8), rows - above], axis=1)
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    header = struct.pack(">2I5B", image.width, image.height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in (
        (b"IHDR", header),
        (b"IDAT", packer.compress(filtered.tobytes()) + packer.flush()),
        (b"IEND", b""),
    ):
        found += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return found


class Folder:
    """A new folder of overlays, one PNG file for each image and class.

    Raises:
        UsageError: if the folder has something in it, or cannot be created.
    """

    def __init__(self, path: Path, option: str) -> None:
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(f"{option} {path}: expected a new or empty folder, found something there.")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{option} {path}: the folder cannot be created ({error.strerror}).") from None
        self._path, self._option = path, option
        self._taken: set[str] = set()

    def save(self, image: Image.Image, stem: str, label: str) -> Path:
        """Write an image under the name of its file and its class; return where.

        Raises:
            ImgclfError: if it cannot be written.
        """
        plain = re.sub(r"[^\w.-]+", "-", f"{stem}-{label}")[:120]
        name, number = f"{plain}.png", 1
        while name.lower() in self._taken:
            number += 1
            name = f"{plain}-{number}.png"
        self._taken.add(name.lower())
        try:
            part = self._path / f".{name}.part"
            part.write_bytes(png(image))  # without a stage and fsync for each, which take as long as drawing it
            os.replace(part, self._path / name)
        except OSError as error:
            raise ImgclfError(f"{self._option} {self._path / name}: cannot be written ({error.strerror}).") from None
        return self._path / name


class Overlays:
    """Draws the class activation map of each predicted class into a folder.

    Args:
        folder: new or empty.
        classifier: a LiteRT model with a feature map.

    Raises:
        UsageError: if the folder has something in it, or cannot be created.
        ArtifactError: if the model gives no feature map.
    """

    def __init__(self, folder: Path, classifier: Classifier, option: str = "--explain") -> None:
        self._head = head(classifier, classifier.temperature)
        self._folder = Folder(folder, option)
        self._rules, self._form = classifier.decoding, classifier.form

    def draw(self, prediction: Any) -> None:
        """Draw one image, unless it could not be read or is not a file.

        Raises:
            ImgclfError: if it cannot be written.
        """
        if prediction.file is None or prediction.feature_map is None or prediction.pixels is None:
            return
        [place] = self._form.explained(prediction, 1)
        label = prediction.labels[place]
        values = activation_map(prediction.feature_map, self._head.kernel[:, place])
        drawn = enlarged(seen(prediction, values, self._rules.resize, SIDE_PX))
        drawn = with_caption(drawn, self._form.stated(prediction, place))
        self._folder.save(drawn, Path(prediction.file).stem, label)


def seen(prediction: Any, values: np.ndarray, resize: Resize, side_px: int, most: float | None = None) -> Image.Image:
    """Lay a map over what the model saw of an image, in the shape of the original. The file is not decoded again.

    Args:
        prediction: with `file` and `pixels`.
        values: float (h, w).
        side_px: the longer side of what is returned, at most.
        most: as `overlay` takes it.
    """
    assert prediction.pixels is not None and prediction.file is not None
    square = Image.fromarray(prediction.pixels)
    if resize == "crop":
        shape = (min(side_px, square.width),) * 2
    else:
        width, height = images.upright_size(prediction.file)
        scale = min(side_px, square.width) / max(width, height)
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    if resize != "pad":  # the map covers all of it, in whatever shape
        return overlay(square.resize(shape, Image.Resampling.BILINEAR), values, "squash", most)
    square = overlay(square, values, "squash", most)
    left, top, right, _ = region((width, height), resize)
    part = square.width / (right - left)
    box = (-left * part, -top * part, (width - left) * part, (height - top) * part)
    return square.resize(shape, Image.Resampling.BILINEAR, box=box)


def strips(path: Path, files: Sequence[tuple[Path, str, str]], side_px: int) -> list[tuple[Image.Image, ...]]:
    """Evidence for two classes in each of some images: overlays for the first and for the second class.

    Args:
        path: the folder of a LiteRT model.
        files: images, each with two classes.
        side_px: the longer side of an overlay, at most.

    Returns:
        Two overlays for each image, none for one that cannot be read.

    Raises:
        ArtifactError, MissingError: if there is no such model, or it gives no feature map.
    """
    from imgclf.prediction.loading import load  # which needs the classes of this package

    classifier = load(path, engine="litert")
    last = head(classifier, classifier.temperature)
    found: list[tuple[Image.Image, ...]] = []
    for (_, *classes), prediction in zip(
        files, classifier.stream([os.fspath(file) for file, *_ in files], maps=True), strict=True
    ):
        if prediction.feature_map is None:
            found.append(())
            continue
        maps = [
            activation_map(prediction.feature_map, last.kernel[:, classifier.labels.index(name)]) for name in classes
        ]
        most = max(float(values.max()) for values in maps)  # one scale for both, since the classes compete
        found.append(tuple(seen(prediction, values, classifier.resize, side_px, most) for values in maps))
    return found
