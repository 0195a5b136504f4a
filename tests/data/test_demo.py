import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from imgclf.data import collection, demo, reading
from imgclf.data.demo import rendering, shapes
from imgclf.errors import UsageError
from imgclf.settings import DataConfig

COMMITTED = Path(__file__).parents[2] / "sample_data"
NAMES = ("beech", "birch", "maple", "oak", "willow")


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "imgclf", "sample", directory], capture_output=True, text=True)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def test_the_committed_set_has_sixty_pictures_of_each_species_and_nothing_else():
    dataset = collection.collect(COMMITTED)
    assert dataset.counts() == dict.fromkeys(NAMES, 60)
    assert dataset.skipped == ()
    assert len({item.sha256 for item in dataset.samples}) == 300
    assert {item.format for item in dataset.samples} == {"JPEG"}
    sides = {side for item in dataset.samples for side in (item.width, item.height)}
    assert min(sides) >= 160
    assert max(sides) <= 200
    assert len(sides) > 20
    assert sum(path.stat().st_size for path in dataset.paths) < 3_000_000


def check_pictures(folder: Path, paths: list[Path]) -> None:
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.*")) == paths
    for path in paths:
        old, new = pixels(COMMITTED / path), pixels(folder / path)
        assert old.shape == new.shape, path
        # Another Pillow may draw an edge or compress a block a little differently; another picture differs by 50.
        assert np.abs(old - new).mean() < 3, path


@pytest.mark.slow
def test_the_command_draws_the_committed_pictures_again(tmp_path: Path):
    done = run(tmp_path / "new")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'new'}\n")
    assert all(line.startswith("drawing ") for line in done.stderr.splitlines())  # on a slow machine
    check_pictures(tmp_path / "new", sorted(path.relative_to(COMMITTED) for path in COMMITTED.rglob("*.jpg")))


def test_the_first_committed_pictures_of_each_species_are_drawn_again(tmp_path: Path):
    rendering.render(tmp_path / "new", per_class=3)
    check_pictures(tmp_path / "new", [Path(name, f"{name}-{number:03}.jpg") for name in NAMES for number in (1, 2, 3)])


def test_a_seed_gives_the_same_bytes_each_time_and_another_seed_other_pictures(tmp_path: Path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        rendering.render(tmp_path / name, seed=seed, per_class=1)
    for species in NAMES:
        first, again, other = (tmp_path / name / species / f"{species}-001.jpg" for name in "abc")
        assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_the_command_refuses_to_overwrite():
    done = run(COMMITTED)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a new or an empty folder" in done.stderr


def test_it_never_writes_into_a_folder_that_holds_something(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        rendering.render(tmp_path, per_class=1)
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        rendering.render(tmp_path / "mine.txt", per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="cannot be written"):
        rendering.render(tmp_path / "mine.txt" / "below", per_class=1)


def test_it_reports_progress_and_leaves_nothing_behind_when_interrupted(tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        assert total == 10
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rendering.render(tmp_path / "new", per_class=2, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [{"per_class": 0}, {"seed": -1}])
def test_it_refuses_impossible_numbers(tmp_path: Path, numbers: dict[str, int]):
    with pytest.raises(UsageError, match="at least"):
        rendering.render(tmp_path / "new", **numbers)


def colors(image: Image.Image) -> np.ndarray:
    """A histogram of 8 x 8 x 8 colors; square roots, so that Euclidean distance is Hellinger's."""
    red, green, blue = (np.asarray(image) // 32).astype(int).reshape(-1, 3).T
    return np.sqrt(np.bincount(red * 64 + green * 8 + blue, minlength=512) / red.size)


def gradients(image: Image.Image) -> np.ndarray:
    """How strong edges of 9 directions are in 8 x 8 cells: color-blind, a plain HOG."""
    dy, dx = np.gradient(np.asarray(image.convert("L").resize((96, 96)), dtype=float))
    direction = (np.arctan2(dy, dx) % np.pi / np.pi * 9).astype(int) % 9
    layers = np.hypot(dx, dy) * (direction == np.arange(9)[:, None, None])
    cells = layers.reshape(9, 8, 12, 8, 12).sum(axis=(2, 4))
    return (cells / (np.linalg.norm(cells, axis=0) + 20)).ravel()


def accuracy(model: object, describe: Callable[[Image.Image], np.ndarray]) -> float:
    dataset = collection.collect(COMMITTED)
    features = np.array([describe(Image.open(path)) for path in dataset.paths])
    return float((cross_val_predict(model, features, dataset.labels) == dataset.labels).mean())


def test_shape_tells_the_species_apart_and_color_does_not():
    # 0.2 is chance. A class that color gives away would make every lesson drawn from the set a wrong one.
    assert accuracy(KNeighborsClassifier(5), colors) < 0.35
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.001))
    assert 0.5 < accuracy(linear, gradients) < 0.9


@pytest.mark.parametrize(("task", "names"), [("multilabel", shapes.SHAPES), ("regression", ("damage",))])
def test_the_sets_of_other_tasks_are_read_without_options(tmp_path: Path, task: str, names: tuple[str, ...]):
    told = []
    draw = shapes.SETS[task]
    shapes.render(tmp_path / "new", draw, count=12, on_progress=lambda done, total: told.append((done, total)))
    dataset = reading.read(tmp_path / "new", DataConfig(task=task), split=False)
    assert dataset.class_names == names and len(dataset) == 12 and told[-1] == (12, 12)
    assert len({item.sha256 for item in dataset.samples}) == 12
    np.testing.assert_allclose(dataset.labels, [list(draw(i, 0)[1].values()) for i in range(1, 13)], rtol=1e-6)
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        shapes.render(tmp_path / "new", draw)


def test_the_share_of_damage_is_that_of_brown_pixels():
    for index in range(1, 5):
        image, row = shapes.damage(index)
        red, green, _ = np.asarray(image.convert("RGB"), int).transpose(2, 0, 1)
        leaf = np.abs(np.asarray(image.convert("HSV"), int)[:, :, 1]) > 110  # the ground is pale
        assert (red > green)[leaf].mean() == pytest.approx(row["damage"], abs=0.12)


def test_a_task_without_a_set_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match="--task: expected one of multiclass"):
        demo.render(tmp_path, "ordinals")
