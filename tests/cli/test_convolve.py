"""imgclf convolve"""

import json

import numpy as np
import pytest
from PIL import Image

FIVE = "3,3,2,1,0\n0,0,1,3,1\n3,1,2,2,3\n2,0,0,2,2\n2,0,0,0,1\n"
KERNEL = "0,1,2;2,2,0;0,1,2"


@pytest.fixture
def five(tmp_path):
    (tmp_path / "five.csv").write_text(FIVE)
    return tmp_path / "five.csv"


def test_it_prints_sizes_and_arithmetic(imgclf, five, capsys):
    assert imgclf("convolve", five, "--kernel", KERNEL, "--at", "0,0") == 0
    out = capsys.readouterr().out
    assert "feature map: 3 rows x 3 columns" in out
    assert out.endswith("+ 3 x 0 + 1 x 1 + 2 x 2\n= 12\n")


def test_numbers_as_tables_and_as_json(imgclf, five, capsys):
    assert imgclf("convolve", five, "--kernel", KERNEL, "--numbers") == 0
    out = capsys.readouterr().out
    assert "│ 1 │ 10 │ 17 │ 19 │" in out
    assert imgclf("convolve", five, "--kernel", KERNEL, "--numbers", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["feature_map"]["values"] == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
    assert found["value"] == 19
    assert imgclf("convolve", five, "--json") == 0
    assert "values" not in json.loads(capsys.readouterr().out)["image"]


def test_pixels_by_channel(imgclf, tmp_path, capsys):
    values = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(values).save(tmp_path / "small.png")
    assert imgclf("convolve", tmp_path / "small.png", "--pixels", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"red": [[0, 3], [6, 9]], "green": [[1, 4], [7, 10]], "blue": [[2, 5], [8, 11]]}
    assert imgclf("convolve", tmp_path / "small.png", "--pixels") == 0
    assert "green: 2 rows x 2 columns" in capsys.readouterr().out


def test_large_images_are_printed_in_part_around_the_place(imgclf, tmp_path, capsys):
    Image.new("L", (100, 50)).save(tmp_path / "large.png")
    assert imgclf("convolve", tmp_path / "large.png", "--pixels", "--at", "40,60") == 0
    out = capsys.readouterr().out
    assert "red: 50 rows x 100 columns, a part" in out
    assert "┃ 52 ┃" in out and "┃ 67 ┃" in out and "┃ 68 ┃" not in out


def test_pixels_refuses_settings_without_an_effect(imgclf, five, capsys):
    assert imgclf("convolve", five, "--pixels", "--relu") == 2
    assert "Remove --relu." in capsys.readouterr().err


def test_a_drawing(imgclf, five, tmp_path, capsys):
    assert imgclf("convolve", five, "--kernel", KERNEL, "-o", tmp_path / "five.png") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "five.png")
    with Image.open(tmp_path / "five.png") as image:
        assert 600 < image.width < 800 < image.height  # the feature map is below, so that a phone shows the numbers
