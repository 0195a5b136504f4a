"""imgclf describe"""

import json


def test_a_table_with_totals(imgclf, capsys):
    assert imgclf("describe", "small-cnn", "--classes", "2") == 0
    out = capsys.readouterr().out
    assert "3 x 3 x 3 x 24" in out
    assert "662,282 parameters (2.6 MB in float32)" in out  # 661,896 of the backbone and (192 + 1) x 2


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
