"""imgclf models: every model, in 80 columns, and the same as JSON."""

import json

import pytest

from imgclf.cli.models import models
from imgclf.models import catalog


def test_the_table_names_every_model_and_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    models(json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[1] for line in lines if line.startswith("│")] == list(catalog.MODELS)
    row = next(line for line in lines if "mobilenetv2 " in line)
    assert row.split()[3::2] == ["224", "2.3", "9", "71.3", "keras.io"]
    assert "https://keras.io/api/applications/" in "".join(lines)
    assert "  knn: k nearest neighbors, discriminative" in lines
    assert "  naive-bayes: Gaussian naive Bayes, generative" in lines
    assert "The weights of efficientnet-lite0 are bundled; others are downloaded once." in lines


def test_json_has_sizes_accuracy_and_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    models(json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(catalog.MODELS)
    assert rows["vgg16"]["parameters_with_top"] == 138_357_544
    assert rows["vgg16"]["weights_mb"] == pytest.approx(58.9, abs=0.1)
    assert rows["vgg16"]["without_top"]["url"].endswith("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5")
    assert rows["small-cnn"]["top1"] is None
    assert [name for name, row in rows.items() if row["bundled"]] == ["efficientnet-lite0"]
    assert rows["efficientnet-lite0"]["weights_mb"] == pytest.approx(9.4, abs=0.05)  # the size of the file
