"""Which images a dataset contains, with which labels, and how it is split."""

from dataclasses import dataclass

from imgclf.settings.base import FRACTION, Check, at_least, items, require, setting
from imgclf.settings.doctor import Thresholds
from imgclf.settings.reading import ReadConfig

LABELS, SPLITTING = "Labels and classes", "Splitting"
NEAR_DUPLICATES = ("group", "off")


def _is_pattern(text: str) -> bool:
    import regex  # 20 ms that only this option needs

    try:
        regex.compile(text)
    except regex.error:
        return False
    return True


def _pairs(text: str | None) -> dict[str, str]:
    pairs = (item.split("=") for item in items(text))
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2 and all(map(str.strip, pair))}


@dataclass(frozen=True)
class DataConfig(ReadConfig):
    """How data are read, labeled, filtered and split: everything that decides which images a dataset contains."""

    labels: str | None = setting(
        None, "CSV file (path, label, exclude) that corrects labels.", panel=LABELS, metavar="FILE"
    )
    rename: str | None = setting(
        None,
        "Rename classes, such as ant=wasp,bee=wasp.",
        panel=LABELS,
        metavar="OLD=NEW,...",
        check=Check(lambda text: len(_pairs(text)) == len(items(text)), "old=new, each class once"),
    )
    class_map: str | None = setting(
        None, "CSV file (old, new) that renames and merges classes.", panel=LABELS, metavar="FILE"
    )
    classes: str | None = setting(None, "Use only these classes.", panel=LABELS, metavar="NAME,...")
    limit: int | None = setting(None, "Use at most N images.", panel=LABELS, check=at_least(1))
    exclude: str | None = setting(None, "CSV file of images to leave out.", panel=LABELS, metavar="FILE")
    near_duplicates: str = setting(
        "group",
        "Keep near-duplicates together in the split",
        panel=SPLITTING,
        choices=NEAR_DUPLICATES,
    )
    thresholds: str | None = setting(
        None,
        "Thresholds of the data checks (docs/doctor.md).",
        panel=LABELS,
        metavar="NAME=X,...",
        check=Check(lambda text: bool(Thresholds.parse(text)), "NAME=X"),
    )
    val_as: str = setting(
        "test",
        "Role of val/ where test/ is missing",
        panel=SPLITTING,
        choices=("test", "validation"),
    )
    validation_fraction: float = setting(0.15, "Fraction of images for validation.", panel=SPLITTING, check=FRACTION)
    test_fraction: float = setting(0.15, "Fraction of images for the test split.", panel=SPLITTING, check=FRACTION)
    group_by: str | None = setting(
        None,
        "Keep groups in one split: by COLUMN, parent or REGEX.",
        panel=SPLITTING,
        metavar="KEY",
        check=Check(_is_pattern, "a regular expression, parent or a column"),
        everyday=True,
    )
    test_group: str | None = setting(None, "Use this group as the test split.", panel=SPLITTING, metavar="NAME")
    resplit: bool = setting(False, "Ignore the split that the data bring along.", panel=SPLITTING)
    split_from: str | None = setting(None, "Run or manifest whose split to keep.", panel=SPLITTING, metavar="PATH")
    seed: int = setting(
        0,
        "Random seed.",
        panel=SPLITTING,
        check=Check(lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295"),
        everyday=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        total = self.validation_fraction + self.test_fraction
        require(total < 1, "test_fraction", "validation and test together under 1", total)

    @property
    def doctor_thresholds(self) -> Thresholds:
        """The thresholds of the data checks."""
        return Thresholds.parse(self.thresholds)

    @property
    def class_filter(self) -> tuple[str, ...]:
        """The classes to use, perhaps with spaces around them; empty for all."""
        return items(self.classes)

    @property
    def renames(self) -> dict[str, str]:
        """Old class names to new ones."""
        return _pairs(self.rename)

    @property
    def relabels(self) -> bool:
        """Whether class names, by which images are chosen, are known only after reading."""
        return bool(self.labels or self.rename or self.class_map)


@dataclass(frozen=True)
class IngestConfig(DataConfig):
    """How to examine a dataset."""

    quick: bool = setting(False, "Read file headers only; skip pixel checks.", everyday=True)
    fail_on: str | None = setting(
        None, "Exit with 6 on these findings, such as leakage,error.", metavar="KIND,...", everyday=True
    )
