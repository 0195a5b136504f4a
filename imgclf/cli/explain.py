"""imgclf explain"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings.base import flag_of
from imgclf.settings.explanation import ExplainConfig

if TYPE_CHECKING:
    from imgclf.prediction.classifier import Named


def explain(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, exported model, imagenet, or a name in imgclf models.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Files, folders, archives, patterns, or - to read a list."),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--images", metavar="IMAGES", help="More IMAGES; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="New folder for drawings, or new file for one."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class or number, not the predicted one.")
    ] = None,
    filters: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Draw the kernels of a convolution instead.")
    ] = None,
    feature_maps: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Draw a layer's maps of one image instead.")
    ] = None,
    top_activations: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Draw what excites a layer's units most instead.")
    ] = None,
    embedding_map: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Draw labeled images by their embeddings instead.")
    ] = None,
    *,
    settings: ExplainConfig,
    given: options.Given,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what in each image decided, or what is inside the network."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in imgclf predict
    import sys

    from imgclf.cli import console
    from imgclf.cli.predict import find_model
    from imgclf.prediction import sources

    console.err.quiet = quiet
    images = [*(images or ()), *(more or ())]
    listed = sources.lines(sys.stdin.buffer if sys.stdin else None) if sources.STDIN in images else ()
    path, found = find_model(model, settings.offline), list(sources.find(images, listed) if images else ())
    views = {"filters": filters, "feature_maps": feature_maps, "top_activations": top_activations}
    if any(views.values()) or embedding_map:
        _draw(path, found, {name: layer for name, layer in views.items() if layer}, embedding_map, output, given)
        return
    gone = sources.missing(images)
    if not found:
        raise UsageError("expected IMAGES, or one of --filters, --feature-maps, --top-activations, --embedding-map.")
    if gone and len(gone) == len(images) and not json:
        raise sources.no_such(gone)
    with console.progress("explaining", len(found)) as advance:
        rows = imgclf.explain(path, found, settings, label=label, output=output, on_progress=lambda _: advance())
    if json:
        console.print_json({"images": [row.to_dict() for row in rows]})
    elif any(row.method in ("features", "neighbors") for row in rows):
        _print_weights(rows, output)
    else:
        _print_table(rows, output)
    if gone:
        raise sources.no_such(gone)


def _draw(
    path: Path,
    found: "list[str | Named]",
    layers: dict[str, str],
    data: Path | None,
    output: Path | None,
    given: options.Given,
) -> None:
    """Draw one view of the network into a file."""
    from imgclf.cli import console

    chosen = [*layers, *(["embedding_map"] if data else [])]
    if len(chosen) > 1:
        raise UsageError(f"expected one drawing, found {' and '.join(map(flag_of, chosen))}.")
    [name] = chosen
    option, takes_images = flag_of(name), name in ("feature_maps", "top_activations")
    if output is None:
        raise UsageError(f"{option}: expected -o FILE for the drawing, found none.")
    allowed = ("model", "output", "quiet", "offline", name, *(("images",) if takes_images else ()))
    given = options.Given("images" if name == "more" else name for name in given)  # as users know it
    given.refuse_others(allowed, f"{option} draws the network, not an explanation.")
    if takes_images and (not found or (name == "feature_maps" and len(found) > 1)):
        raise UsageError(
            f"{option}: expected {'one image' if name == 'feature_maps' else 'images'}, found {len(found)}."
        )
    correct = ""
    with console.phases(console.LOADING) as on_progress:
        from imgclf.explanation import views

        on_progress("drawing", 0, None)
        if name == "filters":
            views.draw_filters(path, layers[name], output)
        elif name == "feature_maps":
            views.draw_feature_maps(path, layers[name], found[0], output)
        elif name == "top_activations":
            views.draw_top_activations(path, layers[name], found, output)
        elif data:
            counts = views.draw_embedding_map(path, imgclf.read(data), output)
            correct = "{} images, {} predicted correctly".format(*counts)
    if correct:
        console.out.print(correct)
    console.out.print(str(output))


def _print_weights(rows: "list[imgclf.Explanation]", output: Path | None) -> None:
    """Print the features that weighed most, or the nearest training images, one in a row."""
    from imgclf.cli import console

    by_neighbors = any(row.method == "neighbors" for row in rows)
    last = ("neighbor", "distance") if by_neighbors else ("feature", "value", "weight")
    columns = ("path", "class", "confidence", *last)
    cells: list[tuple[object, ...]] = []
    for row in rows:
        if row.error:
            cells.append((row.path, None, None, row.error))
            continue
        listed: list[tuple[object, ...]] = [(near.path, f"{near.distance:.3g}") for near in row.neighbors]
        listed += [(each.name, f"{each.value:.4g}", f"{each.weight:+.3g}") for each in row.features]
        if row.base is not None:
            listed += [("all other features", None, f"{row.rest:+.3g}"), ("without features", None, f"{row.base:+.3g}")]
        if row.score is not None:
            listed.append((row.measure, None, f"{row.score:.3g}"))
        first = (row.path, row.target, f"{row.probability:.4f}")
        cells += [(*(first if not place else (None,) * 3), *each) for place, each in enumerate(listed)]
    console.table(None, columns, [(*row, *(None,) * (len(columns) - len(row))) for row in cells])
    if any(each.name.startswith("embedding:") for row in rows for each in row.features):
        console.note(
            "Features of an embedding have numbers and no meaning of their own. --method occlusion shows where."
        )
    if output:
        _note_drawings(output, rows)


def _print_table(rows: "list[imgclf.Explanation]", output: Path | None) -> None:
    from imgclf.cli import console

    has_numbers = any(row.value is not None for row in rows)
    target = ("number", "value") if has_numbers else ("class", "confidence")
    columns = ("path", "label", *target, "method", "peak x", "peak y", "drawing" if output else "error")
    cells = [
        (
            *(row.path, row.label, row.target),
            f"{row.value:.4g}"
            if row.value is not None
            else None
            if row.probability is None
            else f"{row.probability:.4f}",
            *(row.method, *(row.peak or (None, None)), row.drawing or row.error),
        )
        for row in rows
    ]
    shown = len(columns) if any(row[-1] for row in cells) else len(columns) - 1
    optional = ("method", "drawing") if all(row.drawing for row in rows) else ("method",)
    left_out = console.table(None, columns[:shown], [row[:shown] for row in cells], optional=optional)
    if "drawing" in left_out:
        _note_drawings(output, rows)


def _note_drawings(output: Path | None, rows: "list[imgclf.Explanation]") -> None:
    from imgclf.cli import console

    count = sum(row.drawing is not None for row in rows)
    console.note(f"{output}: wrote {count:,} drawing{'s' * (count != 1)}.")
