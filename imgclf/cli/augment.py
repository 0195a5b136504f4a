"""imgclf augment"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from imgclf import policies
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import AugmentConfig

AUGMENTATION, DECODING = "Augmentation", "Decoding"


def augment(
    context: typer.Context,
    data: Annotated[Path | None, typer.Argument(help="A folder, an archive or a table of images with classes.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The contact sheet, a new PNG file; by default <data>-<policy>.png."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Write variants of the training part into class folders here, a new or empty folder."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the policy, ready for a file, and do nothing.")] = False,
    policy: Annotated[str, typer.Option(help=options.POLICY, rich_help_panel=AUGMENTATION)] = AugmentConfig.policy,
    keep_orientation: Annotated[
        bool, typer.Option("--keep-orientation", help=options.KEEP_ORIENTATION, rich_help_panel=AUGMENTATION)
    ] = AugmentConfig.keep_orientation,
    variants: Annotated[
        int, typer.Option(help="Of each image on the contact sheet.", rich_help_panel=AUGMENTATION)
    ] = AugmentConfig.variants,
    copies: Annotated[
        int, typer.Option(help="Of each image that --to writes.", rich_help_panel=AUGMENTATION)
    ] = AugmentConfig.copies,
    image_size: Annotated[
        int, typer.Option(help="Side of the square images in px.", rich_help_panel=DECODING)
    ] = AugmentConfig.image_size,
    resize: Annotated[
        str, typer.Option(help="squash, crop or pad to a square.", rich_help_panel=DECODING)
    ] = AugmentConfig.resize,
    window: Annotated[
        str | None,
        typer.Option(
            help="Of 16-bit and float grey, what is black and white: MIN,MAX or percentile.", rich_help_panel=DECODING
        ),
    ] = AugmentConfig.window,
    layout: options.Layout = AugmentConfig.layout,
    depth: options.Depth = AugmentConfig.depth,
    path_column: options.PathColumn = AugmentConfig.path_column,
    label_column: options.LabelColumn = AugmentConfig.label_column,
    split_column: options.SplitColumn = AugmentConfig.split_column,
    group_column: options.GroupColumn = AugmentConfig.group_column,
    class_names: options.ClassNames = AugmentConfig.class_names,
    box_margin: options.BoxMargin = AugmentConfig.box_margin,
    box_min_size: options.BoxMinSize = AugmentConfig.box_min_size,
    crowd: options.Crowd = AugmentConfig.crowd,
    difficult: options.Difficult = AugmentConfig.difficult,
    allow_truncated: options.AllowTruncated = AugmentConfig.allow_truncated,
    labels: options.Labels = AugmentConfig.labels,
    rename: options.Rename = AugmentConfig.rename,
    class_map: options.ClassMap = AugmentConfig.class_map,
    classes: options.Classes = AugmentConfig.classes,
    limit: options.Limit = AugmentConfig.limit,
    exclude: options.Exclude = AugmentConfig.exclude,
    near_duplicates: options.NearDuplicates = AugmentConfig.near_duplicates,
    thresholds: options.Thresholds = AugmentConfig.thresholds,
    val_as: options.ValAs = AugmentConfig.val_as,
    validation_fraction: options.ValidationFraction = AugmentConfig.validation_fraction,
    test_fraction: options.TestFraction = AugmentConfig.test_fraction,
    group_by: options.GroupBy = AugmentConfig.group_by,
    test_group: options.TestGroup = AugmentConfig.test_group,
    split_from: options.SplitFrom = AugmentConfig.split_from,
    seed: Annotated[
        int, typer.Option(help="Of the split, and of all that is drawn.", rich_help_panel=options.SPLITTING)
    ] = AugmentConfig.seed,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Show on a contact sheet what augmentation does to the pictures, or write variants of them."""
    from imgclf.cli import console

    console.err.quiet = quiet
    settings = AugmentConfig(**{field.name: context.params[field.name] for field in fields(AugmentConfig)})
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
    from imgclf.data import preparing, readers, scans

    if data is None:
        raise UsageError("expected a folder of images: imgclf augment DATA. (--show needs none.)")
    if output and os.path.lexists(output):
        raise UsageError(f"-o {output}: expected a new file, found one that exists. Choose another -o, or remove it.")
    if settings.copies != AugmentConfig.copies and not to:
        raise UsageError("--copies says how many variants --to writes; give --to, too.")
    with console.phases() as report, scans.Scanner(settings.allow_truncated) as scanner:
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
