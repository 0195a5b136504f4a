"""Pascal VOC: XML that describes the objects in photographs; each of either becomes an image.

Format: the development kit of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/. Pixels count from 1, and boxes include
their last row and column.
"""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from imgclf.data import objects
from imgclf.data.dataset import Skipped
from imgclf.data.file_listing import Finder, Found, Listing, Progress, label
from imgclf.data.layouts import About, Source
from imgclf.data.objects import Annotations, Box, Photograph
from imgclf.data.split_names import SPLIT_NAMES, split_in
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

ABOUT = About(priority=10, options=("box_margin", "box_min_size", "difficult"), unpacks=True)

_MOST_XML_BYTES = 10_000_000


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whether there are annotations of the VOC kind."""
    return bool(_files(source.found))


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Cut every object out of its photograph, or list the photographs for some tasks.

    Lists in `ImageSets/Main` tell the splits.

    Raises:
        DatasetError: if there are no annotations, or no object can be cut out.
    """
    found = source.found
    files = _files(found) or [path for path in found.others if path.lower().endswith(".xml")]
    if not files:
        raise DatasetError(
            f"{found.name}: expected XML files in a folder Annotations, or beside the images, found none."
        )
    return objects.read(found, _annotations(found, files, settings), settings, "voc", on_progress)


def _files(found: Found) -> list[str]:
    """Find annotations of the VOC kind: XML in `Annotations`, or named like at least half of the images."""
    files = [path for path in found.others if path.lower().endswith(".xml")]
    if not files or any(PurePosixPath(path).parent.name == "Annotations" for path in files):
        return [path for path in files if PurePosixPath(path).parent.name == "Annotations"]
    stems = {PurePosixPath(path).stem for path in found.files}
    described = sum(PurePosixPath(path).stem in stems for path in files)
    return files if 2 * described >= len(stems) > 0 else []


def _annotations(found: Found, files: Sequence[str], settings: ReadConfig) -> Annotations:
    finder, result = Finder(found.files), Annotations([], list(files), [])
    splits: dict[str, dict[str, str]] = {}
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
        if home not in splits:
            splits[home], lists = _splits(found, home)
            result.files += lists
        split = (
            splits[home].get(PurePosixPath(path).stem, "") or split_in(path.split("/")[0] if "/" in path else "") or ""
        )
        size = (_number(tree, "size/width"), _number(tree, "size/height"))
        known = (int(size[0]), int(size[1])) if all(math.isfinite(n) and n > 0 for n in size) else None
        result.photographs.append(Photograph(photograph, split, known))
        for number, element in enumerate(tree.iter("object"), start=1):
            _add(result, element, f"{path}#{number}", settings)
    return result


def _below(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _xml(path: Path) -> ElementTree.Element:
    data = path.read_bytes()
    if len(data) > _MOST_XML_BYTES:
        raise ValueError(f"{len(data):,} bytes, more than the limit of {_MOST_XML_BYTES:,}")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # entities can grow without end
        raise ValueError("with a document type of its own: remove its <!DOCTYPE> and <!ENTITY>")
    return ElementTree.fromstring(data)


def _number(element: ElementTree.Element, path: str) -> float:
    try:
        return float(element.findtext(path) or "nan")
    except ValueError:
        return math.nan


def _add(result: Annotations, element: ElementTree.Element, name: str, settings: ReadConfig) -> None:
    kind = (element.findtext("name") or "").strip()
    if not kind:
        result.skipped.append(Skipped(name, "unlabelled", "an object without a name"))
    elif _number(element, "difficult") == 1 and not settings.difficult:
        result.skipped.append(Skipped(name, "difficult", "marked as difficult"))
    else:
        left, top, right, bottom = (_number(element, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
        result.photographs[-1].boxes.append(Box(label(kind, name), left - 1, top - 1, right, bottom, name))


def _splits(found: Found, home: str) -> tuple[dict[str, str], list[str]]:
    """Map stems of annotations to splits by `ImageSets/Main/train.txt` and its like; and return these lists, too."""
    splits, lists = {}, []
    for path in found.others:
        place = PurePosixPath(path)
        if str(place.parent) == _below(home, "ImageSets/Main") and place.suffix == ".txt" and place.stem in SPLIT_NAMES:
            lists.append(path)
            for line in (found.root / path).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
                if line.strip():
                    splits[line.split()[0]] = SPLIT_NAMES[place.stem]
    return splits, lists
