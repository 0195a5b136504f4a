"""Class folders: the label is the name of the folder, the split that of the folder above."""

from imgclf.data.dataset import UNASSIGNED, Sample, Skipped, listed
from imgclf.data.file_listing import SPLIT_NAMES, Found, Listing, Progress, contents, label
from imgclf.data.layouts import About, Source
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

ADVICE = "Put each class's images in its own sub-folder."


ABOUT = About(priority=100, options=("depth",))


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whatever has no other layout is read as class folders."""
    return True


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Label every image by its place: `<class>/...` or `<split>/<class>/...`.

    `settings.depth` nested folders, joined by slashes, form the class name; by default one. Images are found at any
    depth below.

    Raises:
        DatasetError: if there are no images in class folders, folders of a split stand beside others, or a class name
            is not UTF-8.
    """
    found, levels = source.found, settings.depth or 1
    if not found.files:
        raise DatasetError(f"{found.name}: expected images, found {contents(found)}. {ADVICE}")
    split_level = int(_is_split(found))
    listing = Listing(found.root, [], list(found.skipped))
    filled = set()
    for path in found.files:
        parts = path.split("/")
        if len(parts) <= split_level + levels:
            listing.skipped.append(Skipped(path, "unlabelled", "an image outside any class folder"))
            continue
        split = SPLIT_NAMES[parts[0].casefold()] if split_level else UNASSIGNED
        name = "/".join(parts[split_level : split_level + levels])
        listing.samples.append(Sample(path, label(name, found.name), split))
        filled.add("/".join(parts[: split_level + levels]))
    places = [folder for folder in found.folders if folder.count("/") == split_level + levels - 1]
    empty = [Skipped(folder, "empty-class", "a folder without images") for folder in places if folder not in filled]
    listing.skipped += empty
    if not listing.samples:
        raise DatasetError(
            f"{found.name}: expected images in folders nested {levels} deep, found none. Choose another --depth."
        )
    return listing


def _is_split(found: Found) -> bool:
    """Whether the top folders are those of a split rather than classes."""
    flat = {top for top, _, rest in (path.partition("/") for path in found.files) if rest and "/" not in rest}
    deep = {top for top, _, rest in (path.partition("/") for path in found.files) if "/" in rest}
    if not flat | deep:
        raise DatasetError(
            f"{found.name}: found {len(found.files)} images directly in it and no class folders. {ADVICE} Or put a "
            "table beside them, with a column of paths and one of labels."
        )
    splits = {top for top in flat | deep if top.casefold() in SPLIT_NAMES}
    others = (flat | deep) - splits
    is_split = bool(splits & deep)
    if is_split and others:
        raise DatasetError(
            f"{found.name}: found folders of a split ({listed(sorted(splits))}) beside other folders with images "
            f"({listed(sorted(others))}). Move or rename one of the two kinds."
        )
    if splits and not others and not is_split:
        raise DatasetError(
            f"{found.name}: expected class folders in {' and '.join(sorted(splits))}, found images directly there. "
            f"{ADVICE}"
        )
    return is_split
