"""Which images to label next: those that a model is unsure of, unlike each other and unlike the labeled ones."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import prediction, runs, tasks
from imgclf.data import run_data
from imgclf.data.dataset import TRAIN, Dataset
from imgclf.errors import DatasetError, RunError
from imgclf.evaluation import scorers, thumbnails
from imgclf.evaluation.answers import Answer
from imgclf.evaluation.scorers import Table
from imgclf.prediction import Classifier, sources
from imgclf.prediction.batch import Tally
from imgclf.questions import pages
from imgclf.questions.embedding import OnProgress
from imgclf.runs import Run
from imgclf.settings import Decoding, SuggestConfig

log = logging.getLogger("imgclf")

QUESTION = "Which images to label next?"

COLUMNS = ("path", "label", "predicted", "confidence")

PRESELECTED = 2
"""By both: the most uncertain images, PRESELECTED times as many as asked for, among which diversity chooses."""

MOST_KNOWN = 2000
"""Training images that new ones are compared with; a random part of more."""


@dataclass(frozen=True)
class Suggestion:
    """An image to label: its path below the folder, and what the model makes of it."""

    path: str
    predicted: str
    confidence: float
    file: Path


@dataclass(frozen=True)
class Suggestions:
    """Images to label, the most useful first.

    Args:
        images: how many unlabeled ones there were to choose from.
    """

    suggestions: list[Suggestion]
    images: int
    decoding: Decoding

    @property
    def sentence(self) -> str:
        """How many were chosen of how many."""
        return f"{len(self.suggestions):,} of {self.images:,} unlabeled images, the most useful first."

    def tables(self) -> list[Table]:
        """Return the first suggestions."""
        rows = [(each.path, each.predicted, f"{each.confidence:.3f}") for each in self.suggestions[: pages.SHOWN]]
        return [("Label next", ("image", "predicted", "confidence"), rows)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{name: getattr(each, name) for name in COLUMNS if name != "label"} for each in self.suggestions]
        return {"images": self.images, "suggestions": rows}

    def write(self, path: Path) -> list[Path]:
        """Write a CSV whose labels are to be filled in, and a page with thumbnails beside it.

        Raises:
            UsageError: if the name ends otherwise, one of both exists, or cannot be written.
        """
        rows = [[each.path, "", each.predicted, f"{each.confidence:.4f}"] for each in self.suggestions]
        drawn = thumbnails.draw_all([each.file for each in self.suggestions], self.decoding)
        shown = list(zip(self.suggestions, drawn, strict=True))
        return pages.write(path, (COLUMNS, *rows), "suggest.html", found=self, shown=shown)


def suggest(
    run: Run | Path | str,
    folder: Path | str,
    config: SuggestConfig | None = None,
    *,
    data: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Suggestions:
    """Choose images to label from a folder of unlabeled ones. Those that the run already knows are left out.

    Args:
        run: the run or its folder, which keeps the answer for its report.
        folder: unlabeled images, at any depth.
        data: where the run's own images lie now, if they have moved.

    Raises:
        UsageError: if the run's task has no classes, or its model gives no embedding.
        DatasetError: if the folder has no images, none that the run does not know, or none that can be read; or the
            run's training images are gone.
        RunError: if the run has no model or is damaged.
    """
    config, run, folder = config or SuggestConfig(), runs.find(run), Path(folder)
    tasks.refuse(scorers.task_of(run), "suggest")
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of unlabeled images, found none.")
    files = list(sources.in_folder(folder))
    if not files:
        raise DatasetError(f"{folder}: expected unlabeled images, found none.")
    classifier = prediction.load(run.path)
    files = _unknown(run, folder, files)
    known = run_data.read(run, data, splits=(TRAIN,))
    gone = run_data.missing(known)
    if gone and config.by != "uncertainty":
        raise gone
    answers, tally = [], Tally()
    for each in classifier.stream(files, embeddings=True):
        answers.append(each)
        tally.add(each)
        if on_progress:
            on_progress("predicting", len(answers), len(files))
    rows = [row for row, each in enumerate(answers) if each.error is None]
    if not rows:
        raise DatasetError(f"{folder}: none of the {len(files)} images can be read.")
    if tally.message:
        log.warning("%s", tally.message)
    probabilities = np.array([answers[row].probabilities for row in rows])
    embeddings = np.array([answers[row].embedding for row in rows])
    labeled = embeddings[:0] if config.by == "uncertainty" else _labeled(classifier, known, config.seed, on_progress)
    chosen = pick(probabilities, embeddings, labeled, top=config.top, by=config.by)
    listed = []
    for row in chosen:
        file, best = files[rows[row]], int(probabilities[row].argmax())
        path = Path(file).relative_to(folder).as_posix()
        listed.append(Suggestion(path, classifier.labels[best], float(probabilities[row, best]), Path(file)))
    found = Suggestions(listed, len(rows), classifier.decoding)
    pages.keep(run, "suggest", Answer(QUESTION, found.sentence, found.tables(), str(folder.resolve())))
    return found


def _unknown(run: Run, folder: Path, files: Sequence[str]) -> list[str]:
    """Leave out copies of images that the run has a label for."""
    known = {sample.sha256 for sample in run_data.read(run, verify=False).samples} - {""}
    kept = [file for file, sha256 in zip(files, run_data.hashes(files), strict=True) if sha256 not in known]
    if not kept:
        raise DatasetError(
            f"{folder}: expected unlabeled images, found only images that {run.path} has labels for. Name the folder "
            "of the others."
        )
    if len(kept) < len(files):
        log.info("%s: images left out, since the run has their labels: %d.", folder, len(files) - len(kept))
    return kept


def _labeled(classifier: Classifier, known: Dataset, seed: int, on_progress: OnProgress | None) -> np.ndarray:
    """Return the embeddings of training images, float (m, d)."""
    paths = known.paths
    if len(paths) > MOST_KNOWN:
        kept = np.sort(np.random.default_rng(seed).choice(len(paths), MOST_KNOWN, replace=False))
        paths = [paths[row] for row in kept.tolist()]
    found = []
    for done, each in enumerate(classifier.stream(paths, embeddings=True), start=1):
        if each.error is None:
            found.append(each.embedding)
        if on_progress:
            on_progress("labeled images", done, len(paths))
    if not found:
        raise RunError(f"{known.origin}: expected training images to compare with, found none that can be read.")
    return np.array(found)


def pick(probabilities: np.ndarray, embeddings: np.ndarray, labeled: np.ndarray, *, top: int, by: str) -> list[int]:
    """Choose rows, the most useful first.

    By uncertainty: the smallest margin between the two most probable classes first. By diversity: each the farthest
    from all labeled images and those already chosen. By both: diversity among the most uncertain.

    Args:
        probabilities: float (n, classes).
        embeddings: float (n, d).
        labeled: float (m, d), of the images that have labels; m may be 0.
        by: `uncertainty`, `diversity` or `both`.

    Source: Sener and Savarese 2018, arXiv:1708.00489 (k-center greedy); Scheffer et al. 2001 (margin).
    """
    best = np.sort(probabilities, axis=1)[:, -2:]
    unsure = np.argsort(best[:, 1] - best[:, 0], kind="stable")
    if by == "uncertainty":
        return [int(row) for row in unsure[:top]]
    candidates = unsure[: PRESELECTED * top] if by == "both" else unsure
    return [int(candidates[row]) for row in k_center(embeddings[candidates], labeled, top)]


def k_center(embeddings: np.ndarray, labeled: np.ndarray, count: int) -> list[int]:
    """Choose rows, each the farthest from the nearest of all labeled and chosen ones, in normalized embeddings.

    Without labeled images, the first row is chosen first.
    """
    points, centers = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (embeddings, labeled)
    )
    nearest = np.full(len(points), np.inf)
    if len(centers):
        nearest = 1 - (points @ centers.T).max(axis=1)
    chosen: list[int] = []
    for _ in range(min(count, len(points))):
        row = int(nearest.argmax())
        chosen.append(row)
        nearest = np.minimum(nearest, 1 - points @ points[row])
        nearest[row] = -np.inf
    return chosen


__all__ = ["Suggestion", "Suggestions", "k_center", "pick", "suggest"]
