"""Images that have moved: found again by what is in them, wherever they lie now and whatever they are called."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from imgclf import environment
from imgclf.data import images, readers
from imgclf.data.dataset import Dataset, listed
from imgclf.data.file_listing import scan
from imgclf.errors import DatasetError, ImageError
from imgclf.settings import ReadConfig

_AHEAD = 256  # files hashed before the answer is looked at


def find(dataset: Dataset, place: Path, settings: ReadConfig | None = None) -> Dataset:
    """The same samples in the same order, with the root and the paths that their files have in another place.

    A file is taken for a sample's if its SHA-256 is the one that the manifest holds. Files of the same path are looked
    at first, so that a folder that was moved as a whole costs one reading of what is asked for; then all others are.

    Args:
        place: a folder, or whatever else a data set can be read from: an archive, arrays, annotated photographs.
        settings: how the data set was read.

    Raises:
        DatasetError: if there is nothing at that place, or not all images; or a sample has no hash.
    """
    if not place.exists():
        raise DatasetError(f"{place}: expected the images that have moved, found nothing there. Check the spelling.")
    root = readers.locate(place, settings or ReadConfig())
    unhashed = [s.path for s in dataset.samples if not s.sha256]
    if unhashed:
        raise DatasetError(
            f"{dataset.origin}: expected the SHA-256 of every image in the manifest, found none for "
            f"{listed(unhashed, 3)}. Without it an image cannot be told from another."
        )
    wanted = {s.sha256 for s in dataset.samples}
    known = dict(_hashes(root, {s.path for s in dataset.samples}))
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, sha256 in known.items():
        places[sha256].append(path)
    if wanted - places.keys():
        for path, sha256 in _hashes(root, (path for path in scan(root).files if path not in known)):
            if sha256 in wanted:
                places[sha256].append(path)
            if not wanted - places.keys():
                break
    gone = [s.path for s in dataset.samples if s.sha256 not in places]
    if gone:
        raise DatasetError(
            f"{place}: expected the {len(dataset)} images that {dataset.origin} held, told by their content; found "
            f"{len(dataset) - len(gone)}, and nothing for {listed(gone, 3)}. Name the folder that holds them all."
        )
    moved = []
    for sample in dataset.samples:
        paths = places[sample.sha256]
        path = sample.path if known.get(sample.path) == sample.sha256 else paths[0]
        moved.append(replace(sample, path=path))
    return replace(dataset, root=root, samples=tuple(moved), source=None if root == place else place)


def _hashes(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Paths and their SHA-256, those that can be read; on all processors, not far ahead of who asks."""

    def of(path: str) -> tuple[str, str | None]:
        try:
            return path, hashlib.sha256(images.read_bytes(root / path)).hexdigest()
        except ImageError:
            return path, None

    waiting = iter(sorted(paths))
    with ThreadPoolExecutor(environment.cpu_count(), thread_name_prefix="hash") as pool:
        while part := list(islice(waiting, _AHEAD)):
            yield from ((path, sha256) for path, sha256 in pool.map(of, part) if sha256)
