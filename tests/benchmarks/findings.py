"""How often the doctor is right: faults of each kind are planted among photographs, and what it names is counted.

Prints, for each kind, how many of the planted files were named, and how many of the others. The others are taken as
they are: some may rightly be named, such as a gray photograph.

    python tests/benchmarks/findings.py DATA [--clean 2000] [--planted 20] [--report FILE]

DATA is a folder of class folders of photographs, such as Tiny-ImageNet's training part.
"""

import argparse
import io
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFilter

from imgclf.data import collection, doctor, doctor_report, images, scan_cache
from imgclf.settings import DataConfig

Plant = Callable[[Image.Image, random.Random], bytes]


def encoded(image: Image.Image, quality: int = 90, **options: object) -> bytes:
    """A JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    """A PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """The image with sides `factor` times as long."""
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    """Without up to 5 % at each side."""
    left, top, right, bottom = (rng.uniform(0, 0.05) for _ in range(4))
    width, height = image.size
    return image.crop((left * width, top * height, width - right * width, height - bottom * height))


def broken_png(image: Image.Image, rng: random.Random) -> bytes:
    """With zeros somewhere in the pixels."""
    data = bytearray(png(image))
    place = rng.randrange(200, len(data) - 100)
    data[place : place + 40] = bytes(40)
    return bytes(data)


def turned(image: Image.Image, rng: random.Random) -> bytes:
    """With an orientation in its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice((2, 3, 4, 5, 6, 7, 8))
    return encoded(image, exif=exif)


def animation(image: Image.Image, rng: random.Random) -> bytes:
    """A GIF of three frames."""
    file = io.BytesIO()
    frames = [image.rotate(turn) for turn in (90, 180)]
    image.save(file, "GIF", save_all=True, append_images=frames)
    return file.getvalue()


def low_contrast(image: Image.Image, low: float, share: float) -> Image.Image:
    """Its values times `share`, above `low`."""
    return image.point(lambda value: low + value * share)


FAULTS: dict[str, Plant] = {
    "unreadable": broken_png,
    "empty": lambda image, rng: b"",
    "not-an-image": lambda image, rng: b"<html>404 Not Found</html>",
    "wrong-extension": lambda image, rng: png(image),
    "near-blank": lambda image, rng: encoded(low_contrast(image, rng.uniform(20, 220), 0.05)),
    "blurry": lambda image, rng: encoded(image.filter(ImageFilter.GaussianBlur(0.035 * max(image.size)))),
    "very-dark": lambda image, rng: encoded(low_contrast(image, 0, 0.15)),
    "very-bright": lambda image, rng: encoded(low_contrast(image, 217, 0.15)),
    "low-information": lambda image, rng: png(image.convert("L").quantize(4).convert("RGB")),
    "very-small": lambda image, rng: encoded(scaled(image, rng.uniform(8, 31) / min(image.size))),
    "size-outlier": lambda image, rng: encoded(scaled(image, rng.uniform(5, 12))),
    "odd-aspect": lambda image, rng: encoded(image.resize((image.width * 2, max(1, round(image.height / 1.8))))),
    "gray": lambda image, rng: encoded(image.convert("L").convert("RGB")),
    "turned": turned,
    "animated": animation,
    "duplicate": lambda image, rng: b"",  # a copy of the file, as it is
    "near-duplicate": lambda image, rng: encoded(scaled(cropped(image, rng), rng.uniform(0.5, 2)), 40),
    "conflict": lambda image, rng: b"",
}
OF_ANOTHER = ("duplicate", "near-duplicate", "conflict")


def plant(source: Path, folder: Path, clean: int, planted: int, rng: random.Random) -> dict[str, set[str]]:
    """Copy `clean` images into a folder and plant faults; the paths that have a fault, by kind."""
    classes = sorted(path.name for path in source.iterdir() if path.is_dir())[:20]
    files = [path for name in classes for path in sorted((source / name).rglob("*")) if path.is_file()]
    rng.shuffle(files)
    kept, spare = files[:clean], files[clean:]
    for path in kept:
        name = path.relative_to(source).parts[0]
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name / f"{path.stem}{path.suffix}")
    truth: defaultdict[str, set[str]] = defaultdict(set)
    for kind, fault in FAULTS.items():
        for number in range(planted):
            old = kept[rng.randrange(len(kept))] if kind in OF_ANOTHER else spare.pop()
            name = old.relative_to(source).parts[0]
            goal = classes[(classes.index(name) + 1) % len(classes)] if kind == "conflict" else name
            suffix = old.suffix if kind in ("duplicate", "conflict") else ".jpg"
            path = folder / goal / f"{kind}-{number:02}{suffix}"
            data = old.read_bytes() if kind in ("duplicate", "conflict") else fault(images.decode(old), rng)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            truth[kind].add(path.relative_to(folder).as_posix())
    return truth


def main() -> None:
    """Plant, examine, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clean", type=int, default=2000)
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="write the doctor's report here")
    options = parser.parse_args()
    settings = DataConfig()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        truth = plant(options.data, folder, options.clean, options.planted, random.Random(options.seed))
        with scan_cache.Scanner(folder=Path(temporary) / "scan_cache") as scanner:
            dataset = collection.collect(folder, scanner=scanner)
            checkup = doctor.examine(dataset, settings, scanner)
        if options.report:
            doctor_report.write(dataset, checkup, options.report)
    every = set().union(*truth.values())
    print(f"{options.clean} photographs of {options.data.name}, {options.planted} faults of each kind")
    print(f"{'kind':16} {'named':>12} {'false alarms':>14}")
    for kind in FAULTS:
        named = {path for finding in checkup.of(kind) for path in finding.paths}
        found = len(truth[kind] & named)
        others = [f for f in checkup.of(kind) if not every & set(f.paths)]
        wrong = len({path for finding in others for path in finding.paths})
        print(f"{kind:16} {found:>5} of {len(truth[kind]):3} {wrong:>6} of {options.clean}")


if __name__ == "__main__":
    main()
