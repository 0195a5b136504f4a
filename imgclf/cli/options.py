"""Options that several commands share: how data are read, labelled, split and augmented."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.policies import POLICIES

POLICY = f"{', '.join(POLICIES)}, a .toml or .json file, or operations such as flip=0.5,rotate=10."

KEEP_ORIENTATION = "Of digits, letters or signs: never mirror, rotate by 15 degrees at most."

Moved = Annotated[
    Path | None,
    typer.Option("--data", help="Where the run's images lie now, if they were moved; told by their content."),
]

READING = "Reading"
LABELLING = "Labels and classes"
SPLITTING = "Splitting"

Layout = Annotated[
    str,
    typer.Option(help="auto, folders, table, imagenet, idx, cifar, voc or coco.", rich_help_panel=READING),
]
Depth = Annotated[
    int | None,
    typer.Option(help="Levels of nested folders that make a class name.", rich_help_panel=READING),
]
PathColumn = Annotated[str | None, typer.Option(help="A table's column of paths.", rich_help_panel=READING)]
LabelColumn = Annotated[str | None, typer.Option(help="A table's column of labels.", rich_help_panel=READING)]
SplitColumn = Annotated[str | None, typer.Option(help="A table's column of sides.", rich_help_panel=READING)]
GroupColumn = Annotated[str | None, typer.Option(help="A table's column of groups.", rich_help_panel=READING)]
ClassNames = Annotated[
    str | None, typer.Option(help="A file that names synsets or class folders.", rich_help_panel=READING)
]
BoxMargin = Annotated[
    float, typer.Option(help="Added around an object, as a share of its box.", rich_help_panel=READING)
]
BoxMinSize = Annotated[int, typer.Option(help="Leave out objects smaller than this, in px.", rich_help_panel=READING)]
Crowd = Annotated[bool, typer.Option("--crowd", help="Take boxes around crowds, too.", rich_help_panel=READING)]
Difficult = Annotated[
    bool, typer.Option("--difficult", help="Take objects marked as difficult, too.", rich_help_panel=READING)
]
AllowTruncated = Annotated[
    bool,
    typer.Option("--allow-truncated", help="Take what there is of a file that is cut short.", rich_help_panel=READING),
]

Labels = Annotated[
    str | None,
    typer.Option(help="A CSV file (path, label, perhaps exclude) that corrects labels.", rich_help_panel=LABELLING),
]
Rename = Annotated[str | None, typer.Option(help="Rename classes: old=new,old2=new2.", rich_help_panel=LABELLING)]
ClassMap = Annotated[
    str | None,
    typer.Option(help="A CSV file (old, new) that renames and merges classes.", rich_help_panel=LABELLING),
]
Classes = Annotated[str | None, typer.Option(help="Only these classes, such as a,b.", rich_help_panel=LABELLING)]
Limit = Annotated[int | None, typer.Option(help="At most so many images in all.", rich_help_panel=LABELLING)]
Exclude = Annotated[
    str | None,
    typer.Option(help="A CSV file of paths to leave out, such as --quarantine writes.", rich_help_panel=LABELLING),
]
NearDuplicates = Annotated[
    str,
    typer.Option(help="group keeps them on one side of the split; off looks for none.", rich_help_panel=SPLITTING),
]
Thresholds = Annotated[
    str | None,
    typer.Option(help="Of the doctor: name=value,name=value (docs/doctor.md).", rich_help_panel=LABELLING),
]
ValAs = Annotated[
    str,
    typer.Option(help="What val/ is when there is no test/ folder: test or validation.", rich_help_panel=SPLITTING),
]
ValidationFraction = Annotated[float, typer.Option(help="Share of the images.", rich_help_panel=SPLITTING)]
TestFraction = Annotated[float, typer.Option(help="Share of the images.", rich_help_panel=SPLITTING)]
GroupBy = Annotated[
    str | None,
    typer.Option(
        help="Keep together what has this in common: a table's column, parent (the folder), or a regular expression "
        "for the path.",
        rich_help_panel=SPLITTING,
    ),
]
TestGroup = Annotated[str | None, typer.Option(help="Test on this group alone.", rich_help_panel=SPLITTING)]
SplitFrom = Annotated[
    str | None,
    typer.Option(help="A manifest or a run: keep its sides, place only new images.", rich_help_panel=SPLITTING),
]
