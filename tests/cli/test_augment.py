"""imgclf augment, run as the command line runs it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf import policies
from imgclf.cli import app

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def augment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A function that runs `imgclf augment` with arguments in the test's folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["imgclf", "augment", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_the_shown_policy_is_a_file_of_it(augment: Run, tmp_path: Path) -> None:
    code, out, _ = augment("--show", "--policy", "rand-augment")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    (tmp_path / "mine.toml").write_text(out, encoding="utf-8")
    assert policies.find("mine.toml") == policies.POLICIES["rand-augment"]
    code, out, _ = augment("--show", "--policy", "mine.toml", "--json")
    assert json.loads(out) == policies.POLICIES["rand-augment"].to_dict()


def test_orientation_is_kept_and_each_loss_is_told(augment: Run) -> None:
    code, out, err = augment("--show", "--policy", "flip=0.5,rotate=90", "--keep-orientation")
    assert (code, out.split()[:3]) == (0, ["rotate", "=", "15"])
    assert "flip=0.5 is left out" in err
    assert "rotate=90 becomes rotate=15" in err


def test_the_sheet_shows_each_class_and_its_variants(augment: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(classes=("ant", "[b]ee<b>$x$"), count=6)
    (folder / "ant" / "broken.png").write_bytes((folder / "ant").glob("*.png").__next__().read_bytes()[:60])
    code, out, err = augment(folder, "--policy", "gray=1", "--image-size", 32, "--variants", 3)
    assert code == 0, err
    assert out == "images-policy.png\n"
    sheet = np.asarray(Image.open("images-policy.png").convert("RGB")).astype(int)
    coloured = np.ptp(sheet, axis=2).max(axis=0) > 40
    grey = ~coloured & (sheet.min(axis=(0, 2)) < 250)
    assert coloured.sum() > 60  # the originals
    assert grey[np.flatnonzero(coloured)[-1] + 8 :].sum() > 200  # three variants without colour, right of them
    assert augment(folder, "--policy", "gray=1", "--image-size", 32)[1] == "images-policy-2.png\n"


def test_copies_are_of_the_training_part_and_the_same_each_time(
    augment: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=10)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    sheets = ("--image-size", 24, "--copies", 2, "--policy", "heavy", "--json")
    code, out, err = augment(folder, "--to", "one", *sheets)
    assert code == 0, err
    done = json.loads(out)
    made = sorted(path.relative_to("one") for path in Path("one").rglob("*.png"))
    assert done == {"policy": policies.POLICIES["heavy"].to_dict(), "sheet": None, "to": "one", "copies": len(made)}
    assert 2 * 10 <= len(made) < 2 * 20  # two of each image of the training part, which is not all of them
    assert {path.stem[-2:] for path in made} == {"-1", "-2"}
    assert {(folder / path.parent / f"{path.stem[:-2]}.png").exists() for path in made} == {True}
    augment(folder, "--to", "two", *sheets)
    for path in made:
        pixels = np.asarray(Image.open(Path("one") / path))
        assert pixels.shape == (24, 24, 3)
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(Path("two") / path)))
    variants = [np.asarray(Image.open(Path("one") / made[i])) for i in (0, 1)]
    assert (variants[0] != variants[1]).any()
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "expected DATA, such as imgclf augment photos"),
        (("{data}", "--policy", "hevy"), 2, "--policy: expected none, light.*Did you mean 'heavy'"),
        (("{data}", "--policy", "erase=2"), 2, "erase: expected a number from 0 to 0.9 of the area"),
        (("{data}", "--variants", 0), 2, "--variants: expected a number from 1 to 50, found 0"),
        (("{data}", "--copies", 3), 2, "--copies: expected --to beside it"),
        (("{data}", "-o", "{data}/ant"), 2, "expected a new file"),
        (("{data}", "-o", "{data}/ant/000.png/x.png"), 2, "x.png: cannot be written"),
        (("{data}", "--to", "{data}"), 2, "expected a new or empty folder"),
        (("{data}/nowhere",), 3, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_explained(
    arguments: tuple[object, ...],
    code: int,
    message: str,
    augment: Run,
    image_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = image_folder()
    found, out, err = augment(*(str(argument).format(data=folder) for argument in arguments))
    assert (found, out) == (code, "")
    assert re.search(message, err), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_folder_of_broken_files_leaves_nothing_behind(
    augment: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder()
    for path in folder.rglob("*.png"):  # whole to the eye that reads headers, and broken within
        content = bytearray(path.read_bytes())
        content[50:-20] = bytes(len(content) - 70)
        path.write_bytes(content)
    code, _, err = augment(folder, "--to", "out", "--image-size", 32)
    assert code == 3
    assert "12 images cannot be read, such as ant/000.png" in err
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_classes_of_one_letter_bring_a_hint(augment: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(classes=("6", "9"))
    assert "--keep-orientation" in augment(folder, "--image-size", 32)[2]
    assert "digits" not in augment(folder, "--image-size", 32, "--keep-orientation")[2]


def test_preprocessed_images_are_shown_and_written(augment: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(count=6)
    assert augment(folder, "--preprocess", "edges", "--image-size", 32, "--variants", 1)[:2] == (
        0,
        "images-standard.png\n",
    )
    without_variants = ("--preprocess", "threshold=200", "--policy", "none", "--image-size", 32)
    assert augment(folder, *without_variants, "-o", "two.png", "--to", "copies")[0] == 0
    columns = [np.asarray(Image.open(path).convert("RGB")).shape[1] for path in ("two.png", "images-standard.png")]
    assert columns[0] < columns[1]
    made = {level for path in Path("copies").rglob("*.png") for level in np.unique(np.asarray(Image.open(path)))}
    assert made <= {0, 255}
    code, _, err = augment(folder, "--preprocess", "denoize")
    assert code == 2 and "unknown step 'denoize'. Did you mean 'denoise'?" in err
