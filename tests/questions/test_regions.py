"""Decision regions on two features: margin and hinge loss by hand, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

import imgclf as library
from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import plane
from imgclf.questions import regions
from imgclf.settings import FeaturesConfig

pytest_plugins = ("cli.conftest",)

LINEAR = FeaturesConfig(model="svm", kernel="linear", columns="a,b")


def test_a_linear_svm_of_four_points_has_the_margin_and_hinge_loss_of_the_hand_calculation():
    points = np.array([[0, 0], [0, 2], [4, 0], [4, 2]], float)  # standardized: -1 or 1 on each axis
    found = regions.fit(points, ["left", "left", "right", "right"], LINEAR)
    # the border lies in the middle, each margin at the points themselves: w = (1, 0), hinge loss 0, width 2
    assert (found.accuracy, found.margin.hinge_loss) == (1.0, pytest.approx(0, abs=1e-3))
    assert found.margin.strength == 1 / 4
    assert found.margin.width == pytest.approx(2, rel=1e-3)
    assert found.margin.penalty == pytest.approx(1 / 8, rel=1e-3)
    assert set(found.supports.tolist()) <= {0, 1, 2, 3} and len(found.supports) >= 2


def test_hinge_loss_and_penalty_are_what_the_solver_minimizes():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (40, 2)), rng.normal(1, 1, (40, 2))])
    found = regions.fit(points, ["x"] * 40 + ["y"] * 40, LINEAR)
    scaled = (points - points.mean(axis=0)) / points.std(axis=0)
    signs = np.repeat([-1, 1], 40)
    svm = found.estimator[-1]

    def objective(weights, bias):
        return (
            found.margin.strength / 2 * weights @ weights + np.maximum(0, 1 - signs * (scaled @ weights + bias)).mean()
        )

    own = objective(svm.coef_[0], svm.intercept_[0])
    assert found.margin.hinge_loss + found.margin.penalty == pytest.approx(own)
    for _ in range(50):
        assert objective(svm.coef_[0] + rng.normal(0, 0.1, 2), svm.intercept_[0] + rng.normal(0, 0.1)) >= own - 1e-4


@pytest.mark.parametrize("model", ["knn", "tree", "forest", "logreg", "naive-bayes"])
def test_the_regions_of_other_models_are_their_predictions(model):
    points = np.array([[x, y] for x in (0, 1, 10, 11) for y in range(5)], float)
    found = regions.fit(points, ["left"] * 10 + ["right"] * 10, FeaturesConfig(model=model))
    assert found.estimator.predict([[0.5, 2], [10.5, 2]]).tolist() == [0, 1]
    assert (found.accuracy, found.supports, found.margin) == (1.0, None, None)


def test_a_curved_or_threefold_border_has_support_vectors_and_no_margin():
    points = np.array([[0, 0], [0, 1], [5, 0], [5, 1], [9, 0], [9, 1]], float)
    labels = ["a", "a", "b", "b", "c", "c"]
    assert regions.fit(points, labels, LINEAR).margin is None
    curved = regions.fit(points[:4], labels[:4], FeaturesConfig(model="svm", kernel="rbf"))
    assert curved.margin is None and len(curved.supports) == 4


def test_the_image_has_the_color_of_the_class_on_its_side():
    points, labels = np.array([[0, 0], [0, 1], [10, 0], [10, 1]], float), ["a", "a", "b", "b"]
    drawn = plane.draw(points, labels, ("x", "y"), predict=lambda grid: (grid[:, 0] > 5).astype(int))
    assert drawn.startswith(b"\x89PNG")
    import io

    image = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).reshape(-1, 3)
    tints = {tuple(color) for color in image.tolist()}
    # a quarter of the class's color on white: #1f77b4 and #d95f02
    for color in ((0x1F, 0x77, 0xB4), (0xD9, 0x5F, 0x02)):
        wanted = np.array([255 + 0.25 * (channel - 255) for channel in color])
        assert min(np.abs(np.array(list(tints)) - wanted).max(axis=1)) <= 2


def test_the_command_draws_and_reports(imgclf, tmp_path, capsys):
    for name, color in (("dark", 20), ("light", 200)):
        for number in range(4):
            path = tmp_path / "stripes" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (color + 5 * number, color, 7 * number)).save(path)
    folder = tmp_path / "stripes"
    common = ("features", folder, "--features", "mean-color", "--columns", "mean-color:red,mean-color:blue")
    options = ("--model", "svm", "--kernel", "linear", "--image-size", 16, "--quiet", "--json")
    assert imgclf(*common, *options, "--map", tmp_path / "plane.png") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == 1.0
    assert found["margin"]["strength"] == 1 / 8
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    assert imgclf(*common, "--model", "svm", "--map", tmp_path / "plane.html") == 2
    assert "expected a name that ends in .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "map", "found"),
    [
        ({"model": "knn"}, "x.png", "--model knn: expected --columns X,Y"),
        ({"columns": "a,b"}, None, "--columns: expected --map"),
    ],
)
def test_settings_without_effect_are_refused(options, map, found, tmp_path):
    with pytest.raises(UsageError, match=found):
        regions.check(FeaturesConfig(**options), tmp_path / map if map else None)


def test_unknown_columns_and_impossible_data_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--columns: expected two columns, separated by a comma, found 'a'"):
        FeaturesConfig(columns="a")
    (tmp_path / "one").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a.png")
    dataset = library.read(tmp_path, split=False)
    table = library.features(dataset, FeaturesConfig(features="mean-color", image_size=16))
    with pytest.raises(UsageError, match="Did you mean mean-color:red"):
        regions.columns(table, FeaturesConfig(columns="mean-color:rod,mean-color:blue"))
    with pytest.raises(UsageError, match="expected two different columns, found 'mean-color:red' twice"):
        regions.columns(table, FeaturesConfig(columns="mean-color:red,mean-color:red"))
    with pytest.raises(DatasetError, match="expected images of at least 2 classes, found 1"):
        regions.fit(np.zeros((3, 2)), ["a"] * 3, LINEAR)
    with pytest.raises(UsageError, match="--k: expected at most 4"):
        regions.fit(np.zeros((4, 2)), ["a", "a", "b", "b"], FeaturesConfig(model="knn", k=5))
