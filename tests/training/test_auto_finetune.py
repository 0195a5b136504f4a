"""What fills the time: stages are kept when validation says so, and left out when there is no time for them."""

import csv
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgclf
from imgclf.data import loading
from imgclf.settings import TrainConfig
from imgclf.training import auto_finetune, loop, lr_finder, recipe
from imgclf.training.auto_finetune import Images, Training
from imgclf.training.time_budget import Clock


@pytest.fixture
def training(image_folder: Callable[..., Path], tmp_path: Path) -> Training:
    """Before the probe: a small network of random weights, which is all that the stages ask for, and an hour."""
    settings = TrainConfig(backbone="small-cnn", image_size=32, epochs=3, batch_size=8, cache=str(tmp_path / "cache"))
    config = replace(recipe.resolve(settings)[0], method="auto", cached_augmentations=1, augment="light", lr=1e-3)
    dataset = imgclf.read(image_folder(classes=("x", "y", "z"), count=16), config)
    dataset, pixels = loading.decode(dataset, 32)
    model = recipe.build(config, 3)
    clock = Clock(time.monotonic(), 3600.0)
    return Training(model, config, Images(dataset, pixels), clock, lambda rows: None, tmp_path / "checkpoint")


def outcomes(training: Training) -> dict[str, str]:
    return {row["phase"]: row["outcome"] for row in training.rows if "outcome" in row}


def test_a_stage_is_kept_if_no_fewer_are_right_and_the_loss_falls():
    assert auto_finetune.judge((0.8, 0.5), (0.8, 0.4)) == auto_finetune.ACCEPTED
    assert auto_finetune.judge((0.8, 0.5), (0.9, 0.4)) == auto_finetune.ACCEPTED
    assert "accuracy 0.7000 is below 0.8000" in auto_finetune.judge((0.8, 0.5), (0.7, 0.1))
    assert "loss 0.6000 is not below 0.5000" in auto_finetune.judge((0.8, 0.5), (0.9, 0.6))


def test_what_makes_all_that_follows_slower_must_get_more_right():
    assert "accuracy 0.8000 is not above 0.8000" in auto_finetune.judge((0.8, 0.5), (0.8, 0.4), costly=True)
    assert "accuracy 0.7000 is below 0.8000" in auto_finetune.judge((0.8, 0.5), (0.7, 0.4), costly=True)
    assert auto_finetune.judge((0.8, 0.5), (0.9, 0.4), costly=True) == auto_finetune.ACCEPTED


