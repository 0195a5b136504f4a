"""Find the images most like one image: by the embedding of a network, or by features made by hand."""

import glob
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment, prediction, storage
from imgclf.data import cache as caches
from imgclf.data import images
from imgclf.descriptors.kinds import EMBEDDING, SIZE_PX, Descriptor, parse
from imgclf.errors import DatasetError, ImageError, UsageError
from imgclf.evaluation import thumbnails
from imgclf.prediction import pipeline, sources
from imgclf.prediction.classifier import Classifier, Named
from imgclf.questions import nearest, pages, search_index
from imgclf.questions.search_index import Describe, SearchIndex
from imgclf.settings import Decoding, SearchConfig
from imgclf.settings.base import flag_of

log = logging.getLogger("imgclf")

PAGE = ".html"

VERSION = 1
"""Part of the name of an index in the cache: another way to make vectors is another version."""

OnProgress = Callable[..., None]
"""Phase, images done, images in all."""


@dataclass(frozen=True)
class Match:
    """An image, the name it was found by, and its distance from the query; 0 for the same vector."""

    path: str
    distance: float


@dataclass(frozen=True)
class SearchResult:
    """The images most like one image, the nearest first.

    Args:
        query: the image.
        images: among how many was searched.
        approximate: whether some nearer image may have been missed.
        files: where the images of `matches` lie.
    """

    query: str
    matches: tuple[Match, ...]
    images: int
    approximate: bool
    files: tuple[Path, ...]
    rules: Decoding

    def write(self, path: Path) -> None:
        """Write a page with thumbnails.

        Raises:
            UsageError: if the name does not end in .html, or the file cannot be written.
        """
        storage.refuse_suffix(path, PAGE)
        query, *drawn = thumbnails.draw_all([Path(self.query), *self.files], self.rules)
        rows = list(zip(drawn, self.matches, strict=True))
        storage.write_named(path, pages.render("search.html", result=self, query=query, rows=rows))


