"""imgclf drift: tests by hand and against scipy, false alarms, and what is planted is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import fill
from PIL import Image, ImageFilter
from scipy import stats

import imgclf as library
from imgclf.data import images, run_data
from imgclf.errors import DatasetError, GateError, UsageError
from imgclf.evaluation import intervals
from imgclf.questions import drift as question
from imgclf.questions.drift import LOOKS, NAMES, Observed

pytest_plugins = ("cli.conftest",)

CLASSES = ("ant", "bee", "wasp")


def observed(count: int, rng: np.random.Generator, shares=(0.4, 0.4, 0.2)) -> Observed:
    """Images of a fixed distribution, whose probabilities are calibrated: the class is drawn by them."""
    leaning = np.eye(3)[rng.choice(3, count, p=shares)]
    probabilities = np.array([rng.dirichlet(0.5 + 8 * row) for row in leaning])
    looks = rng.normal((120, 5, -5, 0.4, 300), (30, 4, 4, 0.05, 50), (count, len(LOOKS)))
    return Observed(probabilities, rng.random(count) < 0.01, looks)


def alarms(known: Observed, new: Observed) -> list[str]:
    return [test.name for test in question.compare(known, new, CLASSES).alarms]


def test_images_of_the_same_distribution_seldom_alarm():
    rng = np.random.default_rng(0)
    assert sum(bool(alarms(observed(150, rng), observed(100, rng))) for _ in range(100)) <= 5


@pytest.mark.parametrize(("name", "place", "shift"), [(name, place, 0.8) for place, name in enumerate(LOOKS)])
def test_a_change_of_looks_is_named(name, place, shift):
    rng = np.random.default_rng(1)
    known, new = observed(300, rng), observed(200, rng)
    looks = new.looks.copy()
    looks[:, place] += shift * known.looks[:, place].std()
    found = question.compare(known, replace(new, looks=looks), CLASSES)
    assert [test.name for test in found.alarms] == [name]
    assert 0.3 < found.alarms[0].effect < 0.6  # of two normal distributions 0.8 deviations apart: 0.43
    assert found.sentence == f"Drift: the new images differ in {name}."
    with pytest.raises(GateError, match=name):
        found.check()


def test_a_missing_class_is_named_and_its_share_is_corrected():
    rng = np.random.default_rng(2)
    known, new = observed(400, rng), observed(300, rng, (0.5, 0.5, 0.0))
    found = question.compare(known, new, CLASSES)
    assert NAMES["classes"] in [test.name for test in found.alarms]
    assert found.classes[2]["known"] > 0.15
    assert found.classes[2]["corrected"] < found.classes[2]["new"] + 0.02 < 0.1


def test_other_objects_are_named():
    rng = np.random.default_rng(3)
    known, new = observed(300, rng), observed(100, rng)
    new = replace(new, outlier=rng.random(100) < 0.2)
    found = question.compare(known, new, CLASSES)
    assert [test.name for test in found.alarms] == [NAMES["outliers"]]
    assert found.alarms[0].effect == pytest.approx(new.outlier.mean() - known.outlier.mean())


def test_a_model_without_a_threshold_has_no_test_of_it():
    rng = np.random.default_rng(4)
    known, new = (replace(observed(100, rng), outlier=None) for _ in range(2))
    assert NAMES["outliers"] not in {test.name for test in question.compare(known, new, CLASSES).tests}


def test_few_images_cannot_tell():
    rng = np.random.default_rng(5)
    found = question.compare(observed(100, rng), observed(5, rng), CLASSES)
    assert found.to_dict()["verdict"] == "cannot tell"
    assert found.sentence == "Cannot tell: expected at least 20 images on either side, found 5 new ones."
    found.check()
    few = question.compare(observed(19, rng), observed(100, rng), CLASSES)
    assert few.sentence.endswith("found 19 held-out ones.")


def test_the_accuracy_is_estimated_from_the_confidences():
    rng = np.random.default_rng(6)
    new = replace(observed(4000, rng), outlier=None)
    truth = np.array([rng.choice(3, p=row) for row in new.probabilities])
    found = question.compare(observed(100, rng), new, CLASSES)
    low, high = found.interval
    assert low < (truth == new.probabilities.argmax(axis=1)).mean() < high
    assert found.accuracy == pytest.approx(new.probabilities.max(axis=1).mean())
    assert f"{found.accuracy:.3f}" in found.caveat


def test_images_out_of_distribution_count_as_errors():
    rng = np.random.default_rng(7)
    new = replace(observed(40, rng), outlier=np.arange(40) < 10)
    found = question.compare(observed(40, rng), new, CLASSES)
    assert found.accuracy == pytest.approx(new.probabilities.max(axis=1)[10:].sum() / 40)


def test_cliffs_delta_and_holm_by_hand():
    assert question.cliffs_delta(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])) == pytest.approx((0 + 3) / 6)
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.9, 0.5]) == [1.0, 1.0]


def test_the_permutation_agrees_with_the_chi_squared_test():
    known, new = np.array([60, 40, 0]), np.array([45, 55, 0])
    expected = stats.chi2_contingency(np.stack([known, new])[:, :2], correction=False).pvalue
    assert question.shares_p(known, new, seed=0) == pytest.approx(expected, abs=0.015)


def test_shares_are_corrected_for_the_mistakes_of_the_model():
    rng = np.random.default_rng(7)
    likelihood = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])  # of a signal, given the class
    truth = rng.choice(3, 20_000, p=(0.1, 0.1, 0.8))
    signal = (rng.random(20_000)[:, None] > likelihood[truth].cumsum(axis=1)).sum(axis=1)
    posterior = likelihood[:, signal].T / likelihood[:, signal].sum(axis=0)[:, None]  # for equal shares
    found = question.corrected_shares(posterior, np.full(3, 1 / 3))
    assert found == pytest.approx([0.1, 0.1, 0.8], abs=0.02)
    assert posterior.argmax(axis=1).tolist().count(2) / 20_000 < 0.7  # as predicted


def test_looks_are_measured_from_the_pixels(tmp_path):
    flat = tmp_path / "flat.png"
    Image.new("RGB", (64, 36), (100, 50, 20)).save(flat)
    brightness, red_green, blue_yellow, _, size = question.look(str(flat), images.DEFAULT)
    assert (red_green, blue_yellow, size) == (50, -55, 48)
    assert brightness == pytest.approx(0.299 * 100 + 0.587 * 50 + 0.114 * 20, abs=1)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    noise.save(tmp_path / "sharp.png")
    noise.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "blurred.png")
    sharp, blurred = (question.look(str(tmp_path / f"{name}.png"), images.DEFAULT)[3] for name in ("sharp", "blurred"))
    assert blurred > sharp + 0.2
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert question.look(str(tmp_path / "broken.png"), images.DEFAULT) is None


def test_the_command_alarms_with_exit_code_6_and_says_when_it_cannot_tell(
    imgclf, trained_run, tmp_path, monkeypatch, capsys
):
    new = fill(tmp_path / "new", ("disc", "two discs"), 30, 40, ".png", seed=8)
    assert imgclf("drift", trained_run.path, new, "--json", "--quiet") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "cannot tell"  # the run has few held-out images
    monkeypatch.setattr(question, "FEWEST", 10)
    assert imgclf("drift", trained_run.path, new, "--quiet") == 0
    assert "No drift found" in capsys.readouterr().out
    five = [str(path) for path in sorted((new / "disc").iterdir())[:5]]
    assert imgclf("drift", trained_run.path, *five, "--quiet") == 0
    assert "Cannot tell: expected at least 10 images on either side, found 5 new ones." in (
        printed := capsys.readouterr().out
    )
    assert "takes 10 images, too" in printed and "Estimated accuracy" not in printed
    assert f"about {', '.join(five[:3])} and others." in (trained_run.path / "report.html").read_text()
    for path in new.rglob("*.png"):
        with Image.open(path) as image:
            image.filter(ImageFilter.GaussianBlur(4)).save(path)
    (new / "disc" / "000.png").write_bytes(b"no image")
    assert imgclf("drift", trained_run.path, new, "--json", "--quiet") == 6
    found = json.loads(capsys.readouterr().out)
    assert "blur" in [test["name"] for test in found["tests"] if test["alarm"]]
    assert (found["verdict"], found["images"], found["unreadable"]) == ("drift", 59, 1)
    assert imgclf("drift", trained_run.path, new, "--quiet") == 6
    printed = capsys.readouterr()
    assert "Estimated accuracy without labels" in printed.out
    page = (trained_run.path / "report.html").read_text()
    assert page.count('<section id="answer-drift">') == 1
    assert f"UTC about {new}." in page
    assert "Drift: the new images differ in" in page
    assert printed.err.startswith("Error: Drift: the new images differ in")


def test_images_that_the_run_was_fitted_to_are_counted(trained_run, tmp_path):
    own = run_data.read(trained_run, splits=("train",)).paths
    new = sorted(fill(tmp_path / "new", ("disc", "two discs"), 2, 40, ".png", seed=8).rglob("*.png"))
    found = library.drift(trained_run, [*own, *new])
    assert found.fitted == len(own)
    assert f"Training images of the run among the new ones: {len(own)}" in found.sentence
    held_out = library.drift(trained_run, run_data.read(trained_run, splits=("test",)).paths)
    assert held_out.fitted == 0 and "Training images" not in held_out.sentence


def test_what_cannot_be_compared_is_refused(imgclf, trained_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert imgclf("drift", trained_run.path, tmp_path / "empty", "--quiet") == 3
    assert "expected images, found none" in capsys.readouterr().err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="none of the 1 images can be read"):
        library.drift(trained_run, broken)
    assert imgclf("drift", tmp_path, broken) == 4
    with pytest.raises(UsageError, match="--false-alarms"):
        library.DriftConfig(false_alarms=0)
