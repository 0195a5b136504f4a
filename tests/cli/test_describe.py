"""imgclf describe"""

import json


def test_a_table_with_totals(imgclf, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert imgclf("describe", "small-cnn", "--classes", "2") == 0
    out = capsys.readouterr().out
    assert "3 x 3 x 3 x 24" in out
    assert "662,282 parameters (2.6 MB in float32)" in out  # 661,896 of the backbone and (192 + 1) x 2


def test_a_table_in_a_pipe_leaves_out_what_does_not_fit_and_says_so(imgclf, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert imgclf("describe", "small-cnn", "--classes", "2") == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if line.startswith("│")]
    assert max(map(len, lines)) <= 80
    assert any(line.split()[1:-1:2] == ["stage_1_1_conv", "48x48x24", "3x3", "648", "1,492,992", "3"] for line in lines)
    assert "Left out to fit: padding, stride, formula, type." in printed.err


def test_published_facts_and_a_drawing(imgclf, capsys, tmp_path):
    assert imgclf("describe", "vgg16", "-o", tmp_path / "vgg16.svg") == 0
    out = capsys.readouterr().out
    assert "Paper: 2014, https://arxiv.org/abs/1409.1556, which counts 16 layers" in out
    assert "top-1 28.7%, top-5 9.9% (https://keras.io/api/applications/)" in out
    assert (tmp_path / "vgg16.svg").read_text().startswith("<svg")


def test_json(imgclf, capsys):
    assert imgclf("describe", "small-cnn", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 663_826
    assert found["layers"][2]["kernel"] == [3, 3]


def test_a_mistyped_name(imgclf, capsys):
    assert imgclf("describe", "resnet5O") == 2
    assert "Did you mean" in capsys.readouterr().err
