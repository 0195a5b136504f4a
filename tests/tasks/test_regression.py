"""Regression: scores and intervals against other implementations, and one run from the table to predictions."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import gray_image, tiny_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import imgclf
from imgclf import prediction
from imgclf.data import reading, splitting
from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import card, plots, scorers
from imgclf.evaluation.scorers import regression as scorer
from imgclf.prediction import artifact, heatmaps, outputs
from imgclf.prediction.forms import Writing
from imgclf.runs import Run
from imgclf.settings import AugmentConfig, CalibrateConfig, DataConfig, EvaluateConfig, KfoldConfig, TrainConfig
from imgclf.settings.explanation import ExplainConfig
from imgclf.tasks import regression

Interrupted = Callable[..., Run]

NUMBERS = arrays.arrays(np.float64, st.integers(3, 30), elements=st.floats(-50, 50, width=16))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_scores_are_those_of_scikit_learn_and_scipy(data: st.DataObject) -> None:
    from scipy import stats
    from sklearn import metrics

    truth = data.draw(NUMBERS)
    found = data.draw(arrays.arrays(np.float64, len(truth), elements=st.floats(-50, 50, width=16)))
    scores = scorer.measure(truth[:, None], found[:, None], ["x"], replicates=2)
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(truth, found))
    assert scores["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, found))
    assert scores["median_error"] == pytest.approx(metrics.median_absolute_error(truth, found))
    if np.ptp(truth) > 1:
        assert scores["r2"] == pytest.approx(metrics.r2_score(truth, found), rel=1e-6, abs=1e-9)
    if len(set(truth)) > 1 and len(set(found)) > 1:
        assert scores["spearman"] == pytest.approx(stats.spearmanr(truth, found).statistic, abs=1e-9)


def test_a_bootstrap_of_weights_is_one_of_repeated_images() -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.normal(size=(2, 12))
    times = rng.integers(0, 4, 12)
    repeated = scorer.measure(np.repeat(truth, times)[:, None], np.repeat(found, times)[:, None], ["x"], replicates=2)
    weighted = scorer.scores_of(truth, found, times[:, None].astype(float))
    assert {key: values[0] for key, values in weighted.items()} == pytest.approx(
        {k: repeated[k] for k in scorer.SCORES}
    )


def test_intervals_of_a_score_contain_it_for_new_images_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        truth = rng.normal(size=200)
        scores = scorer.measure(truth[:, None], (truth + rng.normal(size=200))[:, None], ["x"], replicates=200)
        low, high = scores["intervals"]["mae"]
        hits += low <= np.sqrt(2 / np.pi) <= high  # the mean of |normal|
    assert hits >= 52  # of 60; 95% would be 57


def test_prediction_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(0, 10, (4000, 2))
    found = truth + rng.normal(0, [1, 3], (4000, 2))
    rules = scorer.with_intervals(scorer.Decision(), truth[:500], found[:500], ["a", "b"], 0.8)
    inside = np.abs(found - truth)[500:] <= [rules.widths["a"], rules.widths["b"]]
    assert inside.mean(axis=0) == pytest.approx([0.8, 0.8], abs=0.05)
    assert rules.widths["b"] == pytest.approx(3 * rules.widths["a"], rel=0.15)


def test_the_head_is_ridge_regression_on_standardized_features() -> None:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(3)
    features = rng.normal(5, [1, 10, 0.1, 1, 1], (60, 5)).astype(np.float32)
    targets = (features @ rng.normal(size=(5, 2)) + rng.normal(size=(60, 2))).astype(np.float32)
    kernel, bias = regression.fit(features[None], targets, outputs=2, seed=0, balanced=False)
    expected = make_pipeline(StandardScaler(), RidgeCV(regression.PENALTIES)).fit(features, targets)
    np.testing.assert_allclose(features @ kernel + bias, expected.predict(features), rtol=1e-3, atol=1e-3)


def test_targets_are_standardized_for_training_and_come_back_in_their_units() -> None:
    targets = np.array([[10.0, 0.001], [20.0, 0.002], [30.0, 0.003], [99.0, 0.5]])
    standardized, weights = regression.standardized(targets, np.array([0, 1, 2]))
    np.testing.assert_allclose(standardized[:3].mean(axis=0), [0, 0], atol=1e-6)
    np.testing.assert_allclose(standardized[:3].std(axis=0), [1, 1], rtol=1e-5)
    np.testing.assert_allclose(regression.link(standardized, weights), targets, rtol=1e-4)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 gray images: how bright they are, from 0 to 1, and ten times how dark."""
    folder = tmp_path_factory.mktemp("gray")
    rows = ["path,light,dark"]
    for number, level in enumerate(np.random.default_rng(0).uniform(10, 245, 60)):
        gray_image(folder / f"{number}.png", level, number)
        rows.append(f"{number}.png,{level / 255:.4f},{10 - level / 25.5:.4f}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


CONFIG = TrainConfig(
    task="regression", label_column="light,dark", method="probe", image_size=16, export="litert", near_duplicates="off"
)


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe on a tiny network."""
    dataset = imgclf.read(table, CONFIG)
    return imgclf.train(dataset, CONFIG, output=tmp_path_factory.mktemp("runs") / "run", backbone=tiny_backbone())


def test_a_run_scores_what_it_predicts(run: Run, table: Path) -> None:
    from sklearn import metrics

    found = scorer.read(run.predictions)
    scores = json.loads(run.metrics.read_text())
    assert found.names == ["light", "dark"] and scores["n"] == len(found.paths)
    for i, name in enumerate(found.names):
        own = scores["per_value"][name]
        assert own["r2"] == pytest.approx(metrics.r2_score(found.labels[:, i], found.outputs[:, i]), rel=1e-4)
    assert scores["r2"] > 0.9 and scores["mae"] is None  # the two numbers have no common unit
    assert (run.path / "residuals.png").is_file() and "Largest errors" in (run.path / "report.html").read_text()
    facts = artifact.read(run.path)
    assert facts.task == "regression" and facts.outputs[0] == "values" and facts.labels == ("light", "dark")
    assert json.loads(run.artifact.read_text())["task"] == "regression"


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_every_engine_predicts_the_numbers_in_their_units(run: Run, table: Path, engine: str) -> None:
    found = scorer.read(run.predictions)
    estimates = prediction.load(run.path, engine=engine).predict([table / path for path in found.paths])
    np.testing.assert_allclose([list(e.values.values()) for e in estimates], found.outputs, rtol=1e-3, atol=1e-3)
    low, high = estimates[0].intervals["dark"]
    assert low < estimates[0].values["dark"] < high
    assert high - low == pytest.approx(2 * artifact.read(run.path).decision.widths["dark"], rel=1e-4)


def test_predictions_are_written_in_every_format(run: Run, table: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    model = prediction.load(run.path)
    good, bad = model.predict([table / "0.png", tmp_path / "broken.jpg"])
    writing = Writing("regression", model.labels)
    values = json.loads(next(outputs.to_jsonl([good], 1, writing)))
    assert values["values"] == good.values and values["intervals"]["light"] == list(good.intervals["light"])
    header, row, broken = outputs.to_csv([good, bad], 1, writing)
    columns = "path,value_light,low_light,high_light,value_dark,low_dark,high_dark,error"
    assert header == columns + "\n" and row.split(",")[1] == str(good.values["light"])
    assert broken.startswith(f"{tmp_path / 'broken.jpg'},,,,,,,")
    assert outputs.heads(writing) == ("path", "name", "value", "interval", "error")
    assert [row[1] for row in outputs.to_rows(good, 1, writing)] == ["light", "dark"]
    with outputs.parquet(tmp_path / "out.parquet", 1, writing) as add:
        add(good)
        add(bad)
    from pyarrow import parquet

    [first, second] = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert first["value_dark"] == pytest.approx(good.values["dark"]) and second["value_dark"] is None


def test_evaluating_again_gives_the_same_scores_whatever_the_order_of_columns(run: Run, table: Path) -> None:
    config = EvaluateConfig(task="regression", label_column="dark,light")
    dataset = imgclf.read(table, config, split=False)
    again = imgclf.evaluate(run, dataset, config)
    assert again.metrics["n"] == 60 and again.metrics["per_value"]["light"]["r2"] > 0.9
    own = imgclf.evaluate(run)
    assert own.metrics["r2"] == pytest.approx(json.loads(run.metrics.read_text())["r2"], abs=1e-6)
    with pytest.raises(DatasetError, match="expected the numbers light, dark"):
        imgclf.evaluate(run, imgclf.read(table, EvaluateConfig(task="regression", label_column="dark"), split=False))
    with pytest.raises(UsageError, match="has the task regression"):
        imgclf.evaluate(run, imgclf.read(table, EvaluateConfig(label_column="dark"), split=False))


def test_augmentation_is_shown_for_images_from_the_smallest_number_to_the_largest(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plots, "contact_sheet", lambda path, rows, names, *_: drawn.extend([rows, names]))
    config = AugmentConfig(task="regression", label_column="light", image_size=16, variants=1, policy="flip=0.5")
    imgclf.augment(imgclf.read(table, config), config, output=tmp_path / "sheet.png")
    rows, names = drawn
    numbers = [float(name) for name in names]
    assert len(numbers) == 10 and numbers == sorted(numbers)
    assert rows[:, 0].mean(axis=(1, 2, 3)) / 255 == pytest.approx(numbers, abs=0.02)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "nan", "3"], r"line 3, column value: expected a finite number, found 'nan'"),
        (["1", "2", "inf"], r"line 4, column value: expected a finite number, found 'inf'"),
        (["1", "two", "3"], r"line 3, column value: expected a number for --task regression, found 'two'"),
    ],
)
def test_what_is_no_number_is_named(images: Callable[..., Path], cells: list[str], message: str) -> None:
    folder = images({"a.png": 10, "b.png": 20, "c.png": 30})
    rows = [f"{name}.png,{cell}" for name, cell in zip("abc", cells, strict=True)]
    (folder / "table.csv").write_text("\n".join(["path,value", *rows]) + "\n")
    with pytest.raises(DatasetError, match=message):
        reading.read(folder / "table.csv", DataConfig(task="regression"))


def test_one_number_alone_cannot_be_learned() -> None:
    with pytest.raises(DatasetError, match=r"data: expected different values of age to train on, found 7 alone"):
        regression.check(["7", "7.0"], ["age"], "data")


def test_an_image_without_its_number_is_left_out(images: Callable[..., Path]) -> None:
    folder = images({"a.png": 10, "b.png": 20, "c.png": 30})
    (folder / "table.csv").write_text("path,value\na.png,1\nb.png,\nc.png,3\n")
    dataset = reading.read(folder / "table.csv", DataConfig(task="regression"), split=False)
    assert [s.path for s in dataset.samples] == ["a.png", "c.png"]


def test_a_split_spreads_the_numbers_evenly(table: Path) -> None:
    dataset = reading.read(table, DataConfig(task="regression", label_column="light"), split=False)
    found, _ = splitting.split(dataset, validation_fraction=0.2, test_fraction=0.2, seed=0)
    quantiles = [own[0] for own in regression.strata([s.label for s in found.samples])]
    for part in ("validation", "test"):
        counts = [
            sum(q == name and s.split == part for q, s in zip(quantiles, found.samples, strict=True))
            for name in set(quantiles)
        ]
        assert len(counts) == 10 and min(counts) >= 1 and max(counts) <= 2


def test_what_has_no_meaning_for_numbers_is_refused(table: Path, run: Run) -> None:
    with pytest.raises(UsageError, match="--classes does not support --task regression"):
        reading.read(table, DataConfig(task="regression", classes="a,b"))
    assert scorers.task_of(run) == "regression"


@pytest.mark.parametrize(("method", "grid"), [("occlusion", 4), ("gradcam", ExplainConfig.grid)])
def test_the_part_that_speaks_for_a_larger_number_is_found(run: Run, tmp_path: Path, method: str, grid: int) -> None:
    pixels = np.full((16, 16, 3), 40, np.uint8)
    pixels[:, 8:] = 220
    Image.fromarray(pixels).save(tmp_path / "half.png")
    config = ExplainConfig(method=method, grid=grid, top=2)
    light, dark = imgclf.explain(run, [tmp_path / "half.png"], config, output=tmp_path / "maps")
    [answer] = prediction.load(run.path).predict([tmp_path / "half.png"])
    assert (light.target, dark.target) == ("light", "dark") and light.label is light.probability is light.logit is None
    assert {light.target: light.value, dark.target: dark.value} == pytest.approx(answer.values)
    bright, dim = (
        light.values[:, -light.values.shape[1] // 2 :].mean(),
        light.values[:, : light.values.shape[1] // 2].mean(),
    )
    assert bright > dim and light.peak[0] >= 8
    if method == "occlusion":
        assert dark.peak[0] < 8
        np.testing.assert_allclose(dark.values, -10 * light.values, atol=0.3)  # since dark = 10 - 10 * light
    assert len(list((tmp_path / "maps").iterdir())) == 2
    assert light.to_dict()["value"] == light.value


def test_the_map_of_a_number_is_what_the_number_is_made_of(run: Run, tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), 40, np.uint8)
    pixels[:, 8:] = 220
    classifier = prediction.load(run.path, engine="litert")
    head = heatmaps.head(classifier)
    [answer] = classifier.stream([pixels], maps=True)
    for place, name in enumerate(answer.labels):
        values = heatmaps.activation_map(answer.feature_map, head.kernel[:, place])
        assert values.mean() + head.bias[place] == pytest.approx(answer.values[name], abs=0.01)
        [row] = imgclf.explain(run, [pixels], label=name)
        assert row.method == "cam" and row.value == answer.values[name]
        np.testing.assert_allclose(row.values, values, rtol=1e-4)
        assert (row.values[:, -5:].mean() > row.values[:, :5].mean()) == (name == "light")
    Image.fromarray(pixels).save(tmp_path / "half.png")
    overlays = heatmaps.Overlays(tmp_path / "maps", classifier)
    for each in classifier.stream([str(tmp_path / "half.png")], maps=True):
        overlays.draw(each)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["half-light.png"]


def test_a_number_is_explained_by_its_name(run: Run, table: Path) -> None:
    [row] = imgclf.explain(run, [table / "0.png"], label="dark")
    assert row.target == "dark" and row.method == "cam"
    with pytest.raises(UsageError, match="--class: expected a number of the model, such as dark; found 'drak'"):
        imgclf.explain(run, [table / "0.png"], label="drak")


def test_the_card_says_what_is_estimated_and_how_well(run: Run, tmp_path: Path) -> None:
    text = card.write(run, tmp_path / "card.md").read_text()
    scores = run.scores
    assert "pipeline_tag: image-regression" in text
    assert f"    - type: r2\n      value: {scores['r2']:.6g}\n" in text
    for name, row in scores["per_value"].items():
        assert f"| {name} | Mean absolute error | {row['mae']:.4g} |" in text


def test_calibrate_changes_the_coverage_of_intervals(run: Run) -> None:
    before = artifact.read(run.path)
    found = scorer.read(run.validation)
    facts, measured = imgclf.calibrate(run, CalibrateConfig(coverage="0.5"))
    residuals = np.sort(np.abs(found.outputs - found.labels), axis=0)
    rank = int(np.ceil((len(residuals) + 1) * 0.5))
    assert list((facts.decision.widths or {}).values()) == pytest.approx(residuals[rank - 1].tolist())
    assert measured["coverage of light"] == pytest.approx(rank / len(residuals))
    assert imgclf.calibrate(run, CalibrateConfig(coverage="none"))[0].decision.widths is None
    artifact.write(run.path, before)


def test_folds_are_pooled_and_runs_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(40, 1))
    good, poor = (labels + rng.normal(0, spread, (40, 1)) for spread in (0.1, 1))
    paths = [f"{i}.png" for i in range(40)]
    for name, own in (("good", good), ("poor", poor)):
        (tmp_path / name).mkdir()
        scores = scorer.measure(labels, own, ["x"], replicates=2)
        scorer.Scored(scores, scorer.Estimates(paths, labels, own, ["x"])).write(tmp_path / name)
    found = imgclf.compare([tmp_path / "good", tmp_path / "poor"])
    assert [row["loss"] for row in found["runs"]] == pytest.approx(
        [np.abs(own - labels).mean() for own in (good, poor)], rel=1e-5
    )
    [pair] = found["pairs"]
    assert pair["loss"] > 0 and pair["p"] < 0.01 and pair["only_first"] > pair["only_second"]
    halves = [scorer.Estimates(paths[p], labels[p], good[p], ["x"]) for p in (slice(0, 10), slice(10, 40))]
    pooled = scorer.pooled(halves, paths, ["x"], [""] * 40)
    assert pooled.metrics["mae"] == pytest.approx(np.abs(good - labels).mean())


def test_a_probe_that_was_interrupted_ends_as_one_that_was_not(
    table: Path, run: Run, tmp_path: Path, interrupted: Interrupted
) -> None:
    config = replace(CONFIG, export="none")
    broken = interrupted(imgclf.read(table, config), config, tmp_path / "broken", "fitting the head")
    resumed, whole = (scorer.read(one.predictions) for one in (imgclf.resume(broken), run))
    assert resumed.paths == whole.paths
    np.testing.assert_allclose(resumed.outputs, whole.outputs, rtol=1e-4)


@pytest.mark.slow
def test_every_method_folds_and_resuming(table: Path, tmp_path: Path, interrupted: Interrupted) -> None:
    config = replace(CONFIG, export="none", method="finetune", epochs=2, batch_size=8, deterministic=True)
    dataset = imgclf.read(table, config)
    run = imgclf.train(dataset, config, output=tmp_path / "finetune", backbone=tiny_backbone())
    assert [row["phase"] for row in run.history] == ["probe", "finetune", "finetune"]
    assert run.history[-1]["val_r2"] > 0.8
    resumed = imgclf.resume(interrupted(dataset, config, tmp_path / "broken", "finetune", epochs=1))
    assert resumed.predictions.read_text() == run.predictions.read_text()
    assert len(imgclf.resume(run, epochs=3).history) == 4 and run.scores["r2"] > 0.8
    again = imgclf.evaluate(run)
    assert again.metrics["r2"] == pytest.approx(json.loads(run.metrics.read_text())["r2"], abs=1e-4)
    scratch = replace(CONFIG, export="none", method="scratch", backbone="small-cnn", epochs=2)
    imgclf.train(imgclf.read(table, scratch), scratch, output=tmp_path / "scratch")
    probe = replace(CONFIG, export="none", backbone="efficientnet-lite0", image_size=32)
    folds = imgclf.kfold(imgclf.read(table, probe), probe, KfoldConfig(3), output=tmp_path / "folds")
    assert folds.metrics["n"] == 60 and folds.folds["summary"]["r2"]["mean"] > 0.5
