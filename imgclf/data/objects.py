"""Photographs with boxes -> one image for each object: Pascal VOC's XML and COCO's JSON.

VOC: the development kit of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, whose pixels count from 1 and whose boxes
hold their last row and column. COCO: https://cocodataset.org/#format-data, whose boxes are x, y, width, height in
pixels counted from 0.
"""

import io
import json
import math
import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from PIL import ExifTags, Image

from imgclf import environment
from imgclf.data import images, unpacking
from imgclf.data.dataset import UNASSIGNED, Sample, Skipped, listed
from imgclf.data.file_listing import SIDES, Finder, Found, Listing, Progress, label, side_in
from imgclf.errors import DatasetError, ImageError
from imgclf.settings import ReadConfig

_MOST_XML_BYTES = 10_000_000
_CHUNK = 16
_object = attrgetter("label", "left", "top", "right", "bottom")
_FAR = 1e9
"""Further than this from the image's corner, in pixels, no box begins or ends."""


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
    """One file, relative to the root, with the objects in it. `size` is what the annotation says of it, if it does."""

    path: str
    side: str
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)


@dataclass
class Annotations:
    """All that the annotations say, the files that say it, and what they say wrongly."""

    photographs: list[Photograph]
    files: list[str]
    skipped: list[Skipped]


def voc_files(found: Found) -> list[str]:
    """The annotations of the VOC kind: XML in `Annotations`, or for at least half of the images one of that name."""
    files = [path for path in found.others if path.lower().endswith(".xml")]
    if not files or any(PurePosixPath(path).parent.name == "Annotations" for path in files):
        return [path for path in files if PurePosixPath(path).parent.name == "Annotations"]
    stems = {PurePosixPath(path).stem for path in found.files}
    described = sum(PurePosixPath(path).stem in stems for path in files)
    return files if 2 * described >= len(stems) > 0 else []


def coco_files(found: Found) -> list[str]:
    """The annotations of the COCO kind: JSON in the folder, in `annotations` or in folders of a split, with boxes."""
    places = {"", "annotations", *SIDES}
    files = [path for path in found.others if path.lower().endswith(".json")]
    return [p for p in files if p.rpartition("/")[0].casefold() in places and _speaks_of_boxes(found.root / p)]


