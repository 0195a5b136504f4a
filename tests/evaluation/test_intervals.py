import numpy as np
import pytest
import scipy.stats

from imgclf.evaluation import intervals
from tests.benchmarks import coverage


def test_draws_keep_every_class_as_large_as_it_is():
    labels = np.array([0] * 7 + [1] * 3)
    weights = np.concatenate(list(intervals.draws(labels, replicates=40)), axis=1)
    assert weights.shape == (10, 40)
    assert (weights[:7].sum(axis=0) == 7).all()
    assert (weights[7:].sum(axis=0) == 3).all()
    assert len({tuple(column) for column in weights.T.tolist()}) > 30


def test_draws_take_groups_as_a_whole_and_a_group_by_its_most_frequent_class():
    labels = np.array([0, 0, 1, 1, 1, 0, 1])
    groups = ["a", "a", "a", "b", "b", "", ""]
    unit, strata = intervals.units(labels, groups)
    assert unit.tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert strata.tolist() == [0, 1, 0, 1]
    weights = np.concatenate(list(intervals.draws(labels, groups, replicates=40)), axis=1)
    assert (weights[0] == weights[1]).all() and (weights[0] == weights[2]).all() and (weights[3] == weights[4]).all()
    assert (weights[0] + weights[5] == 2).all()  # two units of the class 0


def test_many_images_are_drawn_a_few_replicates_at_a_time(monkeypatch):
    monkeypatch.setattr(intervals, "_CHUNK", 100)
    widths = [part.shape[1] for part in intervals.draws(np.zeros(30, int), replicates=10)]
    assert widths == [3, 3, 3, 1]


def test_the_interval_of_a_mean_is_that_of_scipys_bootstrap():
    values = np.random.default_rng(0).exponential(size=300)
    weights = np.concatenate(list(intervals.draws(np.zeros(300, int), replicates=4000)), axis=1)
    low, high = intervals.percentiles(values @ weights / 300, values.mean(), (0, 1))
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, rng=0, method="BCa").confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_reach_is_that_of_student_where_there_are_few():
    assert intervals.spread(np.repeat([0, 1], 100_000)) == pytest.approx(1.96, abs=1e-3)
    assert intervals.spread(np.repeat([0, 1], 10)) == pytest.approx(np.sqrt(10 / 9) * 2.262, abs=1e-3)
    assert intervals.spread(np.array([0, 3])) > 10


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1000])
def test_wilsons_interval_holds_the_true_share_in_95_of_100_draws(n):
    rng = np.random.default_rng(0)
    for share in rng.uniform(0.1, 0.95, 5):
        ends = np.array([intervals.wilson(k, n) for k in range(n + 1)])[rng.binomial(n, share, 10_000)]
        coverage = ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean()
        assert 0.93 <= coverage <= 0.97, (share, coverage)


def test_the_interval_of_a_mean_of_shares_by_hand():
    assert intervals.mean_of_shares([7], [10]) == pytest.approx(intervals.wilson(7, 10))
    shares = np.array([10 / 12, 51 / 102])  # one success and one failure more of each
    reach = 1.96 * np.sqrt(10 / 12 * 2 / 12 / 12 + 0.25 / 102) / 2
    assert intervals.mean_of_shares([9, 50], [10, 100]) == pytest.approx(
        (shares.mean() - reach, shares.mean() + reach), abs=1e-5
    )
    low, high = intervals.mean_of_shares([5, 8], [5, 8])
    assert 0.7 < low < 0.9 and high == 1


@pytest.mark.parametrize("sizes", [(100, 100), (10,) * 20, (60, 50, 50, 40), (12, 10, 8)])
def test_the_interval_of_a_mean_of_shares_holds_it_in_95_of_100_draws(sizes):
    rng = np.random.default_rng(0)
    shares = np.linspace(0.7, 0.95, len(sizes))
    ends = np.array([intervals.mean_of_shares(rng.binomial(sizes, shares), sizes) for _ in range(4000)])
    assert 0.93 <= ((ends[:, 0] <= shares.mean()) & (shares.mean() <= ends[:, 1])).mean() <= 0.97


def test_the_interval_of_an_area_is_a_normal_one_of_logits_less_the_bias():
    logits = np.random.default_rng(0).normal(2.1, 0.4, 100_000)  # the estimate's is 2.0: a bias of 0.1
    estimate = 1 / (1 + np.exp(-2.0))
    low, high = intervals.logistic(1 / (1 + np.exp(-logits)), estimate, (0, 1))
    ends = np.log([low / (1 - low), high / (1 - high)])
    assert ends == pytest.approx([1.9 - 1.96 * 0.4, 1.9 + 1.96 * 0.4], abs=0.01)


def test_the_interval_of_an_area_at_its_end_is_that_of_a_proportion_and_near_it_not_the_whole_range():
    assert intervals.logistic(np.ones(100), 1.0, (0.1, 0.9)) == (0.9, 1.0)
    assert intervals.logistic(np.zeros(100), 0.0, (0.1, 0.9)) == (0.0, 0.1)
    assert intervals.logistic(np.full(100, np.nan), 0.5, (0.1, 0.9)) is None
    nearly = np.where(np.arange(1000) % 4 == 0, 1.0, 0.999)  # a quarter of the draws holds no mistake
    low, high = intervals.logistic(nearly, 0.999, (0.1, 0.9))
    assert 0.98 < low < 0.999 < high < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "least", "most"),
    [
        ("2 x 100", 0.93, 0.97),
        ("60, 50, 50, 40", 0.93, 0.97),
        ("2 x 300", 0.93, 0.97),
        ("180 + 20", 0.90, 0.985),
        ("12, 10, 8", 0.90, 0.985),
    ],
)
def test_bootstrap_intervals_hold_the_true_score_in_95_of_100_draws(case, least, most):
    found = coverage.coverage(coverage.CASES[case], 1000)
    if sum(coverage.CASES[case]) < 200:
        del found["macro_roc_auc"]  # is stated in the README: 99 of 100
    assert {key: share for key, share in found.items() if not least <= share <= most} == {}
