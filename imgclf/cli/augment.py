"""imgclf augment"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf import storage
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import AugmentConfig


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
        return _print_policy(settings, json=json)
    with console.phases() as on_progress:
        if data is None:
            raise UsageError("expected DATA, such as imgclf augment photos, or --show; found neither.")
        storage.refuse_existing(output)
        dataset = imgclf.read(data, settings, on_progress=partial(on_progress, "reading"))
        result = imgclf.augment(dataset, settings, output=output, to=to, on_progress=on_progress)
    if json:
        console.print_json(result.to_dict())
    else:
        for place in filter(None, (result.sheet, result.to)):
            console.out.print(str(place))


def _print_policy(settings: AugmentConfig, *, json: bool) -> None:
    from imgclf.cli import console

    policy, losses = settings.final_policy
    console.notes(losses)
    console.print_json(policy.to_dict()) if json else print(policy.to_toml(), end="")
