"""Write a dataset into class folders."""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from imgclf import environment, storage
from imgclf.data import content, images
from imgclf.data.dataset import TRAIN, UNASSIGNED, Dataset, Sample, listed
from imgclf.data.file_listing import Progress
from imgclf.errors import DatasetError, ImageError, UsageError


def copy(dataset: Dataset, folder: Path, on_progress: Progress | None = None) -> tuple[int, int]:
    """Put every image into `<class>/`, or `<split>/<class>/` where the samples have a split, unchanged.

    Files are hard links where the disk supports them: a file edited in place then changes in both folders. Files of the
    cache, such as those of an archive, are copied, so that nobody edits the cache. A class name
    with slashes becomes nested folders, which `--depth` reads. Groups are lost. The folder is complete or absent, and
    nothing in it is ever overwritten.

    Args:
        folder: new or empty, outside the dataset and its source.

    Returns:
        How many files were linked, and how many copied.

    Raises:
        UsageError: if the folder is not new or empty, lies in the dataset, or cannot be written.
        DatasetError: if a class name cannot be a folder's name, or a file is gone.
    """
    with whole(dataset, folder) as place:
        return _fill(place, dataset, on_progress)


@contextlib.contextmanager
def whole(dataset: Dataset, folder: Path) -> Iterator[Path]:
    """Make a folder for images of the dataset that is complete when the block succeeds, and absent otherwise.

    Yields:
        A temporary folder beside it.

    Raises:
        UsageError: if the folder is not new or empty, lies in the dataset, or cannot be written.
        DatasetError: if a class name cannot be a folder's name.
    """
    _check_names(dataset)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"--to {folder}: expected a new or empty folder, found something there. Choose another.")
    target = folder.resolve()
    for data in (dataset.root, dataset.origin):
        if target.is_relative_to(data.resolve()):
            raise UsageError(f"--to {folder}: expected a folder outside of the data, found one in {data}.")
    try:
        with storage.new_folder(target) as temporary:
            yield temporary
    except OSError as error:
        raise UsageError(f"--to {folder}: the copy cannot be written ({error.strerror or error}).") from None


def _check_names(dataset: Dataset) -> None:
    """Refuse class names that lead out of the folder or read back as another class."""
    bad = [name for name in dataset.class_names if not all(map(is_safe, name.split("/")))]
    if bad:
        raise DatasetError(
            f"{dataset.origin}: expected class names that can be folders, found {listed(map(repr, bad))}. Give other "
            "names with --rename or --class-map."
        )
    depths = {name.count("/") for name in dataset.class_names}
    if len(depths) > 1:
        nested = [name for name in dataset.class_names if "/" in name]
        raise DatasetError(
            f"{dataset.origin}: expected slashes in all class names or in none, found {listed(nested)} beside others: "
            "nested folders could not be read back. Give other names with --rename or --class-map."
        )


def is_safe(name: str) -> bool:
    """Whether a class name can name a folder and reads back as the same class."""
    return (
        bool(name)
        and not name.startswith(".")
        and not set(name) & set("\\\0")
        and (os.name != "nt" or name == name.strip(" ."))
    )


def _fill(root: Path, dataset: Dataset, on_progress: Progress | None) -> tuple[int, int]:
    sided = any(s.split != UNASSIGNED for s in dataset.samples)
    folders: dict[str, Path] = {}
    names: dict[str, set[str]] = {}
    linked = 0
    is_cached = environment.is_cached(dataset.root)
    for done, sample in enumerate(dataset.samples, start=1):
        key = f"{sample.split or TRAIN}/{sample.label}" if sided else sample.label
        if key not in folders:
            folders[key], names[key] = new_folder(root, key, dataset), set()
        source = (dataset.root / sample.path).resolve()  # of a link, the file: a copied link could point to nowhere
        target = folders[key] / free_name(sample, names[key])
        try:
            if is_cached:
                raise OSError(errno.EXDEV, "files of the cache are copied")
            os.link(source, target)
            linked += 1
        except FileNotFoundError:
            raise DatasetError(f"{dataset.root / sample.path}: the image is gone since it was read.") from None
        except OSError:  # another disk, one without hard links, or too many of one file
            try:
                data = content.read(source)
            except ImageError as error:
                raise DatasetError(f"{dataset.root / sample.path}: {error}.") from None
            with target.open("xb") as file:
                file.write(data)
        if on_progress and done % 100 == 0:
            on_progress(done, len(dataset))
    return linked, len(dataset) - linked


def new_folder(root: Path, key: str, dataset: Dataset) -> Path:
    """Make the folder of a class.

    Raises:
        DatasetError: if the disk does not tell it from that of another class.
    """
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        raise DatasetError(
            f"{dataset.origin}: the disk takes {key!r} and another class for the same folder: it does not tell upper "
            "from lower case, or one Unicode form from another. Give other names with --rename or --class-map."
        ) from None
    return path


def free_name(sample: Sample, taken: set[str]) -> str:
    """Choose a file name: its own, or if taken with its folders before it, or with a number.

    A name without the extension of an image gets that of its format, so that it is found again.
    """
    place = PurePosixPath(sample.path)
    parts: Sequence[str] = [part for part in place.parent.parts if part not in ("", ".", "..", "/")]
    suffix = place.suffix if place.suffix.lower() in images.SUFFIXES else f"{place.suffix}.{sample.format.lower()}"
    stem = place.stem.lstrip(".") or "image"
    candidates = [stem, "_".join((*parts, stem))]
    name = next((f"{c}{suffix}" for c in candidates if f"{c}{suffix}".casefold() not in taken), "")
    number = 1
    while not name or name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.casefold())
    return name
