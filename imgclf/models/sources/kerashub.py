"""Backbones from KerasHub's presets, built in, from Kaggle or Hugging Face, or from a folder: `keras-hub:PRESET`.

Preprocessing is the scale and the offset of the preset's ImageConverter, as a layer in the graph; imgclf's decoder does
the resizing. The embedding is what the authors of each family feed to a linear classifier: see FAMILIES.
"""

import difflib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from imgclf import environment
from imgclf.errors import MissingError, UsageError
from imgclf.models import hub, sources
from imgclf.models.sources import NONE, Facts, Progress

if TYPE_CHECKING:
    import keras

PREFIX = "keras-hub:"
WEIGHTS = "preset"
EXTRA = "'imgclf[keras-hub]'"
DEFAULT_SIZE = 224
"""Of images, in px, where neither the ImageConverter nor the backbone names one."""

_KAGGLE, _HUGGING_FACE = "kaggle://", "hf://"
_SITES = {_KAGGLE: "https://www.kaggle.com", _HUGGING_FACE: "https://huggingface.co"}

Embedding = Literal["class token", "class token and mean of the patches", "vector", "mean of the tokens", "map"]


@dataclass(frozen=True)
class Family:
    """What imgclf takes from the backbones of one family.

    Args:
        kinds: the names of their classes in KerasHub.
        embedding: what represents an image; "map" is averaged over its positions.
        source: who says so.
        any_image_size: whether the weights fit a graph of any size.
    """

    kinds: tuple[str, ...]
    embedding: Embedding
    source: str
    any_image_size: bool = False


FAMILIES = (
    Family(("ViTBackbone",), "class token", "Dosovitskiy et al. 2021, arXiv:2010.11929, 3.1"),
    Family(("DeiTBackbone",), "class token", "Touvron et al. 2021, arXiv:2012.12877, 3"),
    Family(
        ("DINOV2Backbone",),
        "class token and mean of the patches",
        "linear classifiers of github.com/facebookresearch/dinov2; Oquab et al. 2023, arXiv:2304.07193",
        any_image_size=True,
    ),
    Family(
        ("DINOV3Backbone",),
        "class token and mean of the patches",
        "linear classifiers of github.com/facebookresearch/dinov3; Simeoni et al. 2025, arXiv:2508.10104",
        any_image_size=True,
    ),
    Family(
        ("SigLIPBackbone", "SigLIPVisionEncoder"),
        "vector",
        "pooling by attention, Zhai et al. 2023, arXiv:2303.15343",
    ),
    Family(
        ("CLIPBackbone", "CLIPVisionEncoder"),
        "class token",
        "normalized, before the projection: Radford et al. 2021, arXiv:2103.00020, A.3",
    ),
    Family(("MetaCLIP2Backbone",), "class token", "as CLIP: Chuang et al. 2025, arXiv:2507.22062"),
    Family(("SwinTransformerBackbone",), "map", "Liu et al. 2021, arXiv:2103.14030, A2.1"),
)
"""All others give a map, which is averaged, as their classifiers do: ResNet, ResNet-vd, CSPNet, HGNetV2, MobileNet,
EfficientNet, DenseNet, VGG, Xception, MiT."""

_TOWERS = ("SigLIPBackbone", "CLIPBackbone", "MetaCLIP2Backbone")
"""Models of images and texts: their image tower alone is taken."""


def family(kind: str) -> Family:
    """Return the family of a backbone's class."""
    for known in FAMILIES:
        if kind in known.kinds:
            return known
    return Family((kind,), "map", "the classifiers of KerasHub", any_image_size=True)


