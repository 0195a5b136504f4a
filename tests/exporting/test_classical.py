"""Classical models as ONNX: the same probabilities as scikit-learn's, from pixels or from vectors."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import fill

import imgclf
from imgclf import environment
from imgclf.data import dataset as datasets
from imgclf.errors import ArtifactError, ExportError, UsageError
from imgclf.exporting import artifacts, classical, embedding
from imgclf.prediction import artifact
from imgclf.prediction import classical as stored
from imgclf.prediction.artifact import Artifact, File
from imgclf.runs import Run
from imgclf.settings import ExportConfig, TrainConfig
from imgclf.training import classical as training
from imgclf.training import estimators

onnx = pytest.importorskip("onnx")
SIZE_PX, LABELS, TEMPERATURE = 16, ("one", "twö", "three"), 1.7


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images, the data set, and its pixels."""
    folder = fill(tmp_path_factory.mktemp("classical") / "images", LABELS, 14, 20, ".png", seed=5)
    dataset = imgclf.read(folder, TrainConfig(near_duplicates="off"))
    pixels = np.stack([imgclf.data.images.load(path, SIZE_PX) for path in dataset.paths])
    return dataset, pixels


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A network of one convolution, from 16 px to 6 numbers, as LiteRT."""
    environment.prepare_keras()
    import keras

    from imgclf.models import classifier

    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    path = tmp_path_factory.mktemp("backbone") / stored.BACKBONE
    embedding.write(classifier.build(keras.Model(pixels, x), 2), path)
    return path


@pytest.fixture
def make(images, backbone, tmp_path):
    """A function that makes a run of a classical model without training; the estimator is fitted to half the images."""

    def run_of(model: str, features: str = "embedding", **settings: object) -> Run:
        dataset, pixels = images
        config = TrainConfig(model=model, features=features, image_size=SIZE_PX, **settings)
        run = Run(tmp_path / "run")
        run.path.mkdir()
        folder = run.path / training.FOLDER
        folder.mkdir()
        descriptor = training.Descriptor(features, SIZE_PX)
        embeddings = None
        if descriptor.has_embedding:
            shutil.copy(backbone, folder / stored.BACKBONE)
            runtime = stored.LiteRTRuntime(folder / stored.BACKBONE, "embedding")
            embeddings = runtime.outputs(pixels.astype(np.float32), ("embedding",))["embedding"]
        vectors = descriptor.vectors(pixels, embeddings)
        estimator = training.make(config, len(vectors) // 2).fit(vectors[::2], dataset.labels[::2])
        about = stored.About(SIZE_PX, len(LABELS), vectors.shape[1], features, TEMPERATURE)
        stored.write(folder, estimator, about)
        facts = Artifact(
            labels=dataset.class_names,
            image_size=SIZE_PX,
            resize="squash",
            backbone="none",
            outputs=stored.ClassicalRuntime.names,
            data_sha256="",
            files={training.FOLDER: File("sklearn", *artifact.hash_tree(folder))},
            temperature=TEMPERATURE,
        )
        artifact.write(run.path, facts)
        run.write_labels(list(dataset.class_names))
        datasets.write_manifest(dataset, run.manifest)
        imgclf.storage.write_json(run.config, {"config": config.to_dict(), "data": str(dataset.root)})
        return run

    return run_of


def own_probabilities(run, vectors):
    """What scikit-learn says, at the temperature."""
    estimator, _ = stored.read(run.path / training.FOLDER)
    if hasattr(estimator, "decision_function"):
        logits = estimator.decision_function(vectors)
    else:
        logits = np.log(np.maximum(estimator.predict_proba(vectors), 1e-4))
    powers = np.exp(logits / TEMPERATURE)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("model", training.MAKERS)
def test_a_graph_from_pixels_gives_scikit_learns_probabilities(make, images, model, monkeypatch):
    monkeypatch.setattr(training, "TREES", 20)  # 200 take skl2onnx 5 s
    run = make(model, max_depth=2)
    pixels = images[1].astype(np.float32)
    [row] = imgclf.export(run, ExportConfig(format="onnx"))
    assert (row["file"], row["compared"], row["compared_on"]) == ("model.onnx", 16, "images")
    assert row["max_difference"] <= 1e-4
    found = imgclf.load(run.path / "model.onnx").outputs(pixels)
    vectors = imgclf.load(run.path).outputs(pixels)["embedding"]
    np.testing.assert_allclose(found["embedding"], vectors, atol=1e-5)
    expected = own_probabilities(run, vectors)
    assert expected.max() - expected.min() > 0.3
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)


def test_the_graph_carries_labels_and_size_and_the_stored_classifier_still_predicts(make, images, tmp_path):
    run = make("logreg")
    identity = artifact.read(run.path).identity
    imgclf.export(run, ExportConfig(format="onnx"))
    facts = artifact.read(run.path)
    assert (facts.identity, list(facts.files)) == (identity, ["estimator", "model.onnx"])
    graph = onnx.load(run.path / "model.onnx")
    inside = {item.key: item.value for item in graph.metadata_props}
    assert inside == {"labels": json.dumps(list(images[0].class_names)), "image_size": "16", "resize": "squash"}
    [given] = graph.graph.input
    assert (given.name, [d.dim_value for d in given.type.tensor_type.shape.dim[1:]]) == ("pixels", [16, 16, 3])
    for count in (None, 5000):
        assert isinstance(imgclf.prediction.load(run.path, count=count).runtime, stored.ClassicalRuntime)
    imgclf.export(run, ExportConfig(format="onnx"), output=tmp_path / "deploy")
    paths = images[0].paths[:9]
    alone = [found.label for found in imgclf.load(tmp_path / "deploy").predict(paths)]
    assert alone == [found.label for found in imgclf.load(run.path).predict(paths)]


@pytest.mark.parametrize(("model", "classes"), [("svm", 2), ("logreg", 2), ("svm", 3), ("tree", 3), ("naive-bayes", 2)])
def test_two_classes_and_one_against_the_rest_are_the_same_too(tmp_path, model, classes):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % classes
    vectors = (rng.normal(size=(90, 5)) + labels[:, None]).astype(np.float32)
    for one_vs_rest in (False, True):
        settings = TrainConfig(model=model, max_depth=3, one_vs_rest=one_vs_rest)
        estimator = training.make(settings, 90).fit(vectors, labels)
        stored.write(tmp_path, estimator, stored.About(8, classes, 5, "pixels:1", 0.7))
        facts = Artifact(LABELS[:classes], 8, "squash", "none", ("probabilities",), "", {})
        classical.write(tmp_path / "model.onnx", tmp_path, facts)
        expected = stored.softmax(stored.logits(estimator, vectors) / 0.7)
        np.testing.assert_allclose(classical.predict(tmp_path / "model.onnx", vectors), expected, atol=1e-5)


@pytest.mark.parametrize("features", ["color-grid:2x2", "embedding+mean-color"])
def test_features_that_no_graph_computes_make_a_graph_from_vectors(make, images, features):
    run = make("tree", features)
    [row] = imgclf.export(run, ExportConfig(format="onnx"))
    assert row["max_difference"] <= 1e-4
    path = run.path / "model.onnx"
    inside = {item.key: item.value for item in onnx.load(path).metadata_props}
    vectors = imgclf.load(run.path).outputs(images[1].astype(np.float32))["embedding"]
    names = json.loads(inside["columns"])
    assert (inside["features"], len(names), len(set(names))) == (features, vectors.shape[1], vectors.shape[1])
    np.testing.assert_allclose(classical.predict(path, vectors), own_probabilities(run, vectors), atol=1e-5)
    with pytest.raises(ArtifactError, match=r"model.onnx: .*feature vectors, which no graph computes"):
        imgclf.load(path)
    assert imgclf.load(run.path).predict(images[0].paths[:1])[0].label in LABELS
    with pytest.raises(ArtifactError, match="feature vectors"):
        imgclf.prediction.load(run.path, engine="onnx")


def test_a_graph_that_disagrees_leaves_the_old_one(make, monkeypatch):
    run = make("svm")
    imgclf.export(run, ExportConfig(format="onnx"))
    before = (run.path / "model.onnx").read_bytes()
    read, own = stored.read, stored.ClassicalRuntime.start(run.path / training.FOLDER, "float32")

    def warmer(folder):
        estimator, about = read(folder)
        return estimator, replace(about, temperature=1.2 * about.temperature)

    monkeypatch.setattr(stored, "read", warmer)
    monkeypatch.setattr(stored.ClassicalRuntime, "start", lambda *_: own)
    with pytest.raises(ExportError, match=r"model.onnx: .* within 0\.0001 of scikit-learn's.*not kept"):
        artifacts.write(run, ["onnx"])
    assert (run.path / "model.onnx").read_bytes() == before


def test_other_formats_are_refused_and_all_is_onnx(make):
    run = make("naive-bayes")
    with pytest.raises(UsageError, match=r"expected --format onnx, the only one .* besides estimator, found litert"):
        imgclf.export(run, ExportConfig(format="litert"))
    with pytest.raises(UsageError, match="found litert-int8"):
        imgclf.export(run, ExportConfig(quantize="int8"))
    assert [row["format"] for row in imgclf.export(run, ExportConfig(all=True))] == ["onnx"]


def test_neighbors_weighted_by_distance_are_refused(make, caplog):
    run = make("knn", neighbor_weights="distance")
    with pytest.raises(ExportError, match="gives all neighbors the same weight"):
        imgclf.export(run, ExportConfig(format="onnx"))
    config = TrainConfig(model="knn", neighbor_weights="distance", export="onnx")
    with pytest.raises(UsageError, match=r"--export onnx: .*same weight"):
        estimators.kind(config).resolve(config)


def test_training_takes_onnx_alone():
    config = TrainConfig(model="svm", features="mean-color", export="onnx")
    estimator, _ = estimators.kind(config).resolve(config)
    assert estimator.settings.export_formats == ("onnx",)
    assert estimators.kind(config).resolve(replace(config, export="none"))[0].settings.export_formats == ()
    with pytest.raises(UsageError, match=r"--export onnx,litert: expected onnx or none, found litert"):
        estimators.kind(config).resolve(replace(config, export="onnx,litert"))
