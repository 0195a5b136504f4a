"""Pascal VOC and COCO: every object becomes an image of its class, with the right pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf.data import collection, images, objects
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from imgclf.errors import DatasetError
from imgclf.settings import Decoding, ReadConfig

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 40, 30


def photograph(path: Path, **save: Any) -> np.ndarray:
    """Write a PNG of random pixels; uint8 (HEIGHT, WIDTH, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return pixels


def crops(dataset: Dataset) -> dict[str, np.ndarray]:
    return {s.path: np.asarray(Image.open(dataset.root / s.path)) for s in dataset.samples}


def reasons(dataset: Dataset) -> dict[str, tuple[str, str]]:
    return {s.path: (s.kind, s.reason) for s in dataset.skipped if s.kind != "not-an-image"}


def voc_object(name: str, box: tuple[object, ...], extra: str = "") -> str:
    edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{edges}</bndbox></object>"


def annotate(path: Path, image: str, *contents: str, size: tuple[int, int] | None = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    path.write_text(f"<annotation><filename>{image}</filename>{said}{''.join(contents)}</annotation>")


@pytest.fixture
def voc(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """The development kit with one photograph and two objects; its pixels."""
    home = tmp_path / "VOCdevkit" / "VOC2012"
    pixels = photograph(home / "JPEGImages" / "a.png")
    boxes = voc_object("dog", (1, 1, 10, 8)), voc_object("cat", (11, 9, 40, 30))
    annotate(home / "Annotations" / "a.xml", "a.png", *boxes)
    return tmp_path / "VOCdevkit", pixels


def test_voc_boxes_count_from_one_and_hold_their_last_pixels(voc: tuple[Path, np.ndarray]) -> None:
    root, pixels = voc
    dataset = collection.collect(root)
    stem = "VOC2012/JPEGImages/a.png"
    assert {s.path: s.label for s in dataset.samples} == {f"{stem}-0.png": "dog", f"{stem}-1.png": "cat"}
    assert np.array_equal(crops(dataset)[f"{stem}-0.png"], pixels[0:8, 0:10])
    assert np.array_equal(crops(dataset)[f"{stem}-1.png"], pixels[8:30, 10:40])
    assert {s.group for s in dataset.samples} == {stem}
    assert dataset.source == root


def test_the_sides_of_voc_are_those_of_its_lists(voc: tuple[Path, np.ndarray]) -> None:
    home = voc[0] / "VOC2012"
    lists = home / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, side in (("b", "train"), ("c", "val"), ("d", "test"), ("e", None)):
        photograph(home / "JPEGImages" / f"{name}.png")
        annotate(home / "Annotations" / f"{name}.xml", f"{name}.png", voc_object("dog", (1, 1, 9, 9)))
        if side:
            (lists / f"{side}.txt").write_text(f"{name}\n")
    (lists / "trainval.txt").write_text("b\nc\n")
    (lists / "dog_train.txt").write_text("b  1\nd -1\n")
    sides = {Path(s.group).stem: s.split for s in collection.collect(voc[0]).samples}
    assert sides == {"a": "", "b": TRAIN, "c": VALIDATION, "d": TEST, "e": ""}


def test_xml_beside_the_images_of_split_folders(tmp_path: Path) -> None:
    for folder, name in (("train", "a"), ("valid", "b")):
        photograph(tmp_path / folder / f"{name}.png")
        annotate(tmp_path / folder / f"{name}.xml", f"{name}.png", voc_object("dog", (1, 1, 5, 5)))
        photograph(tmp_path / folder / "cat.png")
    annotate(tmp_path / "train" / "cat.xml", "cat.png", voc_object("cat", (1, 1, 5, 5)))
    dataset = collection.collect(tmp_path)
    assert {(s.label, s.split) for s in dataset.samples} == {("dog", TRAIN), ("dog", VALIDATION), ("cat", TRAIN)}


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(0.0, (10, 10, 20, 14)), (0.5, (5, 8, 25, 16)), (0.25, (7, 9, 23, 15)), (50.0, (0, 0, 40, 30))],
)
def test_a_margin_is_a_share_of_the_box_and_ends_at_the_image(
    voc: tuple[Path, np.ndarray], margin: float, expected: tuple[int, int, int, int]
) -> None:
    root, pixels = voc
    boxes = voc_object("dog", (11, 11, 20, 14)), voc_object("cat", (1, 1, 2, 2))
    annotate(root / "VOC2012/Annotations/a.xml", "a.png", *boxes)
    dataset = collection.collect(root, ReadConfig(box_margin=margin))
    left, top, right, bottom = expected
    assert np.array_equal(crops(dataset)["VOC2012/JPEGImages/a.png-0.png"], pixels[top:bottom, left:right])


def test_boxes_outside_are_cut_to_the_image_or_left_out(voc: tuple[Path, np.ndarray]) -> None:
    root, pixels = voc
    boxes = [
        (31, 21, 99, 99),
        (-5, -5, 3, 3),
        (41, 1, 50, 9),
        (9, 9, 3, 3),
        ("x", 1, 5, 5),
        (1, 1, "inf", 5),
        (-1e308, 1, 1e308, 5),
        (2, 2, 2, 2),
    ]
    names = ["cat", *["dog"] * 7]
    annotate(root / "VOC2012/Annotations/a.xml", "a.png", *map(voc_object, names, boxes))
    dataset = collection.collect(root)
    stem, xml = "VOC2012/JPEGImages/a.png", "VOC2012/Annotations/a.xml"
    assert {path: pixels.shape for path, pixels in crops(dataset).items()} == {
        f"{stem}-0.png": (10, 10, 3),
        f"{stem}-1.png": (3, 3, 3),
        f"{stem}-7.png": (1, 1, 3),
    }
    assert np.array_equal(crops(dataset)[f"{stem}-7.png"], pixels[1:2, 1:2])
    assert reasons(dataset) == {
        f"{xml}#3": ("unreadable", "a box outside its image of 40 x 30 pixels"),
        f"{xml}#4": ("unreadable", "a box without area"),
        f"{xml}#5": ("unreadable", "without a box of four numbers"),
        f"{xml}#6": ("unreadable", "without a box of four numbers"),
        f"{xml}#7": ("unreadable", "without a box of four numbers"),
    }


def test_small_and_difficult_objects_are_left_out_unless_asked_for(voc: tuple[Path, np.ndarray]) -> None:
    hard = voc_object("dog", (1, 1, 20, 20), "<difficult>1</difficult>")
    boxes = voc_object("cat", (1, 1, 20, 20)), voc_object("dog", (1, 1, 20, 20)), voc_object("dog", (1, 1, 4, 20)), hard
    annotate(voc[0] / "VOC2012/Annotations/a.xml", "a.png", *boxes)
    assert len(collection.collect(voc[0])) == 3
    assert len(collection.collect(voc[0], ReadConfig(difficult=True))) == 4
    dataset = collection.collect(voc[0], ReadConfig(box_min_size=5))
    assert [kind for kind, _ in reasons(dataset).values()] == ["too-small", "difficult"]


def test_faulty_annotations_are_named_and_the_rest_is_read(voc: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder = voc[0] / "VOC2012/Annotations"
    (folder / "cut.xml").write_text("<annotation><object>")
    (folder / "bomb.xml").write_text('<!DOCTYPE x [<!ENTITY a "aa">]><annotation>&a;</annotation>')
    annotate(folder / "gone.xml", "gone.jpg", voc_object("dog", (1, 1, 5, 5)))
    photograph(tmp_path / "secret.png")
    annotate(folder / "out.xml", "../../../secret.png", voc_object("dog", (1, 1, 5, 5)))
    (voc[0] / "VOC2012/JPEGImages/zero.png").touch()
    annotate(folder / "zero.xml", "zero.png", voc_object("dog", (1, 1, 5, 5)), voc_object("", (1, 1, 5, 5)))
    dataset = collection.collect(voc[0])
    assert len(dataset) == 2
    found = {Path(path).name: reason for path, (_, reason) in reasons(dataset).items()}
    assert found["gone.xml"] == "its image 'gone.jpg': no such file"
    assert "no such file" in found["out.xml"]
    assert (
        found["bomb.xml"] == "not an annotation (with a document type of its own: remove its <!DOCTYPE> and <!ENTITY>)"
    )
    assert "not an annotation" in found["cut.xml"]
    assert (found["zero.png"], found["zero.xml#2"]) == ("an empty file", "an object without a name")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["stored", "upright", "unsaid"])
def test_boxes_on_photographs_that_exif_turns(tmp_path: Path, orientation: int, drawn_on: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photograph(tmp_path / "JPEGImages/a.png", exif=exif)
    upright = np.asarray(images.decode(tmp_path / "JPEGImages/a.png"))
    size = {"stored": (WIDTH, HEIGHT), "upright": upright.shape[1::-1], "unsaid": None}[drawn_on]
    boxes = voc_object("dog", (4, 6, 12, 9)), voc_object("cat", (1, 1, 2, 2))
    annotate(tmp_path / "Annotations/a.xml", "a.png", *boxes, size=size)
    crop = crops(collection.collect(tmp_path))["JPEGImages/a.png-0.png"]
    if drawn_on == "upright" and orientation >= 5:
        assert np.array_equal(crop, upright[5:9, 3:12])
    else:
        Image.fromarray(stored[5:9, 3:12]).save(tmp_path / "expected.png", exif=exif)
        assert np.array_equal(crop, np.asarray(images.decode(tmp_path / "expected.png")))


def coco_content(**changes: Any) -> dict[str, Any]:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 10, 8], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [10.5, 9.25, 29.5, 20.75]},
        ],
    }
    return content | changes


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 7, "category_id": 18, "bbox": [0, 0, 5, 5]} | changes


