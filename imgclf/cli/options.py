"""Options that several commands share: how data are read."""

from typing import Annotated

import typer

READING = "Reading"

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
