"""Automatic training: stages are kept when validation says so, and skipped when there is no time for them."""

import csv
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import recipe_of

import imgclf
from imgclf import runs, storage
from imgclf.data import loading
from imgclf.errors import RunError
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.tasks import multiclass
from imgclf.training import auto_finetune, descent, loop, lr_finder, methods, network, stage_selection
from imgclf.training.auto_finetune import Search
from imgclf.training.images import Images
from imgclf.training.job import Job
from imgclf.training.recipe import Recipe
from imgclf.training.stage_selection import ACCEPTED
from imgclf.training.time_budget import Clock

NOTHING, PERFECT = (0.0, 100.0), (1.0, 0.0)
"""Scores that anything is better than, and that nothing is."""


@pytest.fixture
def job(image_folder: Callable[..., Path], tmp_path: Path) -> Job:
    """Before the probe: a small network of random weights, which is enough for the stages, and an hour."""
    plain = recipe_of(image_size=32, cache=str(tmp_path / "cache"), cached_augmentations=1, augment="light", lr=1e-3)
    recipe = replace(plain, method="auto")
    dataset = imgclf.read(image_folder(classes=("x", "y", "z"), count=16), recipe.settings)
    dataset, pixels = loading.decode(dataset, 32)
    clock = Clock(time.monotonic(), 3600.0)
    (tmp_path / "run").mkdir()
    return Job(network.build(recipe, 3), recipe, Images(dataset, pixels), Run(tmp_path / "run"), clock)


def probed(job: Job, score: tuple[float, float] | None = None) -> Search:
    """A search after the probe, whose validation had a score."""
    fitted = job.fit_head("probe")
    found = auto_finetune.validation_score(fitted)
    assert found
    return Search(job, fitted, score or found)


def outcomes(job: Job) -> dict[str, str]:
    return {row["phase"]: row["outcome"] for row in job.rows if "outcome" in row}


