"""Compute the features of a frozen backbone once for each image, and cache them.

On a processor there are two paths to the same features: Keras, which traces the network first, and LiteRT, for which
the network is converted first. Measured on 2 cores, one against the other in one process: MobileNetV2 at 224 px 106
images/s under Keras and 282 under LiteRT, 2.7 times as many, after a conversion of 1.0 s, tracing included; a residual
network of regular convolutions at 96 px 191 under Keras and 170 under LiteRT. So regular convolutions always go through
Keras, and depthwise ones through LiteRT when there is enough to do, or when the converted network is in the cache from
an earlier run. Both agree to 1e-5 of the largest feature.
"""

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np

from imgclf import environment
from imgclf.data import cache as caches
from imgclf.data import images, loading
from imgclf.data.dataset import Dataset
from imgclf.errors import UsageError
from imgclf.models import graph
from imgclf.training import augmentation, devices, loop
from imgclf.training.progress import OnProgress
from imgclf.training.recipe import Recipe

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

log = logging.getLogger("imgclf")

VERSION = 1
"""Changes with anything here that changes features."""

CONVERTING_S = 1.0
"""What converting costs; Keras's own tracing costs about a third of it."""

KERAS_DEPTHWISE_PER_S = 20e9
"""Multiply-adds of a depthwise network under Keras: 37 to 106 images/s of 0.3e9, as busy as the two cores were."""

LITERT_GAIN = 3.0

_LITERT_BATCH = 2

Extract = Callable[[np.ndarray], np.ndarray]


def frozen(
    model: keras.Model,
    dataset: Dataset,
    pixels: loading.Pixels,
    recipe: Recipe,
    *,
    augmentations: int = 0,
    on_progress: OnProgress | None = None,
) -> np.ndarray:
    """Return the embeddings of a dataset's images and of augmentations of them, computed once, found by later runs.

    They are kept by content, size, decoding rules, weights, graph, precision, and, for augmentations, policy and seed.

    Args:
        model: a classifier as `models.classifier.build` makes it.
        dataset: what `loading.decode` returned, and `pixels` with it.
        augmentations: how many augmentations of each image come after the original, drawn by the recipe's policy.

    Returns:
        float32 (1 + augmentations, n, d).
    """
    hashes, first, row_of = np.unique(loading.content_hashes(dataset), return_index=True, return_inverse=True)
    network = fingerprint(model)
    store = caches.Store.of(recipe.settings.cache, recipe.settings.cache_limit_gb)
    shape = (len(hashes), model.get_layer("embedding").output.shape[-1])
    contents = pixels.take(first)
    found: list[np.ndarray] = []
    extract: Extract | None = None
    for variant in range(1 + augmentations):
        name = entry_name("features", recipe, network, variant, hashes)
        rows = store.read(name, shape, np.float32) if store else None
        if rows is None:
            extract = extract or _extractor(
                model, len(contents) * (1 + augmentations - variant), recipe, store, network
            )
            seen = Variant(contents, recipe, variant) if variant else contents
            rows = _through(extract, seen, recipe.batch_size, shape[1], _phase(variant, augmentations), on_progress)
            no_room = store.keep(name, rows) if store else None
            if no_room:
                log.warning("features are not kept for later runs (%s)", no_room)
        elif on_progress:
            on_progress(_phase(variant, augmentations), len(contents), len(contents))
        found.append(np.asarray(rows)[row_of])
    return np.stack(found)


def fingerprint(model: keras.Model) -> str:
    """SHA-256 over the graph and the weights from the pixels to the embedding."""
    names = [layer.name for layer in model.layers]
    return graph.fingerprint(model.layers[: names.index("embedding") + 1])


def entry_name(
    kind: str, recipe: Recipe, network: str, variant: int, hashes: np.ndarray, more: Sequence[str] = ()
) -> str:
    """Return the name of a cache entry: all that decides about what a network computes from images or augmentations."""
    facts: list[object] = [
        kind,
        VERSION,
        images.fingerprint(),
        recipe.image_size,
        recipe.settings.decoding.to_dict(),
        network,
        *more,
    ]
    if recipe.precision == "bf16":
        facts.append(recipe.precision)
    if variant:
        facts.append([variant, recipe.seed, repr(recipe.policy), augmentation.VERSION])
    return caches.digest(facts, hashes)


class Variant:
    """A random augmentation of images, the same in every run."""

    def __init__(self, contents: loading.Pixels, recipe: Recipe, variant: int) -> None:
        self._contents, self._seed, self._variant = contents, recipe.seed, variant
        self._augment = augmentation.Augment(recipe.policy, contents.shape[1])

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, index: slice) -> np.ndarray:
        rng = np.random.default_rng((self._seed, self._variant, index.start))
        return self._augment(self._contents[index], rng)


def _phase(variant: int, augmentations: int) -> str:
    return f"features, augmentation {variant} of {augmentations}" if variant else "features"


