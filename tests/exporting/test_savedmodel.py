import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from imgclf.data import images
from imgclf.exporting import artifacts, savedmodel
from imgclf.prediction import artifact, load
from imgclf.settings import Decoding

WIDTH, HEIGHT = 61, 40


def waves() -> Image.Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7), x * 4], -1).astype(np.uint8))


def translucent() -> Image.Image:
    image = waves()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif(orientation: int, endian: str = "<", **others) -> Image.Exif:
    header = Image.Exif()
    header.endian = endian
    header[0x010F] = "a maker whose name does not fit into four bytes"
    header[0x0112] = orientation
    return header


def sixteen_bit_png(colour: int, channels: int) -> bytes:
    """A PNG written by hand: Pillow writes 16 bits only for grey."""
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, channels)).astype(">u2")

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 30, 20, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def decode() -> Callable[[bytes], np.ndarray]:
    """The graph's decoder as a function of bytes, traced once."""
    import tensorflow as tf

    function = tf.function(savedmodel.decode, autograph=False, input_signature=[tf.TensorSpec((), tf.string)])
    return lambda data: function(tf.constant(data)).numpy()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_does(decode, format, endian, orientation):
    data = encode(waves(), format, exif=exif(orientation, endian))
    found = decode(data)
    assert found.shape == ((WIDTH, HEIGHT, 3) if orientation >= 5 else (HEIGHT, WIDTH, 3))
    assert np.array_equal(found, images.decode(data))


def test_damaged_exif_leaves_the_image_as_it_is(decode):
    whole = exif(6).tobytes()
    beyond = whole[:10] + b"\xff\xff\xff\x7f" + whole[14:]
    for header in (whole[:12], whole[:20], beyond, b"Exif\0\0", b"Exif\0\0XX*\0" + whole[10:]):
        assert decode(encode(waves(), "JPEG", exif=header)).shape == (HEIGHT, WIDTH, 3)


def test_exif_behind_another_segment_is_found_and_the_same_text_elsewhere_is_not(decode):
    data = encode(waves(), "JPEG", exif=exif(6))
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 20000) + b"x" * 20000
    assert decode(data[:2] + comment + data[2:]).shape == (WIDTH, HEIGHT, 3)
    assert decode(encode(waves(), "JPEG", comment=exif(6).tobytes())).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(waves(), "JPEG", progressive=True, quality=60), id="progressive JPEG"),
        pytest.param(encode(waves(), "JPEG", subsampling=0), id="JPEG with full colour"),
        pytest.param(encode(waves().convert("L"), "JPEG"), id="grey JPEG"),
        pytest.param(encode(waves().convert("CMYK"), "JPEG"), id="CMYK JPEG"),
        pytest.param(encode(waves().convert("L"), "PNG"), id="grey PNG"),
        pytest.param(encode(waves().convert("1"), "PNG"), id="black-and-white PNG"),
        pytest.param(encode(waves().quantize(9), "PNG", bits=4), id="4-bit palette PNG"),
        pytest.param(encode(waves().quantize(20), "PNG", transparency=3), id="palette PNG with a clear colour"),
        pytest.param(encode(waves(), "PNG", transparency=waves().getpixel((5, 7))), id="RGB PNG with a clear colour"),
        pytest.param(encode(translucent(), "PNG"), id="PNG with alpha"),
        pytest.param(encode(translucent().convert("LA"), "PNG"), id="grey PNG with alpha"),
        pytest.param(sixteen_bit_png(0, 1), id="16-bit grey PNG"),
        pytest.param(sixteen_bit_png(2, 3), id="16-bit RGB PNG"),
        pytest.param(sixteen_bit_png(6, 4), id="16-bit PNG with alpha"),
        pytest.param(encode(waves(), "PNG", save_all=True, append_images=[translucent()]), id="animated PNG"),
        pytest.param(encode(waves().quantize(64), "GIF"), id="GIF"),
        pytest.param(
            encode(waves().quantize(64), "GIF", save_all=True, append_images=[waves().rotate(90).quantize(64)]),
            id="animated GIF",
        ),
        pytest.param(encode(waves(), "BMP"), id="BMP"),
        pytest.param(encode(waves().convert("L"), "BMP"), id="grey BMP"),
        pytest.param(encode(waves().quantize(20), "BMP"), id="palette BMP"),
        pytest.param(encode(translucent(), "BMP"), id="32-bit BMP"),
        pytest.param(encode(waves(), "WEBP", lossless=True), id="lossless WebP"),
        pytest.param(encode(translucent(), "WEBP"), id="WebP with alpha"),
        pytest.param(encode(waves(), "WEBP", exif=exif(8).tobytes()[6:]), id="WebP with bare EXIF"),
        pytest.param(
            encode(translucent(), "WEBP", save_all=True, append_images=[waves()]), id="animated WebP with alpha"
        ),
    ],
)
def test_the_graph_decodes_as_pillow_does(decode, data):
    assert savedmodel.reads(data)
    assert np.array_equal(decode(data), images.decode(data))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(waves(), "WEBP", save_all=True, append_images=[waves().rotate(90)]), id="animated WebP"),
        pytest.param(encode(waves().convert("1"), "BMP"), id="1-bit BMP"),
        pytest.param(encode(waves(), "TIFF"), id="TIFF"),
    ],
)
def test_what_tensorflow_cannot_decode_is_an_error_and_is_known_beforehand(decode, data):
    assert not savedmodel.reads(data)
    with pytest.raises(Exception, match="Graph execution error"):
        decode(data)


