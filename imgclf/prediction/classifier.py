"""An exported model and images -> what they show."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgclf import environment
from imgclf.data import images
from imgclf.errors import ArtifactError, ImageError, MissingError, UsageError
from imgclf.prediction import artifact, decision, pipeline, runtimes
from imgclf.prediction.artifact import Artifact, File
from imgclf.prediction.decision import NO_RULES, Decision, Outliers
from imgclf.prediction.runtimes import RUNTIMES, Runtime
from imgclf.settings import Decoding, PredictConfig, Resize

log = logging.getLogger(__name__)


class Named(NamedTuple):
    """A file that is called otherwise than where it lies, as what is packed in an archive is."""

    name: str
    path: str


Source = Path | str | bytes | np.ndarray | Named
"""An image: a path, an encoded file's bytes, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), 0-255."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model said of one image: `probabilities`, float32 (classes,), or an `error`, the other being None.

    `path` is what the image is called and `file` where it lies; both are None where it did not come from a file. Below
    the probability `reject_below` no class is named. `embedding`, float32 (d,), is there where it was asked for.
    `outlier_score` tells how far the image is from the training images; None where the model has no such rule.
    """

    path: str | None
    probabilities: np.ndarray | None
    labels: tuple[str, ...]
    error: str | None = None
    reject_below: float | None = None
    embedding: np.ndarray | None = None
    file: str | None = None
    outlier_score: float | None = None
    rules: Decision = NO_RULES

    @property
    def reason(self) -> str | None:
        """Why no class is named: "unsure" or "outlier"; None where one is, or there is an error."""
        if self.confidence is None:
            return None
        above = self.rules.outlier_above
        if self.outlier_score is not None and above is not None and self.outlier_score > above:
            return decision.OUTLIER
        return decision.UNSURE if self.confidence < (self.reject_below or 0.0) else None

    @property
    def rejected(self) -> bool:
        """Whether the answer is "unknown": the model is too little sure of every class, or the image is too strange."""
        return self.reason is not None

    @property
    def label(self) -> str | None:
        """The answered class: the most probable one, of equals the first, or what a threshold says.

        None where it is rejected, or there is an error.
        """
        return self.labels[self._best] if self.probabilities is not None and not self.rejected else None

    @property
    def confidence(self) -> float | None:
        """The probability of the class that is answered, or would be if it were not rejected, 0-1."""
        return None if self.probabilities is None else float(str(self.probabilities[self._best]))

    @property
    def _best(self) -> int:
        assert self.probabilities is not None
        return int(decision.best(self.probabilities[None], self.labels, self.rules)[0])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The prediction set: one of these classes it is, as often as `coverage` says; None without sets."""
        if self.probabilities is None:
            return None
        members = decision.prediction_set(self.probabilities[None], self.rules)
        return None if members is None else tuple(np.array(self.labels, dtype=object)[members[0]])

    def answers(self, k: int) -> list[tuple[str, float]]:
        """As `top`, but what is answered comes first: the class that a threshold chose, or "unknown"."""
        if self.probabilities is None or self.confidence is None:
            return []
        ranked = self.top(len(self.labels))
        if self.label is None:
            return [(decision.UNKNOWN, self.confidence), *ranked[1:k]]
        return [(self.label, self.confidence), *(pair for pair in ranked if pair[0] != self.label)][:k]

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, falling; empty for an image with an error."""
        if self.probabilities is None:
            return []
        best = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.labels[i], float(str(self.probabilities[i]))) for i in best]  # 0.9 rather than 0.8999999761


FEW = 2
"""Fewer images than this for each processor are not worth more than one run of the model at a time."""

MANY = 1000
"""From so many images on, an engine that is slower to start and quicker afterwards is worth its start."""

TRIAL_S = 0.4
"""How long each engine is tried for MANY images."""


class Classifier:
    """An exported model that answers. `load` makes one."""

    def __init__(self, facts: Artifact, runtime: Runtime, outliers: Outliers | None = None) -> None:
        self.labels: tuple[str, ...] = facts.labels
        self.image_size: int = facts.image_size
        self.resize: Resize = facts.resize
        self.decoding: Decoding = facts.decoding
        self.reject_below: float | None = facts.reject_below
        self.rules: Decision = facts.decision
        self._runtime = runtime
        self._outliers = outliers if "embedding" in runtime.names else None

    def predict(self, sources: Iterable[Source], *, tta: bool = False, embeddings: bool = False) -> list[Prediction]:
        """Classify images; an image that cannot be read gets a prediction with its error. See `stream`."""
        return list(self.stream(sources, tta=tta, embeddings=embeddings))

    def stream(
        self,
        sources: Iterable[Source],
        batch_size: int = PredictConfig.batch_size,
        *,
        tta: bool = False,
        embeddings: bool = False,
    ) -> Iterator[Prediction]:
        """Classify images one after the other, in order, however many there are: few are held at a time.

        As many threads as there are processors decode images and run the model on them. Where the sources come slowly
        each is answered when it comes. Few images, in a list, get all processors for one run of the model at a time.

        Args:
            batch_size: two batches at most are taken before their answers are asked for.
            tta: average over the image and its mirror image (test-time augmentation).
            embeddings: whether to give the feature vectors, too.

        Raises:
            UsageError: if `sources` is itself one image, or `batch_size` is below 1, or the model has no embedding.
        """
        names = self._check(sources, batch_size, embeddings)
        workers = environment.cpu_count()
        try:
            few = len(sources) < FEW * workers  # type: ignore[arg-type]
        except TypeError:
            few = False
        if not few:
            self._runtime.prepare(workers)
        ahead = 2 * batch_size
        together = max(1, min(self._runtime.batch_size, ahead // workers))
        if self._outliers is not None:
            names = ("probabilities", "embedding")
        work = partial(self._classify, names=names, tta=tta, embeddings=embeddings)
        return pipeline.run(iter(sources), work, workers=workers, batch=together, ahead=ahead)

    def _check(self, sources: Iterable[Source], batch_size: int, embeddings: bool) -> tuple[str, ...]:
        """The outputs that are wanted of the model. Raises what `stream` raises."""
        if isinstance(sources, str | bytes | os.PathLike) or (isinstance(sources, np.ndarray) and sources.ndim != 4):
            raise UsageError(f"expected a list of images, found one {type(sources).__name__}. Put it into a list.")
        if batch_size < 1:
            raise UsageError(f"batch_size: expected at least 1, found {batch_size}.")
        names = ("probabilities", "embedding") if embeddings else ("probabilities",)
        if not set(names) <= set(self._runtime.names):
            raise UsageError("expected a model that gives an embedding, found one that does not. Export again.")
        return names

    def _classify(self, sources: list[Source], names: Sequence[str], tta: bool, embeddings: bool) -> list[Prediction]:
        decoded = [self._decode(source) for source in sources]
        pixels = [item for item in decoded if not isinstance(item, str)]
        answer = self._answer(np.stack(pixels).astype(np.float32), names) if pixels else {}
        if pixels and tta:
            mirrored = self._answer(np.stack(pixels)[:, :, ::-1].astype(np.float32), names)
            answer = {name: (values + mirrored[name]) / 2 for name, values in answer.items()}
        strange = self._outliers.scores(answer["embedding"]).tolist() if self._outliers and pixels else None
        row = iter(range(len(pixels)))
        predictions = []
        for source, item in zip(sources, decoded, strict=True):
            name, file = _places(source)
            if isinstance(item, str):
                predictions.append(Prediction(name, None, self.labels, item, file=file))
                continue
            place = next(row)
            values = {key: rows[place] for key, rows in answer.items()}
            predictions.append(
                Prediction(
                    path=name,
                    probabilities=values["probabilities"],
                    labels=self.labels,
                    reject_below=self.reject_below,
                    embedding=values["embedding"] if embeddings else None,
                    file=file,
                    outlier_score=strange[place] if strange else None,
                    rules=self.rules,
                )
            )
        return predictions

    def _decode(self, source: Source) -> np.ndarray | str:
        """The model's pixels, uint8 (s, s, 3), or why there are none."""
        try:
            place = source.path if isinstance(source, Named) else source
            return images.load(place, self.image_size, self.decoding)
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


