"""What the tests of questions share: embeddings that take no network."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.questions import embedding
from imgclf.questions.embedding import Embedded
from imgclf.runs import Run


@pytest.fixture
def trained_run(trained_run: Run, tmp_path: Path) -> Run:
    """A copy with its images beside it, since a run keeps the answers about it."""
    return Run(shutil.copytree(trained_run.path.parent, tmp_path / "trained") / trained_run.path.name)


@pytest.fixture
def mean_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding of an image is its mean color and the deviation of each channel, so that tests load no network."""

    def embed(dataset, settings, on_progress=None):
        rows = []
        for path in dataset.paths:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"), np.float32)
            rows.append(np.concatenate([pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1))]))
        return Embedded(dataset, np.array(rows, np.float32), settings)

    monkeypatch.setattr(embedding, "embed", embed)
