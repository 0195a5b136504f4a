"""Compute the feature vectors of labeled images, and write them with a name for each column."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imgclf import environment, storage
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.descriptors import extraction
from imgclf.descriptors.extraction import OnProgress
from imgclf.descriptors.kinds import KINDS, SIZE_PX, Descriptor, parse
from imgclf.settings import FeaturesConfig, TrainConfig

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Feature vectors, one row for each image that could be read.

    Args:
        dataset: the images.
        vectors: float32 (n, d).
        names: (d,), of the columns, such as `hog:block0_0_cell0_0_20deg`.
    """

    dataset: Dataset
    vectors: np.ndarray
    names: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """(n,), as the data set names them."""
        return [sample.path for sample in self.dataset.samples]

    @property
    def labels(self) -> list[str]:
        """(n,), class names."""
        return [sample.label for sample in self.dataset.samples]

    def write(self, path: Path) -> None:
        """Write a `.npz` with the arrays `paths`, `labels`, `features` and `names`, or a `.parquet` with a column each.

        Raises:
            UsageError: if the name ends otherwise, or the file cannot be written.
            MissingError: if pyarrow is needed and not installed.
        """
        check_name(path)
        storage.write_named(path, self._npz() if path.suffix.lower() == ".npz" else self._parquet())

    def _npz(self) -> bytes:
        file = io.BytesIO()
        np.savez(
            file,
            allow_pickle=False,
            paths=np.array(self.paths),
            labels=np.array(self.labels),
            features=self.vectors,
            names=np.array(self.names),
        )
        return file.getvalue()

    def _parquet(self) -> bytes:
        import pyarrow
        from pyarrow import parquet

        columns = {"path": self.paths, "label": self.labels, **dict(zip(self.names, self.vectors.T, strict=True))}
        file = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), file)
        return file.getvalue()


def check_name(path: Path) -> None:
    """Refuse a file that `FeatureTable.write` does not write, before there is something to write.

    Raises:
        UsageError: if the name ends otherwise.
        MissingError: if pyarrow is needed and not installed.
    """
    storage.refuse_suffix(path, *SUFFIXES)
    if path.suffix.lower() == ".parquet":
        environment.require("pyarrow", "'imgclf[parquet]'")


def features(
    dataset: Dataset, config: FeaturesConfig | None = None, *, on_progress: OnProgress | None = None
) -> FeatureTable:
    """Compute the feature vectors of all images, on all cores.

    Args:
        config: which vectors. Images have the side `image_size`, by default that of the backbone where its embedding
            is among the vectors, else 128 px.

    Raises:
        UsageError: if a kind is unknown, or the images are too small for it.
        MissingError: if a package or weights are needed and not here.
        DatasetError: if no image can be read.
    """
    config = config or FeaturesConfig()
    if any(part.name not in KINDS for part in parse(config.features)):
        return _with_network(dataset, config, on_progress)
    descriptor = Descriptor(config.features, config.image_size or SIZE_PX)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress:
            on_progress("decoding", done, len(dataset))

    readable, pixels = loading.decode(dataset, descriptor.size_px, config.decoding, on_progress=advance)
    vectors = extraction.of_pixels(descriptor, pixels, on_progress=on_progress)
    return FeatureTable(readable, vectors, tuple(descriptor.names()))


def _with_network(dataset: Dataset, config: FeaturesConfig, on_progress: OnProgress | None) -> FeatureTable:
    from imgclf.training.classical import Classical  # Keras takes seconds, and other vectors need none
    from imgclf.training.decoding import Decoding
    from imgclf.training.images import Images

    same = {name: getattr(config, name) for name in ("features", "image_size", "backbone", *config.decoding.to_dict())}
    estimator, _ = Classical.resolve(TrainConfig(model="knn", **same))
    with Decoding(dataset, estimator, on_progress) as decoding:
        built = estimator.build(len(dataset.class_names))
        readable, pixels = decoding.result()
    vectors = estimator.vectors(built, Images(readable, pixels), on_progress)
    return FeatureTable(readable, vectors, tuple(estimator.columns(built)))
