"""Which labels are wrong? Confident learning on out-of-fold probabilities.

Source: Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels", JAIR 70,
doi:10.1613/jair.1.12125.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from imgclf import runs
from imgclf.data import reading, splitting
from imgclf.data.dataset import Dataset
from imgclf.evaluation import thumbnails
from imgclf.evaluation.answers import Answer
from imgclf.evaluation.scorers import Table
from imgclf.questions import embedding, pages
from imgclf.questions.embedding import OnProgress
from imgclf.runs import Run
from imgclf.settings import Decoding, SuspectsConfig
from imgclf.tasks import logistic

QUESTION = "Which labels are wrong?"

COLUMNS = ("path", "given", "label", "score", "accept", "exclude")


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong.

    Args:
        given: the label that it has.
        label: the label proposed.
        score: how improbable the given label is, compared with other images that have it: 1 is impossible, 0 as
            probable as on average; at most 1.
    """

    path: str
    given: str
    label: str
    score: float
    file: Path


@dataclass(frozen=True)
class Suspects:
    """The labels that may be wrong, and an estimate of how many are.

    Args:
        suspects: the worst first.
        images: how many were judged.
        wrong: the estimated number of wrong labels among them.
        noise: for each pair of classes between which labels are wrong, most images first: `given`, `true`, `images`
            (estimated), and `share`, the part of the images of the class `true` that have the label `given`.
    """

    suspects: list[Suspect]
    images: int
    wrong: float
    noise: list[dict[str, Any]]
    decoding: Decoding

    @property
    def sentence(self) -> str:
        """How many labels are probably wrong."""
        return f"About {self.wrong:.0f} of {self.images:,} labels ({self.wrong / self.images:.1%}) are probably wrong."

    def tables(self) -> list[Table]:
        """Return the worst suspects, and the pairs of classes with most noise."""
        rows = [(each.path, each.given, each.label, f"{each.score:z.2f}") for each in self.suspects[: pages.SHOWN]]
        found: list[Table] = [("Most suspect labels", ("image", "given", "proposed", "score"), rows)]
        if self.noise:
            pairs = [(p["given"], p["true"], f"{p['images']:.1f}", f"{p['share']:.1%}") for p in self.noise]
            columns = ("labeled", "probably", "images", "share")
            found.append(("Noise by pair of classes", columns, pairs[: pages.SHOWN]))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images": self.images,
            "wrong": self.wrong,
            "noise": self.noise,
            "suspects": [{name: getattr(each, name) for name in COLUMNS[:4]} for each in self.suspects],
        }

    def write(self, path: Path) -> list[Path]:
        """Write a CSV to be filled in, and a page with thumbnails beside it.

        Raises:
            UsageError: if the name ends otherwise, one of both exists, or cannot be written.
        """
        rows = [[each.path, each.given, each.label, f"{each.score:z.4f}", "", ""] for each in self.suspects]
        drawn = thumbnails.draw_all([each.file for each in self.suspects], self.decoding)
        shown = list(zip(self.suspects, drawn, strict=True))
        return pages.write(path, (COLUMNS, *rows), "suspects.html", found=self, shown=shown)


