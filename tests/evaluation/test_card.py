import json

import pytest

from imgclf.errors import RunError
from imgclf.evaluation import card
from imgclf.evaluation.facts import collect
from imgclf.evaluation.outputs import read_predictions
from imgclf.evaluation.scorers.multiclass import described
from imgclf.runs import Run
from tests.evaluation.test_report import make


def test_the_card_has_metadata_and_scores_and_shows_names_as_they_are(tmp_path):
    run = make(tmp_path)
    path = card.write(run)
    text = path.read_text()
    assert path == run.path / "README.md"
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    scores = json.loads(run.metrics.read_text())
    assert "pipeline_tag: image-classification" in head
    assert f"    - type: accuracy\n      value: {scores['accuracy']:.6g}" in head
    assert '      name: "images"' in head
    assert "<script>" not in body and r"\[red\]x\[/red\]" in body
    assert f"| Accuracy | {scores['accuracy']:.3f} |" in body
    assert "9 for test" in body


def test_a_name_cannot_break_out_of_the_metadata(tmp_path):
    run = make(tmp_path)
    facts = collect(run, run.path, read_predictions(run.predictions)) | {"title": 'a"\nlicense: mit\n---'}
    head = card.text(facts, described(facts)).split("\n---\n")[0]
    assert "license" not in [line.partition(":")[0] for line in head.splitlines()]


def test_the_metadata_is_what_hugging_face_reads(tmp_path):
    yaml = pytest.importorskip("yaml")
    run = make(tmp_path)
    facts = collect(run, run.path, read_predictions(run.predictions))
    facts = facts | {"title": 'a: "b" # \U0001f600', "scores": facts["scores"] | {"log_loss": 1e-5}}
    head = yaml.safe_load(card.text(facts, described(facts)).split("---\n")[1])
    assert (head["library_name"], head["pipeline_tag"]) == ("imgclf", "image-classification")
    [model] = head["model-index"]
    assert model["name"] == facts["title"]
    [result] = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"name": "images", "type": "images", "split": "test"}
    values = {row["type"]: row["value"] for row in result["metrics"]}
    assert values["accuracy"] == pytest.approx(facts["scores"]["accuracy"], abs=1e-6)
    assert values["log_loss"] == 1e-5


def test_the_limits_say_what_becomes_of_other_images(tmp_path):
    run = make(tmp_path)
    facts = collect(run, run.path, read_predictions(run.predictions))
    assert "Every image gets one of the classes above" in card.text(facts, described(facts))
    scores = facts["scores"] | {"decision": {"answered": 0.75, "precision": None}}
    facts = facts | {"calibration": {"outlier_above": 1.2, "reject_below": 0.6}, "scores": scores}
    limits = (
        'An image that is unlike the training images or has a confidence below 0.6 is rejected as "unknown": 25.0% of '
        "the test images."
    )
    assert limits in card.text(facts, described(facts))


def test_a_run_without_scores_has_no_card(tmp_path):
    run = make(tmp_path)
    run.predictions.unlink()
    with pytest.raises(RunError, match=r"predictions\.csv"):
        card.write(Run(run.path))


def places(value, path=()):
    """The path of each value in a document; of lists, the first two values."""
    yield path
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(min(len(value), 2)):
            yield from places(value[key], (*path, key))


def changed(value, path, new):
    """A copy of a document with another value at a path, or without it for `...`."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    if new is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("new", [..., None, "\x1b[31m", [[1]]])
def test_whatever_is_in_the_scores_the_card_is_written_or_refused_in_one_line(tmp_path, new):
    run = make(tmp_path, ("ant", "bee"), count=3, wrong=2)
    scores = json.loads(run.metrics.read_text())
    refused = 0
    for path in [path for path in places(scores) if 0 < len(path) < 4 and path[0] not in ("argmax", "intervals")]:
        run.metrics.write_text(json.dumps(changed(scores, path, new)))
        try:
            card.write(run)
        except RunError as error:
            refused += 1
            assert "metrics.json: " in str(error) and "\n" not in str(error) and "\x1b" not in str(error)
    assert refused > 30
    run.metrics.write_text(json.dumps(scores))
    card.write(run)
