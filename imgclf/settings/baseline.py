"""Which baselines to compare, and for how long."""

from dataclasses import dataclass

from imgclf.settings.base import Check, at_least, names, seconds, setting, some_of
from imgclf.settings.dataset import DataConfig
from imgclf.settings.reading import Decoding

BASELINES = ("majority", "mean-color", "color-histogram", "hog", "lbp", "probe", "lenet5", "small-cnn")


@dataclass(frozen=True)
class BaselineConfig(DataConfig, Decoding):
    """Which baselines to compare, and for how long."""

    folds: int = setting(3, "Number of folds.", check=at_least(2), everyday=True)
    only: str = setting(
        ",".join(BASELINES),
        "Baselines to compare, separated by commas.",
        metavar="NAME,...",
        check=some_of(BASELINES),
        everyday=True,
    )
    time_limit: str = setting(
        "3m",
        "Stop networks after this time, such as 90s or 5m.",
        metavar="TIME",
        check=Check(lambda text: (seconds(text) or 0) > 0, "a time such as 90s, 5m or 1h"),
        everyday=True,
    )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The baselines, the quick ones first."""
        asked = names(self.only)
        return tuple(name for name in BASELINES if name in asked)

    @property
    def limit_s(self) -> float:
        """The time limit in seconds."""
        return seconds(self.time_limit) or 0.0
