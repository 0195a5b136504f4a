"""How long it takes to know what is there: a large folder into a split manifest with hashes, and a large manifest back
into memory. Beside each, the least that any program must do for it.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/reading.py [--data FOLDER] [--rows N] [--repeats N]

Without --data, Tiny-ImageNet (109,450 files) is unzipped first, which takes a while and 600 MB.
"""

import argparse
import csv
import hashlib
import sys
import tempfile
from pathlib import Path

from processes import IMGCLF, measure, show, unzip, verdict

from imgclf.data.dataset import COLUMNS

FOLDER_S, MANIFEST_S, MANIFEST_MIB = 60, 10, 1024

HASH_ALL = """
import hashlib, os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            hashlib.sha256(file.read()).hexdigest()
"""

READ_ROWS = """
import csv, sys
with open(sys.argv[1], newline="") as file:
    rows = list(csv.reader(file))
"""

READ_MANIFEST = """
import sys
from pathlib import Path
from imgclf.data.dataset import read_manifest
assert len(read_manifest(Path(sys.argv[1]), Path())) == int(sys.argv[2])
"""


def write_manifest(path: Path, rows: int) -> None:
    """A manifest of so many images in 1,000 classes."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in range(rows):
            name, sha256 = f"class {row % 1000:03}", hashlib.sha256(str(row).encode()).hexdigest()
            writer.writerow((f"{name}/{row:07}.jpg", name, "train", "", sha256, 640, 480, "JPEG"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = {"XDG_CACHE_HOME": str(folder / "cache")}
        data = options.data or unzip("tiny-imagenet", folder)
        table = folder / "table.csv"
        write_manifest(table, options.rows)
        python = [sys.executable, "-c"]
        sides = {
            "imgclf ingest: folder -> manifest": lambda n: [*IMGCLF, "ingest", data, "-q", "-o", folder / f"{n}.csv"],
            "os.walk and SHA-256 alone": lambda n: [*python, HASH_ALL, data],
            "read_manifest": lambda n: [*python, READ_MANIFEST, table, options.rows],
            "csv.reader into a list alone": lambda n: [*python, READ_ROWS, table],
        }
        costs = {name: [] for name in sides}
        for repeat in range(options.repeats):
            for name, command in sides.items():
                costs[name].append(measure(command(repeat), env))
        reading, _, manifest, _ = (show(name, side) for name, side in costs.items())
    met = [
        verdict("folder -> split manifest with hashes", reading.seconds, FOLDER_S, " s"),
        verdict(f"manifest of {options.rows:,} rows", manifest.seconds, MANIFEST_S, " s"),
        verdict(f"manifest of {options.rows:,} rows", manifest.peak_mib, MANIFEST_MIB, " MiB"),
    ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
