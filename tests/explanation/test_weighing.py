"""Explanations of classical models, by the library and by the command, from artifacts made by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from typer.testing import CliRunner

import imgclf
from imgclf.cli.app import app
from imgclf.errors import UsageError
from imgclf.explanation import weighing_drawing
from imgclf.explanation.explaining import Feature
from imgclf.prediction import artifact, classical
from imgclf.prediction.classical import About
from imgclf.prediction.decision import Neighbor
from imgclf.settings.explanation import ExplainConfig

COLORS = np.array([[0, 0, 9], [60, 0, 0], [0, 60, 9], [9, 250, 0], [0, 0, 200], [0, 9, 250]], np.float32)
"""Two of each class: dark, green and blue."""

LABELS = ("dark", "green", "blue")
PATHS = ("dark/0.png", "dark/1.png", "green/0.png", "green/1.png", "blue/0.png", "blue/1.png")


@pytest.fixture
def make(tmp_path):
    """Returns a run's folder with an estimator on the mean color, fitted to COLORS."""

    def make(estimator):
        about = About(size_px=8, classes=3, width=3, features="mean-color", paths=PATHS)
        classical.write(tmp_path / "run" / "estimator", estimator.fit(COLORS, [0, 0, 1, 1, 2, 2]), about)
        files = {"estimator": artifact.File(classical.FORMAT, *artifact.hash_tree(tmp_path / "run" / "estimator"))}
        facts = artifact.Artifact(LABELS, 8, "squash", "none", ("probabilities", "embedding"), "", files)
        artifact.write(tmp_path / "run", facts)
        return tmp_path / "run"

    return make


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (12, 8), (10, 240, 20)).save(tmp_path / "green.png")
    return tmp_path / "green.png"


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words):
        return CliRunner().invoke(app, ["explain", *map(str, words)], catch_exceptions=False)

    return command


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression())


def test_features_are_named_and_sum_to_the_logit(make, image):
    model = logistic()
    [row] = imgclf.explain(make(model), [image])
    assert (row.label, row.target, row.method, row.measure) == ("green", "green", "features", "logit")
    assert row.features[0][:2] == ("mean-color:green", 240.0)
    assert {feature.name.partition(":")[2] for feature in row.features} == {"red", "green", "blue"}
    assert [abs(f.weight) for f in row.features] == sorted((abs(f.weight) for f in row.features), reverse=True)
    expected = model.decision_function([[10, 240, 20]])[0, 1]
    assert row.score == pytest.approx(expected, rel=1e-5)
    assert row.base + row.rest + sum(feature.weight for feature in row.features) == pytest.approx(expected, rel=1e-5)


def test_a_short_list_says_what_the_other_features_add(make, image):
    run = make(logistic())
    [whole], [short] = (imgclf.explain(run, [image], ExplainConfig(count=count)) for count in (3, 1))
    assert short.features == whole.features[:1]
    assert short.rest == pytest.approx(whole.features[1].weight + whole.features[2].weight)
    assert whole.rest == pytest.approx(0)


def test_a_class_and_the_most_probable_ones(make, image):
    run = make(logistic())
    [blue] = imgclf.explain(run, [image], label="blue")
    assert (blue.label, blue.target) == ("green", "blue")
    assert dict(each[::2] for each in blue.features)["mean-color:green"] < 0
    targets = [row.target for row in imgclf.explain(run, [image], ExplainConfig(top=3))]
    assert (targets[0], sorted(targets)) == ("green", sorted(LABELS))
    with pytest.raises(UsageError, match="expected a class of the model"):
        imgclf.explain(run, [image], label="blu")


def test_naive_bayes_names_its_rival(make, image):
    [row] = imgclf.explain(make(GaussianNB()), [image])
    assert row.measure in ("log odds against dark", "log odds against blue")


def test_an_svm_that_is_not_linear_has_no_base(make, image):
    [row] = imgclf.explain(make(make_pipeline(StandardScaler(), SVC())), [image])
    assert (row.base, row.rest) == (None, None)
    assert row.features[0].name == "mean-color:green"