def search(
    source: Path | str,
    image: Path | str,
    config: SearchConfig | None = None,
    *,
    save_index: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> SearchResult:
    """Find the images of a folder, an archive or a pattern that are most like one image.

    The vectors of the images are computed once and kept in the cache, as long as no file changes. Embeddings are
    compared at length 1; of features made by hand, each column is standardized over the images. Distances are
    Euclidean.

    Args:
        source: what is searched, at any depth; labels are not needed. Or an index that an earlier search has saved,
            which stands for its images, and brings its features and its model.
        image: a file.
        save_index: write the index to this file, a `.npz`.

    Raises:
        UsageError: if the features are unknown, mix an embedding with others, or are not those of the index, or the
            model is a classical one.
        ImageError: if the image cannot be read.
        DatasetError: if there are no images, or none can be read.
        ArtifactError, MissingError: if the index is damaged or of another version, or the model cannot be had.
    """
    config = config or SearchConfig()
    if save_index is not None:
        storage.refuse_suffix(Path(save_index), search_index.SUFFIX, option="--save-index")
    index = None
    if search_index.is_index(source):
        if save_index is not None:
            raise UsageError(f"--save-index: expected images to search, found the index {source}. Copy it instead.")
        index = search_index.read(Path(source))
        config = index.over(config)
    rules = Decoding(**{name: getattr(config, name) for name in Decoding().to_dict()})
    describe, facts = _describer(config, rules, on_progress)
    query = describe([os.fspath(image)])[0]
    if isinstance(query, str):
        raise ImageError(f"{image}: {query}")
    found: list[Any]
    if index:
        index.check(describe)
        found, vectors, name = list(index.images), index.vectors, caches.digest(["index", *_state(str(source))])
    else:
        if not os.path.exists(source) and not glob.has_magic(os.fspath(source)):
            raise DatasetError(f"{source}: no such file or folder.")
        found = list(sources.find([os.fspath(source)], ()))
        vectors, name = _index(found, describe, facts, config, on_progress)
    readable = np.flatnonzero(np.isfinite(vectors[:, 0]))
    known = len(readable)
    if not known:
        raise DatasetError(f"{source}: expected images, but none of {len(found)} can be read.")
    if known < len(found):
        log.warning("%s: %d of %d images cannot be read and are left out.", source, len(found) - known, len(found))
    if save_index is not None:
        names, sample = [_name(found[row]) for row in readable.tolist()], describe([search_index.SAMPLE])[0]
        SearchIndex(Path(save_index), config, names, vectors[readable], np.asarray(sample, np.float32)).write()
    if config.features != EMBEDDING:
        mean, deviation = np.nanmean(vectors, axis=0), np.nanstd(vectors, axis=0)
        scale = np.where(deviation > 0, deviation, 1)
        vectors, query = (vectors - mean) / scale, (query - mean) / scale
    approximate = known >= config.approximate_from
    if approximate and not environment.has_package("faiss"):
        log.warning("Every image is compared; pip install %s makes the search approximate and fast.", nearest.EXTRA)
        approximate = False
    rows, distances = _nearest(vectors, query, config, approximate, name)
    matches = tuple(Match(_name(found[row]), float(d)) for row, d in zip(rows.tolist(), distances, strict=True))
    files = tuple(Path(_file(found[row])) for row in rows.tolist())
    return SearchResult(os.fspath(image), matches, known, approximate, files, rules)


def _describer(config: SearchConfig, rules: Decoding, on_progress: OnProgress | None) -> tuple[Describe, list[object]]:
    """Return what makes vectors of images, and everything that decides about them."""
    parts = parse(config.features)
    if all(part.name != EMBEDDING for part in parts):
        descriptor = Descriptor(config.features, config.image_size or SIZE_PX)
        facts: list[object] = [config.features, descriptor.size_px, rules.to_dict(), images.fingerprint()]
        return partial(_by_hand, descriptor, rules), facts
    if config.features != EMBEDDING:
        raise UsageError(f"--features {config.features}: expected {EMBEDDING} alone, or features made by hand alone.")
    if config.image_size is not None:
        raise UsageError("--image-size: the model of the embedding has its own. Leave out one of the two.")
    given = [name for name in ("resize", "window", "preprocess") if getattr(config, name) != getattr(Decoding, name)]
    if given:
        raise UsageError(f"{', '.join(map(flag_of, given))}: the model of the embedding has its own. Leave it out.")
    classifier = _classifier(config, on_progress)
    return partial(_by_network, classifier), [EMBEDDING, classifier.identity, config.allow_truncated]


def _classifier(config: SearchConfig, on_progress: OnProgress | None) -> Classifier:
    place = Path(config.model)
    if not place.exists():
        from imgclf.exporting import pretrained  # which converts a network once, and is not needed for a run

        place = pretrained.artifact(config.model, offline=config.offline, on_progress=on_progress)
    classifier = prediction.load(place, allow_truncated=config.allow_truncated)
    if hasattr(classifier.runtime, "neighbors"):
        raise UsageError(f"--model {config.model}: expected a network, found a classical model. Pass its --features.")
    return classifier


def _by_network(classifier: Classifier, found: list[Any]) -> list[np.ndarray | str]:
    return [
        each.error if each.embedding is None else each.embedding / max(float(np.linalg.norm(each.embedding)), 1e-12)
        for each in classifier.predict(found, embeddings=True)
    ]


def _by_hand(descriptor: Descriptor, rules: Decoding, found: list[Any]) -> list[np.ndarray | str]:
    def one(items: list[Any]) -> list[np.ndarray | str]:
        try:
            return [descriptor.vectors(images.load(_file(item), descriptor.size_px, rules)[None])[0] for item in items]
        except ImageError as error:
            return [str(error)]

    return list(pipeline.run(iter(found), one, workers=environment.cpu_count(), batch=1, ahead=64))


CHUNK = 512


def _index(
    found: list[Any], describe: Describe, facts: list[object], config: SearchConfig, on_progress: OnProgress | None
) -> tuple[np.ndarray, str]:
    """Return the vectors of all images, float32 (n, d), NaN for unreadable ones; from the cache, if it has them.

    Returns:
        The vectors, and the name of their entry in the cache.
    """
    name = caches.digest([VERSION, *facts, [_state(item) for item in found]])
    store = caches.Store.of("auto", config.cache_limit_gb)
    kept = store.read(name, None, np.float32) if store else None
    if kept is not None and len(kept) == len(found):
        return kept, name
    rows: list[np.ndarray | str] = []
    items = iter(found)
    for chunk in _chunks(items):
        rows += describe(chunk)
        if on_progress:
            on_progress("indexing", len(rows), len(found))
    width = next((len(row) for row in rows if not isinstance(row, str)), 1)
    lost = np.full(width, np.nan, np.float32)
    vectors = np.stack([lost if isinstance(row, str) else row.astype(np.float32) for row in rows])
    reason = store.keep(name, vectors) if store else None
    if reason:
        log.warning("The index cannot be kept (%s); the next search makes it again.", reason)
    return vectors, name


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _nearest(
    vectors: np.ndarray,
    query: np.ndarray,
    config: SearchConfig,
    approximate: bool,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    if not approximate:
        return nearest.exact(vectors, query, config.top, unit=config.features == EMBEDDING)
    store = caches.Store.of("auto", config.cache_limit_gb)
    name = caches.digest([name, "faiss", environment.version("faiss-cpu"), nearest.TRAINED_ON])
    index = store.read(name, None, np.uint8) if store else None
    if index is None:
        index = nearest.build(vectors)
        if store:
            store.keep(name, index)
    return nearest.approximate(nearest.load(index), vectors, query, config.top)


def _name(item: str | Named) -> str:
    return item.name if isinstance(item, Named) else item


def _file(item: str | Named) -> str:
    return item.path if isinstance(item, Named) else item


def _state(item: str | Named) -> list[object]:
    """Return what tells that a file is the same as before."""
    try:
        status = Path(_file(item)).stat()
    except OSError:
        return [_name(item)]
    return [_name(item), status.st_size, status.st_mtime_ns]
