"""IDX files and CIFAR batches: the right pixels with the right labels, and nothing that a pickle asks for is done."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.data import collection
from imgclf.data.dataset import TEST, TRAIN, Dataset
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

RNG = np.random.default_rng(0)


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    """The bytes of an IDX file of unsigned bytes, written by its definition."""
    magic = 0x0800 + array.ndim if magic is None else magic
    return b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape)) + array.astype(np.uint8).tobytes()


def pixels(dataset: Dataset) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in dataset.paths]


@pytest.fixture
def mnist(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder as MNIST's, with 12 training and 4 test images; all images, and all labels."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    images = RNG.integers(0, 256, (16, 28, 28), dtype=np.uint8)
    labels = np.arange(16, dtype=np.uint8) % 3
    for name, part in (("train", slice(0, 12)), ("t10k", slice(12, 16))):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(images[part]))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels[part]))
    return folder, images, labels


def test_idx_files_become_images_with_labels_and_sides(mnist: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, images, labels = mnist
    dataset = collection.collect(folder)
    assert dataset.class_names == ("0", "1", "2")
    assert [s.split for s in dataset.samples] == [TEST] * 4 + [TRAIN] * 12
    assert dataset.labels.tolist() == [*labels[12:], *labels[:12]]
    assert np.array_equal(pixels(dataset), [*images[12:], *images[:12]])
    assert dataset.source == folder
    assert dataset.skipped == ()


def test_gzipped_and_renamed_idx_files_are_the_same(mnist: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, _, _ = mnist
    expected = collection.collect(folder).digest()
    for path in list(folder.iterdir()):
        new = folder / f"emnist-digits-{path.name.replace('-idx', '.idx').replace('t10k', 'test')}.gz"
        new.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert collection.collect(folder).digest() == expected


def test_class_names_may_be_given_for_numbers(mnist: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("0,T-shirt/top\n1,Trouser\n2,Pullover\n")
    dataset = collection.collect(mnist[0], ReadConfig(class_names=str(tmp_path / "names.csv")))
    assert dataset.class_names == ("Pullover", "T-shirt/top", "Trouser")
    assert dataset.counts() == {"Pullover": 5, "T-shirt/top": 6, "Trouser": 5}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            b"\0\0\x08\x01\0\0\0\x0c" + b"\0" * 99,
            "number 0x00000803, found 0x00000801",
        ),
        ("train-images-idx3-ubyte", b"\x03\x08\0\0" + b"\0" * 99, "0x00000803, found 0x03080000"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + b"\0" * 99, "found 0x00000d03"),
        ("train-images-idx3-ubyte", b"", "found 0x00000000. Is it another file, or truncated"),
        ("train-images-idx3-ubyte", idx(np.zeros((12, 28, 28)))[:-1], "12 x 28 x 28 bytes after its header, found few"),
        ("train-images-idx3-ubyte", idx(np.zeros((12, 28, 28))) + b"\0", "after its header, found more"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "4294967295 x 4294967295 x .* found fewer"),
        ("train-images-idx3-ubyte", idx(np.zeros((0, 28, 28))), "0 x 28 x 28 bytes"),
        (
            "train-images-idx3-ubyte",
            b"\0\0\x08\x03\0\x10\0\0\0\0\x03\xff\0\0\x03\xff",
            "1048576 x 1023 x 1023 .* found few",
        ),
        ("train-labels-idx1-ubyte", idx(np.zeros(11)), "12 images in train-images-.* and 11 labels in train-labels-"),
        ("train-labels-idx1-ubyte", b"\x1f\x8b\x08 not gzip", "is damaged"),
    ],
)
def test_a_damaged_idx_file_is_an_error(
    mnist: tuple[Path, np.ndarray, np.ndarray], name: str, content: bytes, message: str
) -> None:
    (mnist[0] / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        collection.collect(mnist[0])


def test_idx_files_that_are_not_there_or_too_many_are_errors(mnist: tuple[Path, np.ndarray, np.ndarray]) -> None:
    for path in list(mnist[0].iterdir()):
        (mnist[0] / f"letters-{path.name}").write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match="more than one data set"):
        collection.collect(mnist[0])
    for path in mnist[0].iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="expected IDX files by their usual names"):
        collection.collect(mnist[0], ReadConfig(layout="idx"))


def batch(images: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    """As CIFAR's own: rows of 1,024 red, 1,024 green and 1,024 blue values."""
    rows = np.stack([np.concatenate([image[:, :, c].ravel() for c in range(3)]) for image in images])
    return pickle.dumps({b"data": rows, key: labels, b"filenames": [b"x.png"] * len(labels)}, protocol=2)


