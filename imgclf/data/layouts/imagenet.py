"""ImageNet: class folders named by synsets, such as n01440764, and a file beside them with their names."""

import logging

from imgclf.data import synsets
from imgclf.data.file_listing import Listing, Progress
from imgclf.data.layouts import About, Source, folders
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

log = logging.getLogger(__name__)

ABOUT = About(priority=90, options=("depth", "split_names"))


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whether all class folders are synsets, and a file in the folder names all of them."""
    if settings.class_names or not any(synsets.SYNSET.fullmatch(f.rpartition("/")[2]) for f in source.found.folders):
        return False
    return bool(synsets.beside(source.found, {s.label for s in folders.list_samples(source, settings).samples}))


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """List class folders, and give the classes the names of their synsets, unless `settings.class_names` names them.

    Raises:
        DatasetError: as for class folders, or if no file names the synsets.
    """
    listing = folders.list_samples(source, settings)
    if settings.class_names:
        return listing
    names = synsets.beside(source.found, {s.label for s in listing.samples})
    if not names:
        raise DatasetError(
            f"{source.name}: expected class folders named by synsets, such as n01440764, and a file beside them that "
            "names all of them, found none. Pass the file with --class-names."
        )
    log.info("%s: the classes have the names of their synsets; --layout folders keeps the synsets.", source.name)
    listing.samples = synsets.apply(listing.samples, names, source.name)
    return listing
