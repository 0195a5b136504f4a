"""imgclf search: the nearest images, the cache of their vectors, the page, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import imgclf as library
from imgclf.errors import ArtifactError, DatasetError, ImageError, UsageError
from imgclf.questions import nearest
from imgclf.settings import SearchConfig

pytest_plugins = ("cli.conftest",)

COLORS = SearchConfig(features="mean-color", image_size=16, top=3)


@pytest.fixture
def grays(tmp_path):
    """Plain images of known brightness, without labels."""
    folder = tmp_path / "grays"
    folder.mkdir()
    for level in (0, 50, 100, 200, 250):
        Image.new("RGB", (20, 20), (level, level, level)).save(folder / f"{level:03}.png")
    Image.new("RGB", (20, 20), (190, 190, 190)).save(tmp_path / "query.png")
    return folder


def test_the_nearest_images_and_distances_are_those_of_the_hand_calculation(grays, tmp_path):
    found = library.search(grays, tmp_path / "query.png", COLORS)
    deviation = np.std([0, 50, 100, 200, 250])
    assert [match.path for match in found.matches] == [str(grays / f"{level:03}.png") for level in (200, 250, 100)]
    expected = [3**0.5 * gap / deviation for gap in (10, 60, 90)]
    assert [match.distance for match in found.matches] == pytest.approx(expected, rel=1e-5)
    assert (found.images, found.approximate) == (5, False)


def test_vectors_are_computed_once_and_again_after_a_change(grays, tmp_path):
    indexed = []

    def search():
        return library.search(
            grays, tmp_path / "query.png", COLORS, on_progress=lambda phase, done, total: indexed.append(total)
        )

    assert search() == search()
    assert indexed == [5]
    Image.new("RGB", (20, 20), (190, 190, 190)).save(grays / "190.png")
    assert search().matches[0] == library.Match(str(grays / "190.png"), 0.0)
    assert indexed == [5, 6]


def test_the_command_prints_a_table_or_lines_and_writes_a_page(imgclf, grays, tmp_path, capsys):
    (grays / "broken.png").write_bytes(b"\x89PNG\r\n")
    common = ("search", grays, tmp_path / "query.png", "--features", "mean-color", "--top", 2)
    assert imgclf(*common, "-o", tmp_path / "page.html") == 0
    captured = capsys.readouterr()
    assert captured.err.endswith(f"Wrote {tmp_path / 'page.html'}.\n")
    assert "5 images, compared exactly" in captured.out
    assert "1 of 6 images cannot be read" in captured.err
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "200.png" in page and "000.png" not in page
    assert imgclf(*common, "--save-index", tmp_path / "kept.npz", "-q") == 0
    capsys.readouterr()
    assert imgclf("search", tmp_path / "kept.npz", *common[2:], "--format", "jsonl", "-q") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"][-7:] for line in lines] == ["200.png", "250.png"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"features": "hgo"}, "Did you mean hog"),
        ({"features": "hog+embedding"}, "expected embedding alone, or features made by hand alone"),
        ({"features": "hog", "image_size": 16}, "expected images of at least 32 px"),
        ({"image_size": 64}, "--image-size: the model of the embedding has its own"),
        ({"resize": "crop"}, "--resize: the model of the embedding has its own"),
        ({"preprocess": "gray"}, "--preprocess: the model of the embedding has its own"),
    ],
)
def test_impossible_settings_are_refused(grays, tmp_path, options, found):
    with pytest.raises(UsageError, match=found):
        library.search(grays, tmp_path / "query.png", SearchConfig(**options))


def test_images_that_are_not_there_are_named(grays, tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png: no such file"):
        library.search(grays, tmp_path / "absent.png", COLORS)
    with pytest.raises(DatasetError, match="nowhere: no such file or folder"):
        library.search(tmp_path / "nowhere", tmp_path / "query.png", COLORS)
    with pytest.raises(UsageError, match=r"expected a name that ends in \.html"):
        library.search(grays, tmp_path / "query.png", COLORS).write(tmp_path / "page.png")


def test_a_saved_index_gives_the_same_matches_without_its_images(grays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (grays / "broken.png").write_bytes(b"\x89PNG\r\n")
    plain = library.search("grays", "query.png", COLORS, save_index="grays.npz")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "grays.npz").rename(moved / "grays.npz")
    shutil.rmtree(grays)
    found = library.search(moved / "grays.npz", "query.png", SearchConfig(top=3))  # it brings features and size
    assert [match.distance for match in found.matches] == [match.distance for match in plain.matches]
    assert [match.path for match in found.matches] == [str(moved / match.path) for match in plain.matches]
    assert found.images == 5


def test_a_saved_index_of_embeddings_searches_with_the_same_model_alone(trained_run, image_folder, tmp_path):
    folder, kept = image_folder(), tmp_path / "kept.npz"
    query = sorted(folder.rglob("*.png"))[3]
    config = SearchConfig(model=str(trained_run.path), top=2)
    plain = library.search(folder, query, config, save_index=kept)
    assert library.search(kept, query, SearchConfig(top=2)).matches == plain.matches
    arrays = dict(np.load(kept))
    about = json.loads(arrays["about"].tobytes())
    about["settings"]["model"] = str(tmp_path / "gone")
    np.savez(kept, **arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    with pytest.raises(UsageError, match=r"its model .*gone is gone\. Pass where it is now: --model RUN"):
        library.search(kept, query)
    assert library.search(kept, query, config).matches == plain.matches
    np.savez(kept, **arrays | {"sample": arrays["sample"][::-1]})
    with pytest.raises(ArtifactError, match="expected the model or the features that the index was made with"):
        library.search(kept, query)


def test_an_index_is_refused_that_is_damaged_of_another_version_or_of_other_features(grays, tmp_path):
    kept, query = tmp_path / "grays.npz", tmp_path / "query.png"
    library.search(grays, query, COLORS, save_index=kept)
    whole, arrays = kept.read_bytes(), dict(np.load(kept))
    with pytest.raises(UsageError, match=r"--features: .*grays\.npz was made with mean-color, found lbp"):
        library.search(kept, query, SearchConfig(features="lbp"))
    with pytest.raises(UsageError, match=r"--image-size: .* was made with 16, found 32"):
        library.search(kept, query, SearchConfig(image_size=32))
    with pytest.raises(UsageError, match="--save-index: expected images to search, found the index"):
        library.search(kept, query, save_index=tmp_path / "second.npz")
    with pytest.raises(UsageError, match=r"--save-index .*grays\.txt: expected a name that ends in \.npz"):
        library.search(grays, query, COLORS, save_index=tmp_path / "grays.txt")
    about = json.loads(arrays["about"].tobytes()) | {"schema": 2, "imgclf": "9.0"}
    later = np.frombuffer(json.dumps(about).encode(), np.uint8)
    damaged = {
        "expected an index of schema 1, found 2, which imgclf 9.0 has written": arrays | {"about": later},
        "it has no about": {"features": np.zeros((2, 2))},
        r"vectors \(4, 3\) and sample \(3,\) do not fit": arrays | {"vectors": arrays["vectors"][:4]},
        "no table of finite numbers": arrays | {"vectors": np.full_like(arrays["vectors"], np.nan)},
        "paths: an array of object": arrays | {"paths": arrays["paths"].astype(object)},
    }
    for message, content in damaged.items():
        np.savez(kept, **content)
        with pytest.raises(ArtifactError, match=message):
            library.search(kept, query)
    kept.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="something else, or a damaged file"):
        library.search(kept, query)


def test_the_exact_search_equals_that_of_scikit_learn_and_leaves_out_what_is_unreadable():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(500, 7)).astype(np.float32), rng.normal(size=7).astype(np.float32)
    distances, rows = NearestNeighbors(n_neighbors=9).fit(vectors).kneighbors(query[None])
    found, apart = nearest.exact(vectors, query, 9)
    assert found.tolist() == rows[0].tolist()
    np.testing.assert_allclose(apart, distances[0], rtol=1e-5)
    vectors[rows[0, 0]] = np.nan
    assert nearest.exact(vectors, query, 8)[0].tolist() == rows[0, 1:].tolist()
    assert len(nearest.exact(vectors[:3], query, 9)[0]) == 3


def test_the_approximate_search_finds_nearly_all_and_ranks_exactly():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(20, 16))
    vectors = (centers[rng.integers(20, size=3000)] + 0.3 * rng.normal(size=(3000, 16))).astype(np.float32)
    vectors[5] = np.nan
    index = nearest.load(nearest.build(vectors))
    shares = []
    for query in vectors[100:130]:
        truth, _ = nearest.exact(vectors, query, 10)
        rows, distances = nearest.approximate(index, vectors, query, 10)
        assert (np.diff(distances) >= 0).all()
        np.testing.assert_allclose(distances, np.linalg.norm(vectors[rows] - query, axis=1), atol=1e-5)
        shares.append(len(set(rows.tolist()) & set(truth.tolist())) / 10)
    assert np.mean(shares) >= 0.95


def test_many_images_are_searched_approximately_with_the_same_result(grays, tmp_path):
    pytest.importorskip("faiss")
    from dataclasses import replace

    exact = library.search(grays, tmp_path / "query.png", COLORS)
    for _ in range(2):  # the second time, the index is in the cache
        found = library.search(grays, tmp_path / "query.png", replace(COLORS, approximate_from=5))
        assert found.approximate
        assert found.matches == exact.matches


def test_the_embedding_of_a_run_finds_the_image_itself_first(trained_run, image_folder):
    folder = image_folder()
    query = sorted(folder.rglob("*.png"))[3]
    found = library.search(folder, query, SearchConfig(model=str(trained_run.path), top=2))
    assert found.matches[0].path == str(query)
    assert found.matches[0].distance == pytest.approx(0, abs=1e-5)
    assert 0 < found.matches[1].distance <= 2