@pytest.fixture
def cifar(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder as CIFAR-10's with 6 training images in two batches and 2 test images; all images."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = RNG.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    names = {b"label_names": [b"airplane", b"frog"], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    for name, at in (("data_batch_1", 0), ("data_batch_2", 3), ("test_batch", 6)):
        part = images[at : at + 3]
        (folder / name).write_bytes(batch(part, [i % 2 for i in range(at, at + len(part))]))
    (folder / "readme.html").touch()
    return folder, images


def test_cifar_10_becomes_images_with_names_and_sides(cifar: tuple[Path, np.ndarray]) -> None:
    folder, images = cifar
    dataset = collection.collect(folder)
    assert dataset.class_names == ("airplane", "frog")
    assert [s.label for s in dataset.samples] == ["airplane", "frog"] * 4
    assert [s.split for s in dataset.samples] == [TRAIN] * 6 + [TEST] * 2
    assert np.array_equal(pixels(dataset), images)
    assert [s.path for s in dataset.skipped] == ["readme.html"]


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    names = {b"fine_label_names": [b"apple", b"bear"], b"coarse_label_names": [b"fruit", b"carnivores"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(names, protocol=2))
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(batch(images, [1, 0], b"fine_labels"))
    dataset = collection.collect(tmp_path)
    assert [(s.label, s.split) for s in dataset.samples] == [
        ("bear", TEST),
        ("apple", TEST),
        ("bear", TRAIN),
        ("apple", TRAIN),
    ]


def test_arrays_in_fortran_order_and_new_protocols_are_read(cifar: tuple[Path, np.ndarray]) -> None:
    folder, images = cifar
    rows = np.asfortranarray(images[6:8].transpose(0, 3, 1, 2).reshape(2, 3072))
    for protocol in (2, 4):
        (folder / "test_batch").write_bytes(pickle.dumps({"data": rows, "labels": [0, 1]}, protocol=protocol))
        assert np.array_equal(pixels(collection.collect(folder))[6:], images[6:])


class Evil:
    """A pickle of this runs a command when it is loaded by pickle.load."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize(
    "value",
    [
        Evil(os.system, "touch evil"),
        Evil(eval, "open('evil', 'w')"),
        Evil(getattr, "text", "upper"),
        {b"data": Evil(os.system, "touch evil"), b"labels": [0]},
        Evil(np.load, "evil"),
        Evil(bytearray, 10),
    ],
)
@pytest.mark.parametrize("name", ["batches.meta", "data_batch_1"])
def test_a_pickle_that_asks_for_anything_is_refused(
    cifar: tuple[Path, np.ndarray], name: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (cifar[0] / name).write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(DatasetError, match=r"refused: .*it asks for"):
        collection.collect(cifar[0])
    assert not (tmp_path / "evil").exists()


def test_a_pickle_can_change_nothing_that_it_is_given(cifar: tuple[Path, np.ndarray]) -> None:
    change = b"\x80\x02cnumpy\ndtype\n}X\x01\x00\x00\x00xK\x01sb."  # BUILD on what stands for numpy.dtype
    (cifar[0] / "data_batch_1").write_bytes(change)
    with pytest.raises(DatasetError, match="refused"):
        collection.collect(cifar[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "refused: not a batch of CIFAR, or a damaged one"),
        (b"\x80\x02}q\x00(", "refused"),
        (pickle.dumps([1], protocol=2), "expected a dictionary as CIFAR's, found list"),
        (pickle.dumps({b"data": b"x", b"labels": [0]}, protocol=2), "rows of 3,072 bytes"),
        (pickle.dumps({"\udce9": 1}, protocol=2), "rows of 3,072 bytes"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}, protocol=2).replace(
                b"K\x01M\x00\x0c\x86",  # the shape (1, 3072)
                b"J\xff\xff\xff\xffJ\x00\xf4\xff\xff\x86",  # the shape (-1, -3072)
            ),
            "rows of 3,072 bytes",
        ),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [0]}, protocol=2), "rows of 3,072 bytes"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0, 1]}, protocol=2), "rows of 3,072 bytes"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [2]}, protocol=2), "labels from 0 to 1"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["a"]}, protocol=2), "labels from 0 to 1"),
    ],
)
def test_a_damaged_batch_is_an_error(cifar: tuple[Path, np.ndarray], content: bytes, message: str) -> None:
    (cifar[0] / "test_batch").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        collection.collect(cifar[0])


def test_cifar_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected CIFAR's data_batch_1"):
        collection.collect(tmp_path, ReadConfig(layout="cifar"))
