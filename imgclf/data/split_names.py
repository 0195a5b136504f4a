"""Recognize splits by the names of folders and files, and by words in a table."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION
from imgclf.settings import ReadConfig

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""Words for splits, in any case: in names of folders and of tables, and in a column of a table."""

CONTAINERS = frozenset(
    {
        *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos", "jpegimages"),
        *("data", "dataset", "datasets", "set", "sets", "file", "files", "folder", "folders", "dir", "directory"),
    }
)
"""Words that say what a folder is and nothing about what its images show."""

FILLERS = CONTAINERS | {
    *("split", "splits", "subset", "part", "sample", "samples", "class", "classes", "cls", "classification"),
    *(
        "my",
        "our",
        "new",
        "old",
        "final",
        "the",
        "all",
        "full",
        "v",
        "raw",
        "clean",
        "cleaned",
        "original",
        "processed",
    ),
    *("cropped", "crops", "resized", "augmented", "aug", "small", "large", "jpg", "jpeg", "png", "rgb", "px"),
}
"""Words beside that of a split which do not make its folder that of a class."""

_LOWER_TO_UPPER = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Meaning:
    """What the name of a folder says: the split, None for none, and its other words.

    `is_sure` where no class would be called so: nothing but the word of a split and `FILLERS`, or the user's own word.
    `is_left_out` where the user wants nothing from such a folder.
    """

    split: str | None
    others: tuple[str, ...] = ()
    is_sure: bool = False
    is_left_out: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Which names mean which split: the usual words, and those that the user gave.

    `own` maps names in lower case to splits, to UNASSIGNED for images that are still to be split, or to None for those
    to leave out. Where `is_silent`, no name of a folder means a split.
    """

    own: Mapping[str, str | None]
    is_silent: bool = False

    @classmethod
    def of(cls, settings: ReadConfig) -> Self:
        """Return the vocabulary that the setting `split_names` adds to."""
        given = settings.split_meanings
        return cls({_plain(name): _SPLITS[word] for name, word in (given or {}).items()}, is_silent=given is None)

    def of_folder(self, name: str) -> Meaning:
        """Find the split in the name of a folder. Names with the words of two splits mean none."""
        if self.is_silent:
            return Meaning(None)
        if _plain(name) in self.own:
            split = self.own[_plain(name)]
            return Meaning(split, is_sure=True, is_left_out=split is None)
        words = tuple(_words(name))
        found = [(word, part) for word in words for part in _parts(word) if part in SPLIT_NAMES]
        splits = {SPLIT_NAMES[part] for _, part in found}
        if len(splits) != 1:
            return Meaning(None, words)
        used = {word for word, _ in found}
        others = tuple(word for word in words if word not in used)
        return Meaning(splits.pop(), others, is_sure=set(others) <= FILLERS)

    def of_cell(self, text: str) -> Meaning:
        """Return the meaning of a cell of a table; an empty one means images that are still to be split."""
        name = _plain(text.strip())
        if name in self.own:
            return Meaning(self.own[name], is_sure=True, is_left_out=self.own[name] is None)
        return Meaning(split_in(text) if name else UNASSIGNED)


_SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "any": UNASSIGNED, "none": None}
"""The words of the setting `split_names`."""


def is_split(name: str) -> bool:
    """Whether a folder of that name is surely that of a split."""
    meaning = Vocabulary({}).of_folder(name)
    return meaning.split is not None and meaning.is_sure


def is_container(name: str) -> bool:
    """Whether a name says that there are images and nothing else."""
    words = [part for word in _words(name) for part in _parts(word)]
    return bool(words) and set(words) <= CONTAINERS


def split_in(text: str) -> str | None:
    """Find the first split in a name such as `instances_train2017`; None if there is none."""
    parts = (part for word in _words(text) for part in _parts(word))
    return next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), None)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _words(text: str) -> Iterator[str]:
    """Yield the runs of letters, in lower case; a capital after a small letter begins a word, as in `trainImages`."""
    word = ""
    text = unicodedata.normalize("NFKC", text)  # letters of full width, too
    for letter in f"{_LOWER_TO_UPPER.sub(' ', text).casefold()} ":
        if letter.isalpha():
            word += letter
        elif word:
            yield word
            word = ""


def _parts(word: str) -> tuple[str, ...]:
    """Divide a word such as `trainset` or `imagestrain` in two; other words stay whole."""
    if word in SPLIT_NAMES:
        return (word,)
    for name in SPLIT_NAMES:
        if word.startswith(name) and word[len(name) :] in CONTAINERS:
            return name, word[len(name) :]
        if word.endswith(name) and word[: -len(name)] in CONTAINERS:
            return word[: -len(name)], name
    return (word,)