def suspects(
    source: Dataset | Run | Path | str,
    config: SuspectsConfig | None = None,
    *,
    data: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Suspects:
    """Find labels that are probably wrong, by confident learning on out-of-fold probabilities.

    A linear classifier on the embedding of a pretrained backbone is fitted fold by fold, so that no image is judged by
    a classifier that was fitted to its label. Groups and near-duplicates stay in one fold.

    Args:
        source: a data set, or a run or its folder, whose images of all splits are judged. A run keeps the answer for
            its report.
        config: how. For a run, its own settings say which images and which backbone.
        data: where the run's images lie now, if they have moved.

    Raises:
        UsageError: if the task has no classes.
        DatasetError: if images are missing, or a class would be without training images in one of the folds.
        RunError: if the run is damaged.
    """
    config = config or SuspectsConfig()
    found = embedding.find(source, config, command="suspects", data=data, on_progress=on_progress)
    dataset, seed = found.dataset, found.settings.seed
    folds = splitting.folds(dataset, config.folds, seed, reading.related(dataset, found.settings))
    held = [np.isin(np.arange(len(dataset)), tested) for _, tested in folds]
    if on_progress:
        on_progress("fitting", 0, None)
    labels = found.labels
    logits = logistic.out_of_fold(found.vectors, labels, held, classes=found.classes, seed=seed)
    probabilities = softmax(logits, axis=1)
    order, proposals, scores = rank(labels, probabilities)
    names, files = dataset.class_names, dataset.paths
    joint = joint_counts(labels, probabilities)
    listed = [
        Suspect(
            dataset.samples[row].path,
            names[labels[row]],
            names[proposals[row]],
            float(scores[row]),
            files[row],
        )
        for row in order[: config.top].tolist()
    ]
    wrong = float(joint.sum() - np.trace(joint))
    answer = Suspects(listed, len(dataset), wrong, noise(joint, names), found.settings.decoding)
    if not isinstance(source, Dataset):
        pages.keep(runs.find(source), "suspects", Answer(QUESTION, answer.sentence, answer.tables()))
    return answer


def thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How confident a classifier is of a class on the images that have its label, float (classes,).

    Args:
        labels: int (n,), as given; every class occurs.
        probabilities: float (n, classes), out of fold.

    Source: Northcutt et al. 2021, equation 2.
    """
    members = np.eye(probabilities.shape[1])[labels]  # (n, classes)
    means: np.ndarray = (members * probabilities).sum(axis=0) / members.sum(axis=0)
    return means


def joint_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Estimate how many images of each true class have each label: float (classes, classes), given by true.

    An image counts for the class that it exceeds the threshold of, the most probable one of several. Each row is then
    scaled to the number of images with that label.

    Source: Northcutt et al. 2021, equations 1 and 3.
    """
    above = probabilities >= thresholds(labels, probabilities)
    confident = np.where(above, probabilities, -1).argmax(axis=1)
    counts = np.zeros((probabilities.shape[1],) * 2)
    counted = above.any(axis=1)
    np.add.at(counts, (labels[counted], confident[counted]), 1)
    given = np.bincount(labels, minlength=len(counts))
    empty = counts.sum(axis=1) == 0  # no image of this label is confident of anything: all count as they are
    counts[empty] = np.diag(given)[empty]
    scaled: np.ndarray = counts / counts.sum(axis=1, keepdims=True) * given[:, None]
    return scaled


def rank(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank images by how probably their label is wrong.

    The score is 1 less the probability of the given label as a share of the threshold of its class, so that a class of
    which the classifier is never sure does not fill the list. The most probable other class is proposed.

    Returns:
        The rows, most suspect first, and for each image the class proposed, int (n,), and its score, float (n,).

    Source: Northcutt et al. 2021, section 3.2 (prune by class: self-confidence), with the thresholds of equation 2.
    """
    each = np.arange(len(labels))
    scores = 1 - probabilities[each, labels] / thresholds(labels, probabilities)[labels]
    others = np.where(np.eye(probabilities.shape[1], dtype=bool)[labels], -1, probabilities)
    return np.argsort(-scores, kind="stable"), others.argmax(axis=1), scores


def noise(joint: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of classes between which labels are wrong, as `Suspects.noise` says.

    Args:
        joint: float (classes, classes), as `joint_counts` returns it.
    """
    of_true = joint.sum(axis=0)
    pairs = [
        {
            "given": names[given],
            "true": names[true],
            "images": float(joint[given, true]),
            "share": float(joint[given, true] / of_true[true]),
        }
        for given, true in np.argwhere(joint > 0).tolist()
        if given != true
    ]
    return sorted(pairs, key=lambda pair: -pair["images"])


__all__ = ["Suspect", "Suspects", "joint_counts", "noise", "rank", "suspects", "thresholds"]
