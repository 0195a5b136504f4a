"""Classifiers of scikit-learn: fitted, stored, and used like any run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import fill
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import imgclf
from imgclf.data.dataset import TEST, TRAIN, read_manifest
from imgclf.errors import ArtifactError, RunError, UsageError
from imgclf.prediction import artifact
from imgclf.prediction import classical as stored
from imgclf.settings import ExportConfig, FeaturesConfig, KfoldConfig, TrainConfig
from imgclf.training import classical, estimators

KNN = TrainConfig(model="knn", image_size=64, k=3)


class Foreign:
    """What no file of imgclf contains."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("knn") / "images", ("one", "two"), 40, 40, ".png", seed=3)


@pytest.fixture(scope="module")
def run(folder):
    """Read it, never write it."""
    return imgclf.train(imgclf.read(folder, KNN), KNN, output=folder.parent / "run")


def vectors(run, folder, split):
    """Embeddings and labels of a split, as prediction computes them."""
    samples = [s for s in read_manifest(run.manifest, folder).samples if s.split == split]
    found = imgclf.load(run.path).predict([folder / s.path for s in samples], embeddings=True)
    return np.stack([each.embedding for each in found]), [s.label for s in samples], [each.argmax for each in found]


def test_a_run_of_knn_predicts_what_scikit_learn_predicts_on_the_same_vectors(run, folder):
    known, labels, _ = vectors(run, folder, TRAIN)
    asked, truth, predicted = vectors(run, folder, TEST)
    own = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(known, labels).predict(asked)
    assert own.tolist() == predicted
    assert np.mean(own == truth) == pytest.approx(json.loads(run.metrics.read_text())["argmax"]["accuracy"])


def test_the_feature_table_has_the_embedding_of_the_run(run, folder):
    config = FeaturesConfig(features="embedding+mean-color", image_size=64)
    table = imgclf.features(imgclf.read(folder), config)
    by_path = dict(zip(table.paths, table.vectors, strict=True))
    known, _, _ = vectors(run, folder, TRAIN)
    paths = [s.path for s in read_manifest(run.manifest, folder).samples if s.split == TRAIN]
    found = np.stack([by_path[path] for path in paths])
    np.testing.assert_allclose(found[:, :-3], known, atol=1e-3 * np.abs(known).max())
    assert (table.names[0], table.names[-1]) == ("embedding:0", "mean-color:blue")


def test_a_run_of_knn_has_the_files_of_any_run_and_no_network(run):
    assert {"artifact.json", "predictions.csv", "report.html", "history.csv"} <= {p.name for p in run.path.iterdir()}
    assert not run.model.exists()
    facts = artifact.read(run.path)
    assert facts.files["estimator"].format == "sklearn"
    assert facts.outputs == ("probabilities", "embedding")
    settings = run.read_config()["config"]
    assert (settings["model"], settings["k"], settings["method"], settings["export"]) == ("knn", 3, "probe", "none")
    assert "knn" in (run.path / "report.html").read_text()


def test_evaluating_a_run_of_knn_gives_its_scores_again(run, folder, tmp_path):
    found = imgclf.evaluate(run, output=tmp_path / "scores").metrics
    trained = json.loads(run.metrics.read_text())
    for key in ("accuracy", "log_loss", "n"):
        assert found[key] == pytest.approx(trained[key], abs=1e-5)


