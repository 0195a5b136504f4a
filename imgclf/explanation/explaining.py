"""Explain predictions: which part or which features of each image decided, by the method that suits the model."""

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imgclf import tasks
from imgclf.data import images
from imgclf.errors import ArtifactError, RunError, UsageError
from imgclf.prediction import Classifier, artifact, classical, heatmaps, loading
from imgclf.prediction.classifier import Named, Source
from imgclf.prediction.decision import Neighbor
from imgclf.runs import Run
from imgclf.settings.explanation import ExplainConfig

if TYPE_CHECKING:
    import keras

Progress = Callable[[int], None]
"""Called with the number of images that are explained."""

MapsOf = Callable[[Any, Source, list[int]], list[np.ndarray]]
"""A map for each class, from a prediction and its image."""


NETWORKS = ("cam", "gradcam", "rollout")
"""Methods that need a network."""

CLASSICAL = ("features", "neighbors")
"""Methods that need a classical model."""


class Feature(NamedTuple):
    """A feature of an image, and what it adds to the score of a class.

    Args:
        name: of the column, as `imgclf features` names it.
        value: in its own unit.
        weight: positive where it speaks for the class.
    """

    name: str
    value: float
    weight: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The part of one image, or its features, that speak for one class, or for a larger number.

    Args:
        path: the name of the image.
        label: the predicted class, or several, joined; None where there is none or the image cannot be read.
        target: the class or the number that is explained, by its name; None where the image cannot be read.
        probability: of `target`; None for a number.
        value: of `target`, where it is a number.
        method: `cam`, `gradcam`, `rollout`, `occlusion`, `features` or `neighbors`.
        values: float32 (h, w), the evidence at each place of a grid over the model's input.
        peak: the pixel of the original image, x and y, with the most evidence.
        logit: of `target` before the temperature, for `cam`: the mean of `values` and the bias.
        drawing: the overlay, or the bar chart; None where none was asked for.
        error: why the image cannot be read.
        features: for `features`, those that weighed most, the largest weight first.
        measure: for `features`, what the score is, such as `log odds`.
        score: of `target`, before the temperature.
        base: what the score is without any feature; None where the weights do not sum to the score.
        rest: the sum of all other weights, so that base, weights and rest are the score; None as `base`.
        neighbors: for `neighbors`, the nearest training images, the nearest first.
    """

    path: str | None
    label: str | None
    target: str | None = None
    probability: float | None = None
    value: float | None = None
    method: str | None = None
    values: np.ndarray | None = None
    peak: tuple[int, int] | None = None
    logit: float | None = None
    drawing: Path | None = None
    error: str | None = None
    features: tuple[Feature, ...] = ()
    measure: str | None = None
    score: float | None = None
    base: float | None = None
    rest: float | None = None
    neighbors: tuple[Neighbor, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON; the peak as [x, y] in pixels of the original.

        Only `features` has `features`, [{`name`, `value`, `weight`}], `measure`, `score`, `base` and `rest`; only
        `neighbors` has `neighbors`, [{`path`, `distance`}].
        """
        more: dict[str, Any] = {}
        if self.method == "features":
            more = {name: getattr(self, name) for name in ("measure", "score", "base", "rest")}
            more["features"] = [feature._asdict() for feature in self.features]
        elif self.method == "neighbors":
            more = {"neighbors": [near._asdict() for near in self.neighbors]}
        return {
            "path": self.path,
            "label": self.label,
            "class": self.target,
            "probability": self.probability,
            "value": self.value,
            "method": self.method,
            "peak": None if self.peak is None else list(self.peak),
            "logit": self.logit,
            "drawing": None if self.drawing is None else str(self.drawing),
            "error": self.error,
            **more,
        }


def explain(
    model: Run | Path | str,
    sources: Iterable[Source],
    config: ExplainConfig | None = None,
    *,
    label: str | None = None,
    output: Path | str | None = None,
    on_progress: Progress | None = None,
) -> list[Explanation]:
    """Find the part of each image, or its features, that speak for a class.

    Args:
        model: a run, a folder of exported models, or one exported model.
        sources: image files, as `Classifier.stream` takes them.
        config: the method, and how many classes. `auto` takes class activation maps where the model gives a feature
            map, which needs neither Keras nor TensorFlow; else Grad-CAM or attention rollout from the run's
            `model.keras`; else occlusion. For a run of a classical model it takes the nearest training images for
            k-NN, else the features that weighed most.
        label: the class, or the name of the number, to explain; by default the most probable ones, or the first.
        output: a new or empty folder for overlays, or bar charts of features and neighbors; None draws none.

    Returns:
        One row for each image and class, in order; one for an image that cannot be read.

    Raises:
        UsageError: if the model does not know the class, the method does not suit it, or `output` has something in it.
        ArtifactError: if there is no exported model, it is damaged, or it gives no feature map for `cam`.
        RunError: if the network is needed and missing or damaged.
        MissingError: if a package is not installed.
    """
    config, path = config or ExplainConfig(), model.path if isinstance(model, Run) else Path(model)
    files = loading.describe(path).files
    formats = [files[path.name].format] if path.name in files else [file.format for file in files.values()]
    is_classical = classical.FORMAT in formats
    if is_classical and config.method in NETWORKS:
        raise UsageError(
            f"--method {config.method}: expected a network, found a classical model. Methods for it are features, "
            "neighbors (knn), and occlusion."
        )
    by_features = is_classical and config.method in ("auto", *CLASSICAL)
    engine = classical.FORMAT if by_features else "litert" if config.method == "cam" else "auto"
    classifier = loading.load(path, engine=engine, allow_truncated=config.allow_truncated)
    if label is not None and label not in classifier.labels:
        near = difflib.get_close_matches(label, classifier.labels, 3) or list(classifier.labels[:10])
        what = "number" if tasks.find(classifier.task).ACTIVATION == "linear" else "class"
        raise UsageError(f"--class: expected a {what} of the model, such as {', '.join(near)}; found {label!r}.")
    if label is not None and config.top != 1:
        raise UsageError("--class: --top explains the most probable classes instead. Leave out one of them.")
    if not by_features and config.count != ExplainConfig.count:
        raise UsageError("--count: no effect on maps. Leave it out, or choose how many classes with --top.")
    if by_features:
        from imgclf.explanation import weighing

        return weighing.explain(classifier, sources, config, label, output, on_progress)
    if config.method in CLASSICAL:
        raise UsageError(
            f"--method {config.method}: expected a run of a classical model, found another model, whose features have "
            "no names. --method occlusion works with every model."
        )
    method, maps_of, head = _prepare(classifier, path, config, with_class=label is not None or config.top > 1)
    if method != "occlusion" and config.grid != ExplainConfig.grid:
        raise UsageError(f"--grid: no effect on --method {method}. Leave it out, or choose --method occlusion.")
    folder = None if output is None else heatmaps.Folder(Path(output), "-o")
    given = [os.fspath(source) if isinstance(source, Path) else source for source in sources]
    found: list[Explanation] = []
    with_maps = method == "cam"
    for number, (source, each) in enumerate(zip(given, classifier.stream(given, maps=with_maps), strict=True), 1):
        found += _explained(each, source, method, maps_of, head, classifier, config.top, label, folder)
        if on_progress:
            on_progress(number)
    return found


