"""How fast a manifest of a million rows is read, and in how much memory, beside csv.reader alone.

    python tests/benchmarks/manifest.py [--rows N] [--repeats N]

Each side is a process of its own, so that its peak memory is its own. Exit code 1 if a bound is missed.
"""

import argparse
import hashlib
import itertools
import sys
import tempfile
from pathlib import Path

from processes import Cost, measure, show, verdict

MOST_SECONDS, MOST_MIB = 10.0, 1024.0

ALONE = "import csv, sys; print(sum(1 for row in csv.reader(open(sys.argv[1], newline=''))))"
READ = (
    "import sys; from pathlib import Path; from imgclf.data import dataset; "
    "print(len(dataset.read_manifest(Path(sys.argv[1]), Path())))"
)


def write(path: Path, rows: int) -> None:
    """A manifest as that of ImageNet would be: a thousand classes, long names, all hashes different."""
    sides = itertools.cycle(["train"] * 7 + ["validation", "test", "train"])
    with path.open("w", encoding="utf-8") as file:
        file.write("path,label,split,group,sha256,width,height,format\n")
        for row, side in zip(range(rows), sides, strict=False):
            name, sha256 = f"n{row % 1000:08d}", hashlib.sha256(str(row).encode()).hexdigest()
            size = f"{200 + row % 300},{200 + row % 400}"
            file.write(f"train/{name}/{name}_{row}.JPEG,{name},{side},site {row % 50},{sha256},{size},JPEG\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        write(path, options.rows)
        sides = {"csv.reader alone": ALONE, "imgclf.data.dataset.read_manifest": READ}
        costs: dict[str, list[Cost]] = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, code in sides.items():
                costs[name].append(measure([sys.executable, "-c", code, path]))
    print(f"{options.rows:,} rows, {options.repeats} runs of each side in turn, whole processes")
    middle = [show(name, found) for name, found in costs.items()][-1]
    met = [
        verdict("reading", middle.seconds, MOST_SECONDS, " s"),
        verdict("peak memory", middle.peak_mib, MOST_MIB, " MiB"),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
