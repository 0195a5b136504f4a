"""Do images that transfer is measured on stand among the pre-training images? A near-duplicate search of all pairs.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/contamination.py [--sheet pairs.png]

Every image becomes its grey 8 x 8 thumbnail with mean 0 and length 1, evaluation images four times: whole and as their
central square, each also mirrored, since nobody knows how the small copy was cut. The product of two thumbnails is
their correlation. For each image the 20 most alike are judged again: the correlation of 32 x 32 RGB thumbnails, the
best over both pictures being cropped by 0 or 4 % on each side. Over 0.9 a pair is reported; `--sheet` draws the most
alike pairs for the eye. The search is first tried on copies of pre-training images, enlarged, cropped by up to 5 % a
side and saved as JPEG of quality 40, of which it has to find at least 95 %.
"""

import argparse
import io
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from processes import unzip

from imgclf.data import images
from imgclf.data.readers import scan
from imgclf.errors import ImageError

CANDIDATES, NEAR = 20, 0.9


def views(image: Image.Image) -> Iterator[Image.Image]:
    """The whole image and its central square, each also mirrored."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    for view in (image, image.crop((left, top, left + side, top + side))):
        yield view
        yield view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def thumbnail(image: Image.Image, size: int, mode: str) -> np.ndarray:
    """Mean 0 and length 1: float32 (size * size * channels,)."""
    values = np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BOX), np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def decode(root: Path) -> Iterator[tuple[Path, Image.Image]]:
    """Every image below a folder that can be read."""

    def load(name: str) -> Image.Image | None:
        try:
            image = images.decode(root / name)
        except ImageError:
            return None
        image.thumbnail((512, 512))
        return image

    names = scan(root).files
    with ThreadPoolExecutor(2) as pool:
        for name, image in zip(names, pool.map(load, names), strict=True):
            if image:
                yield root / name, image


def crops(image: Image.Image) -> np.ndarray:
    """The image cropped by 0 or 4 % on each side, as thumbnails: float32 (16, 3072)."""
    width, height = image.size
    boxes = itertools.product((0, 0.04 * width), (0, 0.04 * height), (width, 0.96 * width), (height, 0.96 * height))
    return np.stack([thumbnail(image.resize((32, 32), Image.Resampling.BOX, box), 32, "RGB") for box in boxes])


def best_match(image: Image.Image, known: np.ndarray, paths: Sequence[Path]) -> tuple[float, Path]:
    """The most alike of the known images, whose grey thumbnails are `known` (m, 64), and the correlation."""
    alike = (np.stack([thumbnail(view, 8, "L") for view in views(image)]) @ known.T).max(axis=0)  # (m,)
    seen = np.concatenate([crops(view) for view in views(image)])  # (64, 3072)
    found = []
    for row in np.argpartition(alike, -CANDIDATES)[-CANDIDATES:]:
        with Image.open(paths[row]) as other:
            found.append((float((seen @ crops(other.convert("RGB")).T).max()), paths[row]))
    return max(found)


def planted_copy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Enlarged, cropped by up to 5 % a side, saved as JPEG of quality 40."""
    large = image.resize((300, 300), Image.Resampling.BICUBIC)
    left, top, right, bottom = rng.integers(0, 16, 4)
    file = io.BytesIO()
    large.crop((left, top, 300 - right, 300 - bottom)).save(file, "JPEG", quality=40)
    return Image.open(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="PNG with the 24 most alike pairs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths, thumbnails, planted = [], [], []
        rng = np.random.default_rng(0)
        for number, (path, image) in enumerate(decode(unzip("tiny-imagenet", folder))):
            paths.append(path)
            thumbnails.append(thumbnail(image, 8, "L"))
            if number % 500 == 0:
                planted.append((path, planted_copy(image, rng)))
        known = np.stack(thumbnails)
        print(f"{len(known):,} pre-training images")
        matches = [(best_match(copy, known, paths), path) for path, copy in planted]
        found = float(np.mean([match == path and value > NEAR for (value, match), path in matches]))
        print(f"planted copies found: {found:.1%} of {len(planted)}")
        pairs = []
        for name in ("ants-bees", "sign-digits"):
            own = [(*best_match(query, known, paths), path) for path, query in decode(unzip(name, folder))]
            near = [f"{path.relative_to(folder)} ~ {match.relative_to(folder)}" for v, match, path in own if v > NEAR]
            print(f"{name}: {len(near)} of {len(own):,} images near a pre-training image", *near, sep="\n  ")
            pairs += own
        if options.sheet:
            draw(sorted(pairs, reverse=True)[:24], options.sheet)
    if found < 0.95:
        sys.exit("the search is not sharp enough for its answer to count")


def draw(pairs: list[tuple[float, Path, Path]], target: Path) -> None:
    """Pairs side by side, four to a row, the evaluation image on the right."""
    sheet = Image.new("RGB", (4 * 270, 6 * 135), "white")
    for place, (_, *both) in enumerate(pairs):
        for side, path in enumerate(both):
            with Image.open(path) as image:
                small = image.convert("RGB").resize((128, 128))
            sheet.paste(small, (place % 4 * 270 + side * 130, place // 4 * 135))
    sheet.save(target)


if __name__ == "__main__":
    main()
