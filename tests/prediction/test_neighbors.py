"""The nearest training images of a prediction: the same as by hand, and in every format."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from imgclf.errors import ArtifactError, UsageError
from imgclf.prediction import artifact, classical, outputs
from imgclf.prediction.classical import About, ClassicalRuntime
from imgclf.prediction.classifier import Classifier
from imgclf.prediction.forms import Writing

REDS = np.array([[0, 0, 0], [100, 0, 0], [150, 0, 0], [250, 0, 0]], np.float32)
PATHS = ("dark/0.png", "dark/100.png", "red/150.png", "red/250.png")


@pytest.fixture
def make(tmp_path):
    def make(estimator=None, paths=PATHS):
        estimator = estimator or make_pipeline(StandardScaler(), KNeighborsClassifier(1))
        about = About(size_px=8, classes=2, width=3, features="mean-color", paths=paths)
        classical.write(tmp_path / "estimator", estimator.fit(REDS, [0, 0, 1, 1]), about)
        facts = artifact.Artifact(("dark", "red"), 8, "squash", "none", ("probabilities",), "", {})
        return Classifier(facts, ClassicalRuntime(tmp_path / "estimator"))

    return make


def image(red):
    return np.asarray(Image.new("RGB", (8, 8), (red, 0, 0)))


def test_the_neighbors_and_distances_are_those_of_the_hand_calculation(make):
    found = make().predict([image(160), image(20)], neighbors=2)
    deviation = REDS[:, 0].std()
    assert [near.path for near in found[0].neighbors] == ["red/150.png", "dark/100.png"]
    assert [near.distance for near in found[0].neighbors] == pytest.approx([10 / deviation, 60 / deviation], rel=1e-5)
    assert found[1].neighbors[0] == ("dark/0.png", pytest.approx(20 / deviation, rel=1e-5))
    assert found[0].embedding is None
    assert make().predict([image(160)])[0].neighbors is None


def test_any_number_of_images_is_classified_with_few_in_memory_and_a_broken_one_in_its_place(make):
    taken = []

    def sources():
        for place in itertools.count():
            taken.append(place)
            yield b"\x89PNG broken" if place == 5 else image(160 if place % 2 else 20)

    found = list(itertools.islice(make().stream(sources(), batch_size=4, neighbors=1), 20))
    assert [each.label for each in found] == [
        None if place == 5 else "red" if place % 2 else "dark" for place in range(20)
    ]
    assert found[5].error and found[5].neighbors is None
    assert found[7].neighbors[0].path == "red/150.png"
    assert len(taken) <= 20 + 2 * 4 + 1


def test_every_format_has_them(make):
    [found] = make().predict([image(150)], neighbors=2)
    writing = Writing("multiclass", ("dark", "red"), 2)
    row = json.loads(next(outputs.to_jsonl([found], 1, writing)))
    assert row["neighbors"][0] == {"path": "red/150.png", "distance": 0.0}
    head, line = (text.strip().split(",") for text in outputs.to_csv([found], 1, writing))
    assert head[-4:] == ["neighbor_1", "distance_1", "neighbor_2", "distance_2"]
    assert line[-4:-1] == ["red/150.png", "0.0", "dark/100.png"]
    assert outputs.to_rows(found, 1, writing)[1:] == [
        ("", "neighbor 1: red/150.png", "distance 0", ""),
        ("", "neighbor 2: dark/100.png", f"distance {50 / REDS[:, 0].std():.3g}", ""),
    ]
    assert "neighbor" not in outputs.to_text(found, 1)


def test_parquet_has_them_and_nulls_for_what_cannot_be_read(make, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = make().predict([image(150), tmp_path / "absent.png"], neighbors=1)
    with outputs.parquet(tmp_path / "p.parquet", 1, Writing("multiclass", ("dark", "red"), 1)) as add:
        for prediction in found:
            add(prediction)
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [(row["neighbor_1"], row["distance_1"]) for row in rows] == [("red/150.png", 0.0), (None, None)]


def test_neighbors_that_cannot_be_had_are_refused_at_once(make):
    with pytest.raises(UsageError, match="at most 4, the number of training images, found 5"):
        make().stream([image(0)], neighbors=5)
    with pytest.raises(UsageError, match="expected a run of --model knn, found one of another classifier"):
        make(SVC()).stream([image(0)], neighbors=1)
    with pytest.raises(ArtifactError, match=r"the training images are not named\. Train again for --neighbors"):
        make(paths=()).stream([image(0)], neighbors=1)
