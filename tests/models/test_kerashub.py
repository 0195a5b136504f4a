"""Backbones from KerasHub, by small presets of random weights that the tests save themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgclf
from imgclf.errors import MissingError, UsageError
from imgclf.exporting import artifacts
from imgclf.models import classifier, graph, sources, stored
from imgclf.models.sources import kerashub
from imgclf.settings import TrainConfig

keras_hub = pytest.importorskip("keras_hub", reason="the extra keras-hub is not installed")

import keras  # noqa: E402  (imgclf chooses its backend first)

M = keras_hub.models
IMAGE = (32, 32, 3)
FORMATS = ("litert", "litert-float16", "savedmodel", "onnx", "openvino", "keras")
CLIP_TEXT = {"vocabulary_size": 8, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2}


def _vision(kind: Any) -> Any:
    return kind(8, 16, 2, 2, 32, image_shape=IMAGE, name="vision")


def _text(kind: Any) -> Any:
    return kind(**CLIP_TEXT, intermediate_dim=32, max_sequence_length=4, name="text")


def _mobilenet() -> Any:
    rows: dict[str, tuple[Any, Any]] = {
        "stackwise_block_types": ("er", "mqa"),
        "stackwise_num_filters": (24, 48),
        "stackwise_strides": (2, 1),
        "stackwise_act_layers": ("relu", "relu"),
        "stackwise_exp_ratios": (4.0, 6.0),
        "stackwise_se_ratios": (0.0, 0.0),
        "stackwise_dw_kernel_sizes": (0, 5),
        "stackwise_dw_start_kernel_sizes": (0, 0),
        "stackwise_dw_end_kernel_sizes": (0, 0),
        "stackwise_exp_kernel_sizes": (3, 0),
        "stackwise_pw_kernel_sizes": (1, 0),
        "stackwise_num_heads": (0, 2),
        "stackwise_key_dims": (0, 8),
        "stackwise_value_dims": (0, 8),
        "stackwise_kv_strides": (0, 1),
        "stackwise_use_cpe": (False, False),
    }
    columns = {key: [[first], [second]] for key, (first, second) in rows.items()}
    return M.MobileNetV5Backbone(**columns, stackwise_num_blocks=[1, 1], use_msfa=False, image_shape=IMAGE)


def _cspnet() -> Any:
    return M.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[8, 16],
        block_type="dark_block",
        stage_type="dark",
        bottle_ratio=[1.0],
        block_ratio=[1.0],
        expand_ratio=[2.0],
        stem_padding="same",
    )


def _hgnet() -> Any:
    return M.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=True,
        stackwise_stage_filters=[[8, 8, 16, 1, 2, 3], [16, 8, 32, 1, 2, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=IMAGE,
    )


SMALL: dict[str, tuple[Callable[[], Any], Callable[[Any, np.ndarray], Any]]] = {
    "vit": (lambda: M.ViTBackbone(IMAGE, 8, 2, 2, 16, 32), lambda m, x: m(x)[:, 0]),
    "vit-without-class": (
        lambda: M.ViTBackbone(IMAGE, 8, 2, 2, 16, 32, use_class_token=False, use_patch_bias=False),
        lambda m, x: np.mean(m(x), axis=1),
    ),
    "deit": (lambda: M.DeiTBackbone(IMAGE, 8, 2, 2, 16, 32), lambda m, x: m(x)[:, 0]),
    "dinov2": (
        lambda: M.DINOV2Backbone(
            8, 2, 16, 2, 32, num_register_tokens=2, image_shape=IMAGE, position_embedding_shape=IMAGE
        ),
        lambda m, x: np.concatenate([m({"images": x})[:, 0], np.mean(m({"images": x})[:, 3:], axis=1)], axis=1),
    ),
    "dinov3": (
        lambda: M.DINOV3Backbone(8, 2, 16, 2, 32, image_shape=IMAGE),
        lambda m, x: np.concatenate(
            [m({"pixel_values": x})[:, 0], np.mean(m({"pixel_values": x})[:, 5:], axis=1)], axis=1
        ),
    ),
    "siglip": (
        lambda: M.SigLIPBackbone(_vision(M.SigLIPVisionEncoder), _text(M.SigLIPTextEncoder)),
        lambda m, x: m.vision_encoder({"images": x}),
    ),
    "clip": (
        lambda: M.CLIPBackbone(_vision(M.CLIPVisionEncoder), _text(M.CLIPTextEncoder), 8),
        lambda m, x: m.vision_encoder({"images": x})[:, 0],
    ),
    "metaclip2": (
        lambda: M.MetaCLIP2Backbone(_vision(M.MetaCLIP2VisionEncoder), _text(M.MetaCLIP2TextEncoder), 8),
        lambda m, x: m.vision_post_layer_norm(m.vision_encoder({"images": x})[:, 0]),
    ),
    "swin": (
        lambda: M.SwinTransformerBackbone((64, 64, 3), 16, [2, 2], [2, 2], 4, patch_size=4),
        lambda m, x: np.mean(m(x), axis=1),
    ),
    "hgnetv2": (_hgnet, lambda m, x: np.mean(m(x)["stage2"], axis=(1, 2))),
    "resnet-vd": (
        lambda: M.ResNetBackbone([8, 8, 8], [3, 3, 3], [64, 128], [1, 1], [1, 2], "basic_block_vd"),
        lambda m, x: np.mean(m(x), axis=(1, 2)),
    ),
    "cspnet": (_cspnet, lambda m, x: np.mean(m(x), axis=(1, 2))),
    "mobilenetv5": (_mobilenet, lambda m, x: np.mean(m(x), axis=(1, 2))),
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that saves one of SMALL, with an ImageConverter that scales to -1..1 unless told otherwise."""
    root = tmp_path_factory.mktemp("presets")

    def save(kind: str, *, scale: Any = 1 / 127.5, offset: Any = -1.0) -> Path:
        folder = root / f"{kind}-{scale}-{offset}".replace(" ", "")
        if not folder.exists():
            keras.utils.set_random_seed(7)
            SMALL[kind][0]().save_to_preset(str(folder))
            size = 64 if kind == "swin" else 32
            converter = keras_hub.layers.ImageConverter(image_size=(size, size), scale=scale, offset=offset)
            converter.save_to_preset(str(folder))
        return folder

    return save


