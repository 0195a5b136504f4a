"""Small folders of gray images, and trainings that are interrupted."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from factories import gray_image, tiny_backbone

import imgclf
from imgclf import runs
from imgclf.data.dataset import Dataset
from imgclf.runs import Run
from imgclf.settings import TrainConfig


@pytest.fixture
def images(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Write images of 16 x 16 px of a brightness, with a little noise so that no two are equal."""

    def write(brightness: Mapping[str, int]) -> Path:
        folder = tmp_path / "images"
        for number, (name, level) in enumerate(brightness.items()):
            gray_image(folder / name, level, number)
        return folder

    return write


@pytest.fixture
def interrupted() -> Callable[..., Run]:
    """Train a tiny network, and interrupt it at the start of a phase, or in the epoch after some of them."""

    def train(dataset: Dataset, config: TrainConfig, folder: Path, phase: str, epochs: int = 0) -> Run:
        def stop(found: str, done: int, total: int, status: str = "") -> None:
            if found == phase and (not epochs or done > total * epochs / (config.epochs or 1)):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            imgclf.train(dataset, config, output=folder, backbone=tiny_backbone(), on_progress=stop)
        run = runs.find(folder)
        assert not run.metrics.exists() and run.checkpoint.exists() == bool(epochs)
        return run

    return train
