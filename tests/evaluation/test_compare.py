from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from imgclf.data.dataset import TEST, Dataset, Sample, write_manifest
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import compare, outputs

NAMES = ["ant", "bee"]


def answer(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.eye(2)[np.where(right, labels, 1 - labels)] * 0.8 + 0.1


def write(folder: Path, right: list[int], names: list[str] = NAMES, prefix: str = "", *, start: int = 0) -> Path:
    """A folder of predictions: image i shows class i % 2, and is answered rightly where `right` says so."""
    rows = np.arange(start, start + len(right))
    labels = np.array([names.index(NAMES[row % 2]) for row in rows])
    paths = [f"{prefix}{row}.png" for row in rows]
    folder.mkdir()
    outputs.write_predictions(folder / "predictions.csv", paths, labels, answer(labels, np.array(right)), names)
    samples = tuple(Sample(p, NAMES[row % 2], TEST, sha256=f"{row:02}") for p, row in zip(paths, rows, strict=True))
    write_manifest(Dataset(folder, samples, tuple(NAMES)), folder / "manifest.csv")
    return folder


def said(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The predicted class of two, which is the true one where `right` says so."""
    return np.where(right, labels, 1 - labels)


def test_a_pair_computed_by_hand():
    labels = np.zeros(10, int)
    first = said(labels, np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]))
    second = said(labels, np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 0]))
    found = compare.pair(labels, first, second)
    assert found["accuracy"] == pytest.approx(0.4)
    assert (found["only_first"], found["only_second"]) == (1, 5)
    assert found["p"] == pytest.approx(2 * (1 + 6) / 2**6)  # 5 or 6 of 6, or 0 or 1
    assert found["interval"][0] < 0.4 < found["interval"][1]


def test_the_interval_is_that_of_the_paired_difference():
    rng = np.random.default_rng(0)
    labels = np.zeros(400, int)
    first = rng.uniform(size=400) < 0.8
    second = first ^ (rng.uniform(size=400) < 0.1)  # alike on most images
    low, high = compare.pair(labels, said(labels, first), said(labels, second))["interval"]
    gain = second.astype(int) - first.astype(int)
    reach = 1.96 * gain.std() / 20
    assert (low, high) == pytest.approx((gain.mean() - reach, gain.mean() + reach), abs=0.006)


def test_equal_answers_differ_by_nothing():
    labels = np.array([0, 1, 1])
    same = said(labels, np.array([1, 0, 1]))
    found = compare.pair(labels, same, same)
    assert (found["accuracy"], found["interval"], found["p"]) == (0, [0, 0], 1)


def test_images_of_one_group_are_drawn_together():
    labels = np.zeros(200, int)
    second = said(labels, np.repeat([1, 1, 0, 1], 50))
    alone = compare.pair(labels, said(labels, np.ones(200)), second)["interval"]
    grouped = compare.pair(labels, said(labels, np.ones(200)), second, [str(i // 50) for i in range(200)])["interval"]
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_a_rejected_image_is_no_correct_prediction(tmp_path):
    one, other = write(tmp_path / "one", [1] * 6), write(tmp_path / "other", [1] * 6)
    found = outputs.read_predictions(other / "predictions.csv")
    rejecting = found._replace(predicted=np.array([-1, -1, 0, 1, 0, 1]))
    outputs.write_predictions(other / "predictions.csv", *rejecting)
    table = compare.compare([one, other])
    assert [row["accuracy"] for row in table["runs"]] == [1, 4 / 6]
    assert (table["pairs"][0]["only_first"], table["pairs"][0]["only_second"]) == (2, 0)


def test_runs_are_matched_by_content_and_classes_by_name(tmp_path):
    one = write(tmp_path / "one", [1] * 10 + [0] * 10)
    other = write(tmp_path / "other", [1] * 20, NAMES[::-1], prefix="elsewhere/")
    found = compare.compare([one, other])
    assert found["n"] == 20
    assert [row["accuracy"] for row in found["runs"]] == [0.5, 1.0]
    [pair] = found["pairs"]
    assert pair["accuracy"] == 0.5 and pair["p"] == pytest.approx(2 / 2**10)
    assert found["sentence"].startswith(f"{other} is better than {one}: its accuracy is 50.0 percentage points higher")


def test_a_difference_that_chance_explains_is_called_so(tmp_path):
    one, other = write(tmp_path / "one", [1] * 9 + [0]), write(tmp_path / "other", [1] * 10)
    sentence = compare.compare([one, other])["sentence"]
    assert sentence.startswith("No significant difference")
    assert f"p = {stats.binomtest(1, 1).pvalue:.2g}" in sentence


def test_equal_results_are_no_proof_of_equal_models(tmp_path):
    one, other = write(tmp_path / "one", [1] * 9 + [0]), write(tmp_path / "other", [1] * 9 + [0])
    assert compare.compare([one, other])["sentence"] == (
        f"{one} and {other} make the same predictions, so these 10 images cannot tell which is better: on others, "
        "their accuracies may differ by up to 25.9 percentage points (95% confidence)."  # 1 - 0.05^(1/10)
    )
    third = write(tmp_path / "third", [0] + [1] * 9)
    assert compare.compare([one, third])["sentence"] == (
        f"{one} and {third} make equally many correct predictions: each is correct on 1 image on which the other is "
        "not. These images cannot tell which is better."
    )


def test_several_runs_name_those_that_chance_explains(tmp_path):
    paths = [write(tmp_path / name, right) for name, right in (("a", [0] * 20), ("b", [1] * 19 + [0]), ("c", [1] * 20))]
    found = compare.compare(paths)
    assert len(found["pairs"]) == 3
    assert found["sentence"] == (
        f"{paths[2]} makes the most correct predictions, but chance alone can explain its lead over {paths[1]}."
    )


def test_different_test_sets_are_refused_unless_told(tmp_path):
    one, other = write(tmp_path / "one", [1] * 10), write(tmp_path / "other", [1] * 10, start=4)
    with pytest.raises(RunError, match=r"found 6 in common of up to 10.*--common"):
        compare.compare([one, other])
    assert compare.compare([one, other], common=True)["n"] == 6
    with pytest.raises(RunError, match="found none"):
        compare.compare([one, write(tmp_path / "far", [1], start=50)], common=True)


def test_what_cannot_be_compared_is_an_error(tmp_path):
    one = write(tmp_path / "one", [1] * 4)
    with pytest.raises(UsageError, match="at least 2 different"):
        compare.compare([one, one])
    with pytest.raises(RunError, match="predictions"):
        compare.compare([one, tmp_path])
    labels = np.zeros(1, int)
    (tmp_path / "foreign").mkdir()
    outputs.write_predictions(
        tmp_path / "foreign" / "predictions.csv", ["0.png"], labels, answer(labels, labels), ["cat", "dog"]
    )
    with pytest.raises(RunError, match="expected the classes of"):
        compare.compare([one, tmp_path / "foreign"])
