"""How fast `imgclf predict` is over many photographs, as a whole process, beside Keras's own way: `predict` fed by
`image_dataset_from_directory`. And how close that is to what the processor allows, which is one over the time that it
takes to decode one image and to run the model on it, both alone, on one core.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/prediction.py [--run RUN] [--count 2000] [--repeats 3] [--memory N]

Without --run, MobileNetV2 at 224 px is made first, with random weights, which cost what trained ones do. With --memory,
the memory after N predictions of small images is compared with that after 1,000 instead.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image
from processes import IMGCLF, Cost, measure, show, unzip, verdict

from imgclf import environment, prediction, runs
from imgclf.data import images
from imgclf.prediction import artifact
from imgclf.prediction.runtimes import LiteRTRuntime

FLOAT32, INT8, SHARE, GROWTH = 2.0, 3.5, 0.85, 1.1

KERAS = """
import sys
import keras
model = keras.saving.load_model(sys.argv[1], compile=False)
size = model.input_shape[1]
photographs = keras.utils.image_dataset_from_directory(
    sys.argv[2], labels=None, shuffle=False, image_size=(size, size), batch_size=32, verbose=False
)
print(len(model.predict(photographs, verbose=0)))
"""


def photographs(folder: Path, count: int) -> Path:
    """So many files: the photographs of ants-bees, over and over."""
    sources = sorted(unzip("ants-bees", folder / "zip").rglob("*.jpg"))
    place = folder / "photographs" / "all"
    place.mkdir(parents=True)
    for number, source in enumerate(islice(cycle(sources), count)):
        os.link(source, place / f"{number:06}.jpg")
    return place.parent


def made_run(folder: Path, env: dict[str, str]) -> Path:
    options = ("--backbone", "mobilenetv2", "--weights", "none", "--method", "probe", "--image-size", "224")
    run = folder / "run"
    measure([*IMGCLF, "train", folder / "zip" / "ants-bees", "-o", run, *options, "--limit", 60], env)
    return run


def add_int8(run: Path) -> None:
    """The int8 model without its proof: answers of random weights are too close to each other to be compared."""
    from imgclf.exporting import artifacts, litert, quality, savedmodel

    found, facts = runs.find(run), artifact.read(run)
    pixels, graph = quality.calibration(found, facts), savedmodel.trace(artifacts.load_model(found, facts))
    path = run / artifacts.FILES["litert-int8"]
    path.write_bytes(litert.convert(graph, facts.labels, precision="int8", calibration=pixels))
    file = artifact.File("litert", *artifact.hash_tree(path), "int8")
    artifact.write(run, replace(facts, files={**facts.files, path.name: file}))


def alone(run: Path, name: str, data: Path, count: int = 150) -> tuple[float, float]:
    """Seconds of processor time for one image, on one core: to decode it, and to run the model on it."""
    classifier = prediction.load(run / name)
    files = sorted(data.rglob("*.jpg"))[:count]
    begin = time.process_time()
    pixels = [images.load(file, classifier.image_size, classifier.decoding) for file in files]
    decoded = time.process_time() - begin
    with_one_core = environment.cpu_count
    environment.cpu_count = lambda: 1
    try:
        runtime = LiteRTRuntime(run / name)
    finally:
        environment.cpu_count = with_one_core
    batches = [np.stack(pixels[start : start + 4]).astype(np.float32) for start in range(0, len(pixels) - 3, 4)]
    runtime.outputs(batches[0], ("probabilities",))
    begin = time.process_time()
    for batch in batches:
        runtime.outputs(batch, ("probabilities",))
    return decoded / len(files), (time.process_time() - begin) / (4 * len(batches))


def compare_memory(run: Path, folder: Path, count: int) -> bool:
    import psutil

    paths = []
    for number in range(100):
        paths.append(folder / f"{number}.jpg")
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(paths[-1])
    here, seen = psutil.Process(), {}
    for done, _ in enumerate(prediction.load(run).stream(islice(cycle(paths), count)), start=1):
        if done in (1000, count):
            seen[done] = here.memory_info().rss / 2**20
            print(f"after {done:7,} predictions {seen[done]:6.1f} MiB")
    return verdict("memory at the end, times that after 1,000", seen[count] / seen[1000], GROWTH, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="with model.tflite and model-int8.tflite")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = {"XDG_CACHE_HOME": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        data = photographs(folder, options.count)
        run = options.run or made_run(folder, env)
        if options.memory:
            sys.exit(not compare_memory(run, folder, options.memory))
        if not (run / "model-int8.tflite").exists():
            # in a process of its own: the peaks of those started below are not told below the memory of this one
            maker = multiprocessing.get_context("spawn").Process(target=add_int8, args=(run,))
            maker.start()
            maker.join()
        script, output = folder / "keras_side.py", folder / "out.csv"
        script.write_text(KERAS)
        predict = [*IMGCLF, "predict", run, data, "-o", output, "--engine", "litert", "--quiet"]
        sides = {
            "Keras predict, image_dataset_from_directory": [sys.executable, script, run / "model.keras", data],
            "imgclf predict, LiteRT float32": predict,
            "imgclf predict, LiteRT int8": [*predict, "--precision", "int8"],
        }
        costs: dict[str, list[Cost]] = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, command in sides.items():
                costs[name].append(measure(command, env))
                output.unlink(missing_ok=True)
        bounds = {}
        for name in ("model.tflite", "model-int8.tflite"):
            decode_s, model_s = (
                statistics.median(part) for part in zip(*(alone(run, name, data) for _ in range(3)), strict=True)
            )
            bounds[name] = environment.cpu_count() / (decode_s + model_s)
            each = f"decode {1e3 * decode_s:.2f} ms, model {1e3 * model_s:.2f} ms"
            print(f"{name}: one core needs {each}: at most {bounds[name]:.0f} images/s on {environment.cpu_count()}")
    medians = []
    for name, side in costs.items():
        medians.append(show(name, side))
        print(f"{'':44} {options.count / medians[-1].seconds:7.0f} images/s")
    theirs, ours, ours_int8 = (side.seconds for side in medians)
    met = [
        verdict("float32, times Keras's rate", theirs / ours, FLOAT32, "", at_least=True),
        verdict("int8, times Keras's rate", theirs / ours_int8, INT8, "", at_least=True),
        verdict("float32, share of the bound", options.count / ours / bounds["model.tflite"], SHARE, "", at_least=True),
        verdict("int8, share", options.count / ours_int8 / bounds["model-int8.tflite"], SHARE, "", at_least=True),
    ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