@pytest.mark.parametrize("data", [b"", b"BM", b"RIFF", b"RIFF????WEBP", b"\xff\xd8\xff", b"\x89PNG", b"hello"])
def test_what_is_no_image_is_an_error(decode, data):
    with pytest.raises(Exception, match="Graph execution error"):
        decode(data)


def test_a_transparent_gif_is_known_to_differ(decode):
    data = encode(waves().quantize(20), "GIF", transparency=3)
    assert not savedmodel.reads(data)
    assert not np.array_equal(decode(data), images.decode(data))


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
def test_the_graph_resizes_as_pillow_does_to_the_last_bit(mode):
    """Also where the order of the two passes changes: with more than twice as many pixels off the height."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    signature = [tf.TensorSpec((None, None, 3), tf.uint8)]
    resize = tf.function(lambda image: savedmodel.resize(image, 48, mode), autograph=False, input_signature=signature)
    turning = ((60, 72), (60, 73), (40, 48), (40, 49))
    for width, height in ((48, 48), (97, 64), (64, 97), (300, 201), (31, 20), (48, 500), (1, 7), (1, 1), *turning):
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        found = resize(np.asarray(noise)).numpy()
        expected = np.asarray(images.resize(noise, 48, mode), np.float32)
        assert found.shape == (48, 48, 3)
        assert np.array_equal(found, expected), (width, height)


def test_both_signatures_give_the_outputs_and_the_labels(exported):
    import tensorflow as tf

    run, _ = exported
    model = tf.saved_model.load(str(run.saved_model))
    assert set(model.signatures) == {"serving_default", "serve_bytes"}
    pixels = tf.zeros((2, 32, 32, 3))
    encoded = tf.constant([encode(waves(), "JPEG")] * 3)
    for n, answer in (
        (2, model.signatures["serving_default"](pixels=pixels)),
        (3, model.signatures["serve_bytes"](images=encoded)),
    ):
        assert {name: tuple(value.shape) for name, value in answer.items()} == {
            "probabilities": (n, 3),
            "labels": (n, 3),
            "embedding": (n, 12),
            "feature_map": (n, 8, 8, 12),
        }
        assert [[name.decode() for name in row] for row in answer["labels"].numpy()] == [["ants", "bées", "[moth]"]] * n
        assert np.allclose(answer["probabilities"].numpy().sum(1), 1)


def test_encoded_images_are_preprocessed_in_the_graph(run, caplog):
    artifact.write(run.path, replace(artifact.read(run.path), preprocess="denoise=3,equalize"))
    [row] = artifacts.write(run, ["savedmodel"])  # which compares it on real files
    assert row["max_difference_from_bytes"] < 1e-4 and row["label_agreement"] == 1
    assert "encoded images" not in caplog.text
    data = encode(waves(), "PNG")
    pixels = images.load(data, 32, Decoding(preprocess="denoise=3,equalize"))
    found = savedmodel.predict_bytes(run.path / "saved_model", [data])
    expected = load(run.path, engine="savedmodel").probabilities(pixels[None].astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_model_whose_preprocessing_tensorflow_cannot_do_takes_pixels_alone_and_says_so(run, caplog):
    artifact.write(run.path, replace(artifact.read(run.path), preprocess="denoise=3,jpeg=40"))
    [row] = artifacts.write(run, ["savedmodel"])
    assert row["max_difference_from_bytes"] is None and row["label_agreement"] == 1
    assert "takes pixels, not encoded images, since TensorFlow cannot do the step jpeg" in caplog.text
    with pytest.raises(KeyError, match="serve_bytes"):
        savedmodel.predict_bytes(run.path / "saved_model", [b""])


def test_full_precision_puts_back_what_was_set():
    import tensorflow as tf

    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    with savedmodel.full_precision():
        assert not enabled()
    assert enabled() == before


@pytest.mark.parametrize("window", ["0,4095", "1000,60000.5", "-7,9", "percentile"])
def test_a_window_for_sixteen_bits_is_the_decoders(window):
    import tensorflow as tf

    rules = Decoding(window=window)
    function = tf.function(
        lambda data: savedmodel.decode(data, rules), autograph=False, input_signature=[tf.TensorSpec((), tf.string)]
    )
    grey = sixteen_bit_png(0, 1)
    flat = encode(Image.fromarray(np.full((5, 6), 900, np.uint16)), "PNG")
    for data in (grey, flat, encode(waves(), "PNG")):
        assert np.array_equal(function(tf.constant(data)).numpy(), images.decode(data, rules))


def test_a_truncated_jpeg_is_read_where_the_rules_allow_it():
    import tensorflow as tf

    data = encode(waves().resize((610, 400)), "JPEG")
    cut = data[: len(data) * 2 // 3]
    rules = Decoding(allow_truncated=True)
    found = savedmodel.decode(tf.constant(cut), rules).numpy()
    assert np.isclose(found, images.decode(cut, rules), atol=1).mean() > 0.9
    assert savedmodel.reads(data) and not savedmodel.reads(cut)