def coco_folder(folder: Path, name: str = "annotations/instances_default.json", **changes: Any) -> np.ndarray:
    pixels = photograph(folder / "images" / "a.png")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(coco_content(**changes)))
    return pixels


def test_coco_boxes_count_from_zero_and_hold_every_pixel_they_touch(tmp_path: Path) -> None:
    pixels = coco_folder(tmp_path)
    dataset = collection.collect(tmp_path)
    assert [s.label for s in dataset.samples] == ["dog", "cat"]
    assert np.array_equal(crops(dataset)["images/a.png-0.png"], pixels[0:8, 0:10])
    assert np.array_equal(crops(dataset)["images/a.png-1.png"], pixels[9:30, 10:40])
    assert {s.group for s in dataset.samples} == {"images/a.png"}


@pytest.mark.parametrize("name", ["coco.json", "annotations/instances_train2017.json"])
def test_the_json_itself_may_be_the_data(tmp_path: Path, name: str) -> None:
    coco_folder(tmp_path, name)
    dataset = collection.collect(tmp_path / name)
    assert dataset.class_names == ("cat", "dog")
    assert collection.locate(tmp_path / name) == dataset.root


def test_the_sides_of_coco_are_in_the_names_of_its_files(tmp_path: Path) -> None:
    for side in ("train2017", "val2017"):
        photograph(tmp_path / side / "a.png")  # one name in both
        (tmp_path / f"instances_{side}.json").write_text(json.dumps(coco_content()))
    samples = collection.collect(tmp_path).samples
    assert {(s.group, s.split) for s in samples} == {("train2017/a.png", TRAIN), ("val2017/a.png", VALIDATION)}


