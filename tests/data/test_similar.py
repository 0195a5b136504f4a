"""Near-duplicates among thumbnails."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf.data import images, similar, statistics
from imgclf.settings import Thresholds


def scene(seed: int, size_px: int = 160) -> Image.Image:
    """A picture with structure at all scales, like a photograph: noise whose spectrum falls with the frequency."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(size_px), np.fft.fftfreq(size_px), indexing="ij")
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / size_px) ** 1.2
    channels = []
    for _ in range(3):
        values = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size_px, size_px))) * fall).real
        low, high = np.percentile(values, [1, 99])
        channels.append(np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8))
    return Image.fromarray(np.stack(channels, axis=2))


def thumb(image: Image.Image, quality: int = 95) -> np.ndarray:
    """The thumbnail of its JPEG file, as the scan makes it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    with images.look(file.getvalue(), statistics.SIDE_PX) as (_, small):
        return statistics.tiles(small).thumb


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


def found(thumbs: np.ndarray) -> set[tuple[int, int]]:
    pairs = similar.find(thumbs, Thresholds.near)
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return np.stack([thumb(scene(seed)) for seed in range(120)])


def test_different_pictures_are_no_pairs(scenes: np.ndarray) -> None:
    assert found(scenes) == set()


def test_a_picture_encoded_sized_or_cropped_anew_is_found(scenes: np.ndarray) -> None:
    copies = [
        thumb(scene(0), quality=40),
        thumb(scene(1).resize((80, 80))),
        thumb(scene(2).resize((320, 320))),
        thumb(cropped(scene(3), 0.05, 0.05, 0, 0)),
        thumb(cropped(scene(4), 0.05, 0.05, 0.05, 0.05)),
        thumb(cropped(scene(5), 0, 0.04, 0.05, 0.01).resize((90, 110)), quality=40),
    ]
    pairs = found(np.concatenate([scenes, np.stack(copies)]))
    assert pairs == {(number, len(scenes) + number) for number in range(len(copies))}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(*[st.floats(0, 0.05)] * 4),
    st.floats(0.5, 2),
    st.integers(40, 95),
)
def test_likeness_survives_what_copies_go_through(
    seed: int, sides: tuple[float, ...], scale: float, quality: int
) -> None:
    copy = cropped(scene(seed), *sides)
    copy = copy.resize((round(copy.width * scale), round(copy.height * scale)))
    one, other = thumb(scene(seed))[None], thumb(copy, quality)[None]
    assert similar.compare(one, other)[0] > 0.9
    assert similar.compare(one, thumb(scene(seed + 1))[None])[0] < 0.6


def test_the_same_shapes_in_another_light_are_another_picture() -> None:
    dark = Image.fromarray((np.asarray(scene(3)) * 0.6).astype(np.uint8))
    assert similar.compare(thumb(scene(3))[None], thumb(dark)[None])[0] < 0.9


def test_many_copies_of_one_picture_hang_together(scenes: np.ndarray) -> None:
    copies = np.stack([thumb(scene(7), quality=40 + n) for n in range(50)])
    pairs = similar.find(np.concatenate([scenes, copies]), Thresholds.near)
    assert similar.groups(170, pairs) == [[7, *range(120, 170)]]


def test_empty_pictures_are_alike_to_none() -> None:
    assert found(np.full((20, 32, 32), 90, np.uint8)) == set()
    assert found(np.zeros((0, 32, 32), np.uint8)) == set()
    assert found(thumb(scene(1))[None]) == set()


def test_the_candidates_are_those_of_an_exhaustive_search(scenes: np.ndarray) -> None:
    copies = np.stack([thumb(cropped(scene(n), 0.05, 0, 0.03, 0.02)) for n in range(60)])
    thumbs = np.concatenate([scenes, copies])
    hashes = similar.perceptual_hashes(thumbs, 0.0)
    cosines = np.triu(hashes @ hashes.T, 1)
    every = set(zip(*(rows.tolist() for rows in np.nonzero(cosines > 0.9)), strict=True))
    some = set(zip(*(rows.tolist() for rows in similar.candidates(thumbs)), strict=True))
    assert len(every) >= 50
    assert len(every - some) <= 0.02 * len(every)


def test_groups_are_the_connected_components() -> None:
    pairs = similar.Pairs(np.array([4, 1, 2, 7]), np.array([5, 2, 9, 8]), np.ones(4, np.float32))
    assert similar.groups(10, pairs) == [[1, 2, 9], [4, 5], [7, 8]]
