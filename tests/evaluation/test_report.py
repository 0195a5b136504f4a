import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf import runs, storage
from imgclf.data.dataset import TEST, TRAIN, Dataset, Sample, write_manifest
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import answers, card, decisions, metrics, outputs, plots, report
from imgclf.evaluation import facts as facts_of
from imgclf.evaluation.answers import Answer
from imgclf.prediction import artifact
from imgclf.prediction.decision import Decision, decide
from imgclf.runs import Run

NASTY = ("<script>alert(1)</script>", "[red]x[/red]", "a & \"b\" '{{ 7 * 7 }}'")


def make(folder: Path, names: tuple[str, ...] = NASTY, count: int = 4, wrong: int = 5) -> Run:
    """A run folder with scores, whose images exist; some predictions are wrong."""
    run = runs.create(folder / "run")
    rng = np.random.default_rng(0)
    samples = []
    for place, name in enumerate(names):
        (folder / "images" / str(place)).mkdir(parents=True)
        for number in range(count):
            path = f"{place}/{number}.png"
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / "images" / path)
            sha256 = hashlib.sha256((folder / "images" / path).read_bytes()).hexdigest()
            samples.append(Sample(path, name, TEST if number else TRAIN, sha256=sha256))
    dataset = Dataset(folder / "images", tuple(samples), names)
    write_manifest(dataset, run.manifest)
    run.write_labels(list(names))
    settings = {"backbone": "small-cnn", "method": "scratch", "image_size": 32, "rename": f"{NASTY[0]}=x"}
    storage.write_json(run.config, {"data": str(dataset.root), "config": settings, "versions": {"python": "3"}})
    part = dataset.part(TEST)
    probabilities = rng.dirichlet(np.ones(len(names)), len(part)) * 0.2 + 0.8 * np.eye(len(names))[part.labels]
    probabilities[:wrong] = np.roll(probabilities[:wrong], 1, axis=1)
    scores = metrics.score(part.labels, probabilities, names, replicates=20)
    storage.write_json(run.metrics, scores)
    outputs.write_predictions(run.predictions, [s.path for s in part.samples], part.labels, probabilities, names)
    run.history_file.write_text("epoch,loss,accuracy,val_loss,val_accuracy\n1,2,0.5,2.1,0.4\n2,1,0.7,,\n")
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its report. Read it, never write it."""
    made = make(tmp_path_factory.mktemp("shared"))
    names = ("html", "md", "json")
    assert report.write(made, formats=names) == [made.path / f"report.{name}" for name in names]
    return made


@pytest.fixture(scope="module")
def page(shared: Run) -> str:
    return (shared.path / "report.html").read_text()


def test_what_a_person_typed_is_escaped(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "[red]x[/red]" in page
    assert "{{ 7 * 7 }}" in page and "&#34;b&#34;" in page


def test_the_page_needs_no_other_file(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:image/|#)", page)
    assert "http" not in page.replace("http-equiv", "")


def test_every_cell_of_the_matrix_leads_to_its_images(shared, page):
    links = set(re.findall(r'href="#(c-\d+-\d+)"', page))
    counts = np.array(runs.read_json(shared.metrics)["confusion_matrix"]["counts"])
    assert links == {f"c-{i}-{j}" for i, j in np.argwhere(counts)}
    assert links == set(re.findall(r'class="cell" id="(c-\d+-\d+)"', page))
    cell = re.search(r'id="c-0-1".*?<p><a href="#confusion">', page, re.DOTALL)
    assert cell and cell[0].count("<img") == counts[0, 1] and "0/1.png" in cell[0]


def test_folds_tell_the_command_that_makes_them_again(run):
    config = run.read_config() | {"kfold": {"folds": 3, "repeats": 2}}
    config["config"] |= {"offline": True, "export": "none", "batch_size": None}
    storage.write_json(run.config, config)
    facts = facts_of.collect(run, run.path, outputs.read_predictions(run.predictions))
    assert list(facts["data"]["splits"]) == [TEST]
    words = shlex.split(facts["reproduce"][1])
    assert words[:7] == ["imgclf", "kfold", config["data"], "--folds", "3", "--repeats", "2"]
    assert words[7:-2] == [
        *(
            "--backbone",
            "small-cnn",
            "--method",
            "scratch",
            "--image-size",
            "32",
            "--rename",
            f"{NASTY[0]}=x",
            "--offline",
        )
    ]
    inner = Run(run.path / "kfold-3")
    shutil.copytree(run.path, inner.path)
    facts = facts_of.collect(inner, inner.path, outputs.read_predictions(inner.predictions))
    assert facts["reproduce"][1] == shlex.join(["imgclf", "evaluate", str(run.path), "--kfold", "3"])


def test_the_worst_mistakes_come_first_and_the_least_certain_too(run):
    facts = facts_of.collect(run, run.path, outputs.read_predictions(run.predictions))
    assert len(facts["mistakes"]) == 5
    confidences = [row["confidence"] for row in facts["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all(row["label"] != row["predicted"] for row in facts["mistakes"])
    assert len(facts["unsure"]) == 9
    second, best = np.sort(outputs.read_predictions(run.predictions).probabilities, axis=1)[:, -2:].T
    assert [row["row"] for row in facts["unsure"]] == np.argsort(best - second).tolist()
    assert facts["data"]["splits"] == {"train": 3, "validation": 0, "test": 9}


def ask(run: Run, name: str, **changes: object) -> None:
    about = {
        "question": f"Is it {NASTY[0]}?",
        "text": f"Perhaps {NASTY[1]}.",
        "tables": [(f"By {NASTY[2]}", ("image", "score"), [(NASTY[0], "0.5"), ("<!-- answers -->", "0.25")])],
        "about": "to\nday",
    }
    answers.write(run, name, Answer(**{**about, **changes}))


def test_answers_are_shown_escaped_and_replace_the_former_ones(run):
    picture = (run.path.parent / "images" / "0" / "0.png").read_bytes()
    formats = ("html", "md", "json")
    report.write(run, formats=formats)
    empty = [(run.path / f"report.{name}").read_text() for name in formats]
    ask(run, "curves", picture=picture)
    ask(run, "drift", text="First.")
    assert report.show_answers(run) == [run.path / f"report.{name}" for name in formats]
    ask(run, "drift", text="Second.")
    report.show_answers(run)
    page, markdown, as_json = ((run.path / f"report.{name}").read_text() for name in formats)
    assert "<script>alert" not in page and "<script>" not in markdown
    assert "Is it &lt;script&gt;alert(1)&lt;/script&gt;?</h2>" in page
    assert f"data:image/png;base64,{base64.b64encode(picture).decode()}" in page
    assert '<td class="name">&lt;!-- answers --&gt;</td><td class="n">0.25</td>' in page
    assert "UTC about to\\nday." in page
    assert r"## Is it &lt;script&gt;alert(1)&lt;/script&gt;?" in markdown
    assert "First." not in page + markdown + as_json
    assert all("Second." in text for text in (page, markdown, as_json))
    assert [answer["name"] for answer in json.loads(as_json)["answers"]] == ["curves", "drift"]
    report.write(run, formats=formats)
    assert [(run.path / f"report.{name}").read_text() for name in formats] == [page, markdown, as_json]
    shutil.rmtree(run.path / answers.FOLDER)
    report.show_answers(run)
    assert [(run.path / f"report.{name}").read_text() for name in formats] == empty


def test_scores_of_other_images_show_no_answers_and_damaged_ones_are_refused(run):
    ask(run, "drift")
    other = run.path / "evaluations" / "other-1"
    shutil.copytree(run.path, other)
    report.write(run, other)
    assert "answer-drift" not in (other / "report.html").read_text()
    (run.path / answers.FOLDER / "drift.json").write_text('{"question": 7}')
    with pytest.raises(RunError, match=r"drift.json: expected JSON as imgclf writes it: question: expected a string"):
        report.write(run)


def test_a_report_without_a_place_for_answers_is_left_alone(run):
    (run.path / "report.html").write_text("<p>An old report</p>")
    ask(run, "drift")
    assert report.show_answers(run) == []
    assert (run.path / "report.html").read_text() == "<p>An old report</p>"


def test_json_and_markdown_hold_the_same_numbers(shared):
    markdown, as_json = ((shared.path / f"report.{name}").read_text() for name in ("md", "json"))
    facts = json.loads(as_json)
    assert facts["scores"] == runs.read_json(shared.metrics)
    assert f"| Accuracy | {facts['scores']['accuracy']:.3f} |" in markdown
    assert "<script>" not in markdown
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;" in markdown


def test_images_that_are_gone_leave_their_paths(run, tmp_path):
    shutil.rmtree(tmp_path / "images")
    text = report.write(run)[0].read_text()
    assert "image/jpeg" not in text
    assert "0/1.png" in text and "unreadable" in text


def test_other_images_under_the_names_of_the_run_are_not_shown(run, tmp_path, caplog):
    shown = report.write(run)[0].read_text().count("data:image/jpeg")
    path = outputs.read_predictions(run.predictions).paths[0]
    other = next(file for name, file in report.run_files(run).items() if name != path)
    (tmp_path / "images" / path).write_bytes(other.read_bytes())
    assert path not in report.run_files(run)
    text = report.write(run)[0].read_text()
    assert text.count("data:image/jpeg") < shown and f"have changed since training: {path}" in caplog.text


def test_many_classes_get_a_picture_of_the_matrix(tmp_path):
    names = tuple(f"class {i}" for i in range(report.MOST_CLASSES + 1))
    text = report.write(make(tmp_path, names, count=2))[0].read_text()
    assert 'class="matrix"' not in text
    assert "Confusion matrix: true classes as rows" in text
    assert text.count('class="cell"') == len(names)


def test_a_model_without_a_mistake_history_and_manifest(tmp_path):
    run = make(tmp_path, wrong=0)
    run.history_file.unlink()
    run.manifest.unlink()
    text = report.write(run)[0].read_text()
    assert "None: every predicted class is correct." in text
    assert "Learning curves" not in text


def test_scores_of_an_older_version_are_an_error_that_says_so(run):
    storage.write_json(run.metrics, {"accuracy": 1.0})
    with pytest.raises(RunError, match=r"metrics\.json.*older.*imgclf evaluate"):
        report.write(run)


def test_an_unknown_format_is_a_usage_error(run):
    with pytest.raises(UsageError, match="pdf"):
        report.write(run, formats=("pdf",))


@pytest.mark.parametrize("text", ["a|b", "a\nb", "`x`", "<b>", "[x](y)", "\u202eevil", "\ud880"])
def test_markdown_escapes(text):
    escaped = report.markdown(text)
    assert "\n" not in escaped and "<" not in escaped and escaped.isprintable()
    assert not re.search(r"(?<!\\)[|`\[\]]", escaped)


PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const rows = () => [...document.querySelectorAll("table.sorts tbody tr")];
  const column = (place) => rows().map((row) => row.cells[place].textContent);
  const press = (place) => document.querySelectorAll("table.sorts thead th")[place].querySelector("button").click();
  const found = {};
  press(2); found.falling = column(2);
  press(2); found.rising = column(2);
  press(0); found.names = column(0);
  const visible = (part) => getComputedStyle(part).display !== "none";
  const shown = () => [...document.querySelectorAll(".cell")].filter(visible).map((part) => part.id);
  found.before = shown();
  document.querySelector('.matrix a[href="#c-0-1"]').click();
  setTimeout(() => {
    found.after = shown();
    document.querySelector("input[value=row]").click();
    found.share = document.querySelector('.matrix a[href="#c-0-1"]').textContent;
    found.width = innerWidth;
    found.wide = document.documentElement.scrollWidth > innerWidth;
    const out = document.createElement("pre"); out.id = "found"; out.textContent = JSON.stringify(found);
    parent.document.body.append(out);
  }, 100);
}, 100));
</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_works_in_a_browser(page, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium here")
    probed = tmp_path / "page.html"
    probed.write_text(page.replace("</body>", PROBE + "</body>"))
    frame = tmp_path / "frame.html"  # no window is narrower than 500 px
    frame.write_text(
        f'<body><iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe></body>'
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=3000"]
    options += ["--allow-file-access-from-files", "--window-size=1300,950"]
    done = subprocess.run(
        [browser, *options, "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "CONSOLE" not in done.stderr
    dumped = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert dumped, done.stderr
    found = json.loads(dumped[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["falling"] == sorted(found["falling"], reverse=True)
    assert found["rising"] == sorted(found["falling"])
    assert sorted(found["names"]) == sorted(NASTY) and found["names"][-1] == NASTY[2]
    assert (found["before"], found["after"]) == ([], ["c-0-1"])
    assert found["share"] == "100%"
    assert found["width"] == width
    assert not found["wide"]


def test_rejected_images_have_a_column_and_are_no_mistakes(run):
    """Two of the five images that are predicted incorrectly are rejected instead."""
    found = outputs.read_predictions(run.predictions)
    predicted = found.predicted.copy()
    predicted[:2] = -1
    outputs.write_predictions(run.predictions, *found._replace(predicted=predicted))
    names = found.class_names
    scores = metrics.score(found.labels, found.probabilities, names, predicted, replicates=20)
    decided = decide(found.probabilities, names, Decision(reject_below=0.5))
    decided = replace(decided, unsure=predicted == -1)
    scores["decision"] = decisions.measure(found.labels, decided, names, Decision(reject_below=0.5))
    storage.write_json(run.metrics, scores)
    report.write(run, formats=("html", "md", "json"))
    facts = json.loads((run.path / "report.json").read_text())
    assert len(facts["mistakes"]) == 3 and facts["scores"]["accuracy"] == 4 / 9
    page = (run.path / "report.html").read_text()
    column = len(names)
    rejected = {f"c-{label}-{column}" for label in found.labels[:2]}
    assert rejected <= set(re.findall(r'href="#(c-\d+-\d+)"', page))
    assert rejected <= set(re.findall(r'class="cell" id="(c-\d+-\d+)"', page))
    sentence = "Coverage 77.8%: 2 of 9 images rejected, counted as errors. Accuracy on the others: 0.571"
    assert sentence in page and sentence in (run.path / "report.md").read_text()
    pixels = plots.draw_confusion_matrix(scores).axes[0]
    assert [label.get_text() for label in pixels.get_xticklabels()][-1] == "(rejected)"


@pytest.mark.parametrize("reject_below", [0.5, 0.6])
def test_rules_that_changed_since_the_scores_are_told(run, reject_below):
    scores = runs.read_json(run.metrics)
    found = outputs.read_predictions(run.predictions)
    rules = Decision(reject_below=0.5)
    decided = decide(found.probabilities, found.class_names, rules)
    scores["decision"] = decisions.measure(found.labels, decided, found.class_names, rules)
    storage.write_json(run.metrics, scores)
    now = Decision(reject_below=reject_below)
    labels = tuple(found.class_names)
    artifact.write(run.path, artifact.Artifact(labels, 8, "squash", "small", ("probabilities",), "", {}, decision=now))
    report.write(run, formats=("html",))
    assert (facts_of.CHANGED in (run.path / "report.html").read_text()) == (reject_below != 0.5)


def test_the_worst_mistakes_show_where_the_model_looked(trained_run, tmp_path):
    images = trained_run.path.parent / "images"
    for name, other in (("disc", "two discs"), ("two discs", "disc")):  # every label is wrong
        shutil.copytree(images / name, tmp_path / "swapped" / other)
    dataset = imgclf.read(tmp_path / "swapped", imgclf.DataConfig(limit=10))
    imgclf.evaluate(trained_run, dataset, output=tmp_path / "scores")
    text = (tmp_path / "scores" / "report.html").read_text(encoding="utf-8")
    assert "Where the model looked" in text
    assert text.count('class="pair"') == report.MOST_EVIDENCE


def test_without_an_exported_model_the_page_has_no_maps(page):
    assert "Where the model looked" not in page


def test_the_steps_before_the_model_are_told_in_every_format_and_on_the_card(run):
    config = run.read_config()
    config["config"]["preprocess"] = "denoise=5,threshold"
    storage.write_json(run.config, config)
    html, markdown, facts = report.write(run, formats=("html", "md", "json"))
    steps = "denoise (take the median of 5 x 5 px), then threshold (make what is brighter than "
    assert steps in html.read_text()
    assert steps in markdown.read_text()
    assert steps in json.loads(facts.read_text())["preprocessing"]
    assert card.write(run).read_text().count(steps) == 1


def test_nothing_is_told_of_steps_where_there_are_none(shared, page):
    assert "steps change it" not in page + (shared.path / "report.md").read_text()
    assert json.loads((shared.path / "report.json").read_text())["preprocessing"] == ""
