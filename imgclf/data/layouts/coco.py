"""COCO: JSON that describes the objects in photographs; each of either becomes an image.

Format: https://cocodataset.org/#format-data, whose boxes are x, y, width, height in pixels counted from 0.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from imgclf import documents
from imgclf.data import objects
from imgclf.data.dataset import UNASSIGNED, Skipped
from imgclf.data.file_listing import Finder, Found, Listing, Progress, label, scan
from imgclf.data.layouts import About, Source
from imgclf.data.objects import FAR, Annotations, Box, Photograph
from imgclf.data.split_names import SPLIT_NAMES, split_in
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

ABOUT = About(priority=20, suffixes=(".json",), options=("box_margin", "box_min_size", "crowd"), unpacks=True)


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whether there are annotations of the COCO kind."""
    return bool(_files(source.found))


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Cut every object out of its photograph, or list the photographs for some tasks; file names tell the splits.

    Raises:
        DatasetError: if there are no annotations, one of them is damaged, or no object can be cut out.
    """
    if source.file:
        home = source.root.parent if source.root.name == "annotations" else source.root
        found, files = scan(home, source.file), [source.file.relative_to(home).as_posix()]
    else:
        found = source.found
        files = _files(found)
    if not files:
        raise DatasetError(
            f"{found.name}: expected COCO JSON in the folder or in annotations/, with images, annotations, categories "
            "and boxes, found none."
        )
    return objects.read(found, _annotations(found, files, settings), settings, "coco", on_progress)


def _files(found: Found) -> list[str]:
    """Find annotations of the COCO kind: JSON with boxes, in the folder, in `annotations` or in folders of a split."""
    places = {"", "annotations", *SPLIT_NAMES}
    files = [path for path in found.others if path.lower().endswith(".json")]
    return [p for p in files if p.rpartition("/")[0].casefold() in places and _speaks_of_boxes(found.root / p)]


def _speaks_of_boxes(path: Path) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def _annotations(found: Found, files: Sequence[str], settings: ReadConfig) -> Annotations:
    finder, result = Finder(found.files), Annotations([], list(files), [])
    for path in files:
        content = _json(found.root / path)
        folder, _, name = path.rpartition("/")
        split = split_in(PurePosixPath(name).stem) or split_in(folder) or UNASSIGNED
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
                photographs[row["id"]] = Photograph("", split)
                continue
            size = (row.get("width"), row.get("height"))
            known = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
            photographs[row["id"]] = Photograph(place, split, known)
        for number, row in enumerate(content["annotations"]):
            at = f"{path}#{row['id']}" if _has(row, "id", int, str) else f"{path}, annotation {number}"
            _add(result, row, at, photographs, kinds, settings)
        result.photographs += [p for p in photographs.values() if p.path]
    return result


def _name_once(names: dict[object, Any], key: object, name: object, expected: str) -> None:
    """Record the meaning of an id; two meanings would give objects the pixels or the class of another."""
    if names.setdefault(key, name) != name:
        raise DatasetError(f"{expected}, found {key!r} for {names[key]!r} and {name!r}. Give each its own id.")


def _has(row: object, key: str, *kinds: type) -> bool:
    return isinstance(row, dict) and isinstance(row.get(key), kinds)


def _json(path: Path) -> dict[str, list[Any]]:
    try:
        content = documents.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected COCO's annotations, which cannot be read ({error}).") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(f"{path}: expected COCO's annotations with a list of {key}, found none.")
    return content  # type: ignore[no-any-return]


def _add(
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
    return isinstance(number, int | float) and abs(number) < FAR
