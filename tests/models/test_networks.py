"""The networks of this package: their shapes, their size, their names."""

import numpy as np
import pytest

from imgclf.models import catalog, classifier, convnets, efficientnet_lite0

NETWORKS = {"small-cnn": convnets.small_cnn, "efficientnet-lite0": efficientnet_lite0.build}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_catalogue_counts_the_parameters_of_our_own_networks(name: str) -> None:
    assert NETWORKS[name]().count_params() == catalog.find(name).parameters


@pytest.mark.parametrize(("name", "stride"), [("small-cnn", 16), ("efficientnet-lite0", 32)])
def test_the_map_is_a_share_of_the_image_at_any_size(name: str, stride: int) -> None:
    network = NETWORKS[name]()
    for size in (32, 64, 96):
        assert network.compute_output_shape((2, size, size, 3))[:3] == (2, size // stride, size // stride)


def test_a_classifier_names_what_exports_and_explanations_look_for() -> None:
    model = classifier.build(convnets.small_cnn(32), 3, dropout=0.1)
    names = [layer.name for layer in model.layers]
    assert names[0] == "pixels"
    assert names[-5:] == ["feature_map", "embedding", "dropout", "logits", "probabilities"]
    assert [layer.name for layer in classifier.backbone_layers(model)] == names[:-5]
    probabilities = model(np.zeros((2, 32, 32, 3), np.float32))
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1, rtol=1e-5)


def test_the_same_seed_gives_the_same_head() -> None:
    one, two, other = (classifier.build(convnets.small_cnn(32), 3, seed=seed) for seed in (1, 1, 2))
    heads = [model.get_layer("logits").get_weights()[0] for model in (one, two, other)]
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).any()
