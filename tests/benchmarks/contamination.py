"""Do images that transfer is measured on stand among the pre-training images? A near-duplicate search of all pairs.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/contamination.py [--sheet pairs.png]

Every image becomes its grey 16 x 16 thumbnail with mean 0 and length 1, evaluation images four times: whole and as
their central square, each also mirrored, since nobody knows how the small copy was cut. The product of two thumbnails
is their correlation. A pair over 0.9 is judged again by the correlation of 32 x 32 RGB thumbnails, reported over 0.8;
`--sheet` draws the most alike pairs for the eye. The search is first tried on copies of pre-training images, enlarged,
cropped by up to 5 % a side and saved as JPEG of quality 40, of which it has to find at least 95 %.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from processes import unzip

from imgclf.data import images
from imgclf.data.readers import scan
from imgclf.errors import ImageError

COARSE, FINE = 0.9, 0.8
PLANTED = 200


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


def best_matches(queries: list[Image.Image], known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each query the row of the most alike thumbnail of `known` (m, 256), and the correlation."""
    rows, values = [], []
    for image in queries:
        products = np.stack([thumbnail(view, 16, "L") for view in views(image)]) @ known.T  # (4, m)
        best = products.max(axis=0)
        rows.append(int(best.argmax()))
        values.append(float(best.max()))
    return np.array(rows), np.array(values)


def colour_correlation(one: Image.Image, other: Image.Image) -> float:
    """The best over the views of `one`."""
    reference = thumbnail(other, 32, "RGB")
    return max(float(thumbnail(view, 32, "RGB") @ reference) for view in views(one))


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
        known_paths, thumbnails, samples = [], [], []
        rng = np.random.default_rng(0)
        for number, (path, image) in enumerate(decode(unzip("tiny-imagenet", folder))):
            known_paths.append(path)
            thumbnails.append(thumbnail(image, 16, "L"))
            if number % 500 == 0 and len(samples) < PLANTED:
                samples.append((number, planted_copy(image, rng)))
        known = np.stack(thumbnails)
        print(f"{len(known):,} pre-training images")
        rows, values = best_matches([copy for _, copy in samples], known)
        found = np.mean([(r == n) & (v > COARSE) for r, v, (n, _) in zip(rows, values, samples, strict=True)])
        print(f"planted copies found: {found:.1%} of {len(samples)}")
        pairs = []
        for name in ("ants-bees", "sign-digits"):
            paths, queries = zip(*decode(unzip(name, folder)), strict=True)
            rows, values = best_matches(list(queries), known)
            near = []
            for path, query, row, value in zip(paths, queries, rows, values, strict=True):
                with Image.open(known_paths[row]) as other:
                    fine = colour_correlation(query, other.convert("RGB"))
                pairs.append((value, fine, path, known_paths[row]))
                if value > COARSE and fine > FINE:
                    near.append(f"{path.relative_to(folder)} ~ {known_paths[row].relative_to(folder)}")
            print(f"{name}: {len(near)} of {len(queries):,} images near a pre-training image", *near, sep="\n  ")
        if options.sheet:
            draw(sorted(pairs, reverse=True)[:24], options.sheet)
    if found < 0.95:
        sys.exit("the search is not sharp enough for its answer to count")


def draw(pairs: list[tuple[float, float, Path, Path]], target: Path) -> None:
    """Pairs side by side, four to a row, the evaluation image on the left."""
    sheet = Image.new("RGB", (4 * 270, 6 * 135), "white")
    for place, (_, _, *paths) in enumerate(pairs):
        for side, path in enumerate(paths):
            with Image.open(path) as image:
                small = image.convert("RGB").resize((128, 128))
            sheet.paste(small, (place % 4 * 270 + side * 130, place // 4 * 135))
    sheet.save(target)


if __name__ == "__main__":
    main()
