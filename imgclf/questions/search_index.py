"""The file of a search index: the vectors of images, their paths, and how the vectors were made."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import __version__, documents, storage
from imgclf.errors import ArtifactError, UsageError
from imgclf.settings import SearchConfig
from imgclf.settings.base import flag_of

SUFFIX = ".npz"
SCHEMA = 1

KEPT = ("features", "model", "image_size", "resize", "window", "preprocess")
"""The settings that decide about the vectors."""

CLOSE = 0.02
"""The vector of the sample image may differ by this share of its largest number, from one machine to another."""

SAMPLE = np.stack([*np.indices((256, 256)), np.multiply.outer(range(256), range(256)) // 256], axis=-1).astype(np.uint8)
"""An image whose vector tells whether an image today gets the vector that it would have got in the index."""

_OPTIONAL = documents.maybe(documents.text)
_SETTINGS = documents.fields(
    {
        **dict.fromkeys(("features", "model", "resize"), documents.text),
        **dict.fromkeys(("window", "preprocess"), _OPTIONAL),
        "image_size": documents.maybe(documents.number(1, whole=True)),
    }
)
_VERSION = documents.fields({"schema": documents.number(1, whole=True), "imgclf": documents.text})

Describe = Callable[[list[Any]], list[np.ndarray | str]]
"""From images to their vectors, float32 (d,), or the reason why one cannot be read."""


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """What a file contains.

    Args:
        path: of the file.
        settings: those of `KEPT`; the others are defaults.
        images: (n,), paths.
        vectors: float32 (n, d).
        sample: float32 (d,), the vector of `SAMPLE`.
    """

    path: Path
    settings: SearchConfig
    images: Sequence[str]
    vectors: np.ndarray
    sample: np.ndarray

    def write(self) -> None:
        """Write the file. Images below its folder are named from there, so that both may move together.

        Raises:
            UsageError: if it cannot be written.
        """
        folder = self.path.parent.absolute()
        places = [Path(name).absolute() for name in self.images]
        names = [(p.relative_to(folder) if p.is_relative_to(folder) else p).as_posix() for p in places]
        kept = {name: getattr(self.settings, name) for name in KEPT}
        if Path(self.settings.model).exists():
            kept["model"] = str(Path(self.settings.model).resolve())
        about = json.dumps({"schema": SCHEMA, "imgclf": __version__, "settings": kept})
        try:
            with storage.replacing(self.path) as new:
                np.savez(
                    new,
                    allow_pickle=False,
                    about=np.frombuffer(about.encode(), np.uint8),
                    paths=np.array(names),
                    vectors=self.vectors,
                    sample=self.sample,
                )
        except OSError as error:
            raise UsageError(f"--save-index {self.path}: the index cannot be written ({error.strerror}).") from None

    def over(self, config: SearchConfig) -> SearchConfig:
        """Return settings with those that the index was made with.

        Raises:
            UsageError: if others were given, or the model of the index is gone.
        """
        kept = {name: getattr(self.settings, name) for name in KEPT}
        for name, value in kept.items():
            given, default = getattr(config, name), getattr(SearchConfig, name)
            if name == "model" and given != default:  # the same model may have moved: `check` compares what it makes
                kept["model"] = given
            elif given not in (default, value):
                raise UsageError(
                    f"{flag_of(name)}: {self.path} was made with {'the default' if value is None else value}, found "
                    f"{given}. Leave the option out."
                )
        model = Path(kept["model"])
        if model.is_absolute() and not model.exists():
            raise UsageError(f"{self.path}: its model {model} is gone. Pass where it is now: --model RUN.")
        return replace(config, **kept)

    def check(self, describe: Describe) -> None:
        """Check that the image to compare with gets its vector as those of the index did.

        Raises:
            ArtifactError: if it does not.
        """
        found = describe([SAMPLE])[0]
        if (
            isinstance(found, str)
            or found.shape != self.sample.shape
            or not np.abs(found - self.sample).max() <= CLOSE * np.abs(self.sample).max()
        ):
            raise ArtifactError(
                f"{self.path}: expected the model or the features that the index was made with, found others: its "
                "vectors cannot be compared with new ones. Make the index again with --save-index."
            )


def is_index(source: Path | str) -> bool:
    """Whether a file is an index, by its name."""
    return Path(source).suffix.lower() == SUFFIX and Path(source).is_file()


def read(path: Path) -> SearchIndex:
    """Read a file.

    Raises:
        ArtifactError: if it is damaged, something else, or of another version.
    """
    try:
        arrays = documents.arrays(path)
        if missing := [name for name in ("about", "paths", "vectors", "sample") if name not in arrays]:
            raise ValueError(f"it has no {', '.join(missing)}")
        about = documents.parse(arrays["about"].tobytes())
        _VERSION(about, "about")
        if about["schema"] != SCHEMA:
            raise ArtifactError(
                f"{path}: expected an index of schema {SCHEMA}, found {about['schema']}, which imgclf "
                f"{about['imgclf']} has written. Make it again with --save-index."
            )
        documents.fields({"settings": _SETTINGS})(about, "about")
        settings = SearchConfig(**{name: about["settings"][name] for name in KEPT})
        names, vectors, sample = arrays["paths"], arrays["vectors"], arrays["sample"]
        if names.dtype.kind != "U" or names.ndim != 1 or vectors.shape != (len(names), *sample.shape):
            raise ValueError(f"paths {names.shape}, vectors {vectors.shape} and sample {sample.shape} do not fit")
        if not len(names) or vectors.dtype != np.float32 or vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError("its vectors are no table of finite numbers")
    except OSError as error:
        raise ArtifactError(f"{path}: the index cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: expected an index of imgclf search, found something else, or a damaged file ({error}). Make it "
            "again with --save-index."
        ) from None
    folder = "" if path.parent == Path() else str(path.parent)
    images = [os.path.join(folder, name) for name in names.tolist()]  # noqa: PTH118  (a second less for 100,000)
    return SearchIndex(path, settings, images, vectors, sample)
