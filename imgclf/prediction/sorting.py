"""Sort images into a folder for each predicted class."""

import contextlib
import filecmp
import itertools
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgclf import environment, storage
from imgclf.data import copying, litter
from imgclf.errors import ImgclfError, UsageError

REJECTED = "_rejected"
"""The folder of rejected images."""


class Sorter:
    """Links or copies files into `<folder>/<class>/`, and never overwrites a file.

    Files are hard links where the disk allows it, otherwise copies; files of the cache, such as unpacked archives, are
    copied, so that nobody who edits a copy edits the cache. A class name with slashes becomes nested folders.
    If a name is taken by another file, the new one is called `name-1.jpg`; the same file is not added twice.

    Args:
        sources: the folders that the images come from; where the folder lies in one of them, it is marked as no data of
            it (`litter.mark_sorted`).

    Raises:
        UsageError: if a class name cannot be a folder's name, or the folder cannot be created.
    """

    def __init__(self, folder: Path, labels: Sequence[str], sources: Sequence[Path] = ()) -> None:
        bad = [label for label in labels if not all(map(copying.is_safe, label.split("/"))) or label == REJECTED]
        if bad:
            raise UsageError(f"--sort-into: the class {bad[0]!r} cannot be the name of a folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            storage.remove_abandoned(folder)
            for source in sources:
                litter.mark_sorted(folder, source)
        except OSError as error:
            raise UsageError(f"--sort-into {folder}: the folder cannot be created ({error.strerror}).") from None
        self._folder = folder

    def place(self, prediction: Any) -> None:
        """Put one image into the folder of its class, unless it could not be read or is not a file.

        Raises:
            ImgclfError: if it cannot be written.
        """
        if prediction.file is None or prediction.error is not None:
            return
        folder = self._folder / (REJECTED if prediction.label is None else prediction.label)
        source = Path(prediction.file).resolve()  # of a link, the file: a copied link could point to nowhere
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number in itertools.count():
                name = f"{source.stem}-{number}{source.suffix}" if number else source.name
                if _put(source, folder / name, self._folder):
                    return
        except OSError as error:
            raise ImgclfError(f"--sort-into {folder}: {source} cannot be added ({error.strerror}).") from None


def _put(source: Path, target: Path, root: Path) -> bool:
    """Whether the target now is this file; False where another file has its name."""
    try:
        if not environment.is_cached(source):
            os.link(source, target)
            return True
    except FileExistsError:
        return _is_same(source, target)
    except OSError:  # another disk, or one without links
        pass
    if os.path.lexists(target):
        return _is_same(source, target)
    with storage.stage(root) as stage:  # a half copy never has the final name
        new = stage / "new"
        shutil.copyfile(source, new)
        with contextlib.suppress(OSError):
            shutil.copystat(source, new)
            new.chmod(new.stat().st_mode | stat.S_IWUSR)  # files of the cache are read-only
        try:
            _move(new, target)
        except FileExistsError:  # another process was faster
            return _is_same(source, target)
    return True


def _move(new: Path, target: Path) -> None:
    """Give a file its name, unless another has it."""
    try:
        os.link(new, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        new.rename(target)


def _is_same(source: Path, target: Path) -> bool:
    return target.is_file() and (source.samefile(target) or filecmp.cmp(source, target, shallow=False))