def test_a_larger_size_that_gets_as_many_right_is_refused(training: Training, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    monkeypatch.setattr(Training, "_score", lambda *_: (0.75, next(losses)))
    losses = iter([0.5, 0.4])
    training.config = replace(training.config, image_sizes="32,48")
    training.probe()
    training.improve()
    assert outcomes(training)["probe 48 px"] == "refused: validation accuracy 0.7500 is not above 0.7500"
    assert training.config.image_size == 32


def test_the_probe_comes_first_and_every_stage_has_an_outcome(training: Training):
    training.probe()
    first = training.score
    training.improve()
    assert training.rows[0]["phase"] == "probe"
    assert set(outcomes(training)) <= {"finetune 33%", "finetune 67%", "finetune 100%"}
    assert len(outcomes(training)) >= 2
    assert first and training.score and training.score >= first[:1]
    validation = training.images.validation()
    assert validation and training._validate(validation) == pytest.approx(training.score, abs=1e-4)


def test_a_stage_that_does_not_help_leaves_no_trace_and_two_of_them_are_enough(training: Training):
    training.probe()
    before = training.model.get_weights()
    training.score = (1.0, 0.0)  # nothing can be better
    training.improve()
    assert [text[:7] for text in outcomes(training).values()] == ["refused", "refused"]
    for one, other in zip(before, training.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stage_that_helps_is_kept(training: Training):
    training.probe()
    before = training.model.get_weights()
    training.score = (0.0, 100.0)  # anything is better
    training.improve()
    assert "accepted" in outcomes(training).values()
    assert any((one != other).any() for one, other in zip(before, training.model.get_weights(), strict=True))


def test_without_time_only_the_probe_is_made_and_the_reason_said(training: Training, caplog):
    caplog.set_level(logging.INFO, logger="imgclf")
    training.clock = Clock(time.monotonic() - 50.0, 51.0)
    training.probe()
    training.improve()
    assert [row["phase"] for row in training.rows] == ["probe"]
    assert "finetune 33%: left out" in caplog.text


def test_a_stage_ends_at_its_deadline(training: Training):
    training.probe()
    training.config = replace(training.config, epochs=10_000, cached_augmentations=None)
    started = time.monotonic()
    training.descend("finetune 100%", "1.0", training.config, started + 3.0)
    assert 2.9 < time.monotonic() - started < 60


@pytest.mark.slow
def test_a_larger_size_is_a_stage_that_is_kept_where_it_helps(training: Training, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    training.config = replace(training.config, image_sizes="32,48,64")
    training.probe()
    training.score = (0.0, 100.0)  # anything is better
    training.improve()
    assert outcomes(training)["probe 48 px"] == "accepted"
    size = 64 if outcomes(training)["probe 64 px"] == "accepted" else 48
    assert training.model.input_shape == (None, size, size, 3) and training.config.image_size == size
    assert training.images.pixels.shape[1] == size
    validation = training.images.validation()
    assert validation and training._validate(validation) == pytest.approx(training.score, abs=1e-4)
    assert training.answer().shape == (len(training.images.rows("test")), 3)


def test_a_larger_size_that_does_not_help_leaves_no_trace(training: Training, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    training.config = replace(training.config, image_sizes="32,48")
    training.probe()
    model, before = training.model, training.model.get_weights()
    training.score = (1.0, 0.0)  # nothing can be better
    training.improve()
    assert outcomes(training)["probe 48 px"].startswith("refused")
    assert training.model is model and training.config.image_size == 32 and not training.has_improved
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_size_that_was_kept_is_that_of_a_resumed_story(training: Training, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_finetune, "SHARES", ())
    training.config = replace(training.config, image_sizes="32,48")
    again = replace(training, rows=[], done=[])
    training.probe()
    training.score = (0.0, 100.0)
    training.improve()
    again.probe()
    again.improve()
    assert again.config.image_size == 48 and again.rows == training.rows
    np.testing.assert_allclose(again.answer(), training.answer(), atol=1e-6)


@pytest.mark.slow
def test_forbidden_stages_change_the_answer(training: Training, monkeypatch: pytest.MonkeyPatch):
    probed = training.probe()
    forbidden = replace(training, checkpoint=training.checkpoint.with_name("other"), rows=[], done=[])
    for story in (forbidden, training):
        story.score = (0.0, 100.0)
    with monkeypatch.context() as patch:
        patch.setattr(auto_finetune, "SHARES", ())
        forbidden.improve()
    np.testing.assert_allclose(forbidden.answer(), probed, atol=1e-5)
    training.improve()
    assert np.abs(training.answer() - probed).max() > 1e-3


def test_a_stage_that_cannot_begin_in_its_time_is_told_and_leaves_no_trace(
    training: Training, monkeypatch: pytest.MonkeyPatch
):
    training.probe()
    before = training.model.get_weights()
    monkeypatch.setattr(Clock, "left_s", lambda self, kept_back_s=0.0: 60.0)
    monkeypatch.setattr(Clock, "deadline", lambda self, kept_back_s=0.0: 0.0)  # over as the activations are computed
    training.improve()
    assert outcomes(training)["finetune 33%"] == auto_finetune.NO_TIME
    assert not training.has_improved
    for one, other in zip(before, training.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_took_longer_than_foretold_makes_the_clock_careful():
    clock = Clock(time.monotonic(), 60.0)
    calm = clock.ending_s(2, 100, 3.0)
    clock.learn(2.0, 6.0)
    assert clock.ending_s(2, 100, 3.0) == pytest.approx(3 * calm)
    clock.learn(0.01, 0.5)  # too short to say anything
    assert clock.drift == 3.0
    clock.learn(6.0, 3.0)
    assert clock.drift == 1.0
    assert clock.ending_s(0, 100, 3.0) < calm


def test_an_interrupted_story_goes_on_after_its_last_stage(training: Training, monkeypatch: pytest.MonkeyPatch):
    training.probe()
    monkeypatch.setattr(auto_finetune, "SHARES", (1 / 3,))
    training.improve()
    again = replace(training, rows=[], done=[], misses=0, score=(0.0, 9.0))
    tried: list[str] = []
    monkeypatch.setattr(auto_finetune, "SHARES", (1 / 3, 2 / 3))

    def stage(share: float, name: str) -> bool:
        tried.append(name)
        return True

    monkeypatch.setattr(again, "_widen", stage)
    again.improve()
    assert tried == ["finetune 67%"]
    assert again.rows == training.rows and again.score == training.score


@pytest.mark.parametrize(
    ("many", "seconds", "expected"),
    [(1, 3600.0, ["100%", "33%", "67%"]), (1000, 3600.0, ["33%", "67%", "100%"]), (1, 1e-6, ["33%", "67%", "100%"])],
)
def test_of_many_images_all_layers_move_first_if_time_allows(
    training: Training, monkeypatch: pytest.MonkeyPatch, many: int, seconds: float, expected: list[str]
):
    training.probe()
    training.score = (0.0, 9.0)
    training.clock = Clock(time.monotonic(), seconds)
    monkeypatch.setattr(auto_finetune, "MANY", many)
    assert [name.removeprefix("finetune ") for name, _ in training._stages()] == expected


@pytest.mark.parametrize(("outcome", "sizes"), [("no gain", ["probe 64 px"]), (auto_finetune.ACCEPTED, [])])
def test_of_many_images_a_larger_size_comes_after_all_layers_and_only_if_they_did_not_move(
    training: Training, monkeypatch: pytest.MonkeyPatch, outcome: str, sizes: list[str]
):
    training.probe()
    training.score = (0.0, 9.0)
    training.clock = Clock(time.monotonic(), 3600.0)
    training.config = replace(training.config, image_sizes="32,64")
    monkeypatch.setattr(auto_finetune, "MANY", 1)
    story = training._stages()
    first, _ = next(story)
    training.rows.append({"phase": first, "outcome": outcome})
    assert [first, *(name for name, _ in story)] == ["finetune 100%", *sizes, "finetune 33%", "finetune 67%"]


def test_all_layers_move_boldly_unless_a_part_of_them_helped(training: Training, monkeypatch: pytest.MonkeyPatch):
    training.probe()
    training.config = replace(training.config, lr=None)
    steps: list[float] = []

    def descend(name: str, request: str, config: TrainConfig, deadline: float) -> None:
        steps.append(config.lr or 0.0)
        raise imgclf.errors.RunError("enough")

    monkeypatch.setattr(training, "descend", descend)
    training._widen(1.0, "finetune 100%")
    training._widen(1 / 3, "finetune 33%")
    training.rows.append({"phase": "finetune 33%", "outcome": auto_finetune.ACCEPTED})
    training._widen(1.0, "finetune 100%")
    assert steps == pytest.approx([1e-3, 1e-4, 1e-4])


def test_a_batch_that_memory_does_not_hold_is_named_or_halved(training: Training, monkeypatch: pytest.MonkeyPatch):
    training.probe()
    tried: list[int] = []
    fit = loop.fit

    def tight(model: Any, train: Any, validation: Any, plan: loop.Plan, **options: Any) -> Any:
        tried.append(plan.batch_size)
        if plan.batch_size > 2:
            raise MemoryError
        return fit(model, train, validation, plan, **options)

    monkeypatch.setattr(loop, "fit", tight)
    config = replace(training.config, method="finetune", cached_augmentations=None, epochs=1)
    with pytest.raises(imgclf.errors.RunError, match=r"does not hold 8 images at 32 px.*--batch-size 4"):
        training.descend("finetune", None, config, time.monotonic() + 600)
    training.may_halve = True
    training.descend("finetune", None, config, time.monotonic() + 600)
    assert tried == [8, 8, 4, 2] and training.config.batch_size == 2


def test_the_range_test_chooses_below_the_lowest_loss_and_draws_its_curve(training: Training, tmp_path: Path):
    training.config = replace(training.config, lr="auto")
    training.probe()
    before = training.model.get_weights()
    training.find_rate(tmp_path / "rate.png")
    assert isinstance(training.config.lr, float) and 1e-7 < training.config.lr <= 0.1
    assert (tmp_path / "rate.png").read_bytes()[:4] == b"\x89PNG"
    for one, other in zip(before, training.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_rate_is_chosen_where_the_loss_begins_to_rise_also_if_it_starts_at_its_lowest():
    tried = np.geomspace(1e-6, 1.0, 7)
    falling = lr_finder.choose(tried, np.array([1.0, 1.0, 0.9, 0.5, 0.2, 0.8, 3.0]))
    solved = lr_finder.choose(tried, np.array([0.2, 0.2, 0.2, 0.21, 0.5, 2.0, 9.0]))
    assert falling.chosen == pytest.approx(1e-3) and solved.chosen == pytest.approx(1e-4)


@pytest.mark.slow
def test_a_run_within_a_limit_tells_its_story(
    image_folder: Callable[..., Path], trained_run: imgclf.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(auto_finetune, "judge", lambda *_, **__: auto_finetune.ACCEPTED)
    config = TrainConfig(weights=str(trained_run.path), time_limit="2m", export="none", epochs=3)
    started = time.monotonic()
    run = imgclf.train(imgclf.read(image_folder(classes=("x", "y", "z"), count=16)), config, output=tmp_path / "run")
    assert time.monotonic() - started < 132
    rows = list(csv.DictReader(run.history.read_text().splitlines()))
    assert rows[0]["phase"] == "probe" and any(row["outcome"] for row in rows)
    assert "of the probe alone it was" in run.log.read_text()
    assert (run.path / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_stage_is_judged_at_its_best_temperature():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    logits = 2 * np.eye(4)[labels] + rng.normal(size=(400, 4))
    accuracy, loss = auto_finetune.judged(logits, labels)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())
    for scale in (0.5, 10.0):  # as label smoothing, or a head that was solved to convergence, would scale them
        assert auto_finetune.judged(scale * logits, labels) == pytest.approx((accuracy, loss), abs=0.01)
        assert loop.loss_and_accuracy(scale * logits, labels)[0] > loss + 0.05


def test_a_time_limit_is_used_to_its_end_and_all_layers_move_boldly_where_few_did_not_help(training: Training):
    training.config = replace(training.config, time_limit="1h", lr=None)
    training.probe()
    training.score = (1.0, 0.0)  # nothing can be better
    training.improve()
    assert {name: text[:7] for name, text in outcomes(training).items()} == {
        "finetune 33%": "refused",
        "finetune 100%": "refused",
    }
    rates = {name: max(row["lr"] for row in training.rows if row["phase"] == name) for name in outcomes(training)}
    assert rates == {"finetune 33%": pytest.approx(1e-4, rel=0.05), "finetune 100%": pytest.approx(1e-3, rel=0.05)}


def test_all_layers_move_carefully_where_few_helped_or_at_the_rate_that_was_given(training: Training):
    for lr, expected in ((None, 1e-4), (2e-3, 2e-3)):
        story = replace(training, config=replace(training.config, time_limit="1h", lr=lr), rows=[], done=[])
        story.probe()
        outcome = auto_finetune.ACCEPTED if lr is None else "refused"
        helped: dict[str, Any] = {"phase": "finetune 33%", "outcome": outcome}
        story.rows.append(helped)
        story.done = ["finetune 33%", "finetune 67%"]
        story.improve()
        moved = [row["lr"] for row in story.rows if row["phase"] == "finetune 100%"]
        assert max(moved) == pytest.approx(expected, rel=0.05)
        story.checkpoint.unlink()