def _places(source: Source) -> tuple[str | None, str | None]:
    """What an image is called, and where its file lies."""
    if isinstance(source, Named):
        return source.name, source.path
    path = os.fspath(source) if isinstance(source, str | Path) else None
    return path, path


def load(
    path: Path | str,
    *,
    engine: str = PredictConfig.engine,
    precision: str = PredictConfig.precision,
    count: int | None = None,
    allow_truncated: bool = False,
    reject_below: float | None = None,
) -> Classifier:
    """Open an exported model.

    Args:
        path: a run folder, any folder with an `artifact.json` and the models that it describes, or one of those
            models itself, such as `model.tflite`.
        engine: what shall run it; `auto` takes what suits `count` images, as `choose` says, and between LiteRT and ONNX
            Runtime, for MANY images, the one that turns out quicker here; `ray` runs it on all machines of a cluster.
        precision: `float32`; `float16` or `int8`, of which an export must exist; `bf16`, OpenVINO's bfloat16.
        allow_truncated: whether to classify what there is of a file that is cut short, as a model does anyway that
            was trained so.
        reject_below: give no label below this probability, 0-1; None leaves that to the artefact.

    Raises:
        UsageError: if there is no such engine or precision, or the two do not go together.
        ArtifactError: if there is no exported model, or it is damaged, foreign or too new.
        MissingError: if the package that runs it is not installed.
    """
    PredictConfig(engine=engine, precision=precision, reject_below=reject_below)  # which checks them
    path = Path(path)
    runs_it = "auto" if engine == "ray" else engine
    folder, name = _locate(path)
    facts = artifact.read(folder)
    facts = replace(
        facts,
        allow_truncated=allow_truncated or facts.allow_truncated,
        reject_below=facts.reject_below if reject_below is None else reject_below,
    )
    runtime = None
    if name is None:
        name = choose(folder, facts, runs_it, precision, MANY if engine == "ray" else count)
        if engine == "auto" and facts.files[name].format == "onnx" and count is not None and count >= MANY:
            name, runtime = _race(folder, facts, (name, choose(folder, facts, "auto", precision, 1)))
    if runtime is None:
        artifact.verify(folder, facts, name)
    file = facts.files[name]
    if file.format not in RUNTIMES:
        raise ArtifactError(
            f"{folder / name}: expected a model in one of the formats {', '.join(RUNTIMES)}, found {file.format}. "
            f"imgclf export {folder} makes them."
        )
    if runs_it not in ("auto", file.format):
        raise UsageError(f"--engine {engine}: expected a model for it, found {folder / name}, which is {file.format}.")
    if precision != "bf16" and precision not in (PredictConfig.precision, file.precision):
        raise UsageError(f"--precision {precision}: expected a model for it, found {folder / name}: {file.precision}.")
    used = precision if precision != PredictConfig.precision else file.precision
    if used in file.agreement:
        share = file.agreement[used]
        log.info("%s in %s: %.1f%% of labels as in float32, as its export saw.", folder / name, used, 100 * share)
    runtime = runtime or runtimes.start(file.format, folder / name, precision)
    if (runtime.size_px, runtime.classes) != (facts.image_size, len(facts.labels)):
        raise ArtifactError(
            f"{folder / name}: expected {len(facts.labels)} classes at {facts.image_size} px as in {artifact.NAME}, "
            f"found {runtime.classes} at {runtime.size_px} px. Export again."
        )
    outliers = None
    if facts.decision.outlier_above is not None and decision.FILE in facts.files:
        artifact.verify(folder, facts, decision.FILE)
        outliers = Outliers.read(folder / decision.FILE)
    if engine == "ray":
        from imgclf.prediction import cluster

        recipe: dict[str, Any] = {"path": str((folder / name).absolute()), "precision": precision}
        recipe |= {"allow_truncated": facts.allow_truncated, "reject_below": facts.reject_below}
        return cluster.ClusterClassifier(facts, runtime, outliers, recipe)
    return Classifier(facts, runtime, outliers)


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
        "size; imgclf export writes both. Models of other programs, pickles above all, are never loaded."
    )


