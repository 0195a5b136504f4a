"""What to search for the best settings of training, and how."""

from dataclasses import dataclass

from imgclf.settings.base import Check, Config, at_least, seconds, setting

SEARCH = "Search"


@dataclass(frozen=True)
class TuneConfig(Config):
    """What to search for the best settings of training, and how."""

    search: str | None = setting(
        None,
        'Settings to try, such as "model=knn, k=1|3|5".',
        panel=SEARCH,
        metavar="SPACE",
        everyday=True,
    )
    sampler: str = setting("tpe", "How to choose settings", panel=SEARCH, choices=("tpe", "random", "grid"))
    trials: int = setting(
        50, "Try N settings; a grid ends with its last.", panel=SEARCH, check=at_least(1), everyday=True
    )
    trial_folds: int = setting(5, "Score each on N folds of the training images.", panel=SEARCH, check=at_least(2))
    jobs: int = setting(1, "Try N settings in parallel.", panel=SEARCH, check=at_least(1))
    search_limit: str | None = setting(
        None,
        "Begin no trial after this time, such as 90s or 5m.",
        panel=SEARCH,
        metavar="TIME",
        check=Check(lambda text: (seconds(text) or 0) > 0, "a time such as 90s, 5m or 1h"),
    )

    @property
    def limit_s(self) -> float | None:
        """The time limit of the search in seconds."""
        return seconds(self.search_limit)
