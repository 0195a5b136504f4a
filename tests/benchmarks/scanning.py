"""How fast the scan is (hash, header, decode check, statistics and thumbnail, in one pass), and a second one of
the same folder; Pillow alone, by as many threads, opens and decodes the same files.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/scanning.py [--data DIR] [--repeats N]
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from processes import unzip, verdict

from imgclf import environment
from imgclf.data import collection, scan_cache

SHARE = 0.8
TIMES_FASTER = 20


def pillow(path: Path) -> None:
    """What cannot be left out of a decode check."""
    with Image.open(path) as image:
        image.load()


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Print both sides and exit with 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; by default the photographs of ants-bees")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cores = environment.cpu_count()
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or unzip("ants-bees", Path(temporary))
        cache = Path(temporary) / "scans"
        paths = collection.collect(data).paths

        def scan() -> None:
            with scan_cache.Scanner(folder=cache) as scanner:
                scanner.records(collection.collect(data, scanner=scanner))

        def decode() -> None:
            with ThreadPoolExecutor(cores) as pool:
                for _ in pool.map(pillow, paths, chunksize=16):
                    pass

        time.sleep(2)  # files younger than that are hashed again, to be sure
        sides: dict[str, list[float]] = {"first scan": [], "second scan": [], "Pillow alone": []}
        for _ in range(options.repeats):
            shutil.rmtree(cache, ignore_errors=True)
            sides["Pillow alone"].append(seconds(decode))
            sides["first scan"].append(seconds(scan))
            sides["second scan"].append(seconds(scan))
    print(f"{len(paths)} images on {cores} cores")
    for name, found in sides.items():
        middle = statistics.median(found)
        print(f"{name:14} median {middle:7.3f} s   best {min(found):7.3f} s   {len(paths) / middle:9,.0f} images/s")
    first, second, alone = (statistics.median(found) for found in sides.values())
    met = verdict("share of Pillow's rate", alone / first, SHARE, "", at_least=True)
    met &= verdict("second scan, times faster", first / second, TIMES_FASTER, "", at_least=True)
    sys.exit(not met)


if __name__ == "__main__":
    main()