def _through(
    extract: Extract,
    pixels: np.ndarray | loading.Pixels | Variant,
    batch_size: int,
    width: int,
    phase: str,
    on_progress: OnProgress | None,
) -> np.ndarray:
    rows = np.empty((len(pixels), width), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = pixels[start : start + batch_size]
        rows[start : start + len(batch)] = extract(batch)
        if on_progress:
            on_progress(phase, start + len(batch), len(pixels))
    return rows


def _extractor(model: keras.Model, count: int, recipe: Recipe, store: caches.Store | None, network: str) -> Extract:
    """Return the path that is quickest for this many images, in float32 unless asked otherwise."""
    if recipe.precision == "bf16":
        return _openvino(model)
    if recipe.settings.deterministic or not _may_convert(model):
        return _keras(model, recipe.batch_size)
    name = caches.digest(["litert", VERSION, environment.versions().get("tensorflow"), recipe.image_size, network])
    converted = store.read(name, None, np.uint8) if store else None
    keras_s = count * graph.multiply_adds(model) / KERAS_DEPTHWISE_PER_S
    if converted is None and keras_s * (1 - 1 / LITERT_GAIN) < CONVERTING_S:
        return _keras(model, recipe.batch_size)
    if converted is None:
        converted = _convert(keras.Model(model.input, model.get_layer("embedding").output))
        if store:
            store.keep(name, converted)
    return _litert(converted)


def gain(model: keras.Model, recipe: Recipe) -> float:
    """How many times as fast as Keras's forward passes the features of many images are computed."""
    quick = recipe.precision == "float32" and not recipe.settings.deterministic and _may_convert(model)
    return LITERT_GAIN if quick else 1.0


def quick(part: keras.Model, recipe: Recipe, images: int) -> Extract | None:
    """Return what computes the output of a lower part of a network faster than Keras; None if nothing does."""
    keras_s = images * graph.multiply_adds(part) / KERAS_DEPTHWISE_PER_S
    if gain(part, recipe) == 1 or keras_s * (1 - 1 / LITERT_GAIN) < CONVERTING_S:
        return None
    return _litert(_convert(part))


def _may_convert(model: keras.Model) -> bool:
    return (
        keras.backend.backend() == "tensorflow"
        and devices.on_cpu()
        and environment.has_package("ai_edge_litert")
        and graph.is_depthwise(model)
    )


def _keras(model: keras.Model, batch_size: int) -> Extract:
    extractor = keras.Model(model.input, model.get_layer("embedding").output)
    extractor.compile(jit_compile=devices.jit_compile())
    return lambda pixels: loop.predict(extractor, pixels, batch_size)


def _convert(model: keras.Model) -> np.ndarray:
    """Return a network with one output as a `.tflite` file, uint8 (bytes,)."""
    from imgclf.exporting import litert, savedmodel  # TensorFlow's own formats, of no use to other backends

    graph = savedmodel.trace(model, constant=True)
    return np.frombuffer(litert.convert_unnamed(graph), np.uint8)


def _litert(content: np.ndarray) -> Extract:
    from ai_edge_litert.interpreter import Interpreter

    with environment.silence_stderr_fd():
        interpreter = Interpreter(model_content=content.tobytes(), num_threads=environment.cpu_count())
        interpreter.allocate_tensors()
    taken, given = (
        details[0]["index"] for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )

    def answer(pixels: np.ndarray) -> np.ndarray:
        if interpreter.get_input_details()[0]["shape"][0] != len(pixels):
            interpreter.resize_tensor_input(taken, pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(taken, pixels.astype(np.float32))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(given))

    def extract(pixels: np.ndarray) -> np.ndarray:
        parts = np.array_split(pixels, max(1, math.ceil(len(pixels) / _LITERT_BATCH)))
        return np.concatenate([answer(part) for part in parts])

    return extract


def _openvino(model: keras.Model) -> Extract:
    """OpenVINO in bfloat16.

    Raises:
        MissingError: if OpenVINO is not installed.
        UsageError: if this processor or backend has no such arithmetic.
    """
    environment.require("openvino", "imgclf[openvino]")
    import openvino

    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in able or keras.backend.backend() != "tensorflow":
        raise UsageError(
            "--precision bf16: expected a processor with bfloat16 arithmetic and KERAS_BACKEND=tensorflow, found "
            f"{', '.join(able)} and {keras.backend.backend()}. Leave the option out."
        )
    from imgclf.exporting import savedmodel

    graph = savedmodel.trace(keras.Model(model.input, {"embedding": model.get_layer("embedding").output}))
    with environment.silence_stderr_fd(), savedmodel.frozen(graph) as source:
        converted = openvino.convert_model(source)
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": environment.cpu_count()}
    compiled = core.compile_model(converted, "CPU", settings)
    return lambda pixels: compiled([pixels.astype(np.float32)])["embedding"]
