"""Where backbones come from: one small class for each source, behind one protocol.

A source gives facts, and a graph with preprocessing and weights: from `pixels`, float32 0-255 RGB (n, s, s, 3), to a
map (n, h, w, d), to tokens (n, t, d) or to a vector (n, d). Averaged over its positions, it is the embedding.
Callers ask `find` and know no source by name; a new one is a class here, or one that is given to `register`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imgclf.errors import UsageError
from imgclf.models import catalog
from imgclf.models.catalog import DEFAULT as DEFAULT
from imgclf.settings import small_cnn

if TYPE_CHECKING:
    import keras

Progress = Callable[[int, int], None]
"""MB that have arrived, and MB in all."""

SCRATCH = small_cnn.SMALL_CNN
"""The backbone to train from random weights."""

STRONGER = "efficientnetv2-b0"
"""A backbone to name to those who have a network."""

NONE = "none"
"""Random weights."""

_OLD_WORDS = {"embedded": "bundled"}


@dataclass(frozen=True)
class Facts:
    """What training has to know of a backbone before there is a graph.

    Args:
        name: what `find` takes, and what a run records.
        image_size: in px: that of the pretraining.
        pretrained: the word for its own weights in a run's `config.json`; None where it has none.
        any_size: whether one graph may take images of several sizes, as progressive training wants it.
        imagenet: whether `--weights imagenet` names its own weights.
        note: what to tell the user about it, in one line; empty for nothing.
    """

    name: str
    image_size: int
    pretrained: str | None
    any_size: bool = False
    imagenet: bool = False
    note: str = ""


class Source(Protocol):
    """One backbone of a source."""

    weights: str | None
    """The word for its own weights in a run's `config.json`; None where it has none."""

    portable: bool
    """Whether the name alone gives the same graph wherever imgclf runs; a run of another one keeps a copy."""

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> "Source | None":
        """Return the backbone of that name; None where the name is not one of this source's.

        Raises:
            UsageError: if the name is of this source, which has no such backbone.
            MissingError: if what it needs is not on this machine and cannot be had.
        """
        ...

    @property
    def facts(self) -> Facts: ...

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        """Return the graph, in float32 unless Keras's policy says otherwise.

        Args:
            image_size: in px; None leaves it open, where `any_size` says so.
            weights: `facts.pretrained`, "none", or a path to a file or a run.

        Raises:
            UsageError: if the backbone does not take images of this size.
            MissingError, RunError: if the weights cannot be had, cannot be read, or belong to another network.
        """
        ...


_registered: list[type[Source]] = []


def register(source: type[Source]) -> None:
    """Ask a further source before those that come with imgclf."""
    _registered.insert(0, source)


def unregister(source: type[Source]) -> None:
    """Ask a source no longer."""
    _registered.remove(source)


def _all() -> list[type[Source]]:
    # not at the top: the sources need what stands above
    from imgclf.models.sources.applications import Application
    from imgclf.models.sources.bundled import Bundled
    from imgclf.models.sources.file import File
    from imgclf.models.sources.kerashub import KerasHub
    from imgclf.models.sources.run import OfRun

    return [*_registered, Bundled, Application, KerasHub, File, OfRun]


def find(name: str, *, offline: bool = False) -> Source:
    """Return the backbone of a name.

    Args:
        name: a name from `imgclf models`, `keras-hub:PRESET`, a `.keras` file, or the folder of a run.
        offline: never touch the network.

    Raises:
        UsageError: if no source has such a backbone.
        MissingError: if what its source needs is not on this machine and cannot be had.
    """
    for source in _all():
        found = source.find(name, offline=offline)
        if found is not None:
            return found
    catalog.find(name)  # raises, and names the nearest names
    raise AssertionError(f"{name}: in the catalog, but of no source")


def portable(name: str) -> bool:
    """Whether a name alone gives the same graph wherever imgclf runs."""
    return any(source.portable and source.find(name) is not None for source in _all())


def is_word(weights: str) -> bool:
    """Whether weights are named by a word, and not by a path."""
    return weights in {NONE, "imagenet", *_OLD_WORDS, *(source.weights for source in _all())}


def word(weights: str) -> str:
    """Return the word of today for weights."""
    return _OLD_WORDS.get(weights, weights)


def default(weights: str, *, scratch: bool) -> tuple[str, str]:
    """Return the backbone for some weights where none is named, and why, in one line.

    Args:
        weights: a word.
        scratch: whether training starts from random weights.
    """
    if scratch or weights == NONE:
        return SCRATCH, f"backbone: {SCRATCH}, to be trained from scratch"
    if weights == "hub":
        return STRONGER, f"backbone: {STRONGER} with ImageNet weights, downloaded once"
    return DEFAULT, (
        f"backbone: {DEFAULT} with ImageNet weights, bundled with imgclf. Stronger, with a network: --backbone "
        f"{STRONGER}."
    )


def check_size(facts: Facts, image_size: int | None, expected: int) -> None:
    """Refuse another size than the one that a backbone takes.

    Raises:
        UsageError: if the size is another one.
    """
    if image_size != expected:
        found = "several sizes" if image_size is None else f"{image_size}"
        raise UsageError(f"--image-size: {facts.name} takes images of {expected} px alone, found {found}.")
