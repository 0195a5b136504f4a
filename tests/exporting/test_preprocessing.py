"""Steps of preprocessing inside a TensorFlow graph: the same pixels, to the last bit, as those of Pillow."""

import numpy as np
import pytest
from PIL import Image

from imgclf.data import preprocessing as pillow
from imgclf.exporting import preprocessing
from imgclf.settings.preprocessing import KINDS, parse

import tensorflow as tf  # isort: skip  (imgclf prepares it first)


def photo(seed: int, most: int = 256) -> np.ndarray:
    """Waves of color with noise, uint8 (33, 40, 3), whose channels have different ranges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:33, 0:40]
    waves = np.stack([np.sin(x / (3 + seed) + y / 7 + shift) for shift in (0, 1, 2)], axis=-1)
    values = (0.5 + 0.4 * waves) * [most - 1, (most - 1) / 2, (most - 1) / 3] + rng.normal(0, most / 20, waves.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


IMAGES = [
    *(photo(seed) for seed in range(3)),
    photo(3, most=40),
    np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8),
    np.full((16, 16, 3), 77, np.uint8),
    np.zeros((16, 16, 3), np.uint8),
    np.kron(np.eye(4), np.full((8, 8), 255)).astype(np.uint8)[..., None].repeat(3, axis=-1),
]

CHAINS = [
    *("autocontrast", "equalize", "gray", "threshold", "threshold=99.5", "edges", "denoise", "denoise=5", "erode"),
    *("dilate=5", "open", "close=7", "brightness=0.37", "brightness=1.9", "contrast=0.41", "contrast=2.3"),
    *("contrast=0", "autocontrast,denoise,threshold", "gray,equalize,edges,dilate", "contrast=1.5,brightness=0.8,open"),
]


@pytest.mark.parametrize("chain", CHAINS)
def test_the_graph_gives_the_pixels_of_pillow(chain: str) -> None:
    steps = parse(chain)
    assert preprocessing.lacking(steps) == []
    graph = tf.function(lambda pixels: preprocessing.apply(pixels, steps), autograph=False)
    for pixels in IMAGES:
        expected = np.asarray(pillow.apply(Image.fromarray(pixels), steps))
        np.testing.assert_array_equal(graph(pixels.astype(np.float32)).numpy(), expected)


def test_every_other_step_is_known_to_lack() -> None:
    tested = {step.name for chain in CHAINS for step in parse(chain)}
    assert tested | set(preprocessing.lacking(parse("sharpen,jpeg=50"))) == set(KINDS)
    assert preprocessing.lacking(parse("gray,autocontrast=2,jpeg=40")) == ["autocontrast", "jpeg"]
