"""imgclf features: the table, the map, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

import imgclf as library
from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import feature_map
from imgclf.settings import FeaturesConfig

pytest_plugins = ("cli.conftest",)


@pytest.fixture
def stripes(tmp_path):
    """Plain images of known color."""
    for name, color in (("dark", 20), ("light", 200)):
        for number in range(4):
            path = tmp_path / "stripes" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (color + number, color, 0)).save(path)
    return tmp_path / "stripes"


def test_a_table_has_the_vectors_of_every_image(stripes, tmp_path):
    table = library.features(library.read(stripes), FeaturesConfig(features="mean-color", image_size=16))
    assert table.names == ("mean-color:red", "mean-color:green", "mean-color:blue")
    by_path = dict(zip(table.paths, table.vectors.tolist(), strict=True))
    assert by_path["light/3.png"] == [203, 200, 0]
    table.write(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as arrays:
        assert arrays["paths"].tolist() == table.paths
        assert arrays["labels"].tolist() == ["dark"] * 4 + ["light"] * 4
        assert arrays["names"].tolist() == list(table.names)
        np.testing.assert_array_equal(arrays["features"], table.vectors)
    table.write(tmp_path / "f.parquet")
    rows = parquet.read_table(tmp_path / "f.parquet").to_pylist()
    assert rows[-1] == {
        "path": "light/3.png",
        "label": "light",
        "mean-color:red": 203,
        "mean-color:green": 200,
        "mean-color:blue": 0,
    }


def test_thumbnails_are_larger_where_there_are_few():
    assert [feature_map.side_px(count) for count in (0, 10, 100, 160, 400)] == [96, 96, 50, 40, 40]


def test_the_command_writes_vectors_and_both_maps(imgclf, stripes, tmp_path, capsys):
    common = ("features", stripes, "--features", "mean-color", "--image-size", 16, "--quiet")
    assert imgclf(*common, "-o", tmp_path / "f.npz", "--map", tmp_path / "map.png", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], len(found["names"]), len(found["files"])) == (8, 3, 2)
    with Image.open(tmp_path / "map.png") as drawn:
        assert min(drawn.size) > 500
    assert imgclf(*common, "--map", tmp_path / "map.html", "--projection", "tsne") == 0
    page = (tmp_path / "map.html").read_text()
    assert page.count("<img") == 8
    assert "light/3.png" in page


def test_the_first_direction_of_the_map_separates_what_differs_most():
    points = feature_map.project(np.array([[0, 0], [1, 0.1], [9, 1], [10, 0.9]]), "pca")
    assert points.min() == 0 and points.max() == 1
    first = points[:, 0] if points[0, 0] < points[3, 0] else 1 - points[:, 0]
    assert first[0] < first[1] < 0.5 < first[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected a file to write"),
        (("-o", "f.csv"), "expected a name that ends in .npz or .parquet"),
        (("--map", "map.pdf"), "expected a name that ends in .png or .html"),
        (("-o", "f.npz", "--features", "hgo"), "Did you mean hog"),
        (("-o", "f.npz", "--features", "hog", "--image-size", "20"), "expected images of at least 32 px"),
    ],
)
def test_what_cannot_be_done_is_refused(imgclf, stripes, capsys, options, message):
    assert imgclf("features", stripes, "-q", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_fewer_than_four_images_have_no_map():
    with pytest.raises(UsageError, match="--map: expected at least 4 images, found 3"):
        feature_map.project(np.eye(3), "pca")


def test_images_that_cannot_be_read_are_left_out(stripes):
    dataset = library.read(stripes)
    (stripes / "dark" / "0.png").write_bytes(b"no image")
    table = library.features(dataset, FeaturesConfig(features="mean-color", image_size=17))
    assert len(table.vectors) == 7
    for path in stripes.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError):
        library.features(dataset, FeaturesConfig(features="mean-color", image_size=18))
