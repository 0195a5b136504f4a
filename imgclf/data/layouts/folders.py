"""Class folders -> samples: the label is the folder's name, the side that of the folder above."""

from imgclf.data.dataset import UNASSIGNED, Sample, Skipped, listed
from imgclf.data.file_listing import SIDES, Found, Listing, contents, label
from imgclf.errors import DatasetError

ADVICE = "Put each class's images in its own sub-folder."


def read(found: Found, depth: int | None = None) -> Listing:
    """Label every image by its place: `<class>/...` or `<side>/<class>/...`.

    Args:
        depth: how many levels of nested folders make a class name, joined by slashes; None is one. A class's images
            are found at any depth below its folder.

    Raises:
        DatasetError: if there are no images in class folders, folders of a split stand beside others, or a class's
            name is not UTF-8.
    """
    levels = depth or 1
    if not found.files:
        raise DatasetError(f"{found.name}: expected images, found {contents(found)}. {ADVICE}")
    side_level = int(_is_split(found))
    listing = Listing(found.root, [], list(found.skipped))
    filled = set()
    for path in found.files:
        parts = path.split("/")
        if len(parts) <= side_level + levels:
            listing.skipped.append(Skipped(path, "unlabelled", "an image outside any class folder"))
            continue
        side = SIDES[parts[0].casefold()] if side_level else UNASSIGNED
        name = "/".join(parts[side_level : side_level + levels])
        listing.samples.append(Sample(path, label(name, found.name), side))
        filled.add("/".join(parts[: side_level + levels]))
    places = [folder for folder in found.folders if folder.count("/") == side_level + levels - 1]
    empty = [Skipped(folder, "empty-class", "a folder without images") for folder in places if folder not in filled]
    listing.skipped += empty
    if not listing.samples:
        raise DatasetError(
            f"{found.name}: expected images in folders nested {levels} deep, found none. Choose another --depth."
        )
    return listing


def _is_split(found: Found) -> bool:
    """Whether the uppermost folders are the sides of a split rather than classes."""
    flat = {top for top, _, rest in (path.partition("/") for path in found.files) if rest and "/" not in rest}
    deep = {top for top, _, rest in (path.partition("/") for path in found.files) if "/" in rest}
    if not flat | deep:
        raise DatasetError(
            f"{found.name}: found {len(found.files)} images directly in it and no class folders. {ADVICE} Or put a "
            "table beside them, with a column of paths and one of labels."
        )
    sides = {top for top in flat | deep if top.casefold() in SIDES}
    others = (flat | deep) - sides
    is_split = bool(sides & deep)
    if is_split and others:
        raise DatasetError(
            f"{found.name}: found folders of a split ({listed(sorted(sides))}) beside other folders with images "
            f"({listed(sorted(others))}). Move or rename one of the two kinds."
        )
    if sides and not others and not is_split:
        raise DatasetError(
            f"{found.name}: expected class folders in {' and '.join(sorted(sides))}, found images directly there. "
            f"{ADVICE}"
        )
    return is_split
