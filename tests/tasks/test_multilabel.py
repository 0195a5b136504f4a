"""Multi-label classification: scores against scikit-learn, thresholds, splits, and one run from the table on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from imgclf.data.dataset import TEST, VALIDATION, Dataset, Sample
from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import card, plots
from imgclf.evaluation.scorers import multilabel as scorer
from imgclf.explanation import views
from imgclf.prediction import artifact, heatmaps, outputs
from imgclf.prediction.decision import Decision
from imgclf.prediction.forms import Writing
from imgclf.runs import Run
from imgclf.settings import AugmentConfig, CalibrateConfig, DataConfig, EvaluateConfig, KfoldConfig, TrainConfig
from imgclf.settings.explanation import ExplainConfig
from imgclf.tasks import multiclass, multilabel

Interrupted = Callable[..., Run]

NAMES = ["a", "b", "c"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_scores_are_those_of_scikit_learn(data: st.DataObject) -> None:
    from sklearn import metrics

    n = data.draw(st.integers(2, 20))
    labels = data.draw(arrays.arrays(np.float32, (n, 3), elements=st.sampled_from([0.0, 1.0])))
    labels[0] = 1  # every class occurs; images without a class are another matter
    chances = data.draw(arrays.arrays(np.float32, (n, 3), elements=st.floats(0, 1, width=16)))
    said = (chances >= 0.5).astype(np.float32)
    found = scorer.measure(labels, chances, said, NAMES, replicates=2)
    for average in ("macro", "micro"):
        for key in ("precision", "recall", "f1"):
            expected = getattr(metrics, f"{key}_score")(labels, said, average=average, zero_division=0)
            assert found[f"{average}_{key}"] == pytest.approx(expected)
    assert found["mean_average_precision"] == pytest.approx(metrics.average_precision_score(labels, chances))
    assert found["hamming_loss"] == pytest.approx(metrics.hamming_loss(labels, said))
    assert found["subset_accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))
    some = (labels + said).any(axis=1)
    expected = metrics.f1_score(labels[some], said[some], average="samples", zero_division=0)
    assert found["samples_f1"] == pytest.approx((expected * some.sum() + (~some).sum()) / n)


def test_an_image_without_a_class_for_which_none_is_predicted_is_correct() -> None:
    nothing = np.zeros((2, 3), np.float32)
    nothing[1, 0] = 1
    found = scorer.measure(nothing, nothing, nothing, NAMES, replicates=2)
    assert found["samples_f1"] == found["samples_precision"] == found["subset_accuracy"] == 1


def test_weights_count_as_repeated_images() -> None:
    rng = np.random.default_rng(0)
    labels, said = (rng.integers(0, 2, (9, 3)).astype(np.float32) for _ in range(2))
    chances, times = rng.random((9, 3)), np.array([0, 1, 2, 3, 1, 0, 2, 1, 1])
    again = [np.repeat(each, times, axis=0) for each in (labels, said)]
    weights = times[:, None].astype(float)
    once = np.ones((times.sum(), 1))
    for key, values in scorer.scores_of(labels, said, weights).items():
        np.testing.assert_allclose(values, scorer.scores_of(*again, once)[key], err_msg=key)
    repeated = multilabel.average_precisions(np.repeat(chances, times, axis=0), again[0], once)
    np.testing.assert_allclose(multilabel.average_precisions(chances, labels, weights), repeated)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_threshold_with_the_best_f1_is_found(data: st.DataObject) -> None:
    from sklearn.metrics import f1_score

    truth = data.draw(arrays.arrays(bool, st.integers(2, 25)))
    truth[0] = True
    scores = data.draw(arrays.arrays(np.float32, len(truth), elements=st.floats(0, 1, width=16)))
    found = f1_score(truth, scores >= scorer.best_f1(truth, scores), zero_division=0)
    assert found == pytest.approx(max(f1_score(truth, scores >= level, zero_division=0) for level in scores))


def test_thresholds_reach_the_recall_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((4000, 3)) < [0.5, 0.1, 0.3]).astype(np.float32)
    chances = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(0, [1, 2, 0.5], (4000, 3)))))
    rules = scorer.with_thresholds(Decision(), labels[:2000], chances[:2000], NAMES, "recall=0.9")
    said = chances[2000:] >= list((rules.thresholds or {}).values())
    assert ((said * labels[2000:]).sum(axis=0) / labels[2000:].sum(axis=0)).tolist() == pytest.approx(
        [0.9] * 3, abs=0.05
    )


def test_a_class_with_few_images_keeps_the_even_threshold() -> None:
    labels = np.zeros((20, 1), np.float32)
    labels[:4] = 1
    assert scorer.rules(labels, np.linspace(0, 1, 20)[:, None], ["rare"]).thresholds == {"rare": 0.5}


def test_exclusive_labels_give_the_answer_of_multiclass() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 400)
    features = (3 * np.eye(3, 12)[truth] + rng.normal(0, 1, (400, 12))).astype(np.float32)
    train, test = slice(0, 250), slice(250, None)
    several = np.eye(3, dtype=np.float32)[truth]
    each = multilabel.fit(features[None, train], several[train], outputs=3, seed=0, balanced=False)
    one = multiclass.fit(features[None, train], truth[train], outputs=3, seed=0, balanced=False)
    by_each, by_one = ((features[test] @ kernel + bias).argmax(axis=1) for kernel, bias in (each, one))
    assert (by_each == by_one).mean() > 0.97
    assert multilabel.best_score(features[test] @ each[0] + each[1], several[test]) > 0.95


def test_balanced_loss_weighs_positives_and_negatives_the_same() -> None:
    targets = np.array([[1], [0], [0], [0]], np.float32)
    even, weighted = (multilabel.loss(targets, 1, label_smoothing=0.0, balanced=each) for each in (False, True))
    logits = np.zeros((4, 1), np.float32)
    assert float(even(targets, logits)) == pytest.approx(np.log(2))
    np.testing.assert_allclose(weighted(targets, logits), np.log(2) * np.array([2, 2 / 3, 2 / 3, 2 / 3]), rtol=1e-5)
    assert multilabel.score(logits, targets)[0] == pytest.approx(np.log(2))


def planted(count: int) -> Dataset:
    """Samples with some of three classes, one of them rare."""
    rng = np.random.default_rng(0)
    labels = [
        "|".join(n for n, p in zip(NAMES, (0.6, 0.3, 0.05), strict=True) if rng.random() < p) for _ in range(count)
    ]
    samples = tuple(Sample(f"{i}.png", label, sha256=f"{i:x}") for i, label in enumerate(labels))
    return Dataset(Path(), samples, tuple(NAMES), task="multilabel")


def test_every_split_and_fold_gets_its_share_of_every_class() -> None:
    dataset = planted(400)
    found, _ = splitting.split(dataset, validation_fraction=0.2, test_fraction=0.2, seed=0)
    for name, count in dataset.counts().items():
        for part in (VALIDATION, TEST):
            assert found.counts(part)[name] == pytest.approx(0.2 * count, abs=1.5)
    assert len(found.part(TEST)) == pytest.approx(80, abs=6)
    folds = splitting.folds(dataset, 5, seed=0)
    assert sorted(row for _, tested in folds for row in tested.tolist()) == list(range(400))
    for _, tested in folds:
        own = multilabel.counts([dataset.samples[row].label for row in tested], NAMES)
        assert all(own[name] == pytest.approx(count / 5, abs=1.5) for name, count in dataset.counts().items())


def labels_in(folder: Path, **options: Any) -> dict[str, str]:
    """The label of each image."""
    config = DataConfig(task="multilabel", near_duplicates="off", **options)
    return {s.path: s.label for s in reading.read(folder, config, split=False).samples}


def test_labels_are_read_from_every_source(images: Callable[..., Path], tmp_path: Path) -> None:
    folder = images({"1.png": 10, "2.png": 100, "3.png": 200})
    expected = {"1.png": "cat|dog", "2.png": "", "3.png": "dog"}
    (folder / "table.csv").write_text('path,tags\n1.png,"dog, cat"\n2.png,\n3.png,dog\n')
    assert labels_in(folder / "table.csv", label_separator=",") == expected
    (folder / "table.csv").write_text("path,cat,dog\n1.png,1,1\n2.png,0,0\n3.png,,1.0\n")
    assert labels_in(folder / "table.csv") == expected
    (folder / "table.csv").write_text("path,label\n1.png,dog\n3.png,dog\n1.png,cat\n2.png,\n")
    assert labels_in(folder / "table.csv") == expected  # a row for each label
    (folder / "table.csv").unlink()
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 16} for i in (1, 2, 3)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": [1, 1, 5, 5 + n]}
            for n, (i, c) in enumerate([(1, 7), (1, 8), (1, 8), (3, 8)])
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(coco))
    assert labels_in(folder) == expected
    (folder / "annotations.json").unlink()
    for number, names in ((1, ("dog", "cat")), (2, ()), (3, ("dog",))):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
        objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
        xml = f"<annotation><filename>{number}.png</filename>{objects}</annotation>"
        (folder / f"{number}.xml").write_text(xml)
    assert labels_in(folder) == expected
    classes = tmp_path / "classes"
    for path, level in (("cat/x.png", 1), ("dog/x.png", 1), ("dog/y.png", 2)):
        gray_image(classes / path, 50 * level, level)
    assert labels_in(classes) == {"cat/x.png": "cat|dog", "dog/y.png": "dog"}


def test_classes_are_chosen_and_renamed_within_labels(images: Callable[..., Path]) -> None:
    folder = images({"1.png": 10, "2.png": 100, "3.png": 200})
    (folder / "table.csv").write_text("path,cat,dog,cow\n1.png,1,1,0\n2.png,0,0,1\n3.png,0,1,0\n")
    assert labels_in(folder, classes="dog,cat") == {"1.png": "cat|dog", "2.png": "", "3.png": "dog"}
    assert labels_in(folder, rename="cat=puma") == {"1.png": "dog|puma", "2.png": "cow", "3.png": "dog"}


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("path,cat,note\n1.png,1,nice\n2.png,0,\n", {}, r"line 2, column note: expected 0 or 1.*found 'nice'"),
        (
            "path,labels\n1.png,a|b;c\n2.png,a|b\n",
            {"label_separator": ";"},
            r"expected names without '\|'.*found 'a\|b'",
        ),
        (
            "path,labels\n1.png,a;b\n2.png,a\n1.png,b\n",
            {},
            r"found 'a;b' beside 'a', 'b'\. .*--label-separator ';'",
        ),
    ],
)
def test_bad_labels_are_named(images: Callable[..., Path], table: str, options: dict[str, str], message: str) -> None:
    folder = images({"1.png": 10, "2.png": 100})
    (folder / "table.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        labels_in(folder / "table.csv", **options)


def test_a_class_that_is_always_or_never_there_is_named() -> None:
    with pytest.raises(DatasetError, match="none with cow"):
        multilabel.check(["cat", "dog"], ["cat", "cow", "dog"], "data")
    with pytest.raises(DatasetError, match="none without cat"):
        multilabel.check(["cat", "cat|dog"], ["cat", "dog"], "data")


@pytest.mark.parametrize(
    "table",
    [
        "path,cat,dog\n1.png,1,1\n2.png,0,1\n",
        "path,label\n1.png,cat|dog\n2.png,cat\n3.png,dog\n4.png,cat|dog\n",
        "path,label\n1.png,cat\n2.png,dog\n1.png,dog\n",
        "path,tags\n1.png,cat\n2.png,dog|cat\n",
    ],
)
def test_data_that_look_like_several_labels_name_the_option(images: Callable[..., Path], table: str) -> None:
    folder = images({f"{i}.png": 50 * i for i in (1, 2, 3, 4)})
    (folder / "table.csv").write_text(table)
    with pytest.raises(DatasetError, match="--task multilabel"):
        reading.read(folder / "table.csv", DataConfig(near_duplicates="off"), split=False)


CONFIG = TrainConfig(
    task="multilabel", method="probe", image_size=16, export="litert", near_duplicates="off", augment="none"
)


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 images, each with some of red, green and blue in it."""
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    rows = ["path,red,green,blue"]
    for number in range(90):
        has = rng.random(3) < 0.45
        noise = rng.uniform(-20, 20, (16, 16, 3))
        Image.fromarray(np.clip(60 + 130 * has + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{','.join(str(int(x)) for x in has)}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe on a tiny network."""
    dataset = imgclf.read(colors, CONFIG)
    return imgclf.train(dataset, CONFIG, output=tmp_path_factory.mktemp("runs") / "run", backbone=tiny_backbone())


def test_a_run_scores_what_it_predicts(run: Run) -> None:
    from sklearn import metrics

    found = scorer.read(run.predictions)
    scores = json.loads(run.metrics.read_text())
    assert found.names == ["blue", "green", "red"] and scores["n"] == len(found.paths)
    assert scores["mean_average_precision"] == pytest.approx(
        metrics.average_precision_score(found.labels, found.outputs), rel=1e-6
    )
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(found.labels, found.predicted, average="macro"))
    assert scores["mean_average_precision"] > 0.9
    facts = artifact.read(run.path)
    assert facts.task == "multilabel" and facts.outputs[0] == "probabilities"
    assert set(facts.decision.thresholds or {}) == set(found.names)
    above = found.outputs >= [facts.decision.thresholds[name] for name in found.names]
    np.testing.assert_array_equal(above, found.predicted > 0)
    assert "Worst mistakes" in (run.path / "report.html").read_text()


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_every_engine_predicts_the_same(run: Run, colors: Path, engine: str) -> None:
    found = scorer.read(run.predictions)
    predictions = prediction.load(run.path, engine=engine).predict([colors / path for path in found.paths])
    np.testing.assert_allclose([p.output for p in predictions], found.outputs, atol=1e-4)
    expected = [tuple(n for n, has in zip(found.names, row, strict=True) if has) for row in found.predicted]
    assert [p.predicted for p in predictions] == expected


def test_predictions_are_written_in_every_format(run: Run, colors: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    model = prediction.load(run.path)
    [one] = model.predict([colors / "0.png"])
    nothing = model.form.make(np.zeros(3, np.float32), model.labels, model.rules, path="n.png")
    [bad] = model.predict([tmp_path / "broken.jpg"])
    writing = Writing("multilabel", model.labels)
    first, none, broken = map(json.loads, outputs.to_jsonl([one, nothing, bad], 2, writing))
    assert first["labels"] == list(one.predicted) and len(first["top"]) == 2
    assert none["labels"] == [] and none["error"] is None and broken["labels"] is None and broken["error"]
    header, row, empty, _ = outputs.to_csv([one, nothing, bad], 1, writing)
    assert header == "path,labels,error,p_blue,p_green,p_red\n"
    assert row.split(",")[1] == "|".join(one.predicted) and empty == "n.png,,,0.0,0.0,0.0\n"
    assert outputs.to_rows(nothing, 1, writing) == [("n.png", "(none)", "", "")]
    with outputs.parquet(tmp_path / "out.parquet", 1, writing) as add:
        for each in (one, nothing, bad):
            add(each)
    from pyarrow import parquet

    assert [row["labels"] for row in parquet.read_table(tmp_path / "out.parquet").to_pylist()][1:] == ["", None]


def test_evaluating_again_and_other_classes(run: Run, colors: Path, tmp_path: Path) -> None:
    own = imgclf.evaluate(run)
    assert own.metrics["macro_f1"] == pytest.approx(json.loads(run.metrics.read_text())["macro_f1"])
    text = (colors / "table.csv").read_text().replace("path,red", "path,pink")
    renamed = Path(shutil.copytree(colors, tmp_path / "renamed"))
    (renamed / "table.csv").write_text(text)
    other = imgclf.read(renamed, EvaluateConfig(task="multilabel"), split=False)
    with pytest.raises(DatasetError, match="found 'pink', too"):
        imgclf.evaluate(run, other, output=tmp_path / "1")
    config = EvaluateConfig(task="multilabel", unknown_classes="skip", missing_classes="allow")
    found = imgclf.evaluate(run, other, config, output=tmp_path / "2")
    assert found.metrics["n"] == 90 and found.metrics["per_class"]["red"]["support"] == 0


def test_augmentation_is_shown_for_each_class_and_for_images_without_any(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plots, "contact_sheet", lambda path, rows, names, *_: drawn.extend([rows, names]))
    config = AugmentConfig(task="multilabel", image_size=16, variants=2, policy="flip=0.5", near_duplicates="off")
    imgclf.augment(imgclf.read(colors, config), config, output=tmp_path / "sheet.png")
    rows, names = drawn
    assert names == ["blue", "green", "red", "(none)"] and rows.shape == (4, 3, 16, 16, 3)
    colors_of = rows[:, 0].mean(axis=(1, 2))
    assert colors_of[0, 2] > 150 and colors_of[1, 1] > 150 and colors_of[2, 0] > 150 and (colors_of[3] < 100).all()
    with pytest.raises(UsageError, match="--to does not support --task multilabel"):
        imgclf.augment(imgclf.read(colors, config), config, to=tmp_path / "copies")


@pytest.fixture(scope="module")
def half_red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red on the left, the dark gray of images without a color on the right."""
    pixels = np.full((16, 16, 3), 60, np.uint8)
    pixels[:, :8, 0] = 190
    path = tmp_path_factory.mktemp("half") / "red.png"
    Image.fromarray(pixels).save(path)
    return path


def test_the_map_of_a_class_is_what_its_own_logit_is_made_of(run: Run, half_red: Path, tmp_path: Path) -> None:
    [answer] = prediction.load(run.path).predict([half_red])
    for name in answer.labels:
        [row] = imgclf.explain(run, [half_red], label=name, output=tmp_path / name)
        assert (row.method, row.target, row.label) == ("cam", name, "|".join(answer.predicted) or None)
        assert row.probability == pytest.approx(answer.probabilities[name])
        chance = 1 / (1 + np.exp(-row.logit / artifact.read(run.path).temperature))
        assert chance == pytest.approx(row.probability, rel=1e-3) and row.drawing.is_file()
    [red] = imgclf.explain(run, [half_red], label="red")
    assert red.values[:, :5].mean() > red.values[:, -5:].mean() and red.peak[0] < 8
    [covered] = imgclf.explain(run, [half_red], ExplainConfig(method="occlusion", grid=4), label="red")
    assert covered.peak[0] < 8
    best = [row.target for row in imgclf.explain(run, [half_red], ExplainConfig(top=2))]
    assert best == [name for name, _ in answer.top(2)]
    with pytest.raises(UsageError, match=r"--class: expected a class of the model, such as .*found 'pink'"):
        imgclf.explain(run, [half_red], label="pink")


def test_predictions_are_drawn_with_their_evidence(run: Run, half_red: Path, tmp_path: Path) -> None:
    classifier = prediction.load(run.path, engine="litert")
    overlays = heatmaps.Overlays(tmp_path / "maps", classifier)
    for each in classifier.stream([str(half_red)], maps=True):
        overlays.draw(each)
    assert [path.suffix for path in (tmp_path / "maps").iterdir()] == [".png"]


def test_what_it_lacks_is_refused(run: Run, colors: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--embedding-map does not support --task multilabel yet"):
        views.draw_embedding_map(run.path, imgclf.read(colors, CONFIG), tmp_path / "map.png")


def test_the_card_says_what_is_predicted_and_how_well(run: Run, tmp_path: Path) -> None:
    text = card.write(run, tmp_path / "card.md").read_text()
    scores = run.scores
    assert "pipeline_tag: image-classification" in text
    value = scores["mean_average_precision"]
    assert f"    - type: mean_average_precision\n      value: {value:.6g}\n" in text
    assert f"Mean average precision {value:.3f}" in text
    for name, row in scores["per_class"].items():
        assert f"| {name} | {row['average_precision']:.3f} |" in text


def test_calibrate_fits_every_threshold_to_a_goal(run: Run) -> None:
    before = artifact.read(run.path)
    found = scorer.read(run.validation)
    facts, measured = imgclf.calibrate(run, CalibrateConfig(threshold="recall=1"))
    fitted = facts.decision.thresholds or {}
    for place, name in enumerate(found.names):
        has = found.labels[:, place] > 0
        enough = min(has.sum(), (~has).sum()) >= scorer.FEWEST
        assert fitted[name] == pytest.approx(found.outputs[has, place].min() if enough else 0.5)
    assert 0.5 not in fitted.values() or len(set(fitted.values())) > 1  # not all have too few images
    assert measured["support"]["red"] == int(found.labels[:, 2].sum())
    assert imgclf.calibrate(run, CalibrateConfig(threshold="none"))[0].decision.thresholds is None
    with pytest.raises(UsageError, match="--coverage does not support --task multilabel yet"):
        imgclf.calibrate(run, CalibrateConfig(coverage="0.9"))
    artifact.write(run.path, before)


def test_folds_are_pooled_and_runs_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 3)).astype(np.float32)
    good, poor = (np.clip(labels + rng.normal(0, s, (40, 3)), 0, 1).astype(np.float32) for s in (0.2, 0.6))
    paths = [f"{i}.png" for i in range(40)]
    answers = [scorer.Answers(paths, labels, own, (own >= 0.5).astype(np.float32), NAMES) for own in (good, poor)]
    for name, own in zip(("good", "poor"), answers, strict=True):
        (tmp_path / name).mkdir()
        scorer.Scored(scorer.measure(labels, own.outputs, own.predicted, NAMES, replicates=2), own).write(
            tmp_path / name
        )
    found = imgclf.compare([tmp_path / "poor", tmp_path / "good"])
    wrong = [(own.predicted != labels).mean() for own in answers]
    assert [row["loss"] for row in found["runs"]] == pytest.approx(wrong[::-1])
    [pair] = found["pairs"]
    assert pair["loss"] == pytest.approx(wrong[0] - wrong[1]) and pair["p"] < 0.05
    assert pair["interval"][0] <= pair["loss"] <= pair["interval"][1] < 0
    assert found["sentence"].startswith(f"{tmp_path / 'good'} loses least on these images (each p < 0.05)")
    halves = [
        scorer.Answers(paths[part], labels[part], good[part], answers[0].predicted[part], NAMES)
        for part in (slice(0, 10), slice(10, 40))
    ]
    pooled = scorer.pooled(halves, paths, NAMES, [""] * 40)
    assert pooled.metrics["hamming_loss"] == pytest.approx(wrong[0])


def test_a_probe_that_was_interrupted_ends_as_one_that_was_not(
    colors: Path, run: Run, tmp_path: Path, interrupted: Interrupted
) -> None:
    config = replace(CONFIG, export="none")
    broken = interrupted(imgclf.read(colors, config), config, tmp_path / "broken", "fitting the head")
    resumed, whole = (scorer.read(one.predictions) for one in (imgclf.resume(broken), run))
    assert resumed.paths == whole.paths
    np.testing.assert_array_equal(resumed.predicted, whole.predicted)
    np.testing.assert_allclose(resumed.outputs, whole.outputs, atol=1e-5)


@pytest.mark.slow
def test_every_method_folds_and_resuming(colors: Path, tmp_path: Path, interrupted: Interrupted) -> None:
    config = replace(CONFIG, export="none", method="finetune", epochs=2, batch_size=8, mixup=0.2, deterministic=True)
    dataset = imgclf.read(colors, config)
    run = imgclf.train(dataset, config, output=tmp_path / "finetune", backbone=tiny_backbone())
    assert [row["phase"] for row in run.history] == ["probe", "finetune", "finetune"]
    assert run.history[-1]["val_mean_average_precision"] > 0.9
    resumed = imgclf.resume(interrupted(dataset, config, tmp_path / "broken", "finetune", epochs=1))
    assert resumed.predictions.read_text() == run.predictions.read_text()
    more = imgclf.resume(run, epochs=3)
    assert len(more.history) == 4
    scratch = replace(CONFIG, export="none", method="scratch", backbone="small-cnn", epochs=2, balance="weights")
    imgclf.train(imgclf.read(colors, scratch), scratch, output=tmp_path / "scratch")
    probe = replace(CONFIG, export="none", backbone="efficientnet-lite0", image_size=32)
    folds = imgclf.kfold(imgclf.read(colors, probe), probe, KfoldConfig(3), output=tmp_path / "folds")
    assert folds.metrics["n"] == 90 and folds.folds["summary"]["mean_average_precision"]["mean"] > 0.8
    assert "Folds" in (tmp_path / "folds" / "report.html").read_text()
