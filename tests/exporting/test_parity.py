from pathlib import Path

import numpy as np
import pytest

from imgclf.errors import ArtifactError
from imgclf.exporting import parity
from imgclf.exporting.parity import Samples
from imgclf.prediction import artifact

PLACE = Path("run/model.tflite")
SAMPLES = Samples(np.zeros((2, 4, 4, 3), np.float32), (), "images")
EXPECTED = np.array([[0.7, 0.2, 0.1], [0.395, 0.405, 0.2]])


def test_the_largest_difference_is_reported():
    proof = parity.compare(
        PLACE, "pixels", SAMPLES, EXPECTED, EXPECTED + np.array([[0, 0.001, -0.001], [0, 0, 0]]), 0.01
    )
    assert proof.max_difference == pytest.approx(0.001)
    assert (proof.label_agreement, proof.compared, proof.max_difference_from_bytes) == (1, 2, None)


@pytest.mark.parametrize("wrong", [0.011, np.nan, np.inf])
def test_more_than_the_tolerance_or_no_number_fails(wrong):
    with pytest.raises(ArtifactError, match=r"model\.tflite: expected the probabilities for pixels within 0\.01"):
        parity.compare(PLACE, "pixels", SAMPLES, EXPECTED, EXPECTED + np.array([[wrong], [0]]), 0.01)


def test_another_label_fails_unless_the_two_best_are_tied():
    tied = EXPECTED + np.array([[0, 0, 0], [0.006, -0.006, 0]])  # 0.401 against 0.399; they were 0.01 apart
    assert parity.compare(PLACE, "bytes", SAMPLES, EXPECTED, tied, 0.02).label_agreement == 1
    clear = np.array([[0.7, 0.2, 0.1], [0.385, 0.415, 0.2]])
    other = clear + np.array([[0, 0, 0], [0.016, -0.016, 0]])
    with pytest.raises(ArtifactError, match=r"labels for bytes, found others for 1 of 2"):
        parity.compare(PLACE, "bytes", SAMPLES, clear, other, 0.02)


def test_the_test_part_comes_first(exported, photographs):
    run, _ = exported
    samples = parity.collect(run, artifact.read(run.path))
    files = sorted(path for path in photographs.rglob("*.*") if path.is_file())
    test_part = {path.read_bytes() for path in files[::2]}
    assert set(samples.encoded[:12]) == test_part
    assert len(samples.encoded) == len(samples.pixels) == 16
    assert samples.pixels.dtype == np.float32


def test_made_up_images_are_always_the_same_and_survive_encoding(exported):
    run, _ = exported
    from imgclf.data import images

    facts = artifact.read(run.path)
    samples = parity.made_up(facts, 3)
    assert np.array_equal(samples.pixels, parity.made_up(facts, 3).pixels)
    assert np.array_equal(samples.pixels[2], images.load(samples.encoded[2], 32))
    assert samples.pixels.std() > 40
