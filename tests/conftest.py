"""What the tests share: folders of small images made on the spot, the real data sets, and one small trained run."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image, ImageDraw

import imgclf

# a busy machine is slow, which is no fault of what is tested
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

COLORS = ((200, 60, 50), (50, 160, 70), (60, 80, 200), (210, 180, 40), (150, 60, 180))


def draw(kind: int, size_px: int, rng: np.random.Generator) -> Image.Image:
    """One image of a class: its color and its number of discs, at random places over noise. RGB."""
    noise = rng.integers(90, 166, (size_px, size_px, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    pen = ImageDraw.Draw(image)
    for _ in range(1 + kind % 3):
        x, y = rng.uniform(0.2, 0.8, 2) * size_px
        radius = rng.uniform(0.12, 0.2) * size_px
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[kind % len(COLORS)])
    return image


def fill(folder: Path, classes: tuple[str, ...], count: int, size_px: int, suffix: str, seed: int) -> Path:
    """Write `count` images for each class into `folder/<class>/`."""
    rng = np.random.default_rng(seed)
    for kind, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw(kind, size_px, rng).save(folder / name / f"{number:03}{suffix}")
    return folder


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities (n, classes) that the logits give when divided by a temperature: float32."""
    powers = probabilities.astype(np.float64) ** (1 / temperature)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All caches of all tests lie in one temporary folder; the user's are neither read nor written."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a folder of class folders and returns it.

    Its arguments: `classes` (names), `count` (images for each), `size_px`, `suffix` (the file format), `seed`, and
    `name` (of the folder inside the test's temporary one). Classes differ in color and in the number of discs.
    """

    def make(
        classes: tuple[str, ...] = ("ant", "bee"),
        count: int = 6,
        size_px: int = 32,
        suffix: str = ".png",
        seed: int = 0,
        name: str = "images",
    ) -> Path:
        return fill(tmp_path / name, tuple(classes), count, size_px, suffix, seed)

    return make


@pytest.fixture(scope="session")
def real_data() -> Iterator[Path]:
    """A folder that holds the real data sets `ants-bees` and `sign-digits`, unpacked for this test session."""
    source = os.environ.get("IMGCLF_TEST_DATA")
    if not source:
        pytest.skip("IMGCLF_TEST_DATA is not set: it names the folder with ants-bees.zip and sign-digits.zip")
    with tempfile.TemporaryDirectory(prefix="imgclf-real-data-") as folder:
        for name in ("ants-bees", "sign-digits"):
            with zipfile.ZipFile(Path(source) / f"{name}.zip") as packed:
                packed.extractall(Path(folder) / name)
        yield Path(folder)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> "imgclf.Run":
    """A run of a small CNN on two easy classes, 32 px, with the default exports. Read it, never write it.

    The first process that asks for it trains it for all.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            fill(folder / "images", ("disc", "two discs"), count=24, size_px=40, suffix=".png", seed=1)
            config = imgclf.TrainConfig(backbone="small-cnn", image_size=32, epochs=12, batch_size=8)
            imgclf.train(imgclf.read(folder / "images"), config, output=folder / "run")
            (folder / "done").touch()
    return imgclf.Run(folder / "run")
