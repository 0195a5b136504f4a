"""imgclf search"""

import json
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf import storage
from imgclf.cli import options
from imgclf.settings import SearchConfig


def search(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, archive or pattern of images, or a saved index.")
    ],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image to compare with.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a page of thumbnails, .html.")
    ] = None,
    save_index: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the index as .npz, to be searched as SOURCE.")
    ] = None,
    *,
    settings: SearchConfig,
    quiet: options.Quiet = False,
) -> None:
    """Find the images most like one image."""
    from imgclf.cli import console
    from imgclf.printable import printable, safe_json
    from imgclf.questions import search as searching

    console.err.quiet = quiet
    if output:
        storage.refuse_suffix(output, searching.PAGE)
    with console.phases() as on_progress:
        found = imgclf.search(source, image, settings, save_index=save_index, on_progress=on_progress)
        if output:
            found.write(output)
    if written := [str(file) for file in (output, save_index) if file]:
        console.note(f"Wrote {' and '.join(written)}.")
    if settings.format == "jsonl":
        for match in found.matches:
            print(safe_json(json.dumps({"path": match.path, "distance": round(match.distance, 6)})))
        return
    how = "approximately" if found.approximate else "exactly"
    rows = [(place, f"{each.distance:.3g}", printable(each.path)) for place, each in enumerate(found.matches, start=1)]
    console.table(f"{found.images:,} images, compared {how}", ("rank", "distance", "path"), rows)
