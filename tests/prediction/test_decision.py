import numpy as np
import pytest

from imgclf.errors import ArtifactError
from imgclf.prediction import decision
from imgclf.prediction.decision import Decision, Outliers, Prediction

LABELS = ("ant", "bee")


def prediction(chances: list[float], **more: object) -> Prediction:
    return Prediction("a.png", np.array(chances, np.float32), LABELS, **more)  # type: ignore[arg-type]


def test_an_image_among_the_training_images_is_nearer_than_one_far_away():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(300, 16)) + np.repeat([[4] * 16, [-4] * 16], 150, axis=0) * rng.uniform(size=16)
    outliers = Outliers.fit(known.astype(np.float32))
    near, far = outliers.scores(known[:50] + 0.01), outliers.scores(rng.normal(size=(50, 16)) * 5)
    assert near.max() < np.median(far)
    assert near.dtype == np.float32 and (far <= 2).all()


def test_the_score_is_the_distance_to_the_fifth_neighbour():
    known = np.random.default_rng(0).normal(size=(20, 3))

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    asked = np.array([[0.5, -1, 2]])
    expected = np.sort(np.linalg.norm(unit(known) - unit(asked), axis=1))[4]
    assert Outliers.fit(known).scores(asked)[0] == pytest.approx(expected, abs=2e-3)


def test_what_is_written_is_read_back_and_a_dead_feature_does_no_harm(tmp_path):
    known = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
    known[:, 2] = 7
    outliers = Outliers.fit(known)
    (tmp_path / "o.npz").write_bytes(outliers.to_bytes())
    again = Outliers.read(tmp_path / "o.npz")
    assert np.array_equal(again.scores(known[:9]), outliers.scores(known[:9]))
    assert np.isfinite(again.scores(known[:9])).all()
    (tmp_path / "o.npz").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"o\.npz"):
        Outliers.read(tmp_path / "o.npz")


def test_too_little_confidence_is_unknown():
    assert prediction([0.4, 0.6], rules=Decision(reject_below=0.6)).label == "bee"
    rejected = prediction([0.45, 0.55], rules=Decision(reject_below=0.6))
    assert (rejected.label, rejected.rejected, rejected.reason) == (None, True, "unsure")
    assert rejected.confidence == 0.55
    assert [name for name, _ in rejected.ranked(2)] == ["unknown", "ant"]
    assert [name for name, _ in rejected.top(2)] == ["bee", "ant"]


def test_a_strange_image_is_unknown_however_sure_the_model():
    rules = Decision(outlier_above=1.0)
    assert prediction([0, 1], rules=rules, outlier_score=1.0).label == "bee"
    assert prediction([0, 1], rules=rules, outlier_score=1.1).reason == "outlier"
    assert prediction([0, 1], rules=rules).label == "bee"


def test_a_threshold_decides_instead_of_the_larger_probability():
    rules = Decision(positive="ant", threshold=0.2)
    assert prediction([0.2, 0.8], rules=rules).label == "ant"
    assert prediction([0.2, 0.8], rules=rules).confidence == 0.2
    assert prediction([0.1, 0.9], rules=rules).label == "bee"
    assert [name for name, _ in prediction([0.2, 0.8], rules=rules).ranked(2)] == ["ant", "bee"]


def test_a_prediction_set_holds_every_class_from_its_probability_on_and_never_none():
    assert prediction([0.3, 0.7], rules=Decision(set_from=0.3)).classes == ("ant", "bee")
    assert prediction([0.3, 0.7], rules=Decision(set_from=0.5)).classes == ("bee",)
    assert prediction([0.3, 0.7], rules=Decision(set_from=0.9)).classes == ("bee",)
    assert prediction([0.3, 0.7]).classes is None
    assert decision.decide(np.array([[0.3, 0.7]]), LABELS).members is None


def test_an_image_that_cannot_be_read_has_no_answer_at_all():
    broken = Prediction("a.png", None, LABELS, "broken", rules=Decision(set_from=0.1, reject_below=0.5))
    assert broken.label is broken.argmax is broken.confidence is broken.reason is broken.classes is None
    assert broken.ranked(2) == []


def test_many_rows_are_decided_as_each_alone():
    rules = Decision(positive="ant", threshold=0.3, reject_below=0.4, outlier_above=1.0, set_from=0.35)
    chances = np.array([[0.3, 0.7], [0.1, 0.9], [0.45, 0.55], [0.9, 0.1], [0.62, 0.38]], np.float32)
    scores = np.array([0.5, 0.5, 0.5, 1.5, 1.0])
    decided = decision.decide(chances, LABELS, rules, scores)
    assert decided.argmax.tolist() == [1, 1, 1, 0, 0]
    assert decided.chosen.tolist() == [0, 1, 0, 0, 0]
    assert decided.predicted.tolist() == [decision.REJECTED, 1, 0, decision.REJECTED, 0]
    assert decided.unsure.tolist() == [True, False, False, False, False]
    assert decided.outlier.tolist() == [False, False, False, True, False]
    for row, (pair, score) in enumerate(zip(chances.tolist(), scores.tolist(), strict=True)):
        alone = prediction(pair, rules=rules, outlier_score=score)
        assert (alone.argmax, alone.rejected) == (LABELS[decided.argmax[row]], decided.rejected[row])
        assert alone.label == (None if decided.rejected[row] else LABELS[decided.predicted[row]])
        assert alone.confidence == pytest.approx(decided.confidence[row])
        assert alone.classes == tuple(np.array(LABELS)[decided.members[row]])


def test_a_rejected_image_is_ranked_without_the_class_it_would_have():
    rules = Decision(positive="ant", threshold=0.3, reject_below=0.4)
    assert prediction([0.35, 0.65], rules=rules).ranked(2) == [("unknown", 0.35), ("bee", 0.65)]
