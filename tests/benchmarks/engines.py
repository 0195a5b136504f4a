"""Which engine is quickest for how many photographs: what `--engine auto` rests on.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/engines.py [--run RUN] [--count 1000] [--repeats 3]

Whole processes of `imgclf predict`, on one photograph and on many, give each engine's start and its time an image;
where two such lines cross, the quicker stream begins to pay for its slower start. Without --run, MobileNetV2 at 224 px
is made first, with random weights, which cost what trained ones do.
"""

import argparse
import tempfile
from pathlib import Path

from prediction import made_run, photographs
from processes import IMGCLF, measure, median

from imgclf.prediction import artifact
from imgclf.prediction.loading import MANY
from imgclf.prediction.runtimes import RUNTIMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = {"XDG_CACHE_HOME": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        data, output = photographs(folder, options.count), folder / "out.csv"
        run = options.run or made_run(folder, env)
        missing = {"onnx", "openvino"} - {file.format for file in artifact.read(run).files.values()}
        if missing:
            measure([*IMGCLF, "export", run, "--format", ",".join(sorted(missing))], env)
        facts = artifact.read(run)
        here = [engine for engine in RUNTIMES if any(file.format == engine for file in facts.files.values())]
        one = min((data / "all").iterdir())
        seconds: dict[tuple[str, Path], list] = {(engine, what): [] for engine in here for what in (one, data)}
        for _ in range(options.repeats):
            for (engine, what), costs in seconds.items():
                command = [*IMGCLF, "predict", run, what, "-o", output, "--engine", engine, "--quiet"]
                costs.append(measure(command, env))
                output.unlink()
        print(f"{facts.backbone} at {facts.image_size} px; `--engine auto` changes from {MANY} images on")
        lines = {}
        for engine in here:
            start, whole = (median(seconds[engine, what]).seconds for what in (one, data))
            each = (whole - start) / (options.count - 1)
            lines[engine] = (start, each)
            first, rate = lines["litert"]
            crossing = (start - first) / (rate - each) if each < rate else float("inf")
            paid = "" if engine == "litert" else f"   quicker than litert from {crossing:,.0f} images on"
            print(f"{engine:10} one image {start:6.2f} s, then {1 / each:6.0f} images/s{paid}")


if __name__ == "__main__":
    main()
