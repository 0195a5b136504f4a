"""imgclf curves: fits against scikit-learn, sizes by hand, and an extrapolation of laws that are known."""

import json

import numpy as np
import pytest
from conftest import fill
from PIL import Image
from sklearn.linear_model import LogisticRegression

import imgclf as library
from imgclf.errors import DatasetError, UsageError
from imgclf.questions import capacities, embedding
from imgclf.questions import curves as question
from imgclf.questions.curves import Curves, Point
from imgclf.questions.embedding import Embedded
from imgclf.settings import CurvesConfig
from imgclf.tasks import logistic
from imgclf.training import classical

pytest_plugins = ("cli.conftest",)


def gaussian(count: int, width: int, classes: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (rng.normal(0, 1, (classes, width))[labels] + rng.normal(0, spread, (count, width))).astype(
        np.float32
    ), labels


def test_the_heads_of_all_parts_are_those_of_scikit_learn():
    features, labels = gaussian(90, 6, 3, 2.0)
    parts = [np.arange(90) < 60, np.arange(90) >= 30]
    path = logistic.Path(features, labels, classes=3)
    path.logits(parts, 10.0)  # where the next fit starts
    found = path.logits(parts, 0.1)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    for place, part in enumerate(parts):
        expected = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(scaled[part], labels[part])
        probabilities = np.exp(found[:, place]) / np.exp(found[:, place]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected.predict_proba(scaled), atol=5e-3)


def test_the_first_images_of_any_number_have_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = question.nested(labels, np.arange(100), seed=1)
    assert sorted(order.tolist()) == list(range(100))
    assert set(labels[order[:3]]) == {0, 1, 2}
    for count in (20, 50):
        assert np.abs(np.bincount(labels[order[:count]]) / count - [0.6, 0.3, 0.1]).max() <= 1.5 / count + 0.05


@pytest.mark.parametrize("power", [0.3, 0.6])
def test_a_power_law_that_goes_on_lies_in_the_interval(power):
    counts = [50, 71, 100, 141, 200, 283, 400]
    rng, inside = np.random.default_rng(0), 0
    for seed in range(20):
        errors = 2.0 * np.array(counts, float)[:, None] ** -power
        scores = 1 - rng.binomial(100, np.repeat(errors, 5, axis=1)) / 100
        _, (low, high) = question.extrapolate(counts, scores, tested=500, seed=seed)
        truth = 1 - 2.0 * 800**-power
        inside += low <= truth <= high
    assert inside >= 18


def test_a_curve_that_has_leveled_off_lies_in_the_interval_and_a_perfect_one_stays_perfect():
    counts = [50, 100, 200, 400]
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(20):
        scores = 1 - rng.binomial(100, 0.2, (4, 5)) / 100
        estimate, (low, high) = question.extrapolate(counts, scores, tested=500, seed=seed)
        inside += low <= 0.8 <= high
        assert 0.7 < estimate < 0.95
    assert inside >= 17
    estimate, (low, high) = question.extrapolate(counts, np.ones((4, 5)), tested=500)
    assert estimate == pytest.approx(1, abs=2e-3)
    assert high == 1


def shaped(training: float, validation: float, double: float) -> Curves:
    point = Point(100, training, (training, training), validation, (validation, validation))
    return Curves([point], [], "C", double, (double - 0.01, double + 0.01), 125)


@pytest.mark.parametrize(
    ("scores", "shape", "words"),
    [
        ((1.0, 0.8, 0.86), "variance", "More data or more regularization may help. Twice the data may bring 0.860"),
        ((0.82, 0.8, 0.803), "bias", "More capacity may help"),
        ((1.0, 0.8, 0.86), "variance", ": worth it."),
        ((0.82, 0.8, 0.806), "bias", ": perhaps worth it."),  # the interval contains the score of now
        ((1.0, 0.99, 0.991), "enough", "hardly worth it."),
    ],
)
def test_the_sentence_says_what_the_shape_means(scores, shape, words):
    found = shaped(*scores)
    assert found.shape == shape
    assert words in found.sentence


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images", ("ant", "bee"), 40, 32, ".png", seed=4)


@pytest.mark.usefixtures("mean_colors")
def test_the_command_prints_tables_and_draws_them(imgclf, folder, tmp_path, capsys):
    options = ("curves", folder, "--sizes", 4, "--repeats", 2, "--quiet")
    assert imgclf(*options, "-o", tmp_path / "curves.png", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["value"] for point in found["sizes"]] == [4, 10, 25, 64]
    assert found["parameter"] == "C"
    assert [point["value"] for point in found["capacity"]] == list(capacities.STRENGTHS)
    assert found["sizes"][-1]["validation"] > 0.9
    assert 0 <= found["interval"][0] <= found["double"] <= found["interval"][1] <= 1
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > drawn.height > 300
    assert imgclf(*options) == 0
    printed = capsys.readouterr().out
    assert "Accuracy by training size" in printed
    assert found["sentence"] in " ".join(printed.split())


@pytest.mark.usefixtures("mean_colors")
@pytest.mark.parametrize(("model", "parameter", "last"), [("knn", "k", 33), ("tree", "max_depth", None)])
def test_classical_models_have_capacities_of_their_own(folder, model, parameter, last):
    found = library.curves(library.read(folder), CurvesConfig(model=model, sizes=3, repeats=2))
    assert (found.parameter, found.capacity[-1].value) == (parameter, last)
    assert found.capacity[0].training == 1.0 if model == "knn" else found.capacity[0].training < 1.01
    found.write(folder.parent / "curves.png")


def embedded(monkeypatch, informative: int, noise: int) -> None:
    """Features of which the last ones tell the class, behind many that tell nothing."""

    def embed(dataset, settings, on_progress=None):
        rng = np.random.default_rng(0)
        told = np.eye(2)[dataset.labels][:, :1] + rng.normal(0, 0.4, (len(dataset), informative))
        vectors = np.concatenate([rng.normal(0, 1, (len(dataset), noise)), told], axis=1)
        return Embedded(dataset, vectors.astype(np.float32), settings)

    monkeypatch.setattr(embedding, "embed", embed)


@pytest.mark.parametrize("model", ["network", "knn"])
def test_the_number_of_features_is_a_capacity_with_a_best_value(folder, monkeypatch, model, caplog):
    caplog.set_level("INFO", logger="imgclf")
    embedded(monkeypatch, informative=4, noise=60)
    config = CurvesConfig(model=model, sizes=3, repeats=5, capacity="features")
    found = library.curves(library.read(folder), config)
    assert found.parameter == "features"
    assert "Fitted the head" not in caplog.text  # fifty times
    by_number = {point.value: point.validation for point in found.capacity}
    assert list(by_number) == [1, 2, 4, 8, 16, 32, 64]
    assert by_number[4] > max(by_number[1], by_number[64])
    assert found.sizes[-1].validation == max(by_number.values())


def test_the_regularization_of_an_svm_suits_small_and_unequal_parts_too(folder, monkeypatch):
    embedded(monkeypatch, informative=40, noise=2)
    found = library.curves(library.read(folder), CurvesConfig(model="svm", sizes=8, repeats=5))
    assert {point.validation for point in found.capacity} == {1}  # by accuracy, the smallest C would be the best
    assert min(point.training for point in found.sizes) == 1  # with it, one class wins where it has an image more


def test_features_are_chosen_without_the_images_that_score_them(folder, monkeypatch):
    embedded(monkeypatch, informative=0, noise=2000)
    config = CurvesConfig(model="naive-bayes", sizes=3, repeats=5, capacity="features")
    scores = [point.validation for point in library.curves(library.read(folder), config).capacity]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.1)  # chosen from all images, they would score 0.9


