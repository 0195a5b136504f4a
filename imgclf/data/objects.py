"""Objects in photographs: cut each box out as an image of its own."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from PIL import ExifTags, Image

from imgclf import environment, tasks
from imgclf.data import content, images, tiffs, unpacking
from imgclf.data.dataset import Sample, Skipped, listed
from imgclf.data.file_listing import Found, Listing, Progress
from imgclf.errors import DatasetError, ImageError
from imgclf.settings import ReadConfig

_MOST_XML_BYTES = 10_000_000
_CHUNK = 16
_object = attrgetter("label", "left", "top", "right", "bottom")
FAR = 1e9
"""Maximum distance of an edge from the corner of the image, in pixels."""


@dataclass(frozen=True)
class Box:
    """One object: its class, its edges in stored pixels (the right and lower ones are outside it), and its name."""

    label: str
    left: float
    top: float
    right: float
    bottom: float
    name: str


@dataclass
class Photograph:
    """One file, relative to the root, with its objects. `size` is the size that the annotation states, if any."""

    path: str
    split: str
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)


@dataclass
class Annotations:
    """The content of annotations, their files, and their errors."""

    photographs: list[Photograph]
    files: list[str]
    skipped: list[Skipped]


def read(found: Found, said: Annotations, settings: ReadConfig, kind: str, on_progress: Progress | None) -> Listing:
    """List the objects as images of their own, or where labels belong to whole images, the photographs."""
    task = tasks.find(settings.task)
    if not task.WHOLE:
        return cut(found, said, settings, kind, on_progress)
    boxes: dict[str, list[str]] = {}
    for photograph in said.photographs:
        boxes.setdefault(photograph.path, []).extend(box.label for box in photograph.boxes)
    splits = {p.path: p.split for p in reversed(said.photographs)}  # the first counts
    samples = [Sample(path, task.united(own), splits[path]) for path, own in boxes.items()]
    return Listing(found.root, samples, [*said.skipped, *found.without(said.files)])


def cut(found: Found, said: Annotations, settings: ReadConfig, kind: str, on_progress: Progress | None) -> Listing:
    """Cut the objects out into the cache, unless they are there."""
    merged: dict[str, Photograph] = {}  # a photograph that two files describe keeps one split, the first
    for photograph in said.photographs:
        known = merged.setdefault(photograph.path, Photograph(photograph.path, photograph.split, photograph.size)).boxes
        there = {_object(box) for box in known}  # COCO's keypoints, for one, repeat the boxes of its instances
        for box in photograph.boxes:
            if _object(box) in there:
                said.skipped.append(Skipped(box.name, "duplicate", "an object that another annotation describes, too"))
            else:
                known.append(box)
    photographs = [p for p in merged.values() if p.boxes]

    def fill(folder: Path) -> None:
        samples, skipped = [], list(said.skipped)
        chunks = [photographs[i : i + _CHUNK] for i in range(0, len(photographs), _CHUNK)]
        pool = ThreadPoolExecutor(environment.cpu_count())
        try:
            work = pool.map(lambda chunk: [_cut_one(found.root, folder, p, settings) for p in chunk], chunks)
            for done, results in enumerate(work, start=1):
                for cut, left_out in results:
                    samples += cut
                    skipped += left_out
                if on_progress:
                    on_progress(min(done * _CHUNK, len(photographs)), len(photographs))
        finally:
            pool.shutdown(cancel_futures=True)
        if not samples:
            reasons = [f"{s.path}: {s.reason}" for s in skipped]
            raise DatasetError(f"{found.name}: expected objects to cut out, found none ({listed(reasons, 3)}).")
        unpacking.write_index(folder, samples, skipped)

    parts = [found.root / path for path in (*said.files, *(p.path for p in photographs))]
    options = [
        kind,
        images.fingerprint(),
        settings.box_margin,
        settings.box_min_size,
        settings.crowd,
        settings.difficult,
        settings.allow_truncated,
    ]
    listing = unpacking.read_index(unpacking.once(found.name, parts, options, fill))
    listing.skipped += found.without(said.files)
    return listing


def _cut_one(
    root: Path, folder: Path, photograph: Photograph, settings: ReadConfig
) -> tuple[list[Sample], list[Skipped]]:
    samples, skipped = [], []
    try:
        data = content.read(root / photograph.path)
        upright, is_inverted = images.decode_deep(data, settings.allow_truncated)
        turn = _turn(data, upright.size, photograph.size)
    except ImageError as error:
        return [], [Skipped(photograph.path, "unreadable", str(error))]
    (folder / photograph.path).parent.mkdir(parents=True, exist_ok=True)
    # PNG holds neither floats nor signed numbers
    suffix = ".png" if upright.mode == "RGB" else ".tif"
    for number, box in enumerate(photograph.boxes):
        edges = edges_of(box, _stored(upright.size, turn), settings)
        if isinstance(edges, Skipped):
            skipped.append(edges)
            continue
        path = f"{photograph.path}-{number}{suffix}"
        box_in_image = _turned(edges, _stored(upright.size, turn), turn)
        (folder / path).write_bytes(_encoded(upright.crop(box_in_image), suffix, is_inverted))
        samples.append(Sample(path, box.label, photograph.split, photograph.path))
    return samples, skipped


def _encoded(image: Image.Image, suffix: str, is_inverted: bool) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG" if suffix == ".png" else "TIFF", compress_level=1)
    return tiffs.with_white_as_zero(file.getvalue()) if is_inverted else file.getvalue()


def edges_of(box: Box, size: tuple[int, int], settings: ReadConfig) -> tuple[int, int, int, int] | Skipped:
    """Return the whole pixels of a box with its margin, within the image; or the reason why there are none."""
    width, height = size
    numbers = (box.left, box.top, box.right, box.bottom)
    if not all(abs(n) <= 2 * FAR for n in numbers):  # NaN, too, is not
        return Skipped(box.name, "unreadable", "without a box of four numbers")
    if box.right <= box.left or box.bottom <= box.top:
        return Skipped(box.name, "unreadable", "a box without area")
    seen_width, seen_height = _within(box.left, box.right, width), _within(box.top, box.bottom, height)
    if seen_width <= 0 or seen_height <= 0:
        return Skipped(box.name, "unreadable", f"a box outside its image of {width} x {height} pixels")
    if min(seen_width, seen_height) < settings.box_min_size:
        return Skipped(box.name, "too-small", f"{seen_width} x {seen_height} pixels")
    across, along = settings.box_margin * (box.right - box.left), settings.box_margin * (box.bottom - box.top)
    return (
        max(0, _floor(box.left - across)),
        max(0, _floor(box.top - along)),
        min(width, _ceil(box.right + across)),
        min(height, _ceil(box.bottom + along)),
    )


def _within(low: float, high: float, limit: int) -> int:
    return min(limit, _ceil(high)) - max(0, _floor(low))


def _floor(value: float) -> int:
    return math.floor(round(value, 3))  # 11.9999999 is 12 that has been through a division


def _ceil(value: float) -> int:
    return math.ceil(round(value, 3))


def _turn(data: bytes, upright: tuple[int, int], said: tuple[int, int] | None) -> int:
    """Return the EXIF orientation to apply to the boxes: 1, unless they were drawn on the stored pixels.

    A box belongs to the stored pixels, as COCO's and VOC's own tools take it, except where the annotation states the
    size of the image as EXIF turns it, and that is another one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
            turn = int(image.getexif().get(ExifTags.Base.Orientation, 1))
            stored = image.size
    except Exception:  # it has been decoded: what fails here is EXIF, and the pixels decide
        return 1
    return 1 if turn not in range(2, 9) or (said == upright and said != stored) else turn


def _stored(upright: tuple[int, int], turn: int) -> tuple[int, int]:
    return (upright[1], upright[0]) if turn >= 5 else upright


def _turned(edges: tuple[int, int, int, int], size: tuple[int, int], turn: int) -> tuple[int, int, int, int]:
    """Return a box of the stored pixels in the upright image; `turn` is the EXIF orientation, 1 to 8."""
    (left, top, right, bottom), (width, height) = edges, size
    if turn >= 5:  # mirrored along the diagonal first
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if turn in (2, 3, 6, 7):
        left, right = width - right, width - left
    if turn in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
