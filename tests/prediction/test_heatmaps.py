"""Class activation maps from artifacts: exact, in the right place, and drawn."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf.errors import ArtifactError, UsageError
from imgclf.prediction import artifact, heatmaps
from imgclf.prediction.classifier import Classifier
from imgclf.settings import Decoding


@pytest.fixture(scope="module")
def classifier(trained_run) -> Classifier:
    return imgclf.load(trained_run.path)


@pytest.fixture(scope="module")
def pictures(trained_run) -> list[str]:
    return [str(path) for path in sorted((trained_run.path.parent / "images").rglob("*.png"))[::8]]


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(probabilities)
    return logs - logs.mean(axis=-1, keepdims=True)


def test_the_map_adds_up_to_the_logit(classifier, pictures):
    last = heatmaps.head(classifier, classifier.temperature)
    for found in classifier.stream(pictures, maps=True):
        maps = [heatmaps.activation_map(found.feature_map, last.kernel[:, index]) for index in range(2)]
        assert maps[0].shape == found.feature_map.shape[:2] == (2, 2)
        logits = np.array([values.mean() for values in maps]) + last.bias
        np.testing.assert_allclose(
            logits - logits.mean(), log_odds(found.probabilities) * classifier.temperature, atol=1e-4
        )


def test_the_head_is_that_of_the_keras_model(classifier, trained_run):
    from imgclf.explanation import gradients

    kernel, bias = gradients.load(trained_run.model).get_layer("logits").get_weights()
    last = heatmaps.head(classifier, classifier.temperature)
    np.testing.assert_allclose(last.kernel, kernel, atol=1e-6)
    np.testing.assert_allclose(last.bias, bias, atol=1e-6)


def test_a_map_by_hand():
    feature_map = np.array([[[1.0, 2], [3, 4]], [[0, 0], [1, -1]]])
    assert heatmaps.activation_map(feature_map, np.array([1.0, 0.5])).tolist() == [[2, 5], [0, 0.5]]


@pytest.mark.parametrize(
    ("resize", "size", "region", "peak"),
    [
        ("squash", (400, 200), (0, 0, 400, 200), (350, 25)),  # the top right of 4 x 4 places
        ("crop", (400, 200), (100, 0, 300, 200), (275, 25)),
        ("pad", (400, 200), (0, -100, 400, 300), (350, 0)),  # on the upper bar: the nearest pixel
    ],
)
def test_places_on_the_original_image(resize, size, region, peak):
    values = np.zeros((4, 4))
    values[0, 3] = 1
    assert heatmaps.region(size, resize) == region
    assert heatmaps.peak(values, size, resize) == peak


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_the_map_lies_where_the_model_saw_it(resize):
    """A white spot, found by its own brightness in the model's pixels, must lie under the spread map."""
    from imgclf.data import images

    original = Image.new("RGB", (300, 180))
    original.paste((255, 255, 255), (160, 60, 190, 90))
    seen = np.asarray(images.resize(original, 60, resize))[..., 0].astype(float)
    values = seen.reshape(12, 5, 12, 5).mean(axis=(1, 3))
    found = heatmaps.spread(values, original.size, resize)
    assert found.shape == (180, 300)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 150 <= column < 200 and 50 <= row < 100
    x, y = heatmaps.peak(values, original.size, resize)
    assert 155 <= x < 195 and 55 <= y < 95


def test_what_crop_cuts_off_has_no_evidence():
    found = heatmaps.spread(np.ones((3, 3)), (90, 30), "crop")
    assert found[:, :30].max() == 0 == found[:, 60:].max()
    assert found[:, 30:60].min() == pytest.approx(1)


def test_an_overlay_is_red_at_the_peak_and_gray_elsewhere():
    gray = Image.new("RGB", (80, 80), (100, 100, 100))
    values = np.full((4, 4), -1.0)
    values[3, 0] = 5
    drawn = np.asarray(heatmaps.overlay(gray, values, "squash")).astype(int)
    assert drawn[70, 9, 0] > drawn[70, 9, 2] + 80
    assert drawn[5, 75].tolist() == [100, 100, 100]
    weak = np.asarray(heatmaps.overlay(gray, values, "squash", most=500.0)).astype(int)
    assert abs(weak - 100).max() < 12


def test_a_caption_is_added_below_and_cut():
    image = Image.new("RGB", (200, 50))
    drawn = heatmaps.with_caption(image, "a very long class name " * 9)
    assert drawn.size == (200, 50 + heatmaps.CAPTION_PX)
    assert np.asarray(drawn)[52:].min() < 100
    assert np.asarray(drawn)[52:, -3:].min() == 255


def test_overlays_are_written_for_readable_files(classifier, pictures, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"none")
    overlays = heatmaps.Overlays(tmp_path / "maps", classifier)
    found = list(classifier.stream([*pictures, pictures[0], str(tmp_path / "broken.png")], maps=True))
    for each in found:
        overlays.draw(each)
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    stem, label = Path(pictures[0]).stem, found[0].argmax.replace(" ", "-")
    assert {f"{stem}-{label}.png", f"{stem}-{label}-2.png"} <= names
    assert len(names) == len(pictures) + 1
    with Image.open(tmp_path / "maps" / f"{stem}-{label}.png") as image:
        assert image.size == (224, 224 + heatmaps.CAPTION_PX)  # 32 px, 7 times


