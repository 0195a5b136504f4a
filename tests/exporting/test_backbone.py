import json
from dataclasses import replace

import numpy as np
import pytest

from imgclf import storage
from imgclf.errors import RunError
from imgclf.exporting import artifacts, backbone, parity
from imgclf.prediction import artifact


def test_it_holds_the_layers_before_the_feature_map_in_16_bits(run):
    storage.write_json(run.metrics, {"accuracy": 0.75})
    path = backbone.export_backbone(run)
    assert path == run.path / "backbone.npz"
    model = artifacts.load_model(run, artifact.read(run.path))
    with np.load(path, allow_pickle=False) as arrays:
        meta = json.loads(arrays["__meta__"].tobytes())
        names = [name for name in arrays.files if name != "__meta__"]
        assert names == [
            "conv_1/kernel",
            *(f"norm_1/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")),
            "conv_2/kernel",
            "conv_2/bias",
        ]
        for name in names:
            assert arrays[name].dtype == np.float16
        kernel = model.get_layer("conv_2").kernel.numpy()
        assert np.array_equal(arrays["conv_2/kernel"], kernel.astype(np.float16))
        assert meta["weights_sha256"] == backbone.digest({name: arrays[name] for name in names})
    assert (meta["architecture"], meta["image_size"], meta["accuracy"]) == ("small", 32, 0.75)
    assert meta["data_sha256"] == artifact.read(run.path).data_sha256
    assert 0 < meta["proof"]["max_difference"] < parity.FROM_BYTES


def test_weights_too_large_for_16_bits_are_refused(run):
    import keras

    model = keras.saving.load_model(run.model)
    model.get_layer("norm_1").moving_variance.assign([1e6] * 8)
    model.save(run.model)
    facts = artifact.read(run.path)
    file = artifact.File("keras", *artifact.hash_tree(run.model))
    artifact.write(run.path, replace(facts, files={run.model.name: file}))
    with pytest.raises(RunError, match="norm_1/moving_variance"):
        backbone.export_backbone(run)
    assert not (run.path / backbone.NAME).exists()