def test_a_fresh_process_predicts_the_same_without_keras(run, folder):
    paths = [str(p) for p in sorted(folder.rglob("*.png"))[::10]]
    code = f"""
import sys, imgclf
print([p.label for p in imgclf.load({str(run.path)!r}).predict({paths!r})])
assert not {{"keras", "tensorflow"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([p.label for p in imgclf.load(run.path).predict(paths)])


@pytest.mark.slow
def test_knn_is_cross_validated_and_compared_like_a_network(run, folder, tmp_path):
    dataset = imgclf.read(folder, KNN)
    found = imgclf.kfold(dataset, KNN, KfoldConfig(folds=2), output=tmp_path / "folds")
    assert found.metrics["n"] == 80
    other = replace(KNN, k=1, neighbor_weights="distance", search_algorithm="kd-tree")
    one = imgclf.train(dataset, other, output=tmp_path / "one")
    asked, truth, predicted = vectors(one, folder, TEST)
    known, labels, _ = vectors(one, folder, TRAIN)
    scaled = StandardScaler().fit(known)
    distances = np.linalg.norm(scaled.transform(asked)[:, None] - scaled.transform(known)[None], axis=2)
    assert predicted == [labels[i] for i in distances.argmin(axis=1)]
    assert imgclf.compare([run, one])["n"] == len(truth)


def test_resuming_an_interrupted_run_of_knn_finishes_it(run, folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    for name in ("config.json", "manifest.csv", "labels.txt"):
        (again / name).write_bytes((run.path / name).read_bytes())
    resumed = imgclf.resume(again)
    assert json.loads(resumed.metrics.read_text()) == json.loads(run.metrics.read_text())
    with pytest.raises(UsageError, match="counts no epochs"):
        imgclf.resume(again, epochs=3)


def test_more_neighbors_than_training_images_are_refused(folder, tmp_path):
    config = replace(KNN, k=1000)
    with pytest.raises(UsageError, match=r"--k: expected at most \d+, the number of training images, found 1000"):
        imgclf.train(imgclf.read(folder, config), config, output=tmp_path / "run")
    with pytest.raises(UsageError, match=r"--k: expected at most \d+, the number of training images, found 1000"):
        imgclf.kfold(imgclf.read(folder, config), config, output=tmp_path / "folds")
    assert not (tmp_path / "run").exists() and not (tmp_path / "folds").exists()


def test_a_run_of_knn_asked_for_litert_says_what_it_has(run, folder, tmp_path):
    with pytest.raises(
        UsageError, match="expected --format onnx, the only one that a classical model has besides estimator"
    ):
        imgclf.export(run, ExportConfig(format="litert"))
    config = replace(KNN, export="litert")
    with pytest.raises(
        UsageError,
        match=r"--export litert: expected onnx or none, found litert.*no other form than ONNX besides estimator/",
    ):
        imgclf.train(imgclf.read(folder, config), config, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_without_classes_is_refused():
    config = TrainConfig(model="svm", features="hog", task="regression")
    with pytest.raises(UsageError, match="--model does not support --task regression yet"):
        estimators.kind(config).resolve(config)


def test_settings_of_gradient_descent_are_named_where_they_have_no_effect():
    config = replace(KNN, epochs=3, augment="heavy", precision="mixed_bfloat16")
    estimator, notes = estimators.kind(config).resolve(config)
    assert "--epochs, --augment, --precision: no effect on --model knn." in notes
    again, notes = estimators.kind(config).resolve(estimator.settings)
    assert again.settings == estimator.settings
    assert not [note for note in notes if "no effect" in note]


def three_clouds(classes=3):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 90)
    return (rng.normal(size=(90, 5)) + labels[:, None]).astype(np.float32), labels


OWN = {
    "knn": lambda: KNeighborsClassifier(5),
    "tree": lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    "forest": lambda: RandomForestClassifier(200, max_depth=3, random_state=0),
    "svm": lambda: SVC(break_ties=True),
    "logreg": lambda: LogisticRegression(max_iter=5000),
    "naive-bayes": GaussianNB,
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("one_vs_rest", [False, True])
@pytest.mark.parametrize("model", OWN)
def test_the_largest_logit_is_that_of_scikit_learns_own_prediction(model, one_vs_rest, classes):
    known, labels = three_clouds(classes)
    asked = np.random.default_rng(1).normal(1, 2, (200, 5)).astype(np.float32)
    settings = TrainConfig(model=model, max_depth=3, one_vs_rest=one_vs_rest)
    own = OneVsRestClassifier(OWN[model]()) if one_vs_rest else OWN[model]()
    if model in ("knn", "svm", "logreg"):
        own = make_pipeline(StandardScaler(), own)
    expected = own.fit(known, labels).predict(asked)
    found = stored.logits(classical.make(settings, 90).fit(known, labels), asked)
    assert found.shape == (200, classes)
    np.testing.assert_array_equal(found.argmax(axis=1), expected)


def test_the_two_logits_of_logistic_regression_give_its_probabilities():
    known, labels = three_clouds(2)
    estimator = classical.make(TrainConfig(model="logreg"), 90).fit(known, labels)
    found = stored.softmax(stored.logits(estimator, known))
    np.testing.assert_allclose(found, estimator.predict_proba(known), atol=1e-6)


def test_every_model_is_the_same_after_it_is_stored_and_loaded_in_a_fresh_process(tmp_path):
    known, labels = three_clouds()
    settings = [TrainConfig(model=model) for model in OWN]
    settings += [TrainConfig(model="knn", search_algorithm="kd-tree"), TrainConfig(model="svm", one_vs_rest=True)]
    expected = {}
    for place, each in enumerate(settings):
        estimator = classical.make(each, 90).fit(known, labels)
        stored.write(tmp_path / str(place), estimator, stored.About(8, 3, 5, "mean-color"))
        expected[str(place)] = stored.logits(estimator, known)
    np.savez(tmp_path / "expected.npz", known=known, **expected)
    code = f"""
