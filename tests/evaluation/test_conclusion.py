from pathlib import Path

import numpy as np
import pytest

from imgclf import runs, storage
from imgclf.evaluation import conclusion, metrics
from imgclf.runs import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run as the commands name it from the folder above."""
    monkeypatch.chdir(tmp_path)
    made = runs.create(tmp_path / "runs" / "r")
    storage.write_json(
        made.config, {"data": str(tmp_path / "my data"), "config": {"method": "probe", "balance": "none"}}
    )
    return made


def scores(labels: np.ndarray, correct: int, groups: list[str] | None = None) -> dict:
    """Scores of predictions of which the first `correct` are correct."""
    probabilities = np.eye(2)[labels] * 0.8 + 0.1
    probabilities[correct:] = probabilities[correct:, ::-1]
    return metrics.score(labels, probabilities, ("bad", "good"), groups=groups, replicates=50)


def test_a_wide_interval_is_explained_and_its_remedy_comes_first(run):
    found = conclusion.lines(run, run.path, scores(np.arange(40) % 2, 36), {"bad": 50, "good": 60})
    assert found == [
        "About 90 of 100 images like these are classified correctly; with 40 test images, the true figure probably "
        "lies between 77 and 96. 4 times as many test images would halve this range.",  # Wilson's 0.769 to 0.960
        "Next: imgclf evaluate runs/r --kfold 5 (tests every image once)",
        "  or: imgclf train 'my data' --method finetune (trains upper layers, too)",
    ]


def test_a_good_model_with_many_images_is_to_be_used(run):
    (run.path / "report.html").touch()
    found = conclusion.lines(run, run.path, scores(np.arange(2000) % 2, 1980), {"bad": 50, "good": 60})
    assert found == [
        "About 99 of 100 images like these are classified correctly; with 2,000 test images, the true figure probably "
        "lies between 98 and 99.",
        "Look at the mistakes and the curves: open runs/r/report.html",
        "Next: imgclf predict runs/r IMAGES (classifies new images)",
        "  or: imgclf calibrate runs/r --reject-below auto (rejects unsure images)",
    ]


def with_missed(count: int) -> dict:
    """Scores of 1,000 bad and 1,000 good ones, with `count` bad ones that are taken for good."""
    labels = np.arange(2000) % 2
    probabilities = np.eye(2)[labels] * 0.8 + 0.1
    probabilities[: 2 * count : 2] = (0.1, 0.9)
    return metrics.score(labels, probabilities, ("bad", "good"), replicates=50)


def test_a_rare_class_that_is_missed_is_named_with_the_option_for_it(run):
    missed = with_missed(250)
    found = conclusion.lines(run, run.path, missed, {"bad": 9, "good": 50})
    assert found[1] == (
        "Next: imgclf train 'my data' --balance weights (rare, and missed more often than others: 'bad', recall 0.75)"
    )
    found = conclusion.lines(run, run.path, missed, {"bad": 10, "good": 50})
    assert "--balance" not in " ".join(found)  # not rare
    found = conclusion.lines(run, run.path, missed, {"bad": 50, "good": 9})
    assert "--balance" not in " ".join(found)  # the rare one is found


def test_a_rejected_image_of_a_rare_class_is_no_reason_for_weights(run):
    rejecting = with_missed(250) | {"argmax": with_missed(0)}
    found = conclusion.lines(run, run.path, rejecting, {"bad": 9, "good": 50})
    assert "--balance" not in " ".join(found)


def test_the_next_command_reads_the_same_data(run):
    facts = run.read_config()
    facts["config"] |= {"depth": "last", "label_column": "the species", "crowd": True, "seed": 0}
    storage.write_json(run.config, facts)
    found = conclusion.lines(run, run.path, with_missed(250), {"bad": 9, "good": 50})
    assert found[1] == (
        "Next: imgclf train 'my data' --depth last --label-column 'the species' --crowd --balance weights "
        "(rare, and missed more often than others: 'bad', recall 0.75)"
    )


def test_a_class_without_test_images_is_named(run):
    found = conclusion.lines(run, run.path, scores(np.zeros(40, dtype=int), 36), {})
    assert found[1] == "Not tested, as the test images contain none of it: 'good'."


def test_few_groups_are_the_reason_of_a_wide_interval(run):
    groups = ["north", "south"] * 20
    found = conclusion.lines(run, run.path, scores(np.arange(40) % 2, 36, groups), {})
    assert "They come from 2 groups only; more groups would make it surer." in found[0]


def test_a_run_without_scores_ends_without_a_verdict(run):
    assert conclusion.of_run(run) == []