def test_a_file_of_annotations_in_every_folder_of_a_split(tmp_path: Path) -> None:
    for folder in ("train", "valid", "test"):
        photograph(tmp_path / folder / "a.png")
        (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(coco_content()))
    samples = collection.collect(tmp_path).samples
    assert {(s.group, s.split) for s in samples} == {
        ("train/a.png", TRAIN),
        ("valid/a.png", VALIDATION),
        ("test/a.png", TEST),
    }


def test_dangling_ids_and_bad_boxes_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    coco_folder(
        tmp_path,
        images=[*coco_content()["images"], {"id": 8, "file_name": "gone.png"}, {"file_name": "x"}, {"id": 9}, None],
        categories=[*coco_content()["categories"], {"id": 5}, {"name": "x"}],
        annotations=[
            *coco_content()["annotations"],
            annotation(10, image_id=99),
            annotation(11, category_id=99),
            annotation(12, category_id=5),
            annotation(13, bbox=[1, 2, 3]),
            annotation(14, bbox=[1, 2, -3, 4]),
            annotation(15, bbox=[100, 2, 3, 4]),
            annotation(16, bbox=[1, 2, float("nan"), 4]),
            annotation(20, bbox=[-1e308, 2, 1.7e308, 4]),
            annotation(21, bbox=[1, 2, 10**400, 4]),
            annotation(17, image_id=[7]),
            annotation(18, image_id=8),
            None,
            annotation(19, iscrowd=1),
        ],
    )
    dataset = collection.collect(tmp_path)
    assert len(dataset) == 2
    json_path = "annotations/instances_default.json"
    found = {path.removeprefix(f"{json_path}#"): reason for path, (_, reason) in reasons(dataset).items()}
    assert found["10"] == "its image 99 is not among the images"
    assert found["11"] == "its category 99 is not among the categories"
    assert found["12"] == "its category 5 is not among the categories"
    assert [found[n] for n in ("13", "16", "20", "21")] == ["without a box of four numbers"] * 4
    assert found["14"] == "a box without area"
    assert found["15"] == "a box outside its image of 40 x 30 pixels"
    assert found["17"] == "its image [7] is not among the images"
    assert found["gone.png"] == f"no such file, named in {json_path}"
    assert found[f"{json_path}, annotation 13"] == "its image None is not among the images"
    assert found["19"] == "a crowd rather than one object"
    assert len(collection.collect(tmp_path, ReadConfig(crowd=True))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected COCO's annotations with a list of images"),
        ('{"images": [], "categories": []}', "with a list of annotations"),
        ("[" * 100_000, "cannot be read"),
        ('{"images": [], "categories": [], "annotations": []}', "expected objects to cut out, found none"),
    ],
)
def test_damaged_json_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    photograph(tmp_path / "a.png")
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        collection.collect(tmp_path / "coco.json")


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_annotations_that_are_not_there_are_an_error(image_folder: Callable[..., Path], layout: str) -> None:
    with pytest.raises(DatasetError, match="found none"):
        collection.collect(image_folder(), ReadConfig(layout=layout))