def _speaks_of_boxes(path: Path) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def read_voc(found: Found, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Cut every object out of its photograph, into the cache; the sides are those of `ImageSets/Main`, if there are.

    Raises:
        DatasetError: if there are no annotations, or not one object can be cut out.
    """
    files = voc_files(found) or [path for path in found.others if path.lower().endswith(".xml")]
    if not files:
        raise DatasetError(
            f"{found.name}: expected XML files in a folder Annotations, or beside the images, found none."
        )
    return _cut(found, _voc(found, files, settings), settings, "voc", on_progress)


def read_coco(
    found: Found, settings: ReadConfig, on_progress: Progress | None = None, only: str | None = None
) -> Listing:
    """Cut every object out of its photograph, into the cache; the sides are those that the files' names speak of.

    Args:
        only: read this file of annotations alone.

    Raises:
        DatasetError: if there are no annotations, one of them is damaged, or not one object can be cut out.
    """
    files = [only] if only else coco_files(found)
    if not files:
        raise DatasetError(
            f"{found.name}: expected COCO's JSON in it or in annotations/, with images, annotations, categories and "
            "boxes, found none."
        )
    return _cut(found, _coco(found, files, settings), settings, "coco", on_progress)


def _voc(found: Found, files: Sequence[str], settings: ReadConfig) -> Annotations:
    finder, result = Finder(found.files), Annotations([], list(files), [])
    sides: dict[str, dict[str, str]] = {}
    for path in files:
        try:
            tree = _xml(found.root / path)
            folder = str(PurePosixPath(path).parent)
            home = str(PurePosixPath(folder).parent)
            name = (tree.findtext("filename") or "").strip() or PurePosixPath(path).stem
            near = [_below(home, "JPEGImages"), _below(home, "images"), folder]
            try:
                photograph = finder.find(name, near)
            except LookupError:  # a file that was renamed together with its annotation
                photograph = finder.find(PurePosixPath(path).stem, near)
        except LookupError as error:
            result.skipped.append(Skipped(path, "unreadable", f"its image {name!r}: {error}"))
            continue
        except (OSError, ElementTree.ParseError, ValueError) as error:
            result.skipped.append(Skipped(path, "unreadable", f"not an annotation ({error})"))
            continue
        if home not in sides:
            sides[home], lists = _voc_sides(found, home)
            result.files += lists
        side = sides[home].get(PurePosixPath(path).stem, "") or side_in(path.split("/")[0] if "/" in path else "") or ""
        size = (_number(tree, "size/width"), _number(tree, "size/height"))
        known = (int(size[0]), int(size[1])) if all(math.isfinite(n) and n > 0 for n in size) else None
        result.photographs.append(Photograph(photograph, side, known))
        for number, element in enumerate(tree.iter("object"), start=1):
            _add_voc(result, element, f"{path}#{number}", settings)
    return result


def _below(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _xml(path: Path) -> ElementTree.Element:
    data = path.read_bytes()
    if len(data) > _MOST_XML_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # entities can grow without end
        raise ValueError("too large, or with a document type of its own")
    return ElementTree.fromstring(data)


def _number(element: ElementTree.Element, path: str) -> float:
    try:
        return float(element.findtext(path) or "nan")
    except ValueError:
        return math.nan


def _add_voc(result: Annotations, element: ElementTree.Element, name: str, settings: ReadConfig) -> None:
    kind = (element.findtext("name") or "").strip()
    if not kind:
        result.skipped.append(Skipped(name, "unlabelled", "an object without a name"))
    elif _number(element, "difficult") == 1 and not settings.difficult:
        result.skipped.append(Skipped(name, "difficult", "marked as difficult"))
    else:
        left, top, right, bottom = (_number(element, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
        result.photographs[-1].boxes.append(Box(label(kind, name), left - 1, top - 1, right, bottom, name))


def _voc_sides(found: Found, home: str) -> tuple[dict[str, str], list[str]]:
    """Stem of an annotation to its side, from `ImageSets/Main/train.txt` and its like; and the paths of these lists."""
    sides, lists = {}, []
    for path in found.others:
        place = PurePosixPath(path)
        if str(place.parent) == _below(home, "ImageSets/Main") and place.suffix == ".txt" and place.stem in SIDES:
            lists.append(path)
            for line in (found.root / path).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
                if line.strip():
                    sides[line.split()[0]] = SIDES[place.stem]
    return sides, lists


def _coco(found: Found, files: Sequence[str], settings: ReadConfig) -> Annotations:
    finder, result = Finder(found.files), Annotations([], list(files), [])
    for path in files:
        content = _json(found.root / path)
        folder, _, name = path.rpartition("/")
        side = side_in(PurePosixPath(name).stem) or side_in(folder) or UNASSIGNED
        # instances_train2017.json speaks of the images in train2017
        named = [f for f in found.folders if PurePosixPath(f).name in name and PurePosixPath(f).name != folder]
        near = [folder, "", "images", *named] if folder else ["", "images", *named]
        kinds: dict[object, Any] = {}
        for row in content["categories"]:
            if _has(row, "id", int, str):
                _name_once(kinds, row["id"], row.get("name"), f"{path}: expected an id for each category")
        photographs: dict[object, Photograph] = {}
        names: dict[object, str] = {}
        for row in content["images"]:
            if not _has(row, "id", int, str) or not _has(row, "file_name", str):
                result.skipped.append(Skipped(path, "unreadable", "an image without an id or a file_name"))
                continue
            _name_once(names, row["id"], row["file_name"], f"{path}: expected an id for each image")
            try:
                place = finder.find(row["file_name"], near)
            except LookupError as error:
                result.skipped.append(Skipped(row["file_name"], "unreadable", f"{error}, named in {path}"))
                photographs[row["id"]] = Photograph("", side)
                continue
            size = (row.get("width"), row.get("height"))
            known = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
            photographs[row["id"]] = Photograph(place, side, known)
        for number, row in enumerate(content["annotations"]):
            at = f"{path}#{row['id']}" if _has(row, "id", int, str) else f"{path}, annotation {number}"
            _add_coco(result, row, at, photographs, kinds, settings)
        result.photographs += [p for p in photographs.values() if p.path]
    return result


def _name_once(names: dict[object, Any], key: object, name: object, expected: str) -> None:
    """Note what an id stands for; two things under one id would give objects the pixels or the class of another."""
    if names.setdefault(key, name) != name:
        raise DatasetError(f"{expected}, found {key!r} for {names[key]!r} and {name!r}. Number them anew.")


def _has(row: object, key: str, *kinds: type) -> bool:
    return isinstance(row, dict) and isinstance(row.get(key), kinds)


def _json(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected COCO's annotations, which cannot be read ({error}).") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(f"{path}: expected COCO's annotations with a list of {key}, found none.")
    return content  # type: ignore[no-any-return]


def _add_coco(
    result: Annotations,
    row: Any,
    name: str,
    photographs: dict[object, Photograph],
    kinds: dict[object, Any],
    settings: ReadConfig,
) -> None:
    image, kind = (row.get("image_id"), row.get("category_id")) if isinstance(row, dict) else (None, None)
    box = row.get("bbox") if isinstance(row, dict) else None
    if not isinstance(image, int | str) or image not in photographs:
        result.skipped.append(Skipped(name, "unreadable", f"its image {image!r} is not among the images"))
    elif not isinstance(kind, int | str) or not isinstance(kinds.get(kind), str) or not kinds[kind].strip():
        result.skipped.append(Skipped(name, "unreadable", f"its category {kind!r} is not among the categories"))
    elif not isinstance(box, list) or len(box) != 4 or not all(map(_is_near, box)):
        result.skipped.append(Skipped(name, "unreadable", "without a box of four numbers"))
    elif row.get("iscrowd") and not settings.crowd:
        result.skipped.append(Skipped(name, "crowd", "a crowd rather than one object"))
    else:
        left, top, width, height = map(float, box)
        kind = label(kinds[kind].strip(), name)
        photographs[image].boxes.append(Box(kind, left, top, left + width, top + height, name))


def _is_near(number: object) -> bool:
    return isinstance(number, int | float) and abs(number) < _FAR


def _cut(found: Found, said: Annotations, settings: ReadConfig, kind: str, on_progress: Progress | None) -> Listing:
    """Cut the objects out and keep them in the cache, unless they are there."""
    merged: dict[str, Photograph] = {}  # a photograph that two files describe stays on one side, the first one's
    for photograph in said.photographs:
        known = merged.setdefault(photograph.path, Photograph(photograph.path, photograph.side, photograph.size)).boxes
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
        data = images.read_bytes(root / photograph.path)
        upright = images.decode_deep(data, settings.allow_truncated)
        turn = _turn(data, upright.size, photograph.size)
    except ImageError as error:
        return [], [Skipped(photograph.path, "unreadable", str(error))]
    (folder / photograph.path).parent.mkdir(parents=True, exist_ok=True)
    # PNG holds neither floats nor signed numbers
    suffix = ".png" if upright.mode == "RGB" else ".tif"
    for number, box in enumerate(photograph.boxes):
        edges = _edges(box, _stored(upright.size, turn), settings)
        if isinstance(edges, Skipped):
            skipped.append(edges)
            continue
        path = f"{photograph.path}-{number}{suffix}"
        upright.crop(_turned(edges, _stored(upright.size, turn), turn)).save(folder / path, compress_level=1)
        samples.append(Sample(path, box.label, photograph.side, photograph.path))
    return samples, skipped


def _edges(box: Box, size: tuple[int, int], settings: ReadConfig) -> tuple[int, int, int, int] | Skipped:
    """The whole pixels of a box with its margin, as far as they lie in the image; or why there are none."""
    width, height = size
    numbers = (box.left, box.top, box.right, box.bottom)
    if not all(abs(n) <= 2 * _FAR for n in numbers):  # NaN, too, is not
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
    """The EXIF orientation to apply to the boxes: 1, unless they were drawn on the pixels as stored.

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
    """Where a box of the stored pixels lies in the upright image; `turn` is the EXIF orientation, 1 to 8."""
    (left, top, right, bottom), (width, height) = edges, size
    if turn >= 5:  # mirrored along the diagonal first
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if turn in (2, 3, 6, 7):
        left, right = width - right, width - left
    if turn in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
