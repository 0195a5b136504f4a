"""An exported model and images -> what they show."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from imgclf import environment
from imgclf.config import Decoding, PredictConfig, Resize
from imgclf.data import images
from imgclf.errors import ArtifactError, ImageError, MissingError, UsageError
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.runtimes import RUNTIMES, Runtime

Source = Path | str | bytes | np.ndarray
"""An image: a path, an encoded file's bytes, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), 0-255."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model said of one image: `probabilities`, float32 (classes,), or an `error`, the other being None.

    `path` is None for an image that did not come from a file.
    """

    path: str | None
    probabilities: np.ndarray | None
    labels: tuple[str, ...]
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class; of equals, the first."""
        return self.top(1)[0][0] if self.probabilities is not None else None

    @property
    def confidence(self) -> float | None:
        """The probability of `label`, 0-1."""
        return self.top(1)[0][1] if self.probabilities is not None else None

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, falling; empty for an image with an error."""
        if self.probabilities is None:
            return []
        best = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.labels[i], float(str(self.probabilities[i]))) for i in best]  # 0.9 rather than 0.8999999761


class Classifier:
    """An exported model that answers. `load` makes one."""

    def __init__(self, facts: Artifact, runtime: Runtime) -> None:
        self.labels: tuple[str, ...] = facts.labels
        self.image_size: int = facts.image_size
        self.resize: Resize = facts.resize
        self.decoding: Decoding = facts.decoding
        self._runtime = runtime

    def predict(self, sources: Iterable[Source]) -> list[Prediction]:
        """Classify images; an image that cannot be read gets a prediction with its error."""
        return list(self.stream(sources))

    def stream(self, sources: Iterable[Source], batch_size: int = PredictConfig.batch_size) -> Iterator[Prediction]:
        """Classify images one after the other, in order, however many there are: few are held at a time.

        Threads decode up to two batches ahead of the model.

        Raises:
            UsageError: if `sources` is itself one image, or `batch_size` is below 1.
        """
        if isinstance(sources, str | bytes | os.PathLike) or (isinstance(sources, np.ndarray) and sources.ndim != 4):
            raise UsageError(f"expected a list of images, found one {type(sources).__name__}. Put it into a list.")
        if batch_size < 1:
            raise UsageError(f"batch_size: expected at least 1, found {batch_size}.")
        return self._stream(iter(sources), batch_size)

    def _stream(self, sources: Iterator[Source], batch_size: int) -> Iterator[Prediction]:
        pool = ThreadPoolExecutor(environment.cpu_count(), thread_name_prefix="decode")
        ahead: deque[tuple[Source, Future[np.ndarray | str]]] = deque()

        def fill() -> None:
            for source in islice(sources, 2 * batch_size - len(ahead)):
                ahead.append((source, pool.submit(self._decode, source)))

        try:
            fill()
            while ahead:
                batch = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
                decoded = [future.result() for _, future in batch]
                fill()
                pixels = [item for item in decoded if not isinstance(item, str)]
                rows = iter(self.probabilities(np.stack(pixels)) if pixels else ())
                for (source, _), item in zip(batch, decoded, strict=True):
                    path = os.fspath(source) if isinstance(source, str | Path) else None
                    if isinstance(item, str):
                        yield Prediction(path, None, self.labels, item)
                    else:
                        yield Prediction(path, next(rows), self.labels)
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, source: Source) -> np.ndarray | str:
        """The model's pixels, uint8 (s, s, 3), or why there are none."""
        try:
            return images.load(source, self.image_size, self.decoding)
        except (ImageError, MissingError) as error:  # one HEIC without its decoder costs no other image its answer
            return str(error)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities float32 (n, classes), rows summing to 1.

        Args:
            pixels: float32 (n, image_size, image_size, 3), RGB 0-255, as `imgclf.data.images.load` gives it.

        Raises:
            UsageError: if the shape is another.
            ArtifactError: if the model answers with something else than numbers.
        """
        return self._answer(pixels, ("probabilities",))["probabilities"]

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """All that the model gives: `probabilities`, `embedding` (n, d), and `feature_map` (n, h, w, d) if it has one.

        Arguments and errors are those of `probabilities`.
        """
        return self._answer(pixels, self._runtime.names)

    def _answer(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        size_px, step = self.image_size, self._runtime.batch_size
        if pixels.ndim != 4 or pixels.shape[1:] != (size_px, size_px, 3):
            raise UsageError(f"expected pixels of the shape (n, {size_px}, {size_px}, 3), found {pixels.shape}.")
        if len(pixels) == 0:
            one = self._answer(np.zeros((1, size_px, size_px, 3), np.float32), names)
            return {name: values[:0] for name, values in one.items()}
        parts = [
            self._runtime.outputs(np.ascontiguousarray(pixels[start : start + step], np.float32), names)
            for start in range(0, len(pixels), step)
        ]
        answer = {name: np.concatenate([part[name] for part in parts]) for name in names}
        if not np.isfinite(answer["probabilities"]).all():
            raise ArtifactError("the model answers with something that is not a number: its weights are damaged.")
        return answer


def load(path: Path | str, *, allow_truncated: bool = False) -> Classifier:
    """Open an exported model.

    Args:
        path: a run folder, any folder with an `artifact.json` and the models that it describes, or one of those
            models itself: `model.tflite` or `saved_model`. Of a folder, LiteRT is taken where it is there.
        allow_truncated: whether to classify what there is of a file that is cut short, as a model does anyway that
            was trained so.

    Raises:
        ArtifactError: if there is no exported model, or it is damaged, foreign or too new.
        MissingError: if the package that runs it is not installed.
    """
    path = Path(path)
    folder, name = _locate(path)
    facts = artifact.read(folder)
    facts = replace(facts, allow_truncated=allow_truncated or facts.allow_truncated)
    if name is None:
        name = _choose(folder, facts)
    artifact.verify(folder, facts, name)
    format = facts.files[name].format
    if format not in RUNTIMES:
        raise ArtifactError(
            f"{folder / name}: expected a model in one of the formats {', '.join(RUNTIMES)}, found {format}. "
            f"imgclf export {folder} makes them."
        )
    runtime = RUNTIMES[format](folder / name)
    if (runtime.size_px, runtime.classes) != (facts.image_size, len(facts.labels)):
        raise ArtifactError(
            f"{folder / name}: expected {len(facts.labels)} classes at {facts.image_size} px as in {artifact.NAME}, "
            f"found {runtime.classes} at {runtime.size_px} px. Export again."
        )
    return Classifier(facts, runtime)


def _locate(path: Path) -> tuple[Path, str | None]:
    """The folder with the artifact.json, and which of its models is meant; None where the folder itself is meant."""
    if not path.exists():
        raise ArtifactError(f"{path}: expected a run folder or an exported model, found nothing there.")
    if path.name == artifact.NAME:
        return path.parent, None
    parent = path.absolute().parent
    if (path / artifact.NAME).is_file():
        return path, None
    if (parent / artifact.NAME).is_file():
        return parent, path.name
    if path.is_dir():
        return path, None
    raise ArtifactError(
        f"{path}: expected a model with {artifact.NAME} beside it, found none. It holds the labels and the image "
        "size; imgclf export writes both."
    )


def _choose(folder: Path, facts: Artifact) -> str:
    for format in RUNTIMES:
        for name, file in facts.files.items():
            if file.format == format:
                return name
    raise ArtifactError(f"{folder}: expected an exported model in it, found none. imgclf export {folder} makes it.")
