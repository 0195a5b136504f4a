"""imgclf features"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf import storage
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import FeaturesConfig


def features(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, archive or table of labeled images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the vectors: .npz or .parquet.")
    ] = None,
    map: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the vectors in two dimensions: .png or .html.")
    ] = None,
    *,
    settings: FeaturesConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compute feature vectors of labeled images, write them, and draw them as a map."""
    from imgclf.cli import console
    from imgclf.evaluation import feature_map
    from imgclf.questions import feature_table, regions

    console.err.quiet = quiet
    if output is None and map is None:
        raise UsageError("expected a file to write: -o FILE for the vectors, --map FILE for a drawing.")
    if output:
        feature_table.check_name(output)
    if map:
        storage.refuse_suffix(map, *feature_map.SUFFIXES, option="--map")
    regions.check(settings, map)
    found = None
    with console.phases() as on_progress:
        dataset = imgclf.read(data, settings, on_progress=partial(on_progress, "reading"))
        table = imgclf.features(dataset, settings, on_progress=on_progress)
        if output:
            table.write(output)
        if map and settings.columns:
            found = regions.write(map, table, settings)
        elif map:
            points = feature_map.project(table.vectors, settings.projection, settings.seed)
            feature_map.write(map, points, table.labels, table.dataset.paths, settings.decoding, settings.seed)
    written = [str(path) for path in (output, map) if path]
    if json:
        facts = {"files": written, "images": len(table.vectors), "names": list(table.names)}
        if found:
            facts["accuracy"] = found.accuracy
            facts["margin"] = asdict(found.margin) if found.margin else None
        console.print_json(facts)
    else:
        if found:
            console.out.print(regions.title(settings, found))
        console.out.print(f"{len(table.vectors)} images, {len(table.names)} features each: {', '.join(written)}")