def _explained(
    each: Any,
    source: Source,
    method: str,
    maps_of: MapsOf,
    head: heatmaps.Head | None,
    classifier: Classifier,
    top: int,
    label: str | None,
    folder: heatmaps.Folder | None,
) -> Iterator[Explanation]:
    if each.output is None:
        yield Explanation(each.path, None, error=each.error)
        return
    form, is_number = classifier.form, tasks.find(classifier.task).ACTIVATION == "linear"
    chosen = form.explained(each, top) if label is None else [each.labels.index(label)]
    place = source.path if isinstance(source, Named) else source
    side = heatmaps.SIDE_PX if folder else 1
    image, size = heatmaps.small(place, classifier.decoding, side)
    for index, values in zip(chosen, maps_of(each, place, chosen), strict=True):
        target = each.labels[index]
        drawing = None
        if folder is not None:
            drawn = heatmaps.with_caption(heatmaps.overlay(image, values, classifier.resize), form.stated(each, index))
            stem = Path(each.path).stem if each.path else "image"
            drawing = folder.save(drawn, stem, target)
        yield Explanation(
            path=each.path,
            label=form.predicted(each),
            target=target,
            probability=None if is_number else float(str(each.output[index])),
            value=float(str(each.output[index])) if is_number else None,
            method=method,
            values=values,
            peak=heatmaps.peak(values, size, classifier.resize),
            logit=None if head is None or is_number else float(values.mean() + head.bias[index]),
            drawing=drawing,
        )


def _prepare(
    classifier: Classifier, path: Path, config: ExplainConfig, *, with_class: bool
) -> tuple[str, MapsOf, heatmaps.Head | None]:
    """Return the method, what makes its maps, and the last layer for class activation maps."""
    folder = path if path.is_dir() else path.parent
    method = config.method
    if method == "cam" or (method == "auto" and heatmaps.has_map(classifier)):
        head = heatmaps.head(classifier, classifier.temperature)

        def cam(each: Any, _: Source, classes: list[int]) -> list[np.ndarray]:
            assert each.feature_map is not None
            return [heatmaps.activation_map(each.feature_map, head.kernel[:, index]) for index in classes]

        return "cam", cam, head
    if method == "occlusion" or (method == "auto" and not (folder / "model.keras").is_file()):
        from imgclf.explanation import occlusion

        def occlude(_: Any, source: Source, classes: list[int]) -> list[np.ndarray]:
            return occlusion.occlude(classifier, _pixels(classifier, source), classes, config.grid)

        return "occlusion", occlude, None
    from imgclf.explanation import gradients

    model = network(folder)
    if method == "rollout" or (method == "auto" and gradients.attention_layers(model)):

        def rollout(_: Any, source: Source, classes: list[int]) -> list[np.ndarray]:
            found = gradients.rollout(model, _pixels(classifier, source), classes if with_class else None)
            return found if with_class else found * len(classes)

        return "rollout", rollout, None

    def grad_cam(_: Any, source: Source, classes: list[int]) -> list[np.ndarray]:
        return gradients.grad_cam(model, _pixels(classifier, source), classes)

    return "gradcam", grad_cam, None


def _pixels(classifier: Classifier, source: Source) -> np.ndarray:
    assert not isinstance(source, Named)
    return images.load(source, classifier.image_size, classifier.decoding)


def network(folder: Path) -> "keras.Model":
    """Return the network of a run.

    Raises:
        ArtifactError: if the folder is no run, or its file is damaged.
    """
    from imgclf.explanation import gradients

    name = Run(folder).model.name
    if not (folder / name).is_file():
        raise ArtifactError(
            f"{folder}: expected a run with its {name}, which gradients need, found none. --method occlusion works "
            "with any exported model."
        )
    artifact.verify(folder, artifact.read(folder), name)
    try:
        return gradients.load(folder / name)
    except Exception as error:  # a foreign file makes Keras raise nearly anything
        raise RunError(f"{folder / name}: expected a classifier of imgclf, found something else ({error}).") from None
