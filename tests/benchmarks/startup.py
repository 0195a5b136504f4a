"""How fast `imgclf --help` and a cold `imgclf predict` on one JPEG are, beside a bare script on the same model.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/startup.py [--run RUN] [--repeats N]

The bare script does what no such program can do without: Typer, Rich, Pillow and LiteRT, one image, one line.
Without --run, a short training with default settings makes the model first.
"""

import argparse
import compileall
import sys
import tempfile
from pathlib import Path

from processes import IMGCLF, measure, show, unzip, verdict

import imgclf

HELP_S, PREDICT_S, PREDICT_MIB = 0.25, 0.3, 110

BARE = """
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from rich.console import Console


def main(run: Path, image: Path) -> None:
    facts = json.loads((run / "artifact.json").read_text())
    size = facts["image_size"]
    pixels = np.asarray(Image.open(image).convert("RGB").resize((size, size)), np.float32)[None]
    interpreter = Interpreter(str(run / "model.tflite"), num_threads=2)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    answers = [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]
    probabilities = next(answer for answer in answers if answer.shape == (len(facts["labels"]),))
    Console().print(facts["labels"][int(probabilities.argmax())], float(probabilities.max()))


typer.run(main)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    compileall.compile_dir(Path(imgclf.__file__).parent, quiet=1)  # as pip does when it installs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = {"XDG_CACHE_HOME": str(folder / "cache")}
        data = unzip("ants-bees", folder)
        image = min((data / "val" / "bees").glob("*.jpg"))
        run = options.run
        if run is None:
            run = folder / "run"
            measure([*IMGCLF, "train", data, "-o", run, "--epochs", "1", "--export", "litert"], env)
        bare = folder / "bare.py"
        bare.write_text(BARE)
        sides = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "imgclf --help": [*IMGCLF, "--help"],
            "imgclf predict RUN one.jpg": [*IMGCLF, "predict", run, image],
            "bare script: Typer, Rich, Pillow, LiteRT": [sys.executable, bare, run, image],
        }
        for command in sides.values():  # once for the file cache and the compiled modules
            measure(command, env)
        costs = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, command in sides.items():
                costs[name].append(measure(command, env))
    _, usage, ours, theirs = (show(name, side) for name, side in costs.items())
    print(f"imgclf predict takes {ours.seconds / theirs.seconds:.2f} times the bare script's time")
    print(f"imgclf predict takes {ours.peak_mib / theirs.peak_mib:.2f} times the bare script's memory")
    met = [
        verdict("imgclf --help", usage.seconds, HELP_S, " s"),
        verdict("imgclf predict", ours.seconds, PREDICT_S, " s"),
        verdict("imgclf predict", ours.peak_mib, PREDICT_MIB, " MiB"),
    ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
