"""Augmentation to be shown or written."""

from dataclasses import dataclass

from imgclf import policies
from imgclf.settings.base import Check, at_least, between, setting
from imgclf.settings.dataset import DataConfig
from imgclf.settings.reading import DECODING, Decoding

AUGMENTATION = "Augmentation"
SIZE_RANGE = (16, 1024)
SIZE = between(*SIZE_RANGE, "pixels")
POLICY_NAMES = tuple(policies.POLICIES)
OTHER_POLICY = ("FILE", "flip=0.5,rotate=10")


@dataclass(frozen=True, kw_only=True)
class Orientation(Decoding):
    """Whether the orientation of an image is part of its meaning."""

    keep_orientation: bool = setting(False, "Never flip; rotate by at most 15 degrees.", panel=AUGMENTATION)


@dataclass(frozen=True)
class AugmentConfig(DataConfig, Orientation):
    """Which augmentation is shown or written, and how often for each image."""

    policy: str = setting(
        "standard",
        "Augmentation policy",
        panel=AUGMENTATION,
        metavar="POLICY",
        choices=POLICY_NAMES,
        other=OTHER_POLICY,
        check=Check(lambda text: bool(policies.find(text, "policy")), "a policy"),
        everyday=True,
    )
    image_size: int = setting(224, "Side of the square images, in pixels.", panel=DECODING, check=SIZE, everyday=True)
    variants: int = setting(
        8, "Variants per image on the contact sheet.", panel=AUGMENTATION, check=between(1, 50), everyday=True
    )
    copies: int = setting(
        1, "Variants per image that --to writes.", panel=AUGMENTATION, check=at_least(1), everyday=True
    )

    @property
    def final_policy(self) -> tuple[policies.Policy, list[str]]:
        """The policy after `keep_orientation`, and a sentence on each operation that it removed or weakened."""
        policy = policies.find(self.policy, "policy")
        return policy.upright() if self.keep_orientation else (policy, [])