def _name(folder: Path) -> str:
    return f"{kerashub.PREFIX}{folder}"


def _pixels(size_px: int = 32) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, size_px, size_px, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", SMALL)
def test_the_embedding_of_each_family_is_what_its_authors_use(
    kind: str, preset: Callable[..., Path], tmp_path: Path
) -> None:
    """The flat graph, saved and loaded again, against KerasHub's own model, pooled by hand."""
    folder = preset(kind)
    source = sources.find(_name(folder))
    size = source.facts.image_size
    assert size == (64 if kind == "swin" else 32)
    whole = classifier.build(source.build(size, "preset"), 3)
    whole.save(tmp_path / "model.keras")
    model = stored.backbone(tmp_path / "model.keras")
    embedding = keras.Model(model.input, classifier.build(model, 3).get_layer("embedding").output)
    theirs = M.Backbone.from_preset(str(folder))
    expected = np.asarray(SMALL[kind][1](theirs, _pixels(size) / 127.5 - 1))
    np.testing.assert_allclose(embedding(_pixels(size)), expected, atol=2e-4 * max(1, np.abs(expected).max()))
    assert len(whole.layers) == len({layer.name for layer in whole.layers})
    assert graph.multiply_adds(whole) > 0


def test_scale_and_offset_of_the_preset_act_on_each_channel(preset: Callable[..., Path]) -> None:
    scale, offset = [0.01, 0.02, 0.03], [-1.0, -2.0, -3.0]
    model = sources.find(_name(preset("vit", scale=scale, offset=offset))).build(32, "preset")
    inside = keras.Model(model.input, model.get_layer("preprocess").output)
    assert inside.output.dtype == "float32"
    np.testing.assert_allclose(inside(_pixels()), _pixels() * scale + offset, rtol=1e-5, atol=1e-5)


