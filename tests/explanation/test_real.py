"""Explanations of real photographs: two independent methods agree on average."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import imgclf
from imgclf.settings.explanation import ExplainConfig

pytestmark = [pytest.mark.slow, pytest.mark.real]


def test_occlusion_agrees_with_the_class_activation_map_on_average(real_data: Path, tmp_path: Path):
    [root] = [folder.parent for folder in (real_data / "ants-bees").rglob("val")]
    config = imgclf.TrainConfig(method="probe", export="litert")
    run = imgclf.train(imgclf.read(root, config), config, output=tmp_path / "run")
    files = sorted((root / "val").rglob("*.jpg"))[::12]
    cam, occlusion = (imgclf.explain(run, files, ExplainConfig(method=method)) for method in ("cam", "occlusion"))
    agreement = [
        stats.spearmanr(one.values.ravel(), other.values.ravel()).statistic
        for one, other in zip(cam, occlusion, strict=True)
    ]
    assert np.mean(agreement) > 0.4  # 0.57 as measured; 0 for maps that have nothing to do with each other
