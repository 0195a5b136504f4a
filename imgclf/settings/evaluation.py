"""How to score a model, and by which rules it predicts."""

from dataclasses import dataclass

from imgclf.settings.base import Check, Config, at_least, names, require, setting, some_of
from imgclf.settings.reading import ReadConfig

REPORT_FORMATS = ("html", "md", "json")


@dataclass(frozen=True)
class EvaluateConfig(ReadConfig):
    """How to read the images to score, and how to score."""

    top_k: int = setting(5, "Report top-K accuracy.", metavar="K", check=at_least(1), everyday=True)
    batch_size: int = setting(32, "Decode N images ahead of the model.", check=at_least(1))
    missing_classes: str = setting(
        "error",
        "When DATA lacks a class of the model",
        choices=("error", "allow"),
        everyday=True,
    )
    unknown_classes: str = setting(
        "error",
        "When the model lacks a class of DATA",
        choices=("error", "skip"),
        everyday=True,
    )
    format: str = setting(
        "html",
        "Report formats, separated by commas",
        metavar="FORMAT,...",
        choices=REPORT_FORMATS,
        check=some_of(REPORT_FORMATS),
        everyday=True,
    )
    robustness: bool = setting(False, "Score corrupted images, too: rotated, dark, covered.", everyday=True)
    robustness_images: int = setting(500, "Corrupt at most N images.", check=at_least(1))
    slices: bool = setting(False, "Compare accuracy by size, brightness, blur, format, group.", everyday=True)
    slice_table: str | None = setting(None, "Table of image paths with columns for --slices.", metavar="FILE")
    kfold: int | None = setting(None, "Cross-validate the run's recipe with N folds.", check=at_least(2), everyday=True)
    fail_under: str | None = setting(
        None, "Exit with 6 below these scores, such as accuracy=0.9.", metavar="SCORE=X,...", everyday=True
    )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the report."""
        return names(self.format)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.slices or self.slice_table is None, "slice_table", "--slices beside it", self.slice_table)


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


@dataclass(frozen=True)
class CalibrateConfig(Config):
    """The rules by which a model predicts. None leaves a rule as it is, "none" removes it."""

    reject_below: str | None = setting(
        None,
        "Reject predictions below this confidence",
        metavar="X",
        choices=("auto", "none"),
        other=("a number",),
        check=Check(
            lambda text: text in ("auto", "none") or _is_share(text),
            "auto, none, or a number from above 0 to below 1",
        ),
        everyday=True,
    )
    precision: float = setting(
        0.95,
        "Target precision of --reject-below auto.",
        check=Check(lambda value: 0 < value <= 1, "a number from above 0 to 1"),
        everyday=True,
    )
    coverage: str | None = setting(
        None,
        "Target coverage of prediction sets or intervals, or none.",
        metavar="X",
        check=Check(lambda text: text == "none" or _is_share(text), "none, or a number from above 0 to below 1"),
        everyday=True,
    )
    outliers: str | None = setting(
        None,
        "Out-of-distribution rule; none removes it.",
        metavar="RULE",
        check=Check(lambda text: text == "none", "none"),
        everyday=True,
    )
    positive: str | None = setting(None, "Positive class of a binary --threshold.", metavar="CLASS", everyday=True)
    threshold: str | None = setting(
        None,
        "Threshold: precision=P, recall=R, cost=FP:FN, f1 or none.",
        metavar="RULE",
        everyday=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        paired = self.positive is None or self.threshold not in (None, "none")
        require(paired, "positive", "--threshold beside it", self.positive)