def test_mirrored_maps_are_turned_back(classifier, pictures):
    [found] = classifier.stream([pictures[0]], maps=True, tta=True)
    pixels = np.asarray(Image.open(pictures[0]).resize((32, 32), Image.Resampling.BILINEAR))
    plain, mirrored = (classifier.outputs(p[None].astype(np.float32)) for p in (pixels, pixels[:, ::-1]))
    expected = (plain["feature_map"] + mirrored["feature_map"][:, :, ::-1])[0] / 2
    np.testing.assert_allclose(found.feature_map, expected, atol=1e-4)


def changed(classifier: Classifier, **values: object) -> Classifier:
    """The same model with other facts about its runtime."""

    class Runtime(type(classifier.runtime)):  # type: ignore[misc]
        def __init__(self) -> None:
            vars(self).update(vars(classifier.runtime) | values)

    facts = artifact.Artifact(classifier.labels, 32, "squash", "small-cnn", (), "", {})
    return Classifier(facts, Runtime())


def test_models_without_a_feature_map_are_refused(classifier):
    other = changed(classifier, names=("probabilities", "embedding"))
    assert heatmaps.has_map(classifier) and not heatmaps.has_map(other)
    with pytest.raises(ArtifactError, match=r"gives no feature map\..*--method auto takes another"):
        heatmaps.head(other)
    with pytest.raises(UsageError, match="expected a model that gives a feature map"):
        other.stream([], maps=True)


def test_a_last_layer_that_does_not_give_the_probabilities_is_refused(classifier):
    shifted = [values + 0.01 for values in classifier.runtime.constants((2, 192))]
    other = changed(classifier, constants=lambda shape: shifted * np.arange(2)[:, None] if len(shape) == 2 else [])
    with pytest.raises(ArtifactError, match="one dense layer and a softmax"):
        heatmaps.head(other, classifier.temperature)


def test_a_folder_that_is_not_empty_is_refused(classifier, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--explain .*: expected a new or empty folder"):
        heatmaps.Overlays(tmp_path, classifier)


def test_small_images_of_every_source(tmp_path: Path):
    pixels = np.full((30, 60, 1), 9, np.uint8)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), pixels):
        image, size = heatmaps.small(source, Decoding(), 20)
        assert (image.size, image.mode, size) == ((20, 10), "RGB", (60, 30))


def test_small_images_are_enlarged_by_a_whole_factor(tmp_path: Path):
    pixels = np.arange(28 * 14 * 3, dtype=np.uint8).reshape(28, 14, 3)
    image, size = heatmaps.small(pixels, Decoding())
    assert (image.size, size) == ((112, 224), (14, 28))
    assert np.asarray(image)[::8, ::8].tolist() == np.asarray(image)[7::8, 7::8].tolist() == pixels.tolist()
    assert heatmaps.enlarged(Image.new("RGB", (120, 9))).size == (120, 9)


@pytest.mark.parametrize(("resize", "shape"), [("squash", (60, 36)), ("crop", (60, 60)), ("pad", (60, 36))])
def test_what_the_model_saw_has_the_shape_of_the_original(tmp_path: Path, resize, shape):
    from imgclf.data import images

    original = Image.new("RGB", (300, 180), (90, 90, 90))
    original.paste((255, 255, 255), (160, 60, 200, 100))
    original.save(tmp_path / "a.png")
    pixels = np.asarray(images.resize(original, 60, resize))
    found = imgclf.Prediction("a", np.ones(1), ("a",), file=str(tmp_path / "a.png"), pixels=pixels)
    drawn = heatmaps.seen(found, np.full((3, 3), -1.0), resize, 400)
    assert drawn.size == shape
    light = np.argwhere(np.asarray(drawn.convert("L")) > 170).mean(axis=0) + 0.5
    scale = 60 / 180 if resize == "crop" else 60 / 300
    left = 60 if resize == "crop" else 0
    np.testing.assert_allclose(light, (80 * scale, (180 - left) * scale), atol=1.0)


def test_the_size_of_a_turned_image_is_that_of_its_pixels(tmp_path: Path):
    from imgclf.data import images

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
        assert images.upright_size(tmp_path / "a.jpg") == images.decode(tmp_path / "a.jpg").size


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 33)])
def test_a_png_file_has_the_pixels_of_its_image(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    with Image.open(io.BytesIO(heatmaps.png(Image.fromarray(pixels)))) as found:
        found.verify()
    with Image.open(io.BytesIO(heatmaps.png(Image.fromarray(pixels)))) as found:
        assert (found.format, found.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(found), pixels)


def test_a_drawing_leaves_nothing_else_in_its_folder(tmp_path):
    place = heatmaps.Folder(tmp_path / "maps", "-o").save(Image.new("RGB", (8, 8), "red"), "a b", "c/d")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [place.name] == ["a-b-c-d.png"]
