"""The ensemble of a cross-validated probe: one head, the average of those of the folds, with out-of-fold scores."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import fill
from scipy.special import softmax

import imgclf
from imgclf.errors import UsageError
from imgclf.evaluation.outputs import read_predictions
from imgclf.prediction import artifact
from imgclf.runs import Run
from imgclf.settings import KfoldConfig, TrainConfig
from imgclf.training import crossval

PROBE = TrainConfig(method="probe", image_size=32, export="keras")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder of two folds with their ensemble. Read it, never write it."""
    folder = tmp_path_factory.mktemp("ensemble")
    dataset = imgclf.read(fill(folder / "images", ("ant", "bee"), count=24, size_px=32, suffix=".png", seed=0))
    config = TrainConfig(**{**PROBE.to_dict(), "cache": str(folder / "cache")})
    crossval.kfold(dataset, config, KfoldConfig(folds=2, ensemble=True), output=folder / "folds")
    return Run(folder / "folds")


def head(run: Run) -> list[np.ndarray]:
    return keras.saving.load_model(run.model).get_layer("logits").get_weights()


@pytest.mark.slow
def test_the_head_is_the_average_of_the_folds_at_the_temperature_of_out_of_fold_predictions(ensemble: Run) -> None:
    temperature = artifact.read(ensemble.path).temperature
    folds = [head(Run(ensemble.path / f"fold-{n}")) for n in (1, 2)]
    for found, one, other in zip(head(ensemble), *folds, strict=True):
        np.testing.assert_allclose(found * temperature, (one + other) / 2, rtol=1e-4, atol=1e-6)
    found, validation = read_predictions(ensemble.predictions), read_predictions(ensemble.validation)
    assert sorted(found.paths) == sorted(validation.paths)
    raw = dict(zip(found.paths, found.probabilities, strict=True))
    for path, calibrated in zip(validation.paths, validation.probabilities, strict=True):
        expected = softmax(np.log(np.maximum(raw[path], 1e-12)) / temperature)
        np.testing.assert_allclose(calibrated, expected, atol=1e-4)


def test_the_scores_are_those_of_the_folds_and_the_model_predicts(ensemble: Run) -> None:
    found = read_predictions(ensemble.predictions)
    assert len(found.labels) == 48
    assert ensemble.scores["n"] == 48
    facts = artifact.read(ensemble.path)
    assert {"model.keras", "classifier.keras", "outliers.npz"} <= set(facts.files)
    assert facts.decision.outlier_above is not None
    source = Path(json.loads(ensemble.config.read_text())["data"]) / found.paths[0]
    [prediction] = imgclf.load(ensemble.path / "classifier.keras").predict([source])
    assert prediction.top(1)[0][0] in ("ant", "bee")


def test_an_ensemble_of_anything_but_probes_is_refused_before_training(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = imgclf.read(image_folder(count=12))
    for config, found in (
        (TrainConfig(method="finetune"), "--method finetune"),
        (TrainConfig(backbone="small-cnn", method="scratch"), "--method scratch"),
        (TrainConfig(model="knn"), "--model knn"),
    ):
        with pytest.raises(UsageError, match=f"expected --method probe.*found {found}"):
            crossval.kfold(dataset, config, KfoldConfig(folds=2, ensemble=True), output=tmp_path / "folds")
    assert not (tmp_path / "folds").exists()
