"""What the doctor finds, kind by kind, in folders with one fault each."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import imgclf
from imgclf import environment
from imgclf.data import collection, doctor, scan_cache
from imgclf.data.dataset import Dataset, Sample
from imgclf.data.doctor import KINDS, Checkup
from imgclf.errors import GateError
from imgclf.settings import DataConfig, TrainConfig

Examine = Callable[..., Checkup]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """A function that scans a folder and examines it."""

    def run(folder: Path, **settings: object) -> Checkup:
        config = DataConfig(**settings)
        with scan_cache.Scanner(folder=tmp_path / "scans") as scanner:
            return doctor.examine(collection.collect(folder, config, scanner=scanner), config, scanner)

    return run


def photograph(seed: int, width: int = 160, height: int = 160) -> Image.Image:
    """Colored noise of several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (4, 10, 30, 80):
        layer = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), float) / 4
    return Image.fromarray(((total - 128) * 1.8 + 128).clip(0, 255).astype(np.uint8))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of 12 pictures in which nothing is wrong."""
    for number in range(24):
        path = tmp_path / "data" / ("ant", "bee")[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(path, quality=90)
    return tmp_path / "data"


def kinds(checkup: Checkup) -> dict[str, tuple[str, ...]]:
    """The files, or classes, of every kind that was found."""
    found: dict[str, tuple[str, ...]] = {}
    for finding in checkup.findings:
        found[finding.kind] = found.get(finding.kind, ()) + (finding.paths or finding.classes)
    return found


def test_nothing_is_wrong_with_clean_photographs(photographs: Path, examine: Examine) -> None:
    assert kinds(examine(photographs)) == {}


def two_grays() -> Image.Image:
    """A board of large squares."""
    board = np.indices((4, 4)).sum(axis=0) % 2 * 120 + 60
    return Image.fromarray(board.astype(np.uint8)).convert("RGB").resize((160, 160), Image.Resampling.NEAREST)


EXIF = Image.Exif()
EXIF[0x0112] = 6


def half(image: Image.Image, **options: object) -> bytes:
    """Half of a JPEG file, with an end mark."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()[: len(file.getvalue()) // 2] + b"\xff\xd9"