def choose(folder: Path, facts: Artifact, engine: str, precision: str, count: int | None) -> str:
    """The name of the model in a folder that suits an engine and a precision best.

    `auto` takes LiteRT, which starts quickest, and for MANY images and more ONNX Runtime, which streams small models
    quicker. Where there is no model for these, or no package to run it, it takes what there is.

    Raises:
        ArtifactError: if the folder has no model that fits.
    """
    wanted = "float32" if precision == "bf16" else precision
    formats = list(RUNTIMES) if engine == "auto" else [engine]
    if precision == "bf16":
        formats = ["openvino"]
    elif engine == "auto" and count is not None and count >= MANY:
        formats.sort(key=lambda format: format != "onnx")
    fitting = [
        (name, file.format)
        for format in formats
        for name, file in sorted(facts.files.items(), key=_exported_first)
        if file.format == format and file.precision == wanted
    ]
    if not fitting:
        command = f"imgclf export {folder}"
        if wanted != "float32":
            command += f" --quantize {wanted}"
        elif engine != "auto" or precision == "bf16":
            command += f" --format {formats[0]}"
        what = "an exported model" if engine == precision == "auto" else f"a model for {formats[0]} in {wanted}"
        raise ArtifactError(f"{folder}: expected {what} in it, found none. {command} makes it.")
    here = [name for name, format in fitting if environment.has_package(runtimes.PACKAGES[format])]
    return here[0] if here else fitting[0][0]


