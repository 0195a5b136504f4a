"""A `Classifier`: an exported model that predicts, over whichever runtime runs it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgclf import environment, tasks
from imgclf.data import images
from imgclf.errors import ArtifactError, ImageError, UsageError
from imgclf.prediction import forms, pipeline
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import Decision, Neighbor, Outliers
from imgclf.prediction.forms import Form
from imgclf.prediction.runtime import Runtime
from imgclf.settings import Decoding, PredictConfig, Resize


class Named(NamedTuple):
    """A file whose name differs from its path, such as a member of an archive."""

    name: str
    path: str


Source = Path | str | bytes | np.ndarray | Named
"""An image: a path, an encoded file's bytes, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), 0-255."""

FEW = 2
"""With fewer images per processor than this, one run of the model at a time uses all processors."""


class Classifier:
    """An exported model that predicts. `load` makes one."""

    def __init__(self, facts: Artifact, runtime: Runtime, outliers: Outliers | None = None) -> None:
        """Args: outliers, for a model with an out-of-distribution threshold.

        Raises:
            ArtifactError: if the model has such a threshold, and lacks what the rule needs.
        """
        self.identity: str = facts.identity
        self.labels: tuple[str, ...] = facts.labels
        self.image_size: int = facts.image_size
        self.resize: Resize = facts.resize
        self.decoding: Decoding = facts.decoding
        self.rules: Decision = facts.decision
        self.task: str = facts.task
        self.temperature: float = facts.temperature
        self._output = tasks.find(facts.task).OUTPUT
        self.form: Form = forms.find(facts.task)
        self.runtime: Runtime = runtime
        self._outliers: Outliers | None = None
        if facts.decision.outlier_above is not None:
            if outliers is None or "embedding" not in runtime.names:
                lacking = "the features of training images" if outliers is None else "a model with an embedding"
                raise ArtifactError(
                    f"the out-of-distribution threshold needs {lacking}, which the artifact lacks. Export again, or "
                    "drop the threshold with imgclf calibrate RUN --outliers none."
                )
            self._outliers = outliers

    def predict(
        self, sources: Iterable[Source], *, tta: bool = False, embeddings: bool = False, neighbors: int | None = None
    ) -> list[Any]:
        """Classify images; an image that cannot be read gets a prediction with its error. See `stream`.

        Returns:
            For each image what the task says: a `Prediction` of classes; `forms` has those of other tasks.
        """
        return list(self.stream(sources, tta=tta, embeddings=embeddings, neighbors=neighbors))

    def stream(
        self,
        sources: Iterable[Source],
        batch_size: int = PredictConfig.batch_size,
        *,
        tta: bool = False,
        embeddings: bool = False,
        maps: bool = False,
        neighbors: int | None = None,
    ) -> Iterator[Any]:
        """Classify any number of images in order, while holding only a few at a time.

        One thread per processor decodes images and runs the model on them. Sources that arrive slowly are predicted as
        they arrive. For a short list, all processors work on one run of the model at a time.

        Args:
            batch_size: at most two batches are read ahead of the predictions that were asked for.
            tta: average over the image and its mirror image (test-time augmentation).
            embeddings: whether to return the feature vectors, too.
            maps: whether to return the feature maps and the pixels that the model saw, too.
            neighbors: how many of the nearest training images to return, too: for a classifier of k-NN alone.

        Raises:
            UsageError: if `sources` is itself one image, `batch_size` is below 1, or the model lacks an output, or
                neighbors.
            ArtifactError: if the model does not name its training images.
        """
        names = self._check(sources, batch_size, embeddings, maps)
        if neighbors is not None:
            self._near(None, neighbors)
        workers = environment.cpu_count()
        try:
            few = len(sources) < FEW * workers  # type: ignore[arg-type]
        except TypeError:
            few = False
        if not few:
            self.runtime.prepare(workers)
        ahead = 2 * batch_size
        together = max(1, min(self.runtime.batch_size, ahead // workers))
        if (self._outliers is not None or neighbors) and not embeddings:
            names = (*names, "embedding")
        work = partial(self._classify, names=names, tta=tta, embeddings=embeddings, neighbors=neighbors)
        return pipeline.run(iter(sources), work, workers=workers, batch=together, ahead=ahead)

    def _check(self, sources: Iterable[Source], batch_size: int, embeddings: bool, maps: bool) -> tuple[str, ...]:
        """Return the model outputs that are needed. Raises what `stream` raises."""
        if isinstance(sources, str | bytes | os.PathLike) or (isinstance(sources, np.ndarray) and sources.ndim != 4):
            raise UsageError(f"expected a list of images, found one {type(sources).__name__}. Put it into a list.")
        if batch_size < 1:
            raise UsageError(f"batch_size: expected at least 1, found {batch_size}.")
        wanted = {self._output: True, "embedding": embeddings, "feature_map": maps}
        for name, is_wanted in wanted.items():
            if is_wanted and name not in self.runtime.names:
                what = "an embedding" if name == "embedding" else "a feature map"
                raise UsageError(f"expected a model that gives {what}, found one that does not. Export again.")
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    def _near(self, vectors: np.ndarray | None, count: int) -> list[tuple[Neighbor, ...]]:
        """Return the nearest training images; None for a check alone."""
        find = getattr(self.runtime, "neighbors", None)
        if find is None:
            raise UsageError("--neighbors: expected a run of --model knn, found another model.")
        found: list[tuple[Neighbor, ...]] = find(vectors, count)
        return found

    def _classify(
        self, sources: list[Source], names: Sequence[str], tta: bool, embeddings: bool, neighbors: int | None
    ) -> list[Any]:
        decoded = [self._decode(source) for source in sources]
        pixels = [item for item in decoded if not isinstance(item, str)]
        found = self._run(np.stack(pixels).astype(np.float32), names) if pixels else {}
        if pixels and tta:
            mirrored = self._run(np.stack(pixels)[:, :, ::-1].astype(np.float32), names)
            if "feature_map" in mirrored:
                mirrored["feature_map"] = mirrored["feature_map"][:, :, ::-1]
            found = {name: (values + mirrored[name]) / 2 for name, values in found.items()}
        distances = self._outliers.scores(found["embedding"]).tolist() if self._outliers and pixels else None
        near = self._near(found["embedding"], neighbors) if neighbors and pixels else None
        row = iter(range(len(pixels)))
        predictions = []
        for source, item in zip(sources, decoded, strict=True):
            name, file = _places(source)
            if isinstance(item, str):
                predictions.append(self.form.make(None, self.labels, self.rules, path=name, error=item, file=file))
                continue
            place = next(row)
            predictions.append(
                self.form.make(
                    found[self._output][place],
                    self.labels,
                    self.rules,
                    path=name,
                    embedding=found["embedding"][place] if embeddings else None,
                    feature_map=found["feature_map"][place] if "feature_map" in found else None,
                    pixels=item if "feature_map" in found else None,
                    file=file,
                    outlier_score=distances[place] if distances else None,
                    **({"neighbors": near[place]} if near else {}),
                )
            )
        return predictions

    def _decode(self, source: Source) -> np.ndarray | str:
        """Return the model's pixels, uint8 (s, s, 3), or why the image cannot be read."""
        try:
            place = source.path if isinstance(source, Named) else source
            return images.load(place, self.image_size, self.decoding)
        except ImageError as error:
            return str(error)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return the output of the task, float32 (n, classes): probabilities, whose rows sum to 1, or numbers.

        Args:
            pixels: float32 (n, image_size, image_size, 3), RGB 0-255, as `imgclf.data.images.load` returns it.

        Raises:
            UsageError: if the shape is another.
            ArtifactError: if the model returns NaN or infinity.
        """
        return self._run(pixels, (self._output,))[self._output]

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """All model outputs: `probabilities` or `values`, `embedding` (n, d), and perhaps `feature_map` (n, h, w, d).

        Arguments and errors are those of `probabilities`.
        """
        return self._run(pixels, self.runtime.names)

    def _run(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        size_px, step = self.image_size, self.runtime.batch_size
        if pixels.ndim != 4 or pixels.shape[1:] != (size_px, size_px, 3):
            raise UsageError(f"expected pixels of the shape (n, {size_px}, {size_px}, 3), found {pixels.shape}.")
        if len(pixels) == 0:
            one = self._run(np.zeros((1, size_px, size_px, 3), np.float32), names)
            return {name: values[:0] for name, values in one.items()}
        parts = [
            self.runtime.outputs(np.ascontiguousarray(pixels[start : start + step], np.float32), names)
            for start in range(0, len(pixels), step)
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in names}
        if not np.isfinite(found.get(self._output, 0.0)).all():
            raise ArtifactError(f"the model returns {self._output} that are not finite: its weights are damaged.")
        return found


def _places(source: Source) -> tuple[str | None, str | None]:
    """Return the name of an image, and the path of its file."""
    if isinstance(source, Named):
        return source.name, source.path
    path = os.fspath(source) if isinstance(source, str | Path) else None
    return path, path
