"""imgclf cache"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from imgclf import environment
from imgclf.errors import ImgclfError


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of it, downloaded weights too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what is in the cache and how large it is, or clear it."""
    from imgclf.cli import console

    root, held = environment.cache_root(), sizes()
    if clear:
        delete()
    if json:
        console.print_json({"root": str(root), "bytes": held, "cleared": clear})
    elif clear:
        console.out.print(f"{root}: {sum(held.values()) / 1e6:,.1f} MB deleted", soft_wrap=True)
    else:
        show(held)


def show(held: dict[str, int]) -> None:
    """Print the cache root and what it holds."""
    from imgclf.cli import console

    console.out.print(f"cache: {environment.cache_root()}", soft_wrap=True)
    rows = [*held.items(), ("all", sum(held.values()))]
    console.table(None, ("cache", "MB"), [(name, f"{size / 1e6:,.1f}") for name, size in rows])


def sizes() -> dict[str, int]:
    """Bytes held by each entry of the cache root, by its name; empty where there is no cache yet."""
    root = environment.cache_root()
    entries = sorted(root.iterdir()) if root.is_dir() else []
    return {entry.name: sum(map(_size, (entry, *_below(entry)))) for entry in entries}


def _below(folder: Path) -> Iterator[Path]:
    """All that lies in a folder; nothing where it is none, or another process has just removed it."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def _size(path: Path) -> int:
    """Bytes of a file, of a link to one the link's own; 0 for all else."""
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:
        return 0


def delete() -> None:
    """Delete everything under the cache root; of a link in it, the link alone.

    Raises:
        ImgclfError: if something cannot be deleted.
    """
    import shutil

    root = environment.cache_root()
    try:
        for entry in root.iterdir() if root.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise ImgclfError(f"{error.filename}: cannot be deleted ({error.strerror}).") from None
