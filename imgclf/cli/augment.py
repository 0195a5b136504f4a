"""imgclf augment"""

import os
from pathlib import Path
from typing import Annotated

import typer

from imgclf import policies
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
    chosen = policies.find(settings.policy, "policy")
    if settings.keep_orientation:
        chosen, losses = chosen.upright()
        for loss in losses:
            console.note(loss)
    if show:
        console.print_json(chosen.to_dict()) if json else print(chosen.to_toml(), end="")
        return
    result = _make(data, output, to, chosen, settings)
    if json:
        console.print_json({"policy": chosen.to_dict()} | result)
    else:
        for place in (result["sheet"], result["to"]):
            if place:
                console.out.print(place)


def _make(
    data: Path | None, output: Path | None, to: Path | None, policy: policies.Policy, settings: AugmentConfig
) -> dict[str, str | int | None]:
    """Write what was asked for; where it is, and how many copies there are."""
    from imgclf.cli import console
    from imgclf.data import preparing, readers, scan_cache

    if data is None:
        raise UsageError("expected a folder of images: imgclf augment DATA. (--show needs none.)")
    if output and os.path.lexists(output):
        raise UsageError(f"-o {output}: expected a new file, found one that exists. Choose another -o, or remove it.")
    if settings.copies != AugmentConfig.copies and not to:
        raise UsageError("--copies says how many variants --to writes; give --to, too.")
    with console.phases() as report, scan_cache.Scanner(settings.allow_truncated) as scanner:
        found = readers.read(
            data,
            settings,
            classes=() if settings.relabels else settings.class_filter,
            on_progress=lambda done, total: report("reading", done, total),
            scanner=scanner if settings.limit is None else None,
        )
        prepared = preparing.prepare(found, settings, scanner)  # as training would: with the same training part
        dataset = prepared.dataset
        for note in prepared.notes:
            console.note(note)
        if policy.strength("flip") and all(len(name) == 1 for name in dataset.class_names):
            console.note("Are the classes digits or letters? --keep-orientation leaves out what would change them.")
        from imgclf.training import variants  # after reading: a wrong folder fails before Keras loads

        sheet = None
        if output or not to:
            sheet = output or _free(f"{dataset.name}-{policy.name or 'policy'}")
            try:
                variants.sheet(dataset, policy, settings, sheet)
            except OSError as error:
                raise UsageError(f"-o {sheet}: the sheet cannot be written ({error.strerror or error}).") from None
        copies = 0
        if to:
            copies = variants.write(dataset, policy, settings, to, lambda done, total: report("writing", done, total))
            console.note(f"{to}: {copies:,} images written.")
    return {"sheet": str(sheet) if sheet else None, "to": str(to) if to else None, "copies": copies}


def _free(stem: str) -> Path:
    """A PNG file that does not exist yet."""
    number = 1
    while os.path.lexists(path := f"{stem}{f'-{number}' if number > 1 else ''}.png"):
        number += 1
    return Path(path)