def test_features_are_ranked_by_an_analysis_of_variance():
    vectors = np.array([[0, 1, 5, 1], [1, 1, 5, 2], [0, 2, 5, 8], [1, 2, 5, 9]], np.float32)
    assert classical.ranked(vectors, np.array([0, 0, 1, 1])).tolist() == [1, 3, 0, 2]  # F: infinite, 98, 0, none


@pytest.mark.usefixtures("mean_colors")
def test_a_capacity_that_the_model_lacks_is_refused(imgclf, folder, capsys):
    assert imgclf("curves", folder, "--capacity", "k") == 2
    assert "--capacity: expected features or C for the model network, found k." in capsys.readouterr().err
    assert imgclf("curves", folder, "--model", "naive-bayes", "--capacity", "C") == 2
    assert "expected features for the model naive-bayes, found C." in capsys.readouterr().err
    assert imgclf("curves", folder, "--capacity", "width") == 2
    assert "expected one of auto, features, C, k, max-depth, found 'width'" in capsys.readouterr().err


@pytest.mark.usefixtures("mean_colors")
def test_a_model_without_a_capacity_has_no_such_curve(folder, tmp_path):
    found = library.curves(library.read(folder), CurvesConfig(model="naive-bayes", sizes=3, repeats=2))
    assert found.capacity == []
    found.write(tmp_path / "curves.png")


@pytest.mark.usefixtures("mean_colors")
def test_the_report_of_a_run_shows_its_curves(trained_run):
    found = library.curves(trained_run, CurvesConfig(sizes=3, repeats=2))
    page = (trained_run.path / "report.html").read_text()
    section = page[page.index('<section id="answer-curves">') : page.index("<!-- end of answers -->")]
    assert found.sentence in section
    assert section.count("data:image/png;base64,") == 1
    assert "Accuracy by training size" in section


@pytest.mark.usefixtures("mean_colors")
def test_what_makes_no_curve_is_refused(imgclf, folder, tmp_path, capsys):
    assert imgclf("curves", folder, "-o", tmp_path / "curves.svg") == 2
    assert "expected a name that ends in .png" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--repeats"):
        CurvesConfig(repeats=0)
    with pytest.raises(UsageError, match="--sizes"):
        CurvesConfig(sizes=2)
    few = fill(tmp_path / "few", ("ant", "bee"), 3, 32, ".png", 0)
    with pytest.raises(DatasetError, match="images to train on besides the fifth to score on, for a curve of 2"):
        library.curves(library.read(few))
