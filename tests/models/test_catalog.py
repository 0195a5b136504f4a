"""The catalogue against Keras itself: what each application would fetch, at which size, and what it expects."""

import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from imgclf import environment
from imgclf.errors import UsageError
from imgclf.models import catalog
from imgclf.models.catalog import MODELS, HubFile, ModelFacts

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

imagenet_utils = sys.modules["keras.src.applications.imagenet_utils"]

APPLICATIONS = [facts for facts in MODELS.values() if facts.application]


def module_of(facts: ModelFacts) -> ModuleType:
    return sys.modules[getattr(keras.applications, facts.application).__module__]


class Hollow:
    """Stands for layers, tensors and models alike: an application runs through in no time and builds nothing."""

    def itself(self, *args: Any, **kwargs: Any) -> "Hollow":
        return self

    __call__ = __getitem__ = __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = __floordiv__ = __sub__ = itself

    def __getattr__(self, name: str) -> "Hollow":
        return self

    def __int__(self) -> int:
        return 8

    def __gt__(self, other: Any) -> bool:
        return False


class Fetched(Exception):
    """Raised in place of a download."""


@pytest.fixture
def would_fetch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function from a model and `include_top` to what Keras asks for: its file, its default size, its least size."""

    def ask(facts: ModelFacts, include_top: bool) -> tuple[HubFile, dict[str, int]]:
        sizes: dict[str, int] = {}
        files = []

        def get_file(name: str, url: str, *, cache_subdir: str, file_hash: str | None = None) -> None:
            files.append(HubFile(url, name, file_hash))
            raise Fetched

        def obtain_input_shape(shape: Any, default_size: int, min_size: int, **rest: Any) -> tuple[int, int, int]:
            sizes.update(default=default_size, min=min_size)
            return default_size, default_size, 3

        # ResNetV2 is built by the functions of ResNet's module
        modules = [module_of(facts), sys.modules["keras.src.applications.resnet"]]
        with monkeypatch.context() as patch:
            for module in modules:
                for name in ("layers", "Functional", "Sequential", "LayerScale", "CustomScaleLayer"):
                    patch.setattr(module, name, Hollow(), raising=False)
            patch.setattr(imagenet_utils, "correct_pad", Hollow())
            patch.setattr(imagenet_utils, "obtain_input_shape", obtain_input_shape)
            patch.setattr(imagenet_utils.file_utils, "get_file", get_file)
            size = facts.image_size
            with pytest.raises(Fetched):
                getattr(keras.applications, facts.application)(
                    weights="imagenet", include_top=include_top, input_shape=(size, size, 3)
                )
        return files[0], sizes

    return ask


def test_every_keras_application_is_in_the_catalogue() -> None:
    functions = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {facts.application for facts in APPLICATIONS} == functions


@pytest.mark.parametrize("facts", APPLICATIONS, ids=lambda facts: facts.name)
def test_files_hashes_and_sizes_are_those_of_keras(facts: ModelFacts, would_fetch: Any) -> None:
    without_top, sizes = would_fetch(facts, include_top=False)
    with_top, _ = would_fetch(facts, include_top=True)
    assert facts.without_top == without_top
    assert facts.with_top == with_top
    if "MobileNetV3" in facts.application:  # has no default, and refuses what is below 32 by itself
        sizes = {"default": 224, "min": 32}
    assert sizes == {"default": facts.image_size, "min": facts.min_image_size}


@pytest.mark.parametrize("facts", APPLICATIONS, ids=lambda facts: facts.name)
def test_preprocessing_is_that_of_keras(facts: ModelFacts) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 2, 3)).astype(np.float32)
    found = module_of(facts).preprocess_input(pixels.copy())
    if facts.preprocessing == "none":
        np.testing.assert_array_equal(found, pixels)
    else:
        expected = imagenet_utils.preprocess_input(pixels.copy(), mode=facts.preprocessing)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("facts", [f for f in APPLICATIONS if f.parameters < 9e6], ids=lambda facts: facts.name)
def test_parameters_are_those_of_keras(facts: ModelFacts) -> None:
    application = getattr(keras.applications, facts.application)
    shape = (facts.image_size, facts.image_size, 3)  # NASNet of an open size is another network
    with keras.StatelessScope(initialize_variables=False):  # shapes without memory: the largest has 1.4 GB of weights
        counts = [application(weights=None, include_top=t, input_shape=shape).count_params() for t in (False, True)]
    assert counts == [facts.parameters, facts.parameters_with_top]


def test_reading_the_catalogue_imports_neither_keras_nor_numpy() -> None:
    code = "import sys; from imgclf.models import catalog; print({'keras', 'numpy', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("spelling", ["mobilenetv2", "MobileNetV2", "mobilenet-v2", "mobilenet_v2", "MOBILENET V2"])
def test_capitals_and_dashes_do_not_matter(spelling: str) -> None:
    assert catalog.find(spelling) is MODELS["mobilenetv2"]


def test_names_stay_apart_without_their_dashes() -> None:
    assert all(catalog.find(name.replace("-", "")).name == name for name in MODELS)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean resnet50"):
        catalog.find("resnet5")
    with pytest.raises(UsageError, match="expected the name of a model, found 'zzz'"):
        catalog.find("zzz")


def test_weights_take_four_bytes_a_parameter() -> None:
    assert MODELS["mobilenetv2"].weights_mb == pytest.approx(9.03, abs=0.01)
    assert MODELS["small-cnn"].weights_mb is None
