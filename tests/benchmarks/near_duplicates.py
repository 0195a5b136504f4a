"""Near-duplicates among many images: planted copies, how many are found, how long the search takes, and how it grows.

Copies are re-encoded (JPEG quality 40), resized (by 0.5 to 2), cropped (up to 5 % a side), or all of it. The search is
timed on all images and on a quarter of them; beside it stands what comparing every pair would take, from a sample.

    python tests/benchmarks/near_duplicates.py DATA [--limit N] [--planted 2000] [--sheet FILE]

DATA is a folder of class folders, such as Tiny-ImageNet. With --sheet, 50 of the pairs that were not planted are drawn
into a PNG file, to be judged by eye.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from findings import cropped, encoded, scaled
from PIL import Image, ImageDraw
from processes import verdict

from imgclf.data import collection, images, scan_cache, similar, statistics
from imgclf.settings import DataConfig, Thresholds

COPIES = {
    "quality 40": lambda image, rng: encoded(image, 40),
    "scaled": lambda image, rng: encoded(scaled(image, rng.uniform(0.5, 2))),
    "cropped": lambda image, rng: encoded(cropped(image, rng)),
    "all of it": lambda image, rng: encoded(scaled(cropped(image, rng), rng.uniform(0.5, 2)), 40),
}
SECONDS, RECALL = 120, 0.95


def search(thumbs: np.ndarray) -> tuple[similar.Pairs, float]:
    """The pairs, and the seconds it took."""
    begin = time.perf_counter()
    pairs = similar.find(thumbs, Thresholds.near)
    return pairs, time.perf_counter() - begin


def draw(paths: list[Path], pairs: similar.Pairs, rows: list[int], file: Path) -> None:
    """Pairs side by side, with their likeness."""
    sheet = Image.new("RGB", (10 * 140, (len(rows) + 4) // 5 * 150), "white")
    pen = ImageDraw.Draw(sheet)
    for place, row in enumerate(rows):
        x, y = place % 5 * 280, place // 5 * 150
        for offset, member in enumerate((pairs.first[row], pairs.second[row])):
            sheet.paste(images.decode(paths[member]).resize((128, 128)), (x + offset * 130, y))
        pen.text((x, y + 130), f"{pairs.likeness[row]:.3f}", fill="black")
    sheet.save(file)


def main() -> None:
    """Plant, search, count; exit with 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--planted", type=int, default=2000)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, scan_cache.Scanner(folder=Path(temporary)) as scanner:
        dataset = collection.narrow(collection.collect(options.data, DataConfig()), limit=options.limit)
        thumbs = scanner.records(dataset)["thumb"]
        paths = dataset.paths
    rng = random.Random(0)
    planted, names, copies = [], [], []
    for number, row in enumerate(rng.sample(range(len(paths)), options.planted)):
        name = list(COPIES)[number % len(COPIES)]
        data = COPIES[name](images.decode(paths[row]), rng)
        with images.look(data, statistics.SIDE_PX) as (_, small):
            copies.append(statistics.tiles(small).thumb)
        planted.append((row, len(paths) + number))
        names.append(name)
    thumbs = np.concatenate([thumbs, np.stack(copies)])
    pairs, seconds = search(thumbs)
    quarter, quarter_s = search(thumbs[: len(thumbs) // 4])
    begin = time.perf_counter()
    similar.compare(thumbs[:4096], thumbs[4096:8192])
    exhaustive_s = (time.perf_counter() - begin) / min(4096, len(thumbs) - 4096) * len(thumbs) ** 2 / 2
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    for name in COPIES:
        mine = [pair for pair, kind in zip(planted, names, strict=True) if kind == name]
        print(f"{name:12} found {sum(pair in found for pair in mine):5} of {len(mine)}")
    others = np.flatnonzero(pairs.second < len(paths))
    largest = max(map(len, similar.groups(len(thumbs), pairs)), default=0)
    print(f"{len(others):,} pairs beside the planted ones; the largest group has {largest} of {len(thumbs):,} images")
    print(f"{len(thumbs):,} images in {seconds:.1f} s, a quarter of them in {quarter_s:.1f} s ({len(quarter):,} pairs)")
    print(f"comparing every pair finely would take {exhaustive_s / 3600:,.1f} hours")
    if options.sheet and len(others):
        rows = rng.sample(others.tolist(), min(50, len(others)))
        draw(paths, pairs, rows, options.sheet)
    met = verdict("search", seconds, SECONDS, " s")
    met &= verdict("recall", np.mean([pair in found for pair in planted]), RECALL, "", at_least=True)
    met &= verdict("times a quarter's time", seconds / quarter_s, 12, "")  # n ** 1.5 is 8, n ** 2 is 16
    sys.exit(not met)


if __name__ == "__main__":
    main()
