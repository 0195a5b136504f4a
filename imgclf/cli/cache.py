"""imgclf cache"""

from typing import Annotated

import typer

from imgclf import environment, storage
from imgclf.cli import options


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the cache, including downloaded weights.")] = False,
    json: options.Json = False,
) -> None:
    """Show the size of the cache, or clear it."""
    from imgclf.cli import console

    root, sizes = environment.cache_root(), environment.cache_sizes()
    kept = storage.clear(root) if clear else []
    if kept:
        console.note(f"{root}: {len(kept)} entries are in use by running processes and stay.")
    if json:
        console.print_json({"root": str(root), "bytes": sizes, "cleared": clear})
    elif clear:
        deleted = sum(sizes.values()) - sum(environment.cache_sizes().values())
        console.out.print(f"{root}: {deleted / 1e6:,.1f} MB deleted", soft_wrap=True)
    else:
        show(sizes)


def show(sizes: dict[str, int]) -> None:
    """Print the cache root and the size of its folders."""
    from imgclf.cli import console

    console.out.print(f"cache: {environment.cache_root()}", soft_wrap=True)
    rows = [*sizes.items(), ("all", sum(sizes.values()))]
    console.table(None, ("cache", "MB"), [(name, f"{size / 1e6:,.1f}") for name, size in rows])