def test_costs_count_attention_and_cuts_lie_between_whole_blocks(preset: Callable[..., Path]) -> None:
    model = classifier.build(sources.find(_name(preset("vit"))).build(32, "preset"), 3)
    tokens, width, inner = 17, 16, 32
    block = 4 * tokens * width**2 + 2 * tokens * width * inner + 2 * tokens**2 * width
    patches = 16 * 8 * 8 * 3 * width
    assert graph.multiply_adds(model) == patches + 2 * block + width * 3
    shares = {cut.layer: cut.share for cut in graph.cuts(model)}
    assert shares["vit_encoder_transformer_block_1"] == pytest.approx(block / (patches + 2 * block))
    cut = graph.nearest(model, 1 / 3)
    assert cut is not None
    trained = [name for names in graph.blocks(model, cut) for name in names]
    assert [name for name in trained if "block" in name] == ["vit_encoder_transformer_block_2"]


def test_other_sizes_are_taken_where_the_weights_fit_them(preset: Callable[..., Path]) -> None:
    fixed, free = (sources.find(_name(preset(kind))) for kind in ("vit", "dinov3"))
    with pytest.raises(UsageError, match="takes images of 32 px alone, found 48"):
        fixed.build(48, "preset")
    assert free.build(48, "preset").input_shape == (None, 48, 48, 3)


def test_random_weights_are_asked_for_by_name(preset: Callable[..., Path]) -> None:
    source = sources.find(_name(preset("vit")))
    assert not np.allclose(source.build(32, "none")(_pixels()), source.build(32, "preset")(_pixels()))


@pytest.mark.slow
def test_a_run_on_a_preset_exports_everything_and_needs_the_preset_no_more(
    image_folder: Callable[..., Path], preset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "preset"
    preset("vit").rename(folder)
    config = TrainConfig(
        backbone=_name(folder), method="finetune", epochs=1, export="none", augment="none", batch_size=8
    )
    data = imgclf.read(image_folder(count=10))
    run = imgclf.train(data, config, output=tmp_path / "run", with_report=False)
    assert "(ViTBackbone), embedding: class token" in run.log.read_text(encoding="utf-8")
    folder.rename(tmp_path / "gone")
    rows = artifacts.write(run, FORMATS)
    assert {row["format"]: row["label_agreement"] for row in rows} == dict.fromkeys(FORMATS, 1.0)
    assert set(imgclf.load(run.path).outputs(_pixels())) == {"probabilities", "embedding"}
    again = TrainConfig(weights=str(run.path), method="probe", export="none")
    second = imgclf.train(data, again, output=tmp_path / "second", with_report=False)
    assert second.read_config()["config"]["image_size"] == 32


def test_presets_that_cannot_be_had_are_explained(
    preset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"no such preset.*Did you mean .*vit_base_patch16_224"):
        sources.find("keras-hub:vit_base_patch16_22")
    with pytest.raises(UsageError, match=r"expected a preset in this folder, found no config\.json"):
        sources.find(_name(tmp_path))
    with pytest.raises(MissingError, match=r"--offline.*\n.*save_to_preset.*\n.*keras-hub:FOLDER") as missing:
        sources.find("keras-hub:vit_base_patch16_224_imagenet", offline=True)
    assert missing.value.exit_code == 5
    text = M.BertBackbone(vocabulary_size=8, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8)
    text.save_to_preset(str(tmp_path / "bert"))
    with pytest.raises(UsageError, match="BertBackbone takes no images"):
        sources.find(_name(tmp_path / "bert"))


def test_without_the_extra_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgclf.environment.has_package", lambda name: name != "keras_hub")
    with pytest.raises(MissingError, match=r"imgclf\[keras-hub\]"):
        sources.find("keras-hub:vit_base_patch16_224_imagenet")
