"""Graphs of networks: where they can be cut in two, and how much arithmetic stands above."""

import logging

import pytest
from factories import SIZE_PX, residual

from imgclf.errors import UsageError
from imgclf.models import classifier, efficientnet_lite0, graph
from imgclf.training import finetune

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip


def ladder() -> keras.Model:
    """Two branches that feed one another throughout: nothing between stem and end holds all that passes."""
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    a = b = layers.Conv2D(4, 3, 2, padding="same", name="stem")(pixels)
    for step in range(4):
        a, b = (
            layers.Add()([layers.Conv2D(4, 3, padding="same", name=f"a_{step}")(a), b]),
            layers.Conv2D(4, 3, padding="same", name=f"b_{step}")(a),
        )
    return classifier.build(keras.Model(pixels, layers.Add(name="end")([a, b])), 2)


def test_cuts_are_where_everything_passes_through_one_tensor():
    names = [cut.layer for cut in graph.cuts(residual())]
    assert names == ["rescale", "stem", "one_add", "one_out", "two_add", "two_out"]
    assert [cut.layer for cut in graph.cuts(ladder())] == ["stem", "end"]


def test_outputs_that_are_only_concatenated_to_the_end_do_not_stand_in_the_way_of_a_cut():
    found = graph.cuts(residual(taps=True))
    assert {cut.layer: cut.taps for cut in found} == {
        "rescale": (),
        "stem": (),
        "one_add": (),
        "one_out": (),
        "taps": (),
    }


def test_a_layer_that_is_passed_twice_in_a_row_is_no_cut():
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    again = layers.Conv2D(3, 3, padding="same", name="again")
    end = layers.Conv2D(4, 3, padding="same", name="end")(again(again(pixels)))
    assert [cut.layer for cut in graph.cuts(classifier.build(keras.Model(pixels, end), 2))] == ["end"]


def test_the_share_above_a_cut_is_counted_in_multiply_adds():
    shares = {cut.layer: cut.share for cut in graph.cuts(residual())}
    stem, one = 27 * 8, 9 * 8 * 8  # weights; all maps are 8 x 8
    assert shares["stem"] == pytest.approx(2 * one / (stem + 2 * one))
    assert shares["one_out"] == pytest.approx(one / (stem + 2 * one))
    assert shares["two_out"] == 0
    assert graph.Cut("", 0.25).ideal_gain == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("request_", "layer"),
    [("0.4", "one_out"), ("0.9", "stem"), ("two", "one_out"), ("two_conv", "one_out"), ("two_norm", "two_out")],
)
def test_a_request_snaps_to_the_nearest_cut_and_says_which(request_, layer, caplog):
    caplog.set_level(logging.INFO, logger="imgclf")
    cut = finetune.unfreeze(residual(), request_)
    assert cut and cut.layer == layer
    assert f"Fine-tuning {request_}: the layers above {layer} are trainable" in caplog.text


def test_the_default_backbone_is_cut_between_its_blocks_and_keeps_its_taps():
    model = classifier.build(efficientnet_lite0.build(224), 2)
    found = {cut.layer: cut for cut in graph.cuts(model)}
    assert found["block_8_add"].taps == ()
    assert found["block_11_add"].taps == ("block_8_pool",)
    assert found["block_15_add"].taps == ("block_8_pool", "block_11_pool")
    cut = graph.nearest(model, 1 / 3)
    assert cut and cut.layer == "block_12_project_norm"  # the last layer of its block, and a narrow one
    assert graph.multiply_adds(model) == pytest.approx(
        385e6, rel=0.02
    )  # the paper's 0.39e9 for B0, without its squeezes


def test_where_no_cut_is_near_the_first_layers_stand_still(caplog):
    caplog.set_level(logging.INFO, logger="imgclf")
    model = ladder()
    assert finetune.unfreeze(model, "0.5") is None
    assert "cannot be cached" in caplog.text
    moving = {layer.name for layer in model.layers if layer.trainable and layer.weights}
    assert {"b_3", "a_3", "logits"} <= moving and not moving & {"stem", "a_0", "b_0"}


def test_a_layer_that_does_not_exist_is_an_error_that_lists_the_cuts():
    with pytest.raises(UsageError, match=r"no layer 'three'.*stem, one_add, one_out"):
        finetune.unfreeze(residual(), "three")


def test_blocks_go_from_the_top_down():
    model = residual()
    groups = graph.blocks(model, graph.Cut("stem", graph.cuts(model)[1].share))
    assert [[name for name in group if "conv" in name] for group in groups if any("conv" in n for n in group)] == [
        ["two_conv"],
        ["one_conv"],
    ]
