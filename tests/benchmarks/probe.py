"""How much faster probe training is than the usual Keras script, whole process against whole process, and how long the
same probe takes once more, when its features are in the cache.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/probe.py [--repeats N]

Both sides take 1,000 photographs of sign-digits, 80 of each class to train on and 20 to validate, with MobileNetV2 at
224 px, a frozen backbone whose random weights come from one file, float32, and no export.
imgclf starts each time with an empty cache; the second probe finds that of the first.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from processes import IMGCLF, measure, show, unzip, verdict

SPEEDUP = 10
AGAIN_S = 8.0

WEIGHTS = """
import sys

import keras

keras.utils.set_random_seed(0)
keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None).save_weights(sys.argv[1])
"""

KERAS = """
import sys

import keras

data, weights = sys.argv[1:]
train, validation = (
    keras.utils.image_dataset_from_directory(f"{data}/{part}", image_size=(224, 224), batch_size=32, seed=0)
    for part in ("train", "val")
)
backbone = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
backbone.load_weights(weights)
backbone.trainable = False

inputs = keras.Input((224, 224, 3))
x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
x = backbone(x, training=False)
x = keras.layers.GlobalAveragePooling2D()(x)
x = keras.layers.Dropout(0.2)(x)
model = keras.Model(inputs, keras.layers.Dense(len(train.class_names), activation="softmax")(x))
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train.prefetch(2), validation_data=validation.prefetch(2), epochs=10, verbose=2)
model.save("model.keras")
"""


def photographs(source: Path, folder: Path) -> Path:
    """The first 100 photographs of each class, dealt out to `train` and `val`."""
    classes = sorted({path.parent for path in source.rglob("*.JPG") if not path.name.startswith(".")})
    for name in classes:
        for number, path in enumerate(sorted(name.glob("*.JPG"))[:100]):
            side = folder / ("val" if number % 5 == 4 else "train") / name.name
            side.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, side)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.chdir(folder)
        data = photographs(unzip("sign-digits", folder), folder / "thousand")
        weights = folder / "mobilenetv2.weights.h5"
        for name, source in (("weights.py", WEIGHTS), ("usual.py", KERAS)):
            (folder / name).write_text(source)
        measure([sys.executable, "weights.py", weights])
        usual = [sys.executable, "usual.py", data, weights]
        train = [*IMGCLF, "train", data, "-o", "run", "--backbone", "mobilenetv2", "--weights", weights]
        train += ["--method", "probe", "--image-size", "224", "--val-as", "validation", "--export", "none"]
        ours, again, theirs = [], [], []
        for _ in range(options.repeats):
            for used in ("cache", "run"):
                shutil.rmtree(folder / used, ignore_errors=True)
            ours.append(measure(train, {"XDG_CACHE_HOME": str(folder / "cache")}))
            shutil.rmtree(folder / "run")
            again.append(measure(train, {"XDG_CACHE_HOME": str(folder / "cache")}))
            theirs.append(measure(usual))
    ours_median = show("imgclf train --method probe", ours)
    again_median = show("the same, features in the cache", again)
    theirs_median = show("usual Keras script, 10 epochs", theirs)
    speedup = theirs_median.seconds / ours_median.seconds
    met = verdict("imgclf is faster by a factor of", speedup, SPEEDUP, "", at_least=True)
    met &= verdict("the second probe takes", again_median.seconds, AGAIN_S, " s")
    sys.exit(not met)


if __name__ == "__main__":
    main()