class KerasHub:
    """A preset."""

    weights = WEIGHTS
    portable = False

    def __init__(self, preset: str, place: str) -> None:
        """`place` is where the preset is: a folder, or its name again."""
        self.preset, self.place = preset, place
        self.kind = self._kind()
        self.family = family(self.kind.__name__)

    @classmethod
    def find(cls, name: str, *, offline: bool = False) -> Self | None:
        if not name.startswith(PREFIX):
            return None
        environment.require("keras_hub", EXTRA)
        preset = name.removeprefix(PREFIX)
        return cls(preset, _place(preset, offline))

    @cached_property
    def facts(self) -> Facts:
        converter = self._converter()
        size = converter.image_size[0] if converter is not None and converter.image_size else None
        own = None if self.family.any_image_size and size else _size(self._backbone(None, weights=False))
        name = f"{PREFIX}{self.preset}"
        embedding = "averaged map" if self.family.embedding == "map" else self.family.embedding
        note = f"backbone: {name} ({self.kind.__name__}), embedding: {embedding}"
        if converter is None:
            note += "; the preset has no ImageConverter, so pixels from 0 to 255 go in as they are"
        size = size if self.family.any_image_size else own
        return Facts(name, size or own or DEFAULT_SIZE, WEIGHTS, note=note)

    def build(
        self, image_size: int | None, weights: str, *, offline: bool = False, on_progress: Progress | None = None
    ) -> "keras.Model":
        import keras

        from imgclf.models import flattening, stored

        size = image_size or self.facts.image_size
        if not self.family.any_image_size:
            sources.check_size(self.facts, size, self.facts.image_size)
        backbone = self._backbone(size if self.family.any_image_size else None, weights=weights == WEIGHTS)
        pixels = keras.Input((size, size, 3), dtype="float32", name="pixels")
        tower = backbone.vision_encoder if self.kind.__name__ in _TOWERS else backbone
        try:
            outputs = flattening.flatten(tower, self._preprocess(pixels))
        except ValueError as error:
            raise UsageError(f"--backbone {self.facts.name}: images of {size} px do not fit it ({error}).") from None
        outputs = self._embedding(backbone, outputs)
        flattening.rename(outputs)
        model = keras.Model(pixels, outputs, name=Path(self.preset).name.lower() or "keras-hub")
        if weights not in (WEIGHTS, NONE):
            stored.load_weights(model, Path(weights))
        return model

    def _kind(self) -> type:
        """Return the class of the backbone.

        Raises:
            UsageError: if there is no such preset, or it takes no images.
        """
        import inspect

        from keras_hub.src.utils.preset_utils import get_preset_loader  # a large model of texts must not be built

        kind: type = self._ask(lambda: get_preset_loader(self.place).check_backbone_class())
        parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        if kind.__name__ not in _TOWERS and "image_shape" not in parameters:
            raise UsageError(f"--backbone {PREFIX}{self.preset}: {kind.__name__} takes no images. {ADVICE}")
        return kind

    def _converter(self) -> Any:
        """Return the preset's ImageConverter; None where it has none."""
        import keras_hub

        try:
            return keras_hub.layers.ImageConverter.from_preset(self.place)
        except (FileNotFoundError, ValueError):
            return None

    def _backbone(self, image_size: int | None, *, weights: bool) -> Any:
        import keras_hub

        from imgclf.models import flattening

        shape = {"image_shape": (image_size, image_size, 3)} if image_size else {}
        with flattening.recorded():
            return self._ask(
                lambda: keras_hub.models.Backbone.from_preset(
                    self.place, load_weights=weights, dtype="float32", **shape
                )
            )

    def _ask(self, question: Any) -> Any:
        """Return what KerasHub answers.

        Raises:
            MissingError: if the network fails it.
            UsageError: if it refuses.
        """
        try:
            return question()
        except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"--backbone {PREFIX}{self.preset}: {reason}") from None
        except Exception as error:  # the clients of Kaggle and Hugging Face have errors of their own
            raise _missing(self.preset, str(error).splitlines()[0] if str(error) else type(error).__name__) from None

    def _preprocess(self, pixels: "keras.KerasTensor") -> "keras.KerasTensor":
        """Scale and offset of the ImageConverter, in float32, on RGB."""
        import keras
        import numpy as np

        converter = self._converter()
        if converter is None or (converter.scale is None and converter.offset is None):
            return pixels
        scale = np.asarray(1.0 if converter.scale is None else converter.scale, "float64").reshape(-1)
        offset = np.asarray(0.0 if converter.offset is None else converter.offset, "float64").reshape(-1)
        plain = [value.tolist() if len(value) > 1 else value.item() for value in (scale, offset)]
        return keras.layers.Rescaling(*plain, dtype="float32", name="preprocess")(pixels)

    def _embedding(self, backbone: Any, found: Any) -> Any:
        """Return what represents the image: a map (n, h, w, d) or a vector (n, d)."""
        import keras
        from keras import layers

        if isinstance(found, dict):  # a pyramid, of which the last level is meant
            found = list(found.values())[-1]
        if isinstance(found, list | tuple) or not isinstance(found, keras.KerasTensor):
            raise UsageError(f"--backbone {PREFIX}{self.preset}: expected one output, found several. {ADVICE}")
        kind = self.family.embedding
        if len(found.shape) != 3:
            return found
        count = found.shape[1]
        if kind == "map":
            side = int(count**0.5)
            return layers.Reshape((side, side, found.shape[2]), name="map")(found)
        if kind == "class token" and not getattr(backbone, "use_class_token", True):
            kind = "mean of the tokens"
        if not kind.startswith("class token"):
            return layers.GlobalAveragePooling1D(name="mean")(found)
        token = layers.Flatten(name="class_token")(layers.Cropping1D((0, count - 1), name="first")(found))  # (n, d)
        if hasattr(backbone, "vision_post_layer_norm"):  # MetaCLIP 2 normalizes behind its tower
            token = backbone.vision_post_layer_norm(token)
        if kind == "class token":
            return token
        patches = layers.Cropping1D((1 + backbone.num_register_tokens, 0), name="patches")(found)
        return layers.Concatenate(name="tokens")([token, layers.GlobalAveragePooling1D(name="mean")(patches)])


