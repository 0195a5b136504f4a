"""Layouts of data on disk, one module each: a new layout is a new module here with what `Layout` asks for."""

import difflib
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from imgclf.data.file_listing import Found, Listing, Progress, scan
from imgclf.errors import UsageError
from imgclf.settings import ReadConfig


@dataclass
class Source:
    """What the user named: a folder (or an archive, unpacked into `root`), or a single `file` in the folder `root`."""

    name: Path
    root: Path
    file: Path | None = None

    @cached_property
    def found(self) -> Found:
        """The files below `root`."""
        return scan(self.root, self.name)


@dataclass(frozen=True)
class About:
    """Facts about a layout.

    Args:
        priority: layouts are tried in this order, the lowest first.
        suffixes: single files that are a dataset of this layout.
        options: settings that matter to this layout alone.
        decisive: those of its options that ask for it.
        unpacks: whether its images are unpacked into the cache.
    """

    priority: int
    suffixes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    decisive: tuple[str, ...] = ()
    unpacks: bool = False


class Layout(Protocol):
    """What a module here has. It may raise `DatasetError` and `UsageError`."""

    ABOUT: About

    def recognize(self, source: Source, settings: ReadConfig) -> bool:
        """Whether a folder has this layout."""

    def list_samples(self, source: Source, settings: ReadConfig, on_progress: Progress | None) -> Listing:
        """List the images with their labels and splits; their files are not opened here."""


def every() -> dict[str, Layout]:
    """Every layout by its name, in the order in which they are tried."""
    modules = {m.name: import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    layouts = {name: cast(Layout, module) for name, module in modules.items() if hasattr(module, "ABOUT")}
    return dict(sorted(layouts.items(), key=lambda item: item[1].ABOUT.priority))


def find(name: str) -> Layout:
    """Return the layout of that name.

    Raises:
        UsageError: if there is none.
    """
    known = every()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"--layout: expected one of auto, {', '.join(known)}, found {name!r}.{hint}")
    return known[name]
