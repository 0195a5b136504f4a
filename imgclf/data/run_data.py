"""Find the images of a run and verify them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from imgclf import tasks
from imgclf.data import collection, content, relocate, scan_cache
from imgclf.data.dataset import SPLITS, UNASSIGNED, Dataset, listed, read_manifest
from imgclf.errors import DatasetError, ImageError, RunError, UsageError
from imgclf.runs import Run
from imgclf.settings import DataConfig


def read(
    run: Run, data: Path | None = None, splits: Sequence[str] = (*SPLITS, UNASSIGNED), *, verify: bool = True
) -> Dataset:
    """Read the images of a run, with its split, settings, and class names in the order of its model's outputs.

    Args:
        data: where the images are now, if no longer where the run found them; they are found by their content.
        splits: the splits to read; the others may be gone.
        verify: whether to compare the content of the images with the manifest. Images that are gone are not an error
            here (`missing`).

    Raises:
        RunError: if its `config.json`, `labels.txt` or `manifest.csv` is missing or damaged, or they disagree.
        DatasetError: if the images are not all in `data`, or one has changed.
    """
    names = run.read_labels()
    try:
        facts = run.read_config()
        if not isinstance(facts.get("data"), str):
            raise RunError(f"{run.config}: expected the path of the run's images as data, found none. Train again.")
        path = Path(facts["data"])
        dataset = read_manifest(run.manifest, path, names)
        values = facts.get("config", {})
        settings = DataConfig(**{f.name: values[f.name] for f in fields(DataConfig) if f.name in values})
        task = tasks.find(settings.task)
        foreign = sorted({name for s in dataset.samples for name in task.members(s.label)} - set(names))
        if foreign:
            raise RunError(f"{run.manifest}: expected the classes of {run.labels.name}, found {listed(foreign)}, too.")
        samples = tuple(s for s in dataset.samples if s.split in splits)
        dataset = replace(dataset, samples=samples, settings=settings, task=settings.task)
        if data is None and path.exists() and not all(place.is_file() for place in dataset.paths[:1]):
            root = collection.locate(path, settings)
            dataset = replace(dataset, root=root, source=None if root == path else path)
    except (DatasetError, UsageError) as error:
        raise RunError(f"{error} Train again or restore it.") from None
    if data is not None:
        return relocate.find(dataset, data, settings)
    if verify:
        relocate.verify(dataset)
    return dataset


def hashes(files: Sequence[str]) -> list[str]:
    """Return the SHA-256 of files, as the manifest of a run has them; "" for one that cannot be read."""
    return list(scan_cache.in_threads(_sha256, files))


def _sha256(file: str) -> str:
    try:
        return content.sha256(file)
    except ImageError:
        return ""


def missing(dataset: Dataset) -> DatasetError | None:
    """Return the error for images of a run that are gone; None if all are there."""
    gone = [s.path for s, path in zip(dataset.samples, dataset.paths, strict=True) if not path.is_file()]
    if not gone:
        return None
    return DatasetError(
        f"{dataset.origin}: expected the run's {len(dataset):,} images, but {len(gone):,} are gone, such as "
        f"{gone[0]!r}. Put them back, or pass the folder they were moved to with --data."
    )