def limited(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with a time limit that was given."""
    return replace(recipe, settings=replace(recipe.settings, time_limit="1h"), **changes)


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stage_is_kept_if_no_fewer_are_correct_and_the_loss_falls():
    assert stage_selection.judge((0.8, 0.5), (0.8, 0.4)) == ACCEPTED
    assert stage_selection.judge((0.8, 0.5), (0.9, 0.4)) == ACCEPTED
    assert "accuracy 0.7000 is below 0.8000" in stage_selection.judge((0.8, 0.5), (0.7, 0.1))
    assert "loss 0.6000 is not below 0.5000" in stage_selection.judge((0.8, 0.5), (0.9, 0.6))


def test_what_makes_all_that_follows_slower_must_get_more_correct():
    assert "accuracy 0.8000 is not above 0.8000" in stage_selection.judge((0.8, 0.5), (0.8, 0.4), costly=True)
    assert "accuracy 0.7000 is below 0.8000" in stage_selection.judge((0.8, 0.5), (0.7, 0.4), costly=True)
    assert stage_selection.judge((0.8, 0.5), (0.9, 0.4), costly=True) == ACCEPTED


def test_a_larger_size_that_gets_as_many_correct_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    job.recipe = replace(job.recipe, sizes=(32, 48))
    search = probed(job, (0.75, 0.5))
    monkeypatch.setattr(stage_selection, "score", lambda *_: (0.75, 0.4))
    search.run()
    assert outcomes(job)["probe 48 px"] == "refused: validation accuracy 0.7500 is not above 0.7500"
    assert search.job.recipe.image_size == 32


def test_the_probe_comes_first_and_every_stage_has_an_outcome(job: Job):
    search = probed(job)
    first = search.score
    search.run()
    assert job.rows[0]["phase"] == "probe"
    assert set(outcomes(job)) <= {"finetune 33%", "finetune 67%", "finetune 100%"}
    assert len(outcomes(job)) >= 2
    assert search.score >= first[:1]
    validation = job.images.validation()
    assert validation and descent.score(job, validation) == pytest.approx(search.score, abs=1e-4)


def test_a_stage_that_does_not_help_leaves_no_trace_and_two_of_them_are_enough(job: Job):
    search = probed(job, PERFECT)
    before, probe = job.model.get_weights(), search.best
    search.run()
    assert [text[:7] for text in outcomes(job).values()] == ["refused", "refused"]
    assert_same(before, job.model.get_weights())
    assert probe and search.fitted().embeddings is probe.embeddings and not search.has_improved


@pytest.mark.slow
def test_a_stage_that_helps_is_kept_with_its_embeddings(job: Job):
    search = probed(job, NOTHING)
    before, probe = job.model.get_weights(), search.fitted()
    search.run()
    assert "accepted" in outcomes(job).values()
    assert any((one != other).any() for one, other in zip(before, job.model.get_weights(), strict=True))
    fitted = search.fitted()
    expected = loop.predict(keras_logits(job), job.images.pixels, 8)
    np.testing.assert_allclose(fitted.logits, expected, atol=1e-4)
    assert np.abs(fitted.embeddings - probe.embeddings).max() > 1e-4


def keras_logits(job: Job) -> Any:
    from imgclf.models import classifier

    model = classifier.logits(job.model)
    model.compile()
    return model


def test_after_a_probe_with_few_mistakes_auto_stops_and_says_so_unless_a_limit_was_given(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    tried: list[Search] = []
    monkeypatch.setattr(Search, "run", lambda search: tried.append(search))
    runs.create(job.run.path)
    storage.write_json(job.run.config, {"data": "images", "config": {}})
    caplog.set_level(logging.INFO, logger="imgclf")
    fitted = methods.auto(job)  # of 8 validation images
    assert not tried and "Stopped after the probe" in caplog.text
    assert_same(fitted.model.get_weights(), job.model.get_weights())
    job.recipe = limited(job.recipe)
    methods.auto(job)
    assert len(tried) == 1


def test_without_time_only_the_probe_is_made_and_the_reason_said(job: Job, caplog):
    caplog.set_level(logging.INFO, logger="imgclf")
    job.clock = Clock(time.monotonic() - 50.0, 51.0)
    probed(job).run()
    assert [row["phase"] for row in job.rows] == ["probe"]
    assert "Fine-tuning 33%: skipped" in caplog.text


def test_a_stage_ends_at_its_deadline(job: Job):
    probed(job)
    recipe = replace(job.recipe, epochs=10_000, caches_activations=False, unfreeze_from="1.0")
    started = time.monotonic()
    descent.descend(job, "finetune 100%", recipe, started + 3.0)
    assert 2.9 < time.monotonic() - started < 60


@pytest.mark.slow
def test_a_larger_size_is_a_stage_that_is_kept_where_it_helps(job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    job.recipe = replace(job.recipe, sizes=(32, 48, 64))
    search = probed(job, NOTHING)
    search.run()
    assert outcomes(job)["probe 48 px"] == "accepted"
    size = 64 if outcomes(job)["probe 64 px"] == "accepted" else 48
    fitted = search.fitted()
    assert fitted.model.input_shape == (None, size, size, 3)
    assert fitted.recipe.image_size == fitted.recipe.settings.image_size == fitted.images.pixels.shape[1] == size
    assert auto_finetune.validation_score(fitted) == pytest.approx(search.score, abs=1e-4)
    assert fitted.predictions("test").shape == (len(job.images.rows("test")), 3)


def test_a_larger_size_that_does_not_help_leaves_no_trace(job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    job.recipe = replace(job.recipe, sizes=(32, 48))
    search = probed(job, PERFECT)
    before = job.model.get_weights()
    search.run()
    assert outcomes(job)["probe 48 px"].startswith("refused")
    assert search.job is job and job.recipe.image_size == 32 and not search.has_improved
    assert_same(before, job.model.get_weights())


@pytest.mark.slow
def test_the_size_that_was_kept_is_that_of_a_resumed_search(job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    job.recipe = replace(job.recipe, sizes=(32, 48))
    again = replace(job, rows=[])
    first = probed(job, NOTHING)
    first.run()
    second = probed(again)
    second.run()
    assert second.job.recipe.image_size == 48 and again.rows == job.rows
    np.testing.assert_allclose(second.fitted().logits, first.fitted().logits, atol=1e-5)


def test_a_stage_that_cannot_begin_in_its_time_is_told_and_leaves_no_trace(job: Job, monkeypatch: pytest.MonkeyPatch):
    search = probed(job)
    before = job.model.get_weights()
    monkeypatch.setattr(Clock, "left_s", lambda self, kept_back_s=0.0: 60.0)
    monkeypatch.setattr(Clock, "deadline", lambda self, kept_back_s=0.0: 0.0)  # over as the activations are computed
    search.run()
    assert outcomes(job)["finetune 33%"] == stage_selection.NO_TIME
    assert not search.has_improved
    assert_same(before, job.model.get_weights())


def test_what_took_longer_than_forecast_makes_the_clock_careful():
    clock = Clock(time.monotonic(), 60.0)
    calm = clock.ending_s(2, 100, 3.0)
    clock.learn(2.0, 6.0)
    assert clock.ending_s(2, 100, 3.0) == pytest.approx(3 * calm)
    clock.learn(0.01, 0.5)  # too short to say anything
    assert clock.drift == 3.0
    clock.learn(6.0, 3.0)
    assert clock.drift == 1.0
    assert clock.ending_s(0, 100, 3.0) < calm


def test_an_interrupted_search_resumes_after_its_last_stage(job: Job, monkeypatch: pytest.MonkeyPatch):
    search = probed(job)
    monkeypatch.setattr(auto_finetune, "SHARES", (1 / 3,))
    search.run()
    again = Search(replace(job, rows=[]), search.best, NOTHING)
    tried: list[str] = []
    monkeypatch.setattr(auto_finetune, "SHARES", (1 / 3, 2 / 3))

    def stage(self: Search, share: float, name: str) -> bool:
        tried.append(name)
        return True

    monkeypatch.setattr(Search, "unfreeze", stage)
    again.run()
    assert tried == ["finetune 67%"]
    assert again.job.rows == job.rows and again.score == search.score and again.done == ["finetune 33%"]


def test_the_image_sizes_that_were_given_come_before_more_trainable_layers(job: Job):
    search = probed(job)
    job.recipe = replace(job.recipe, sizes=(32, 64))
    assert [name for name, _ in search.stages()] == ["probe 64 px", "finetune 33%", "finetune 67%", "finetune 100%"]


def test_exports_without_time_are_named_before_training(job: Job, caplog: pytest.LogCaptureFixture):
    formats = replace(job.recipe.settings, export="litert,savedmodel", time_limit="1m")
    job.recipe = replace(job.recipe, settings=formats)
    job.announce()
    assert not caplog.text  # an hour is left
    ending_s = [job.clock.ending_s(n, len(job.model.layers), 2 * job.embedding_s()) for n in (1, 2)]
    job.clock = Clock(time.monotonic(), sum(ending_s) / 2)
    job.announce()
    assert "--time-limit 1m may leave no time to export savedmodel." in caplog.text
    caplog.clear()
    job.recipe = replace(job.recipe, settings=replace(formats, time_limit=None))
    job.announce()
    assert not caplog.text


def test_all_layers_have_a_higher_learning_rate_unless_a_part_of_them_helped(job: Job, monkeypatch: pytest.MonkeyPatch):
    job.recipe = replace(job.recipe, lr=1e-4, lr_multiplier=10.0)
    search = probed(job)
    rates: list[float] = []

    def descend(job: Job, phase: str, recipe: Recipe, deadline: float) -> None:
        rates.append(recipe.lr)
        raise RunError("enough")

    monkeypatch.setattr(descent, "descend", descend)
    search.unfreeze(1.0, "finetune 100%")
    search.unfreeze(1 / 3, "finetune 33%")
    job.rows.append({"phase": "finetune 33%", "outcome": ACCEPTED})
    search.unfreeze(1.0, "finetune 100%")
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4])


def test_a_batch_that_does_not_fit_in_memory_is_named_or_halved(job: Job, monkeypatch: pytest.MonkeyPatch):
    probed(job)
    tried: list[int] = []
    fit = loop.fit

    def tight(model: Any, train: Any, validation: Any, recipe: Recipe, options: Any) -> Any:
        tried.append(recipe.batch_size)
        if recipe.batch_size > 2:
            raise MemoryError
        return fit(model, train, validation, recipe, options)

    monkeypatch.setattr(loop, "fit", tight)
    recipe = replace(job.recipe, method="finetune", caches_activations=False, epochs=1)
    with pytest.raises(RunError, match=r"8 images at 32 px do not fit in memory.*--batch-size 4"):
        descent.descend(job, "finetune", recipe)
    descent.descend(job, "finetune", replace(recipe, may_halve_batch=True))
    assert tried == [8, 8, 4, 2] and job.recipe.batch_size == job.recipe.settings.batch_size == 2


@pytest.mark.slow
def test_the_range_test_chooses_below_the_lowest_loss_and_draws_its_curve(job: Job):
    probed(job)
    before = job.model.get_weights()
    found = descent.find_lr(job)
    assert 1e-7 < found.lr <= 0.1 and found.settings.lr == found.lr
    assert (job.run.path / "learning_rate.png").read_bytes()[:4] == b"\x89PNG"
    assert_same(before, job.model.get_weights())


def test_a_rate_is_chosen_where_the_loss_begins_to_rise_also_if_it_starts_at_its_lowest():
    tried = np.geomspace(1e-6, 1.0, 7)
    falling = lr_finder.choose(tried, np.array([1.0, 1.0, 0.9, 0.5, 0.2, 0.8, 3.0]))
    solved = lr_finder.choose(tried, np.array([0.2, 0.2, 0.2, 0.21, 0.5, 2.0, 9.0]))
    assert falling.chosen == pytest.approx(1e-3) and solved.chosen == pytest.approx(1e-4)


@pytest.mark.slow
def test_a_run_within_a_limit_has_its_stages_in_the_history(
    image_folder: Callable[..., Path], trained_run: imgclf.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stage_selection, "judge", lambda *_, **__: ACCEPTED)
    config = TrainConfig(weights=str(trained_run.path), time_limit="2m", export="none", epochs=3)
    started = time.monotonic()
    run = imgclf.train(imgclf.read(image_folder(classes=("x", "y", "z"), count=16)), config, output=tmp_path / "run")
    assert time.monotonic() - started < 132
    rows = list(csv.DictReader(run.history_file.read_text().splitlines()))
    assert rows[0]["phase"] == "probe" and any(row["outcome"] for row in rows)
    assert "(probe alone: " in run.log.read_text()
    assert (run.path / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_stage_is_scored_at_its_best_temperature():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    logits = 2 * np.eye(4)[labels] + rng.normal(size=(400, 4))
    accuracy, loss = stage_selection.score(logits, labels)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())
    for scale in (0.5, 10.0):  # as label smoothing, or a head that was fitted to convergence, would scale them
        assert stage_selection.score(scale * logits, labels) == pytest.approx((accuracy, loss), abs=0.01)
        assert multiclass.score(scale * logits, labels)[0] > loss + 0.05


def test_a_time_limit_is_used_to_its_end_and_all_layers_get_the_higher_rate_where_few_did_not_help(job: Job):
    job.recipe = limited(job.recipe, lr=1e-4, lr_multiplier=10.0)
    probed(job, PERFECT).run()
    assert {name: text[:7] for name, text in outcomes(job).items()} == {
        "finetune 33%": "refused",
        "finetune 100%": "refused",
    }
    rates = {name: max(row["lr"] for row in job.rows if row["phase"] == name) for name in outcomes(job)}
    assert rates["finetune 33%"] < 1.1e-4 and rates["finetune 100%"] == pytest.approx(10 * rates["finetune 33%"])


def test_all_layers_get_the_plain_rate_where_few_helped(job: Job):
    job.recipe = limited(job.recipe, lr=1e-4, lr_multiplier=10.0)
    search = probed(job)
    job.rows.append({"phase": "finetune 33%", "outcome": ACCEPTED})
    search.done = ["finetune 33%", "finetune 67%"]
    search.run()
    assert max(row["lr"] for row in job.rows if row["phase"] == "finetune 100%") < 1.1e-4
