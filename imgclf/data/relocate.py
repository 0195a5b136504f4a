"""Find images again by their content, wherever they are now and whatever they are called."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from imgclf import environment
from imgclf.data import collection, content
from imgclf.data.dataset import Dataset, listed
from imgclf.data.file_listing import scan
from imgclf.errors import DatasetError, ImageError
from imgclf.settings import ReadConfig

_AHEAD = 256  # files hashed before the answer is looked at


def find(dataset: Dataset, place: Path, settings: ReadConfig | None = None) -> Dataset:
    """Find the files of the samples in another place, and return the samples with their new root and paths.

    A file belongs to a sample if its SHA-256 is the one in the manifest. Files of the same path are hashed first, so
    that a folder moved as a whole is read once; then all others are.

    Args:
        place: a folder, or whatever else a dataset can be read from: an archive, arrays, annotated photographs.
        settings: how the dataset was read.

    Raises:
        DatasetError: if there is nothing at that place, an image is not found, or a sample has no hash.
    """
    if not place.exists():
        raise DatasetError(f"{place}: expected the images that have moved, found nothing there. Check the spelling.")
    root = collection.locate(place, settings or ReadConfig())
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
            f"{len(dataset) - len(gone)}, and nothing for {listed(gone, 3)}. Pass the folder that contains all of them."
        )
    moved = []
    for sample in dataset.samples:
        paths = places[sample.sha256]
        path = sample.path if known.get(sample.path) == sample.sha256 else paths[0]
        moved.append(replace(sample, path=path))
    return replace(dataset, root=root, samples=tuple(moved), source=None if root == place else place)


def verify(dataset: Dataset) -> None:
    """Compare the files of a dataset with the hashes in its manifest; those that are gone or have none are passed over.

    Raises:
        DatasetError: if files have changed, naming the first ones.
    """
    changed = changes(dataset)
    if changed:
        path, sha256 = next(iter(changed.items()))
        known = next(s.sha256 for s in dataset.samples if s.path == path)
        others = f" So have {len(changed) - 1:,} others: {listed(list(changed)[1:])}." if len(changed) > 1 else ""
        raise DatasetError(
            f"{dataset.root / path}: the image has changed since training (expected SHA-256 {known[:12]}..., "
            f"found {sha256[:12]}...).{others} Restore them, pass the folder that contains them now with --data, or "
            "train again."
        )


def changes(dataset: Dataset) -> dict[str, str]:
    """Return the files whose content is no longer that of the manifest, with their SHA-256."""
    known = {s.path: s.sha256 for s in dataset.samples if s.sha256}
    return {path: sha256 for path, sha256 in _hashes(dataset.root, known) if sha256 != known[path]}


def _hashes(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Hash the files that can be read, in the order of paths, on all processors, not far ahead of the caller."""

    def of(path: str) -> tuple[str, str | None]:
        try:
            return path, content.sha256(root / path)
        except ImageError:
            return path, None

    waiting = iter(sorted(paths))
    with ThreadPoolExecutor(environment.cpu_count(), thread_name_prefix="hash") as pool:
        while part := list(islice(waiting, _AHEAD)):
            yield from ((path, sha256) for path, sha256 in pool.map(of, part) if sha256)