FAULTS: dict[str, Callable[[Path], object]] = {
    "near-blank": lambda path: Image.new("RGB", (160, 160), (90, 140, 90)).save(path),
    "very-dark": lambda path: photograph(99).point(lambda v: v // 8).save(path),
    "very-bright": lambda path: photograph(99).point(lambda v: 222 + v // 8).save(path),
    "flat-block": lambda path: path.write_bytes(half(photograph(99), quality=95)),
    "lost-detail": lambda path: path.write_bytes(half(photograph(99), progressive=True)),
    "blurry": lambda path: photograph(99).filter(ImageFilter.GaussianBlur(6)).save(path),
    "low-information": lambda path: two_grays().save(path, quality=95),
    "very-small": lambda path: photograph(99, 60, 31).save(path),
    "size-outlier": lambda path: photograph(99, 900, 900).save(path),
    "odd-aspect": lambda path: photograph(99, 340, 110).save(path),
    "gray": lambda path: photograph(99).convert("L").save(path),
    "turned": lambda path: photograph(99).save(path, exif=EXIF),
    "wrong-extension": lambda path: photograph(99).save(path, "PNG"),
    "empty": lambda path: path.touch(),
    "not-an-image": lambda path: path.write_text("<html>404</html>"),
    "unreadable": lambda path: path.write_bytes(b"\xff\xd8" + b"\x00" * 500),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named_by_file(kind: str, photographs: Path, examine: Examine) -> None:
    FAULTS[kind](photographs / "bee/fault.jpg")
    found = kinds(examine(photographs, thresholds="rare=0"))
    if kind == "unreadable":  # nobody could tell it from a file that is no image
        kind = "not-an-image"
    assert found.pop(kind) == ("bee/fault.jpg",)
    assert set(found) <= ({"gray"} if kind == "low-information" else set())


def test_twelve_bits_in_sixteen_name_the_window(photographs: Path, examine: Examine) -> None:
    deep = np.asarray(photograph(99).convert("L")).astype(np.uint16) * 16
    Image.fromarray(deep).save(photographs / "ant/deep.png")
    Image.fromarray(deep * 16).save(photographs / "ant/full.png")
    checkup = examine(photographs, thresholds="rare=0")
    (finding,) = checkup.of("narrow-range")
    assert finding.paths == ("ant/deep.png",)
    assert f"values up to {deep.max():,} of 65,535" in finding.text and "--window 0,4095" in finding.text
    with scan_cache.Scanner(folder=photographs.parent / "scans") as scanner:
        dataset = collection.collect(photographs, scanner=scanner)
        windowed = doctor.examine(dataset, TrainConfig(window="0,4095", thresholds="rare=0"), scanner)
    assert not windowed.of("narrow-range")


def test_values_that_are_no_number_are_named(photographs: Path, examine: Examine) -> None:
    depth = np.asarray(photograph(99).convert("L")).astype(np.float32)
    Image.fromarray(depth).save(photographs / "ant/whole.tif")
    depth[:, ::4] = np.nan  # 25.00%
    depth[0, 1] = np.inf
    Image.fromarray(depth).save(photographs / "ant/holes.tif")
    (finding,) = examine(photographs, thresholds="rare=0").of("nan")
    assert finding.paths == ("ant/holes.tif",) and finding.severity == "warning"
    assert finding.text == "25.00% of the pixels are NaN, and become black"


def test_what_a_file_is_that_cannot_be_read_is_said(photographs: Path, examine: Examine) -> None:
    (photographs / "ant/phone.jpg").write_bytes(b"\xff\x0a" + bytes(100))
    (finding,) = examine(photographs, thresholds="rare=0").of("unreadable")
    assert finding.paths == ("ant/phone.jpg",)
    assert finding.text.startswith("a JPEG XL image")


def test_a_heic_among_jpegs_is_one_finding_where_its_package_is_missing(
    photographs: Path, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "has_package", lambda name: name != "pillow_heif")
    (photographs / "ant/phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (finding,) = examine(photographs, thresholds="rare=0").of("unreadable")
    assert finding.paths == ("ant/phone.jpg",) and "imgclf[heif]" in finding.text
    dataset = imgclf.read(photographs, DataConfig(near_duplicates="off"))  # by headers alone
    assert [skipped.path for skipped in dataset.skipped] == ["ant/phone.jpg"]


def test_a_damaged_middle_is_found_by_decoding(photographs: Path, examine: Examine) -> None:
    path = photographs / "ant/middle.png"
    photograph(99).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    assert "ant/middle.png" in {s.path for s in collection.collect(photographs).samples}
    assert kinds(examine(photographs, thresholds="rare=0")) == {"unreadable": ("ant/middle.png",)}


def test_animated_and_odd_formats(photographs: Path, examine: Examine) -> None:
    frames = [photograph(200 + n) for n in range(3)]
    frames[0].save(photographs / "ant/moving.gif", save_all=True, append_images=frames[1:])
    found = kinds(examine(photographs, thresholds="rare=0.05"))
    assert found == {"animated": ("ant/moving.gif",), "odd-format": ("ant/moving.gif",)}


def test_copies_are_told_apart_by_label_and_side(tmp_path: Path, examine: Examine) -> None:
    data = tmp_path / "data"
    for number in range(40):
        path = data / ("train", "test")[number % 2] / ("ant", "bee")[number // 2 % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(path)
    (data / "train/ant/copy.png").write_bytes((data / "train/ant/00.png").read_bytes())
    (data / "train/bee/wrong.png").write_bytes((data / "train/ant/04.png").read_bytes())
    photograph(1).save(data / "train/ant/leak.jpg", quality=40)  # of test/ant/01.png
    photograph(8).resize((120, 120)).save(data / "train/ant/near.png")
    checkup = examine(data, thresholds="rare=0")
    assert kinds(checkup) == {
        "conflict": ("train/ant/04.png", "train/bee/wrong.png"),
        "leakage": ("test/ant/01.png", "train/ant/leak.jpg"),
        "duplicate": ("train/ant/00.png", "train/ant/copy.png"),
        "near-duplicate": ("train/ant/08.png", "train/ant/near.png"),
    }
    assert checkup.findings[0].classes == ("ant", "bee")
    assert "test and train" in checkup.findings[1].text
    dataset = collection.collect(data)
    assert doctor.quarantine(dataset, checkup) == {
        "train/ant/04.png": "conflict",
        "train/bee/wrong.png": "conflict",
        "train/ant/leak.jpg": "leakage",
        "train/ant/copy.png": "duplicate",
    }
    doctor.check(checkup, doctor.forbidden("unreadable,look-alikes"))
    with pytest.raises(GateError, match="found conflict 1, leakage 1"):
        doctor.check(checkup, doctor.forbidden("error"))


def test_a_file_that_is_left_out_is_told_once_with_the_reason(photographs: Path) -> None:
    (photographs / "ant/cut.jpg").write_bytes((photographs / "ant/00.jpg").read_bytes()[:9000])
    for number in range(21):
        (photographs / f"bee/empty-{number}.png").touch()
    lines = doctor.told(imgclf.read(photographs, pixels=True))
    [cut] = [line for line in lines if "cut.jpg" in line]
    assert cut.startswith("Left out ant/cut.jpg: damaged or truncated (")
    assert [line for line in lines if "empty-1.png" in line] == [
        "Left out 21 files, such as bee/empty-0.png, bee/empty-1.png, bee/empty-10.png: an empty file"
    ]
    assert not any(line.startswith("error:") for line in lines)


def test_near_duplicates_share_a_split(photographs: Path) -> None:
    for number in range(24):
        name = ("ant", "bee")[number % 2]
        photograph(number).save(photographs / name / f"again-{number:02}.jpg", quality=45)
    together = {"group": 24, "off": 0}
    for setting, at_least in together.items():
        config = DataConfig(near_duplicates=setting, test_fraction=0.4)
        dataset = imgclf.read(photographs, config, pixels=True)
        split_of = {s.path: s.split for s in dataset.samples}
        assert dataset.checkup
        pairs = [finding.paths for finding in dataset.checkup.of("near-duplicate")]
        assert len(pairs) == 24
        same = sum(split_of[one] == split_of[other] for one, other in pairs)
        assert same == 24 if at_least else same < 24


def test_a_large_group_is_named_and_not_kept_together(photographs: Path, examine: Examine) -> None:
    for quality in range(70, 81):
        photograph(0).save(photographs / f"ant/x{quality}.jpg", quality=quality)
    checkup = examine(photographs)
    (finding,) = checkup.of("large-group")
    assert len(finding.paths) == 12
    assert finding.text.startswith("12 images alike, 34.3% of all")
    assert checkup.related == ()
    assert len(examine(photographs, thresholds="near-group=0.5").related) == 1


def test_classes_are_examined_too() -> None:
    rows = [("Ant", 120), ("ant ", 30), ("bee", 9)]
    samples = [
        Sample(f"{name}/{n}.png", name, sha256=f"{name}{n}", width=50, height=50) for name, k in rows for n in range(k)
    ]
    dataset = Dataset(Path("data"), tuple(samples), tuple(name for name, _ in rows))
    checkup = doctor.examine(dataset, DataConfig())
    assert kinds(checkup) == {"small-class": ("bee",), "similar-names": ("Ant", "ant "), "imbalance": ("Ant", "bee")}


CHEAP = frozenset(
    {
        *("conflict", "leakage", "unreadable", "empty", "not-an-image", "empty-class", "small-class", "similar-names"),
        *("imbalance", "duplicate", "wrong-extension", "very-small", "very-large", "size-outlier", "odd-aspect"),
        *("odd-format", "other-file"),
    }
)
"""Kinds that are found without pixels."""


def test_without_a_scanner_only_the_cheap_kinds_are_found(photographs: Path) -> None:
    for kind in ("near-blank", "empty", "odd-aspect", "size-outlier"):
        FAULTS[kind](photographs / f"bee/{kind}.jpg")
    checkup = doctor.examine(collection.collect(photographs), DataConfig())
    assert set(kinds(checkup)) == {"empty", "odd-aspect", "size-outlier"}
    assert set(KINDS) >= CHEAP
    assert {kind["kind"] for kind in checkup.kinds} <= CHEAP
