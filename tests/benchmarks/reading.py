"""How long it takes to know what is there: a large folder into a split manifest with hashes. Beside it, the least that
any program must do for it. (The way back, from a manifest into memory, is in manifest.py.)

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/reading.py [--data FOLDER] [--repeats N]

Without --data, Tiny-ImageNet (109,450 files) is unzipped first, which takes a while and 600 MB.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from processes import IMGCLF, measure, show, unzip, verdict

MOST_SECONDS = 60

HASH_ALL = """
import hashlib, os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            hashlib.sha256(file.read()).hexdigest()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = {"XDG_CACHE_HOME": str(folder / "cache")}
        data = options.data or unzip("tiny-imagenet", folder)
        sides = {
            "imgclf ingest --quick": lambda n: [*IMGCLF, "ingest", data, "--quick", "-q", "-o", folder / f"{n}.csv"],
            "os.walk and SHA-256 alone": lambda n: [sys.executable, "-c", HASH_ALL, data],
        }
        costs = {name: [] for name in sides}
        for repeat in range(options.repeats):
            for name, command in sides.items():
                costs[name].append(measure(command(repeat), env))
        reading, _ = (show(name, side) for name, side in costs.items())
    sys.exit(not verdict("folder -> split manifest with hashes", reading.seconds, MOST_SECONDS, " s"))


if __name__ == "__main__":
    main()