def test_json_about_something_else_is_no_annotation(image_folder: Callable[..., Path]) -> None:
    folder = image_folder()
    (folder / "package.json").write_text('{"images": 1}')
    (folder / "empty.json").touch()
    assert collection.collect(folder).class_names == ("ant", "bee")


def test_objects_are_cut_once_and_anew_for_other_options(voc: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    first = collection.collect(voc[0])
    (first.root / "mark").touch()
    assert (collection.collect(voc[0]).root / "mark").exists()
    assert collection.collect(voc[0], ReadConfig(box_margin=0.1)).root != first.root
    photograph(voc[0] / "VOC2012/JPEGImages/a.png")
    assert collection.collect(voc[0]).root != first.root


def test_a_photograph_that_two_files_describe_stays_on_one_side(tmp_path: Path) -> None:
    photograph(tmp_path / "images/a.png")
    for side in ("train", "test"):
        (tmp_path / f"{side}.json").write_text(json.dumps(coco_content()))
    dataset = collection.collect(tmp_path)
    assert {s.split for s in dataset.samples} == {TEST}
    assert len(dataset) == 2  # an object that both describe is one
    again = {f"train.json#{n}": ("duplicate", "an object that another annotation describes, too") for n in (1, 2)}
    assert reasons(dataset) == again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]},
            "for each image, found 7 for 'a",
        ),
        (
            {"categories": [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog \ud83d"}]},
            r"the class name 'dog .ud83d' is not UTF-8",
        ),
        (
            {"categories": [{"id": 3, "name": "cat"}, {"id": 3, "name": "dog"}]},
            "each category, found 3 for 'cat' and 'dog",
        ),
    ],
)
def test_ids_for_two_things_and_names_that_are_no_text_are_errors(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    coco_folder(tmp_path, **changes)
    with pytest.raises(DatasetError, match=message):
        collection.collect(tmp_path)


@pytest.mark.parametrize(
    ("mode", "dtype", "format"),
    [("I;16", "<u2", "PNG"), ("I;16B", ">u2", "TIFF"), ("I", "<i4", "TIFF"), ("F", "<f4", "TIFF")],
)
def test_objects_of_deep_gray_keep_their_depth_for_a_window(tmp_path: Path, mode: str, dtype: str, format: str) -> None:
    gray = (np.arange(WIDTH * HEIGHT) * 3).reshape(HEIGHT, WIDTH).astype(dtype)
    (tmp_path / "JPEGImages").mkdir()
    Image.frombytes(mode, (WIDTH, HEIGHT), gray.tobytes()).save(tmp_path / "JPEGImages/a.tif", format)
    annotate(
        tmp_path / "Annotations/a.xml", "a.tif", voc_object("dog", (11, 3, 30, 20)), voc_object("cat", (1, 1, 2, 2))
    )
    dataset = collection.collect(tmp_path)
    inside = gray[2:20, 10:30].astype(float)
    expected = np.rint(np.clip(inside - 500, 0, 1000) * 0.255)
    decoded = images.decode(dataset.paths[0], Decoding(window="500,1500"))
    assert np.array_equal(np.asarray(decoded)[:, :, 0], expected)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-60, 100)] * 4), st.floats(0, 2), st.integers(1, 50))
def test_edges_always_lie_in_the_image(box: tuple[float, ...], margin: float, least: int) -> None:
    left, top, right, bottom = box
    config = ReadConfig(box_margin=margin, box_min_size=least)
    edges = objects.edges_of(objects.Box("x", left, top, right, bottom, "x"), (WIDTH, HEIGHT), config)
    if not isinstance(edges, tuple):
        return
    assert 0 <= edges[0] < edges[2] <= WIDTH
    assert 0 <= edges[1] < edges[3] <= HEIGHT
    assert edges[2] - edges[0] >= least
    assert edges[3] - edges[1] >= least
