"""Facts about every backbone, without importing Keras.

They stand in `catalog.csv`. Sizes, parameters, file names, addresses and hashes are those of keras.applications in
Keras 3.15; a test compares each of them with what Keras itself would fetch.
"""

import csv
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imgclf.errors import UsageError

Preprocessing = Literal["none", "tf", "torch", "caffe"]

DEFAULT = "efficientnet-lite0"
"""The backbone whose ImageNet weights come with imgclf."""

IMAGENET = "imagenet"
"""For prediction, the default backbone with ImageNet's own classes."""


@dataclass(frozen=True)
class HubFile:
    """A file of weights: its address, the name Keras saves it under, and its MD5 or SHA-256 where Keras knows one."""

    url: str
    name: str
    hash: str | None


@dataclass(frozen=True)
class ModelFacts:
    """One backbone. None stands for "does not apply": no hub holds files of the networks that imgclf builds itself.

    `application` is the function in keras.applications. `image_size` and `min_image_size` are in pixels.
    `parameters` counts the backbone alone, `parameters_with_top` also ImageNet's 1000 outputs. `top1` is the published
    ImageNet validation accuracy in percent, at `image_size`, as `source` gives it. `preprocessing` is what has to
    happen to pixels 0-255 before the application: "none" where it does that itself, "tf" scales to -1..1, "torch"
    normalizes by ImageNet's mean and deviation, "caffe" subtracts the mean from BGR.
    """

    name: str
    application: str | None
    image_size: int
    min_image_size: int
    parameters: int | None
    parameters_with_top: int | None
    top1: float | None
    source: str | None
    preprocessing: Preprocessing
    without_top: HubFile | None
    with_top: HubFile | None

    @property
    def bundled(self) -> bool:
        """Whether the ImageNet weights come with imgclf."""
        return self.name == DEFAULT

    @property
    def weights_mb(self) -> float | None:
        """The pretrained weights in MB (10^6 bytes): float32, or, where bundled, float16 with the ImageNet head."""
        if self.parameters is None or self.parameters_with_top is None:
            return None
        return (self.parameters_with_top * 2 if self.bundled else self.parameters * 4) / 1e6


def _read() -> Iterator[ModelFacts]:
    with Path(__file__).with_name("catalog.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            known: dict[str, Any] = {name: value or None for name, value in row.items()}
            for kind, suffix in (("without_top", ""), ("with_top", "_with_top")):
                url, name, hash = (known.pop(f"{fact}{suffix}") for fact in ("url", "file", "hash"))
                known[kind] = HubFile(url, name, hash) if url else None
            for name in ("image_size", "min_image_size", "parameters", "parameters_with_top"):
                known[name] = known[name] and int(known[name])
            yield ModelFacts(**known | {"top1": known["top1"] and float(known["top1"])})


MODELS: dict[str, ModelFacts] = {facts.name: facts for facts in _read()}


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


_NAMES = {_key(name): name for name in MODELS} | {"embedded": DEFAULT}


def get(name: str) -> ModelFacts | None:
    """Return the facts about a model, as `find` knows it; None where there is none."""
    return MODELS.get(_NAMES.get(_key(name), ""))


def find(name: str) -> ModelFacts:
    """Return the facts about a model; case, dashes and underscores do not matter (`MobileNet-v2` is `mobilenetv2`).

    Raises:
        UsageError: if there is no such model, naming the nearest ones.
    """
    found = get(name)
    if found is not None:
        return found
    if _key(name) == IMAGENET:
        raise UsageError(
            f"{IMAGENET} is a classifier for imgclf predict; its backbone, with the same weights, is {DEFAULT}."
        )
    raise UsageError(f"expected the name of a model, found {name!r}. {nearest(name)}")


def nearest(name: str) -> str:
    """Return the models with names like this one, as advice."""
    names = _NAMES | {IMAGENET: IMAGENET}
    near = [names[key] for key in difflib.get_close_matches(_key(name), names, n=3)]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}imgclf models lists all {len(MODELS)}."