ADVICE = (
    "imgclf takes image backbones and classifiers, such as ViT, DINOv2, SigLIP, Swin or ResNet; see docs/backbones.md."
)


def _size(backbone: Any) -> int | None:
    """Return the size of the images that a backbone was made for, in px."""
    shape = getattr(backbone, "vision_encoder", backbone).image_shape
    return None if shape[0] is None else int(shape[0])


def _place(preset: str, offline: bool) -> str:
    """Where a preset is: its folder on this machine, or its name for KerasHub to fetch.

    Raises:
        UsageError: if there is no such preset.
        MissingError: if it is not on this machine and the network may not or cannot be used.
    """
    import keras_hub

    if Path(preset).is_dir():
        if not (Path(preset) / "config.json").is_file():
            raise UsageError(f"--backbone {PREFIX}{preset}: expected a preset in this folder, found no config.json.")
        return preset
    known = keras_hub.models.Backbone.presets
    handle = known[preset]["kaggle_handle"] if preset in known else preset
    if "://" not in handle:
        near = difflib.get_close_matches(preset, known, n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            f"--backbone {PREFIX}{preset}: there is no such preset and no such folder. {hint}"
            "Presets from elsewhere start with kaggle:// or hf://."
        )
    folder = _downloaded(handle)
    if folder is not None:
        return str(folder)
    site = next((site for scheme, site in _SITES.items() if handle.startswith(scheme)), None)
    reason = "--offline" if offline else hub.why_unreachable(site) if site else None
    if reason is not None:
        raise _missing(preset, reason)
    return preset


def _missing(preset: str, reason: str) -> MissingError:
    return MissingError(
        f"--backbone {PREFIX}{preset}: this preset is not on this machine and cannot be downloaded ({reason}).\n"
        '  On a machine with a network: python -c "import keras_hub; '
        f"p = '{preset}'; keras_hub.models.Backbone.from_preset(p).save_to_preset('preset'); "
        "keras_hub.layers.ImageConverter.from_preset(p).save_to_preset('preset')\"\n"
        f"  Then copy the folder here and give --backbone {PREFIX}FOLDER."
    )


def _downloaded(handle: str) -> Path | None:
    """Return the folder into which Kaggle's or Hugging Face's client has put a preset; None without one."""
    if handle.startswith(_KAGGLE):
        root = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub") / "models"
        base = root / handle.removeprefix(_KAGGLE)
        versions = sorted((p for p in base.glob("*") if p.name.isdigit()), key=lambda p: int(p.name), reverse=True)
        for folder in (base, *versions):
            if (folder / "config.json").is_file() and any(folder.glob("model*.weights.*")):
                return folder
    if handle.startswith(_HUGGING_FACE):
        import huggingface_hub

        try:
            repo = handle.removeprefix(_HUGGING_FACE)
            folder = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
        except Exception:  # of its own kinds: not there
            return None
        weights = [*folder.glob("model*.weights.*"), *folder.glob("*.safetensors")]
        return folder if (folder / "config.json").is_file() and weights else None
    return None