def _race(folder: Path, facts: Artifact, names: Sequence[str]) -> tuple[str, Runtime]:
    """The model among several that answers most images in a second on all processors, and what runs it."""
    started = {}
    for name in dict.fromkeys(names):
        artifact.verify(folder, facts, name)
        started[name] = runtimes.start(facts.files[name].format, folder / name, PredictConfig.precision)
    rates = {name: images_per_second(runtime) for name, runtime in started.items()} if len(started) > 1 else {}
    for name, rate in rates.items():
        log.debug("%s: %.0f images a second in a trial", folder / name, rate)
    quickest = max(started, key=lambda name: rates.get(name, 0.0))
    return quickest, started[quickest]


def images_per_second(runtime: Runtime, seconds: float = TRIAL_S) -> float:
    """How quickly a runtime answers when every processor asks it, as a stream does; measured for so many seconds."""
    workers = environment.cpu_count()
    runtime.prepare(workers)
    batch = np.random.default_rng(0).uniform(0, 255, (runtime.batch_size, runtime.size_px, runtime.size_px, 3))
    pixels = batch.astype(np.float32)

    def ask(until: float) -> int:
        done = 0
        while done == 0 or time.perf_counter() < until:
            runtime.outputs(pixels, ("probabilities",))
            done += len(pixels)
        return done

    from concurrent.futures import ThreadPoolExecutor  # which one image from a cold start need not pay

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(ask, [0.0] * workers))  # the first calls are slower
        begin = time.perf_counter()
        done = sum(pool.map(ask, [begin + seconds] * workers))
    return done / (time.perf_counter() - begin)


def _exported_first(item: tuple[str, File]) -> bool:
    """Of two Keras files, `model.keras` is the training's and lacks the outputs of the exported one."""
    return item[0] == "model.keras"