def test_k_nn_lists_the_nearest_training_images(make, image):
    run = make(KNeighborsClassifier(1))
    [row] = imgclf.explain(run, [image], ExplainConfig(count=2))
    assert (row.label, row.method, row.features) == ("green", "neighbors", ())
    far = [np.linalg.norm(COLORS[place] - [10, 240, 20]) for place in (3, 2)]
    assert [near.path for near in row.neighbors] == ["green/1.png", "green/0.png"]
    assert [near.distance for near in row.neighbors] == pytest.approx(far, rel=1e-5)
    with pytest.raises(UsageError, match="found knn, to which all features count alike"):
        imgclf.explain(run, [image], ExplainConfig(method="features"))
    with pytest.raises(UsageError, match="--class: the nearest training images are the same for every class"):
        imgclf.explain(run, [image], label="blue")


def test_what_does_not_suit_the_model_is_refused(make, image):
    run = make(logistic())
    with pytest.raises(UsageError, match="--method gradcam: expected a network, found a classical model"):
        imgclf.explain(run, [image], ExplainConfig(method="gradcam"))
    with pytest.raises(UsageError, match="expected a run of --model knn"):
        imgclf.explain(run, [image], ExplainConfig(method="neighbors"))


def test_occlusion_works_for_a_classical_model_too(make, image):
    [row] = imgclf.explain(make(logistic()), [image], ExplainConfig(method="occlusion", grid=2))
    assert (row.method, row.values.shape) == ("occlusion", (2, 2))


def test_the_command_prints_json_and_draws(make, image, command, tmp_path):
    run, absent = make(logistic()), tmp_path / "absent.png"
    absent.write_bytes(b"no image")
    found = command(run, image, absent, "--count", "2", "--json", "-o", tmp_path / "charts")
    assert found.exit_code == 0, found.output
    one, other = json.loads(found.stdout)["images"]
    assert (one["label"], one["features"][0]["name"]) == ("green", "mean-color:green")
    assert one.keys() >= {"measure", "score", "base", "rest"}
    assert "neighbors" not in one
    assert other["error"]
    [chart] = (tmp_path / "charts").iterdir()
    assert one["drawing"] == str(chart)
    with Image.open(chart) as drawn:
        assert drawn.width > 500


def test_the_command_prints_a_table(make, image, command):
    found = command(make(logistic()), image)
    lines = found.stdout.splitlines()
    assert any("mean-color:green" in line and "240 │" in line for line in lines)
    assert any("without features" in line for line in lines)
    found = command(make(KNeighborsClassifier(1)), image, "--count", "1")
    assert "green/1.png" in found.stdout


def red_and_blue(chart):
    pixels = np.asarray(chart).reshape(-1, 3).tolist()
    return [pixels.count(list(bytes.fromhex(color[1:]))) for color in (weighing_drawing.FOR, weighing_drawing.AGAINST)]


def test_bars_are_as_long_as_their_weights():
    facts = {"measure": "logit", "score": 1.0, "base": None, "rest": None}
    picture = Image.new("RGB", (8, 8))

    def of(weights):
        features = [Feature("pixels:$0_0$_red", 1.0, weight) for weight in weights]
        return red_and_blue(weighing_drawing.features(picture, "green 90%", facts | {"features": features}))

    red, blue = of([2.0, -1.0])
    assert red == pytest.approx(2 * blue, rel=0.05)
    assert of([2.0])[1] == 0


def test_bars_of_neighbors_are_as_long_as_their_distances():
    def gray(*distances):
        near = [Neighbor(f"$b${place}.png", distance) for place, distance in enumerate(distances)]
        pixels = np.asarray(weighing_drawing.neighbors(Image.new("RGB", (8, 8)), "green", near)).reshape(-1, 3)
        return int((pixels == round(255 * float(weighing_drawing.OTHER))).all(axis=1).sum())

    assert gray(2.0, 1.0) == pytest.approx(1.5 * gray(2.0), rel=0.05)
    assert gray(0.0) < 20
