"""Training the upper part of a network on cached outputs of the frozen lower part.

While the lower layers are frozen, their outputs for an image stay the same: they are computed once, stored as 16-bit
floats, memory-mapped, and an epoch costs only the upper part. With f the share of the multiply-adds above the cut, a
frozen full path costs 1 forward and f twice backward, the upper part 3 f: the ideal gain is (1 + 2f) / (3f).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from imgclf.data import cache as caches
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.models import graph
from imgclf.models.graph import Cut
from imgclf.training import devices, features, loop
from imgclf.training.progress import OnProgress
from imgclf.training.recipe import Recipe

if TYPE_CHECKING:
    import keras


class Activations:
    """The activations at a cut, of images and of augmentations of them, as 16-bit floats that are mapped into memory.

    Slices and arrays of row numbers give the images' own; `draw` gives one of the augmentations of each.
    """

    def __init__(self, variants: Sequence[np.ndarray], row_of: np.ndarray) -> None:
        self._variants = variants  # each float16 (u, ...)
        self._row_of = row_of

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._row_of), *self._variants[0].shape[1:])

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._variants[0][self._row_of[index]])

    def take(self, rows: np.ndarray) -> "Activations":
        """Take some of the images, under new numbers."""
        return Activations(self._variants, self._row_of[rows])

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One of the augmentations of each row, or the original."""
        chosen = rng.integers(len(self._variants), size=len(rows))
        places = self._row_of[rows]
        return np.stack([self._variants[variant][place] for variant, place in zip(chosen, places, strict=True)])


def cached(
    model: "keras.Model",
    cut: Cut,
    dataset: Dataset,
    pixels: loading.Pixels,
    recipe: Recipe,
    *,
    dtype: type[np.floating] = np.float16,
    on_progress: OnProgress | None = None,
) -> Activations | str:
    """Return the activations of all images at a cut, and of `recipe.cached_augmentations` augmentations of them.

    Later runs find them, like frozen features, by content, size, rules, weights below the cut, variant and
    seed, as long as they fit into `settings.cache_limit_gb`; where nothing is kept on disk, they stay in memory.

    Returns:
        The activations, or why they cannot be kept.
    """
    settings, variants = recipe.settings, recipe.cached_augmentations
    hashes, first, row_of = np.unique(loading.content_hashes(dataset), return_index=True, return_inverse=True)
    part = graph.lower(model, cut)
    shape = (len(hashes), *part.output_shape[1:])
    if None in shape:
        return "the image size is open"
    needed = (1 + variants) * int(np.prod(shape)) * np.dtype(dtype).itemsize
    store = caches.Store.of(settings.cache, settings.cache_limit_gb)
    if needed > settings.cache_limit_gb * 1e9:
        return f"{needed / 1e9:.1f} GB of activations are more than --cache-limit-gb {settings.cache_limit_gb:g}"
    part.compile(jit_compile=devices.jit_compile())
    names = set().union(*(graph.below(model, name) for name in (cut.layer, *cut.taps)))
    network = graph.fingerprint([layer for layer in model.layers if layer.name in names])
    found: list[np.ndarray] = []
    for variant in range(1 + variants):
        facts = [cut.layer, *cut.taps, np.dtype(dtype).name]
        name = features.entry_name("boundary", recipe, network, variant, hashes, facts)
        known = store.read(name, shape, dtype) if store else None
        if known is not None:
            found.append(known)
            continue
        batches = _batches(part, pixels.take(first), recipe, variant, on_progress)
        try:
            made = _write(store, name, shape, dtype, batches) if store else _hold(shape, dtype, batches)
        except OSError as error:
            return error.strerror or str(error)
        if isinstance(made, str):
            return made
        found.append(made)
    return Activations(found, row_of)


def _batches(
    part: "keras.Model", contents: loading.Pixels, recipe: Recipe, variant: int, on_progress: OnProgress | None
) -> Iterator[np.ndarray]:
    seen = features.Variant(contents, recipe, variant) if variant else contents
    size = recipe.batch_size
    extract = features.quick(part, recipe, len(contents))
    for start in range(0, len(contents), size):
        batch = seen[start : start + size]
        yield extract(batch) if extract else loop.predict(part, batch, size)
        if on_progress:
            on_progress(
                f"activations, augmentation {variant}" if variant else "activations",
                min(start + size, len(contents)),
                len(contents),
            )


def _write(
    store: caches.Store, name: str, shape: tuple[int, ...], dtype: type[np.floating], batches: Iterator[np.ndarray]
) -> np.ndarray | str:
    no_room = caches.make_room(store.folder, int(np.prod(shape)) * np.dtype(dtype).itemsize, store.limit)
    if no_room:
        return no_room
    with caches.Writer(store.folder, name, shape, dtype) as writer:
        for batch in batches:
            writer.append(batch.astype(dtype))
        return writer.finish({}).array


def _hold(shape: tuple[int, ...], dtype: type[np.floating], batches: Iterator[np.ndarray]) -> np.ndarray:
    rows = np.empty(shape, dtype)
    done = 0
    for batch in batches:
        rows[done : done + len(batch)] = batch
        done += len(batch)
    return rows
