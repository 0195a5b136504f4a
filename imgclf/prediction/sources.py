"""What the user names -> the images that are meant."""

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imgclf.errors import DatasetError

log = logging.getLogger(__name__)

STDIN = "-"


def find(names: Sequence[str], listed: Iterable[bytes]) -> Iterator[str]:
    """The paths of the images, in the order of the names; one by one, so that a list may be endless.

    Args:
        names: files; folders, searched at any depth for what ends as images do, hidden files left out; patterns such
            as `photos/**/*.jpg`; and `-` for `listed`. What exists under a name comes before what a pattern finds.
        listed: the lines of a list of files and folders.

    Raises:
        DatasetError: if no image is meant by any of the names: folders without images, patterns without a match. A
            file that is missing is given as it is.
    """
    empty = True
    for name in names:
        for path in _of_list(listed) if name == STDIN else _of_name(name):
            empty = False
            yield path
    if empty:
        raise DatasetError(f"expected images, found none in {', '.join(names)}.")


def _of_list(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield from _of_path(path)


def _of_name(name: str) -> Iterator[str]:
    places = [name]
    if glob.has_magic(name) and not os.path.lexists(name):
        places = _matches(name)
        if not places:
            log.warning("%s: nothing matches this pattern", name)
    return (path for place in places for path in _of_path(place))


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)


def _of_path(path: str) -> Iterator[str]:
    if not os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises where a folder above may not be entered)
        yield path
        return
    from imgclf.data import scanning  # here, since most predictions are of files and should start at once

    found = scanning.scan(Path(path))
    for skipped in found.skipped:
        if skipped.kind == "unreadable":
            log.warning("%s: %s", Path(path) / skipped.path, skipped.reason)
    yield from (str(Path(path) / file) for file in found.files)
