"""Explain predictions of a classical model: the features that weighed most, or the nearest training images."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imgclf.errors import UsageError
from imgclf.explanation.explaining import Explanation, Feature, Progress
from imgclf.prediction import contributions, heatmaps
from imgclf.prediction.classical import ClassicalRuntime
from imgclf.prediction.classifier import Classifier, Named, Source
from imgclf.settings.explanation import ExplainConfig

RIVAL = "log odds against "


def explain(
    classifier: Classifier,
    sources: Iterable[Source],
    config: ExplainConfig,
    label: str | None = None,
    output: Path | str | None = None,
    on_progress: Progress | None = None,
) -> list[Explanation]:
    """Find what weighed in each prediction of a classical model; `explaining.explain` has the arguments.

    Raises:
        UsageError: if the method does not suit the model, or there are fewer training images than neighbors to list.
        ArtifactError: if k-NN does not name its training images.
    """
    runtime = classifier.runtime
    assert isinstance(runtime, ClassicalRuntime)
    by_neighbors = contributions.is_neighbors(runtime.estimator)
    _check(config, label, by_neighbors)
    folder = None if output is None else heatmaps.Folder(Path(output), "-o")
    given = [os.fspath(source) if isinstance(source, Path) else source for source in sources]
    near = config.count if by_neighbors else None
    found: list[Explanation] = []
    for number, (source, each) in enumerate(
        zip(given, classifier.stream(given, embeddings=True, neighbors=near), strict=True), 1
    ):
        if each.output is None:
            found.append(Explanation(each.path, None, error=each.error))
        for place in [] if each.output is None else _chosen(classifier, each, config.top, label):
            facts = _neighbors(each) if by_neighbors else _features(classifier, runtime, each, place, config.count)
            drawing = None
            if folder is not None:
                drawing = _draw(folder, classifier, each, source, place, facts)
            found.append(
                Explanation(
                    path=each.path,
                    label=classifier.form.predicted(each),
                    target=each.labels[place],
                    probability=float(str(each.output[place])),
                    drawing=drawing,
                    **facts,
                )
            )
        if on_progress:
            on_progress(number)
    return found


def _check(config: ExplainConfig, label: str | None, by_neighbors: bool) -> None:
    if config.method == "features" and by_neighbors:
        raise UsageError(
            "--method features: expected another classical model, found knn, to which all features count alike. "
            "--method neighbors lists what decided."
        )
    if config.method == "neighbors" and not by_neighbors:
        raise UsageError("--method neighbors: expected a run of --model knn, found one of another classifier.")
    if by_neighbors and (label is not None or config.top != 1):
        option = "--top" if label is None else "--class"
        raise UsageError(f"{option}: the nearest training images are the same for every class. Leave it out.")


def _chosen(classifier: Classifier, each: Any, top: int, label: str | None) -> list[int]:
    return classifier.form.explained(each, top) if label is None else [each.labels.index(label)]


def _neighbors(each: Any) -> dict[str, Any]:
    return {"method": "neighbors", "neighbors": tuple(each.neighbors)}


def _features(classifier: Classifier, runtime: ClassicalRuntime, each: Any, place: int, count: int) -> dict[str, Any]:
    found = contributions.find(runtime.estimator, each.embedding, place)
    chosen = contributions.ranked(found.weights, count)
    features = tuple(Feature(runtime.columns[at], float(each.embedding[at]), float(found.weights[at])) for at in chosen)
    return {
        "method": "features",
        "features": features,
        "measure": found.measure if found.rival is None else RIVAL + classifier.labels[found.rival],
        "score": found.score,
        "base": found.base,
        "rest": None if found.base is None else float(found.weights.sum() - found.weights[chosen].sum()),
    }


def _draw(
    folder: heatmaps.Folder, classifier: Classifier, each: Any, source: Source, place: int, facts: dict[str, Any]
) -> Path:
    from imgclf.explanation import weighing_drawing  # imports Matplotlib

    image, _ = heatmaps.small(source.path if isinstance(source, Named) else source, classifier.decoding)
    stated = classifier.form.stated(each, place)
    if facts["method"] == "neighbors":
        drawn = weighing_drawing.neighbors(image, stated, facts["neighbors"])
    else:
        drawn = weighing_drawing.features(image, stated, facts)
    return folder.save(drawn, Path(each.path).stem if each.path else "image", each.labels[place])
