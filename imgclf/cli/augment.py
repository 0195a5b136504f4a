"""imgclf augment"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import AugmentConfig

if TYPE_CHECKING:
    from imgclf.data.dataset import Dataset


def augment(
    data: options.Data = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Contact sheet, a new PNG file."),
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Write augmented images into class folders.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the policy and exit.")] = False,
    *,
    settings: AugmentConfig,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Preview augmentation on a contact sheet, or write augmented images."""
    from imgclf.cli import console

    console.err.quiet = quiet
    if show:
        policy, losses = settings.final_policy
        for loss in losses:
            console.note(loss)
        console.print_json(policy.to_dict()) if json else print(policy.to_toml(), end="")
        return
    with console.phases() as on_progress:
        dataset = _read(data, settings, on_progress)
        result = imgclf.augment(dataset, settings, output=output, to=to, on_progress=on_progress)
    if json:
        console.print_json(result.to_dict())
    else:
        for place in filter(None, (result.sheet, result.to)):
            console.out.print(str(place))


def _read(data: Path | None, settings: AugmentConfig, on_progress: Callable[..., None]) -> "Dataset":
    """Read and split the images as training would."""
    from imgclf.cli import console
    from imgclf.data import preparing, readers, scan_cache

    if data is None:
        raise UsageError("expected DATA, such as imgclf augment photos, or --show; found neither.")
    with scan_cache.Scanner(settings.allow_truncated) as scanner:
        found = readers.read(
            data,
            settings,
            classes=() if settings.relabels else settings.class_filter,
            on_progress=lambda done, total: on_progress("reading", done, total),
            scanner=scanner if settings.limit is None else None,
        )
        prepared = preparing.prepare(found, settings, scanner)
    for note in prepared.notes:
        console.note(note)
    return prepared.dataset