import sys, numpy as np
from pathlib import Path
from imgclf.prediction import classical
arrays = np.load({str(tmp_path / "expected.npz")!r})
for name in arrays.files[1:]:
    estimator, _ = classical.read(Path({str(tmp_path)!r}) / name)
    assert np.array_equal(classical.logits(estimator, arrays["known"]), arrays[name]), name
assert not {{"keras", "tensorflow"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_parameters_reach_the_estimator():
    settings = TrainConfig(model="svm", kernel="poly", C=0.5, gamma=2.0)
    svm = classical.make(settings, 9)[-1]
    assert (svm.kernel, svm.C, svm.gamma) == ("poly", 0.5, 2.0)
    tree = classical.make(TrainConfig(model="tree", max_depth=2, max_leaves=3, prune=0.1, seed=4), 9)
    assert (tree.max_depth, tree.max_leaf_nodes, tree.ccp_alpha, tree.random_state) == (2, 3, 0.1, 4)
    assert classical.make(TrainConfig(model="logreg", C=7.0), 9)[-1].C == 7.0


def test_a_run_on_features_made_by_hand_has_no_backbone(folder, tmp_path):
    config = TrainConfig(model="svm", features="color-grid+hog:8", image_size=32)
    run = imgclf.train(imgclf.read(folder, config), config, output=tmp_path / "run")
    assert sorted(path.name for path in (run.path / "estimator").iterdir()) == ["about.json", "estimator.skops"]
    settings = run.read_config()["config"]
    assert (settings["backbone"], settings["image_size"]) == ("none", 32)
    known, labels, _ = vectors(run, folder, TRAIN)
    asked, _, predicted = vectors(run, folder, TEST)
    own = make_pipeline(StandardScaler(), SVC(break_ties=True)).fit(known, labels).predict(asked)
    assert own.tolist() == predicted
    assert imgclf.evaluate(run, output=tmp_path / "scores").metrics["n"] == len(asked)
    with pytest.raises(RunError, match="which has no layers"):
        imgclf.describe(run)
    with pytest.raises(UsageError, match="expected images of at least 64 px"):
        imgclf.train(imgclf.read(folder, config), replace(config, features="hog:32"), output=tmp_path / "other")


def test_logits_are_logarithms_of_probabilities_with_a_floor():
    knn = KNeighborsClassifier(4).fit([[0], [1], [2], [3], [9]], [0, 0, 0, 1, 2])
    np.testing.assert_allclose(stored.logits(knn, np.array([[1.0]])), [[np.log(0.75), np.log(0.25), np.log(1e-4)]])


def test_a_stored_classifier_with_a_foreign_type_is_refused(tmp_path):
    knn = KNeighborsClassifier(1).fit([[0], [1]], [0, 1])
    knn.note = Foreign()
    stored.write(tmp_path, knn, stored.About(8, 2, 1, "embedding"))
    with pytest.raises(ArtifactError, match=r"refused, since it contains the type .*Foreign"):
        stored.read(tmp_path)


@pytest.mark.parametrize("name", ["estimator.skops", "about.json"])
@pytest.mark.parametrize("content", [b"", b"no such thing", None])
def test_a_damaged_stored_classifier_is_refused(tmp_path, name, content):
    stored.write(tmp_path, KNeighborsClassifier(1).fit([[0], [1]], [0, 1]), stored.About(8, 2, 1, "embedding"))
    path: Path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        stored.read(tmp_path)


def test_a_stored_classifier_for_other_features_is_refused(run, tmp_path):
    stored.write(tmp_path, KNeighborsClassifier(1).fit([[0], [1]], [0, 1]), stored.About(64, 2, 1, "embedding"))
    (tmp_path / "backbone.tflite").write_bytes((run.path / "estimator" / "backbone.tflite").read_bytes())
    with pytest.raises(ArtifactError, match=r"expected features of length 1, .* found 1984 of embedding"):
        stored.ClassicalRuntime.start(tmp_path, "float32")


def test_a_stored_form_that_predicts_otherwise_is_not_kept(run, folder, tmp_path, monkeypatch):
    write = stored.write
    monkeypatch.setattr(classical.stored, "write", lambda place, _, about: write(place, _shuffled(about.width), about))
    with pytest.raises(ArtifactError, match="predicts otherwise than the fitted one"):
        imgclf.train(imgclf.read(folder, KNN), KNN, output=tmp_path / "run")
    assert not (tmp_path / "run" / "estimator").exists()
    with pytest.raises(RunError, match="no model"):
        imgclf.evaluate(tmp_path / "run")


def _shuffled(width):
    rng = np.random.default_rng(0)
    return KNeighborsClassifier(1).fit(rng.normal(size=(9, width)).astype(np.float32), rng.integers(0, 2, 9))
