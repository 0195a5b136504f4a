"""What the report shows of a classical model: rules of a tree, and support vectors."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from imgclf.evaluation import learned
from imgclf.prediction import classical
from imgclf.runs import Run

COLORS = np.array([[0, 0, 0], [10, 0, 0], [90, 0, 0], [200, 0, 0], [210, 0, 0], [255, 0, 0]], np.float32)
LABELS = np.array([0, 0, 0, 1, 1, 1])
PATHS = tuple(f"{name}.png" for name in "abcdef")


def run_of(estimator, folder, classes=2):
    about = classical.About(size_px=8, classes=classes, width=3, features="mean-color", paths=PATHS)
    classical.write(folder / learned.FOLDER, estimator, about)
    return Run(folder)


def test_the_rules_of_a_tree_have_the_names_and_units_of_the_features(tmp_path):
    run = run_of(DecisionTreeClassifier(random_state=0).fit(COLORS, LABELS), tmp_path)
    found = learned.collect(run, ["dark", "red"])
    assert (found["nodes"], found["depth"]) == (3, 1)
    assert found["tree"].splitlines() == [
        "|--- mean-color:red <= 145.00", "|   |--- class: dark",
        "|--- mean-color:red >  145.00", "|   |--- class: red",
    ]  # fmt: skip
    drawn = learned.draw_tree(run, ["dark", "$red$"])
    assert drawn.startswith(b"\x89PNG")


def test_the_support_vectors_of_a_margin_are_the_images_beside_it(tmp_path):
    svm = make_pipeline(StandardScaler(), SVC(kernel="linear", C=1000)).fit(COLORS, LABELS)
    found = learned.collect(run_of(svm, tmp_path), ["dark", "red"])["support_vectors"]
    assert (found["count"], found["of"]) == (2, 6)
    assert [(row["path"], row["label"]) for row in found["largest"]] == [("c.png", "dark"), ("d.png", "red")]
    assert found["largest"][0]["coefficient"] == pytest.approx(found["largest"][1]["coefficient"])
    # a margin of width 2 / |w| on standardized red: |w| = 2 / distance, and each coefficient is |w| / distance
    distance = (200 - 90) / COLORS[:, 0].std()
    assert found["largest"][0]["coefficient"] == pytest.approx(2 / distance**2, rel=1e-3)
    assert learned.draw_tree(Run(tmp_path), ["dark", "red"]) is None


def test_one_classifier_for_each_class_names_the_class_of_each_support_vector(tmp_path):
    labels = np.array([0, 0, 1, 1, 2, 2])
    svm = OneVsRestClassifier(SVC(kernel="rbf", C=1.0)).fit(COLORS, labels)
    found = learned.collect(run_of(svm, tmp_path, 3), ["x", "y", "z"])["support_vectors"]
    truth = dict(zip(PATHS, ["x", "x", "y", "y", "z", "z"], strict=True))
    assert found["count"] == 6
    assert [row["label"] for row in found["largest"]] == [truth[row["path"]] for row in found["largest"]]
    assert {row["label"] for row in found["largest"][:3]} == {"x", "y", "z"}


def test_other_models_and_networks_show_nothing(tmp_path):
    assert learned.collect(run_of(LogisticRegression().fit(COLORS, LABELS), tmp_path), ["a", "b"]) is None
    assert learned.collect(Run(tmp_path / "none"), ["a", "b"]) is None
    assert learned.draw_tree(Run(tmp_path / "none"), ["a", "b"]) is None
