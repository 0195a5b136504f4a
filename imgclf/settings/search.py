"""How to find the images most like one image."""

from dataclasses import dataclass

from imgclf.settings.augmentation import SIZE
from imgclf.settings.base import POSITIVE, at_least, setting
from imgclf.settings.classical import kind_setting
from imgclf.settings.reading import DECODING, Decoding

SEARCH = "Search"


@dataclass(frozen=True)
class SearchConfig(Decoding):
    """How to find the images most like one image."""

    top: int = setting(20, "Show the N most similar images.", panel=SEARCH, check=at_least(1), everyday=True)
    features: str = kind_setting("What is compared", panel=SEARCH, everyday=True)
    model: str = setting(
        "imagenet",
        "Run, exported model or backbone of the embedding.",
        panel=SEARCH,
        metavar="MODEL",
        everyday=True,
    )
    image_size: int | None = setting(
        None, "Side of the images for features made by hand.", panel=SEARCH, check=SIZE, everyday=True
    )
    format: str = setting("table", "Output format", panel=SEARCH, choices=("table", "jsonl"), everyday=True)
    approximate_from: int = setting(
        100_000, "Search approximately among N images and more.", panel=SEARCH, check=at_least(2), everyday=True
    )
    cache_limit_gb: float = setting(20.0, "Maximum size of the cache on disk, in GB.", panel=DECODING, check=POSITIVE)
    offline: bool = setting(False, "Never use the network.", panel=SEARCH)
