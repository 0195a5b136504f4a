"""What a classical model learned, for the report: a decision tree as an image, the support vectors of an SVM."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from imgclf.errors import ArtifactError, MissingError
from imgclf.evaluation import plots
from imgclf.prediction import classical
from imgclf.runs import Run

log = logging.getLogger("imgclf")

FOLDER = "estimator"
"""Where a run keeps a classical model."""

MOST_VECTORS = 24
"""Support vectors that are shown, those with the largest coefficients of each class."""

DRAWN_DEPTH = 3
"""Splits above one another that are drawn: a fourth has no room for its text on a page."""


def collect(run: Run, class_names: Sequence[str]) -> dict[str, Any] | None:
    """Collect what the model of a run learned; None where there is nothing to show.

    Returns:
        `tree`, its rules as text, and `nodes` and `depth`; or `support_vectors`: `count`, `of` (the training images),
        and `largest`, the `path`, the `label` and the `coefficient` of those that matter most, by turns of each class.
    """
    found = _read(run)
    if found is None:
        return None
    estimator, about = found
    _, parts = classical.parts(estimator)
    if len(parts) == 1 and hasattr(parts[0], "tree_"):
        from sklearn.tree import export_text

        tree = parts[0]
        rules = export_text(tree, feature_names=_names(about), class_names=list(class_names), max_depth=DRAWN_DEPTH)
        return {"tree": rules, "nodes": int(tree.tree_.node_count), "depth": int(tree.get_depth())}
    if all(hasattr(part, "support_") for part in parts):
        return {"support_vectors": _support(parts, about, class_names)}
    return None


def draw_tree(run: Run, class_names: Sequence[str]) -> bytes | None:
    """Draw the decision tree of a run, its first DRAWN_DEPTH levels, as PNG; None where the model is another one."""
    found = _read(run)
    if found is None or not hasattr(found[0], "tree_"):
        return None
    from sklearn.tree import plot_tree

    tree, about = found
    depth = min(int(tree.get_depth()), DRAWN_DEPTH)
    leaves = min(int(tree.get_n_leaves()), 2**depth)
    figure = plots.new_figure(max(4.0, 1.35 * leaves), 0.85 * (depth + 2))
    plot_tree(
        tree,
        max_depth=DRAWN_DEPTH,
        feature_names=_names(about),
        class_names=[plots.drawable(name) for name in class_names],
        filled=True,
        impurity=False,
        rounded=True,
        precision=3,
        fontsize=6,
        ax=figure.add_axes((0, 0, 1, 1)),
    )
    return plots.to_png(figure)


def _read(run: Run) -> tuple[Any, classical.About] | None:
    folder = run.path / FOLDER
    if not folder.is_dir():
        return None
    try:
        return classical.read(folder)
    except (ArtifactError, MissingError) as error:
        log.debug("%s: the report does not show what it learned (%s)", folder, error)
        return None


def _names(about: classical.About) -> list[str]:
    from imgclf.descriptors.kinds import Descriptor

    descriptor = Descriptor(about.features, about.size_px)
    return descriptor.names(about.width - len(descriptor.names()) if descriptor.has_embedding else 0)


def _support(parts: Sequence[Any], about: classical.About, class_names: Sequence[str]) -> dict[str, Any]:
    """List training images that an SVM keeps; a coefficient is the sum of absolute ones over its classifiers."""
    totals: Counter[int] = Counter()
    classes: dict[int, int] = {}
    for place, part in enumerate(parts):
        own = np.repeat(part.classes_, part.n_support_).tolist()  # support_ is in the order of the classes
        for row, coefficient, kind in zip(
            part.support_.tolist(), np.abs(part.dual_coef_).sum(axis=0), own, strict=True
        ):
            totals[row] += coefficient
            if len(parts) == 1 or kind:  # of several, each has the images of its class as 1, and all others as 0
                classes[row] = kind if len(parts) == 1 else place
    turns: Counter[int | None] = Counter()
    ranked = []
    for row in sorted(totals, key=lambda row: (-totals[row], row)):
        turns[classes.get(row)] += 1
        ranked.append((turns[classes.get(row)], row))
    largest = [
        {
            "path": about.paths[row],
            "label": class_names[classes[row]] if row in classes else "",
            "coefficient": round(float(totals[row]), 6),
        }
        for _, row in sorted(ranked)[:MOST_VECTORS]
        if row < len(about.paths)
    ]
    return {"count": len(totals), "of": len(about.paths), "largest": largest}
