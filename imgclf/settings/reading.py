"""How files become samples and pixels."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from imgclf import tasks
from imgclf.settings import preprocessing
from imgclf.settings.base import POSITIVE, Check, Config, at_least, names, setting

Resize = Literal["squash", "crop", "pad"]
RESIZES = get_args(Resize)
PERCENTILE = "percentile"
LAYOUTS = ("auto", "folders", "table", "imagenet", "idx", "cifar", "voc", "coco")
"""Names for the help. Which layouts there are, the modules in `data/layouts` say, and reading checks it."""

READING, DECODING = "Reading", "Decoding"

SPLIT_WORDS = ("train", "validation", "test", "any", "none")
"""What a name of `split_names` can mean: a split, images that are still to be split, or images to leave out."""


@dataclass(frozen=True, kw_only=True)
class Truncation(Config):
    """Whether a truncated file is an image. The missing part is gray in JPEG and black elsewhere."""

    allow_truncated: bool = setting(False, "Use the readable part of truncated images.", panel=READING)


@dataclass(frozen=True, kw_only=True)
class Memory(Config):
    """How much memory the decoder may use. None follows from the machine: half of what is free, at most 1 GB."""

    memory_gb: float | None = setting(None, "Maximum memory for decoding images, in GB.", panel=READING, check=POSITIVE)


def bounds(window: str | None) -> tuple[float, float] | None:
    """Return the window `MIN,MAX` in stored units; None where the image itself decides."""
    try:
        low, high = (float(item) for item in names(window))
    except ValueError:
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _is_window(text: str) -> bool:
    low, high = bounds(text) or (0, 0)
    return text == PERCENTILE or low < high


@dataclass(frozen=True)
class Decoding(Truncation):
    """How a file becomes pixels, as far as a user may choose. The rest are the rules of `data.images`.

    Args:
        window: which gray values become black and white in images of more than 8 bits: "MIN,MAX" in stored units, or
            "percentile" for the image's own 1st and 99th. None is the full range of 16 bits; for floats, the image's
            own minimum and maximum.
        preprocess: what is done to every image after that, and after it was made square: steps with their values, as
            `settings.preprocessing` knows them.
    """

    resize: Resize = setting("squash", "How to make images square", panel=DECODING, choices=RESIZES)
    window: str | None = setting(
        None,
        "Gray window of 16-bit and float images",
        panel=DECODING,
        metavar="WINDOW",
        choices=(PERCENTILE,),
        other=("MIN,MAX",),
        check=Check(_is_window, f"two rising numbers such as 0,4095, or {PERCENTILE}"),
    )

    preprocess: str | None = setting(
        None,
        "Process every image, such as denoise=3,autocontrast.",
        panel=DECODING,
        metavar="STEP,...",
        check=Check(lambda text: bool(preprocessing.parse(text)), "a chain of steps"),
    )

    @property
    def steps(self) -> tuple[preprocessing.Step, ...]:
        """The steps of `preprocess`."""
        return preprocessing.parse(self.preprocess)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The window in stored units; None where the image itself decides."""
        return bounds(self.window)

    @property
    def decoding(self) -> "Decoding":
        """These settings alone, without those of a subclass."""
        return Decoding(self.resize, self.window, self.preprocess, allow_truncated=self.allow_truncated)


def _meanings(text: str | None) -> dict[str, str] | None:
    """Return `split_names` and their words; None where no name means a split, or a pair is not NAME=WORD."""
    pairs = (item.rpartition("=") for item in names(text))
    meanings = {name.strip(): word.strip() for name, _, word in pairs}
    return meanings if all(name and word in SPLIT_WORDS for name, word in meanings.items()) else None


@dataclass(frozen=True)
class ReadConfig(Truncation, Memory):
    """How data become samples. None means: detected from the data."""

    task: str = setting(
        tasks.DEFAULT,
        "What is predicted for each image",
        panel=READING,
        choices=tasks.names(),
        check=Check(str.isidentifier, "the name of a task"),
    )
    layout: str = setting(
        "auto",
        "Layout of the data",
        panel=READING,
        choices=LAYOUTS,
        check=Check(str.isidentifier, "the name of a layout"),
    )
    depth: int | str | None = setting(
        None,
        "Folder levels that form the class name; last: the innermost.",
        panel=READING,
        metavar="N",
        check=Check(lambda value: value == "last" or (isinstance(value, int) and value >= 1), "1, 2, ... or last"),
    )
    split_names: str | None = setting(
        None,
        "Splits of folders, such as trn=train,tst=test; or none.",
        panel=READING,
        metavar="NAME=SPLIT,...",
        check=Check(
            lambda text: text.strip() == "none" or bool(_meanings(text)),
            f"none, or NAME=SPLIT with {', '.join(SPLIT_WORDS)} as SPLIT",
        ),
    )
    path_column: str | None = setting(None, "Table column of the image paths.", panel=READING, metavar="NAME")
    label_column: str | None = setting(
        None, "Table column of the labels; several for some tasks.", panel=READING, metavar="NAME"
    )
    label_separator: str = setting(
        tasks.JOINED,
        "What separates the labels in a cell (multilabel).",
        panel=READING,
        metavar="TEXT",
        check=Check(lambda text: text != "", "at least one character"),
    )
    split_column: str | None = setting(None, "Table column of the splits.", panel=READING, metavar="NAME")
    group_column: str | None = setting(None, "Table column of the groups.", panel=READING, metavar="NAME")
    class_names: str | None = setting(
        None, "File that maps synsets or folders to class names.", panel=READING, metavar="FILE"
    )
    box_margin: float = setting(
        0.0,
        "Margin around each object, as a fraction of its box.",
        panel=READING,
        check=Check(lambda value: 0 <= value < 100, "a fraction of the box, from 0 to below 100"),
    )
    box_min_size: int = setting(1, "Skip objects smaller than N pixels.", panel=READING, check=at_least(1))
    crowd: bool = setting(False, "Include COCO's crowd annotations.", panel=READING)
    difficult: bool = setting(False, "Include VOC objects marked as difficult.", panel=READING)

    @property
    def split_meanings(self) -> dict[str, str] | None:
        """The meanings of `split_names`, beside the usual names; None where no name of a folder means a split."""
        return None if (self.split_names or "").strip() == "none" else _meanings(self.split_names)
