"""The embeddings of a data set or of a run's images: what most questions are answered from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import runs, tasks
from imgclf.data import reading, run_data
from imgclf.data.dataset import Dataset
from imgclf.descriptors.kinds import EMBEDDING
from imgclf.errors import DatasetError, UsageError
from imgclf.models import sources
from imgclf.runs import Run
from imgclf.settings import DataConfig, TrainConfig
from imgclf.settings.classical import NETWORK, Kind
from imgclf.settings.questions import EmbeddingConfig

log = logging.getLogger("imgclf")

OnProgress = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Labeled images with their embeddings.

    Args:
        dataset: the images that could be read.
        vectors: float32 (n, d), by a frozen backbone that has not been trained on these labels; or the features of a
            classical model.
        settings: how they were read and embedded.
    """

    dataset: Dataset
    vectors: np.ndarray
    settings: TrainConfig

    @property
    def labels(self) -> np.ndarray:
        """Int64 (n,), indices into the class names."""
        return self.dataset.labels

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.dataset.class_names)


def find(
    source: Dataset | Run | Path | str,
    config: EmbeddingConfig,
    *,
    command: str,
    data: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Embedded:
    """Embed the images of a data set or of a run, of all splits; embeddings of an earlier training come from the cache.

    A run gives its images, how they are decoded, and its backbone as it was before training: what was trained on the
    labels cannot judge them. A run from random weights has no such backbone, and gets the default one.

    Args:
        source: a data set, or a run or its folder.
        command: what the question is called, for messages.
        data: where the run's images lie now, if they have moved.

    Raises:
        UsageError: if the task has no classes, or the settings do not suit the data.
        RunError: if the run is damaged.
        DatasetError: if images are missing, or none can be read.
    """
    if isinstance(source, Dataset):
        tasks.refuse(source.task, command)
        if data is not None:
            raise UsageError("--data tells where the images of a run lie now; leave it out for a data set.")
        dataset, config = source, reading.settled(source, config)
        _tell_unreadable(dataset)
        same = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(config)}
        settings = TrainConfig(method="probe", **{name: getattr(config, name) for name in same})
    else:
        dataset, settings = _of_run(runs.find(source), data, command)
    return embed(dataset, settings, on_progress)


def _tell_unreadable(dataset: Dataset) -> None:
    """Warn about files that the scan has left out; those that cannot be decoded are named where they are."""
    found = [skipped for skipped in dataset.skipped if skipped.kind == "unreadable"]
    if found:
        first, count = found[0], len(found)
        log.warning("%s: left out as unreadable: %d, such as %s: %s", dataset.origin, count, first.path, first.reason)


def _of_run(run: Run, data: Path | None, command: str) -> tuple[Dataset, TrainConfig]:
    recorded = TrainConfig.from_dict(run.read_config()["config"])
    tasks.refuse(recorded.task, command)
    dataset = run_data.read(run, data)
    gone = run_data.missing(dataset)
    if gone:
        raise gone
    kept: dict[str, Any] = {field.name: getattr(recorded, field.name) for field in fields(DataConfig)}
    kept |= recorded.decoding.to_dict() | {"cache": recorded.cache, "offline": recorded.offline}
    if recorded.model != NETWORK:
        kept |= {field.name: getattr(recorded, field.name) for field in fields(Kind)}
    if EMBEDDING not in kept.get("features", EMBEDDING):
        kept["image_size"] = recorded.image_size
    elif sources.NONE in (recorded.backbone, recorded.weights):
        log.info("%s: trained without a pretrained backbone; the default one embeds its images.", run.path)
    else:
        kept |= {"backbone": recorded.backbone, "image_size": recorded.image_size, "weights": recorded.weights}
    return dataset, TrainConfig(method="probe", **kept)


def embed(dataset: Dataset, settings: TrainConfig, on_progress: OnProgress | None = None) -> Embedded:
    """Embed images by the backbone of a probe, or compute the features of a classical model.

    Raises:
        DatasetError: if none can be read.
    """
    if not len(dataset):
        raise DatasetError(f"{dataset.origin}: expected images, found none.")
    from imgclf.training import estimators  # what it imports takes seconds
    from imgclf.training.decoding import Decoding
    from imgclf.training.images import Images

    estimator = estimators.kind(settings).resolve(settings, dataset.median_side_px)[0]
    with Decoding(dataset, estimator, on_progress) as decoding:
        built = estimator.build(max(2, len(dataset.class_names)))
        readable, pixels = decoding.result()
    vectors = estimator.vectors(built, Images(readable, pixels), on_progress)
    return Embedded(readable, vectors, estimator.settings)
