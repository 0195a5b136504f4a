"""imgclf explain, and imgclf predict --explain"""

import json

import pytest


@pytest.fixture
def images(trained_run):
    return trained_run.path.parent / "images" / "disc"


def test_json_and_overlays(imgclf, trained_run, images, tmp_path, capsys):
    assert imgclf("explain", trained_run.path, images, "--json", "-o", tmp_path / "maps", "-q") == 0
    found = json.loads(capsys.readouterr().out)["images"]
    assert len(found) == len(list(images.iterdir())) == len(list((tmp_path / "maps").iterdir()))
    assert all(0 <= at < 40 for row in found for at in row["peak"])
    keys = {"path", "label", "class", "probability", "method", "peak", "logit", "value", "drawing", "error"}
    assert found[0].keys() == keys


def test_a_table(imgclf, trained_run, images, capsys):
    assert imgclf("explain", trained_run.path, images / "000.png", "--class", "two discs") == 0
    assert "│ two discs │" in capsys.readouterr().out


def test_a_table_of_drawings_that_does_not_fit_names_their_folder(imgclf, trained_run, images, tmp_path, capsys):
    output = tmp_path / ("maps" * 10)
    assert imgclf("explain", trained_run.path, images, "-o", output) == 0
    printed = capsys.readouterr()
    assert "drawing" not in printed.out
    assert f"{output}: wrote {len(list(output.iterdir()))} drawings." in printed.err
    assert imgclf("explain", trained_run.path, images / "000.png", "-o", tmp_path / ("map" * 20)) == 0
    assert "wrote 1 drawing." in capsys.readouterr().err


def test_missing_images_are_an_error_after_those_that_exist(imgclf, trained_run, images, tmp_path, capsys):
    gone = tmp_path / "gone.png"
    assert imgclf("explain", trained_run.path, gone) == 3
    printed = capsys.readouterr()
    assert printed.out == "" and f"Error: {gone}: no such file or folder." in printed.err
    assert imgclf("explain", trained_run.path, gone, images / "000.png", "--json") == 3
    printed = capsys.readouterr()
    found = json.loads(printed.out)["images"]
    assert [row["error"] for row in found] == ["no such file", None]
    assert f"Error: {gone}: no such file or folder." in printed.err


def test_options_without_an_effect_are_refused(imgclf, trained_run, images, capsys):
    assert imgclf("explain", trained_run.path, images / "000.png", "--count", "3") == 2
    assert "--count: no effect on maps." in capsys.readouterr().err
    assert imgclf("explain", trained_run.path, images / "000.png", "--grid", "9") == 2
    assert "--grid: no effect on --method cam." in capsys.readouterr().err


def test_images_by_option_are_added_to_those_by_argument(imgclf, trained_run, images, capsys):
    words = (
        "explain",
        trained_run.path,
        images / "000.png",
        "--images",
        images / "001.png",
        "--images",
        images / "002.png",
    )
    assert imgclf(*words, "--json") == 0
    paths = [row["path"] for row in json.loads(capsys.readouterr().out)["images"]]
    assert paths == [str(images / f"00{place}.png") for place in range(3)]


def test_an_unknown_class(imgclf, trained_run, images, capsys):
    assert imgclf("explain", trained_run.path, images, "--class", "discs") == 2
    assert "such as disc" in capsys.readouterr().err


def test_predict_draws_while_it_predicts(imgclf, trained_run, images, tmp_path, capsys):
    assert imgclf("predict", trained_run.path, images, "--format", "jsonl") == 0
    plain = capsys.readouterr().out
    assert imgclf("predict", trained_run.path, images, "--format", "jsonl", "--explain", tmp_path / "maps") == 0
    assert capsys.readouterr().out == plain
    assert len(list((tmp_path / "maps").glob("*.png"))) == len(plain.splitlines())


def test_predict_refuses_a_folder_with_files_and_other_engines(imgclf, trained_run, images, capsys):
    assert imgclf("predict", trained_run.path, images, "--explain", images) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert imgclf("predict", trained_run.path, images, "--explain", "maps", "--engine", "keras") == 2
    assert "--explain: expected --engine litert" in capsys.readouterr().err
    assert imgclf("predict", trained_run.path, "--watch", images, "--explain", images / "maps") == 2
    assert "which is watched" in capsys.readouterr().err


@pytest.mark.slow
def test_drawings_of_the_network(imgclf, trained_run, images, tmp_path, capsys):
    for words in (
        ("--filters", "stage_1_1_conv"),
        (images / "000.png", "--feature-maps", "stage_1_1_relu"),
        ("--top-activations", "stage_1_1_relu", "--images", images),
        ("--embedding-map", images.parent),
    ):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        assert imgclf("explain", trained_run.path, *words, "-o", file, "-q") == 0
        assert file.is_file() and capsys.readouterr().out.splitlines()[-1] == str(file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected IMAGES, or one of --filters"),
        (("--filters", "a"), "--filters: expected -o FILE"),
        (("--filters", "a", "--feature-maps", "b", "-o", "x.png"), "expected one drawing, found --filters and"),
        (("--filters", "a", "-o", "x.png", "--top", "2"), "Remove --top."),
        (("--filters", "a", "-o", "x.png", "--images", "b"), "Remove --images."),
        (("--feature-maps", "a", "-o", "x.png"), "--feature-maps: expected one image, found 0"),
        (("--filters", "stage_1_1_con", "-o", "x.png"), "Did you mean stage_1_1_conv"),
        (("--filters", "zzz", "-o", "x.png"), "and others. imgclf describe lists all."),
    ],
)
def test_drawings_that_cannot_be(imgclf, trained_run, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert imgclf("explain", trained_run.path, *words) == 2
    assert message in capsys.readouterr().err
