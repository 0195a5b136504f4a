import io
import itertools
import math
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf import environment
from imgclf.errors import ArtifactError, MissingError, UsageError
from imgclf.prediction import Classifier, Prediction, artifact, load, loading
from imgclf.prediction.artifact import Artifact, File
from imgclf.prediction.decision import Decision
from imgclf.settings import Decoding

SURE = math.exp(10) / (math.exp(10) + 2)
"""The probability of a colour in an image of nothing but that colour."""

PURE = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def plain(colour: str, size_px: int = 8) -> np.ndarray:
    """uint8 (size_px, size_px, 3) of one colour."""
    return np.full((size_px, size_px, 3), PURE[colour], np.uint8)


def encoded(colour: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(plain(colour, 20)).save(file, "PNG")
    return file.getvalue()


def saved(path: Path, colour: str) -> Path:
    path.write_bytes(encoded(colour))
    return path


def describe(folder: Path, name: str, format: str) -> None:
    """Let artifact.json describe a file as it now is."""
    file = File(format, *artifact.hash_tree(folder / name))
    artifact.write(folder, replace(artifact.read(folder), files={name: file}))


@pytest.fixture(scope="module", params=["model.tflite", "saved_model"])
def classifier(colours, request) -> Classifier:
    """The artefact through LiteRT, then through TensorFlow."""
    return load(colours / request.param)


@pytest.fixture(scope="module")
def lite(colours) -> Classifier:
    return load(colours)


def test_load_is_public_and_takes_a_folder_or_what_lies_in_it(colours, tmp_path, monkeypatch):
    assert imgclf.load is load
    monkeypatch.chdir(colours)
    for path in (colours, str(colours), colours / "artifact.json", Path(), "model.tflite", "saved_model"):
        loaded = load(path)
        assert (loaded.labels, loaded.image_size, loaded.resize) == (("red", "green", "blue"), 8, "squash")


def test_a_folder_that_describes_no_litert_is_read_through_its_saved_model(colours, spoiled):
    folder = spoiled(files={"saved_model": artifact.read(colours).files["saved_model"]})
    (folder / "model.tflite").unlink()
    assert load(folder).predict([plain("blue")])[0].label == "blue"


def test_probabilities_are_those_worked_out_by_hand(classifier):
    pixels = np.stack([plain("red"), plain("green"), np.zeros((8, 8, 3), np.uint8)]).astype(np.float32)
    answer = classifier.probabilities(pixels)
    rest = (1 - SURE) / 2
    assert answer.dtype == np.float32
    assert answer == pytest.approx(np.array([[SURE, rest, rest], [rest, SURE, rest], [1 / 3] * 3]), rel=1e-4)


def test_every_output_is_given_by_name(classifier):
    pixels = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype(np.float32)
    answer = classifier.outputs(pixels)
    assert set(answer) == {"probabilities", "embedding", "feature_map"}
    assert answer["feature_map"] == pytest.approx(pixels / 255, abs=1e-6)
    assert answer["embedding"] == pytest.approx(pixels.mean((1, 2)) / 255, abs=1e-6)
    assert answer["probabilities"].sum(axis=1) == pytest.approx(np.ones(6), abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_an_answer_does_not_depend_on_the_images_beside_it(classifier, count):
    pixels = np.random.default_rng(count).uniform(0, 255, (count, 8, 8, 3)).astype(np.float32)
    together = classifier.outputs(pixels)
    assert together["probabilities"].shape == (count, 3)
    assert together["feature_map"].shape == (count, 8, 8, 3)
    for place in range(count):
        alone = classifier.probabilities(pixels[place : place + 1])
        assert together["probabilities"][place] == pytest.approx(alone[0], abs=1e-6)


def test_several_threads_may_ask_at_once(lite):
    every = np.stack([plain(colour) for colour in PURE]).astype(np.float32)
    with ThreadPoolExecutor(8) as pool:
        asked = [place % 3 for place in range(300)]
        answers = list(pool.map(lambda place: lite.probabilities(every[place : place + 1]).argmax(), asked))
    assert answers == asked


@pytest.mark.parametrize("shape", [(8, 8, 3), (2, 9, 8, 3), (2, 8, 8, 1)])
def test_pixels_of_another_shape_are_a_usage_error(lite, shape):
    with pytest.raises(UsageError, match=re.escape("(n, 8, 8, 3), found " + str(shape))):
        lite.probabilities(np.zeros(shape, np.float32))


def test_paths_bytes_and_arrays_are_images(classifier, tmp_path):
    path = saved(tmp_path / "blue [1].png", "blue")
    grey = np.full((5, 7), 128, np.uint8)
    predictions = classifier.predict([path, str(path), encoded("green"), plain("red", 30), grey])
    assert [p.path for p in predictions] == [str(path), str(path), None, None, None]
    assert [p.label for p in predictions[:4]] == ["blue", "blue", "green", "red"]
    assert [p.confidence for p in predictions] == pytest.approx([SURE] * 4 + [1 / 3], rel=1e-4)
    assert all(p.error is None for p in predictions)
    assert predictions[0].labels == classifier.labels


def test_a_stack_of_images_is_a_list_of_images(lite):
    stack = np.stack([plain("green"), plain("red")])
    assert [p.label for p in lite.predict(stack)] == ["green", "red"]


def test_an_image_that_cannot_be_read_is_answered_with_its_error_in_its_place(lite, tmp_path):
    whole = saved(tmp_path / "red.png", "red")
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:600])
    (tmp_path / "empty.png").touch()
    sources = [tmp_path / "cut.png", whole, tmp_path / "empty.png", tmp_path / "none.png", tmp_path, "a\0b", b"text"]
    predictions = lite.predict([*sources, np.zeros((4, 4))])
    assert [p.label for p in predictions] == [None, "red", *[None] * 6]
    broken = predictions[0]
    assert broken.path == str(tmp_path / "cut.png")
    assert (broken.probabilities, broken.confidence, broken.top(3)) == (None, None, [])
    reasons = [p.error or "" for p in predictions]
    assert "damaged or truncated" in reasons[0]
    assert reasons[2:5] == ["an empty file", "no such file", "a folder, not a file"]
    assert "null byte" in reasons[5]
    assert "not an image" in reasons[6]
    assert "float64" in reasons[7]


def test_files_become_pixels_by_the_rules_of_the_artefact(spoiled, tmp_path):
    file = tmp_path / "dark.png"
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(file)
    bright = load(spoiled(window="0,4095"))
    assert bright.decoding == Decoding(window="0,4095")
    seen: list[np.ndarray] = []
    answer = bright.runtime.outputs
    bright.runtime.outputs = lambda pixels, names: seen.append(pixels) or answer(pixels, names)
    bright.predict([file])
    assert (seen[0] == 255).all()


def test_truncated_files_are_classified_where_the_artefact_or_the_caller_allows_it(colours, spoiled, tmp_path):
    file = tmp_path / "cut.jpg"
    Image.new("RGB", (400, 400), "red").save(file)
    file.write_bytes(file.read_bytes()[:-200])
    assert load(colours).predict([file])[0].label is None
    assert load(colours, allow_truncated=True).predict([file])[0].label == "red"
    assert load(spoiled(allow_truncated=True)).predict([file])[0].label == "red"


def test_heic_without_its_decoder_costs_no_other_image_its_answer(lite, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "has_package", lambda name: False)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    found = lite.predict([heic, saved(tmp_path / "red.png", "red")])
    assert [p.label for p in found] == [None, "red"]
    assert "imgclf[heif]" in (found[0].error or "")


def test_only_broken_images_are_no_failure(lite):
    assert [p.error for p in lite.predict([b"", b""])] == ["an empty file"] * 2


def test_the_best_classes_fall_and_of_equals_the_first_comes_first():
    prediction = Prediction(None, np.array([0.1, 0.45, 0.45], np.float32), ("a", "b", "c"))
    assert prediction.top(2) == [("b", 0.45), ("c", 0.45)]
    assert prediction.top(9) == [("b", 0.45), ("c", 0.45), ("a", 0.1)]
    assert (prediction.label, prediction.confidence) == ("b", 0.45)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_stream_keeps_the_order(lite, batch_size):
    names = [("red", "green", "blue")[place * place % 3] for place in range(40)]
    sources = [plain(name, 8 + place) if place % 7 else b"" for place, name in enumerate(names)]
    answers = [p.label for p in lite.stream(sources, batch_size)]
    assert answers == [name if place % 7 else None for place, name in enumerate(names)]


def test_a_stream_takes_few_images_ahead_of_its_answers(lite):
    endless = itertools.count()
    stream = lite.stream((plain("red") for _ in endless), batch_size=4)
    assert [p.label for p in itertools.islice(stream, 10)] == ["red"] * 10
    assert next(endless) <= 3 * 4 + 2 * 4 + 1


def test_what_goes_wrong_with_the_sources_reaches_the_caller(lite):
    def sources():
        yield plain("red")
        raise OSError("the list was closed")

    with pytest.raises(OSError, match="the list was closed"):
        lite.predict(sources())


@pytest.mark.parametrize("source", ["a.png", Path("a.png"), b"bytes", np.zeros((8, 8, 3), np.uint8)])
def test_one_image_in_place_of_a_list_is_a_usage_error(lite, source):
    with pytest.raises(UsageError, match="Put it into a list"):
        lite.predict(source)


def test_a_batch_of_none_is_a_usage_error(lite):
    with pytest.raises(UsageError, match="batch_size"):
        lite.stream([], batch_size=0)


def test_answers_that_are_no_numbers_are_an_artifact_error(colours):
    class Damaged:
        size_px, classes, names, batch_size = 8, 3, ("probabilities",), 4

        def prepare(self, calls):
            pass

        def outputs(self, pixels, names):
            return {"probabilities": np.full((len(pixels), 3), np.nan, np.float32)}

    with pytest.raises(ArtifactError, match="not finite"):
        Classifier(artifact.read(colours), Damaged()).predict([plain("red")])


def test_a_missing_path_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="found nothing there"):
        load(tmp_path / "run")


def test_a_folder_without_a_model_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"with artifact\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.tflite", "saved_model"])
def test_a_model_without_artifact_json_is_an_artifact_error(colours, tmp_path, name):
    copy = shutil.copytree if (colours / name).is_dir() else shutil.copyfile
    copy(colours / name, tmp_path / name)
    with pytest.raises(ArtifactError, match=r"artifact\.json"):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["model.tflite", "saved_model/saved_model.pb"])
def test_a_model_that_was_changed_is_an_artifact_error(spoiled, name):
    folder = spoiled()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="changed or damaged"):
        load(folder / Path(name).parts[0])


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_a_foreign_file_is_an_artifact_error(spoiled, content):
    with pytest.raises(ArtifactError, match=r"model\.tflite: expected a model that imgclf exported"):
        load(spoiled("model.tflite", content))


def test_a_foreign_saved_model_is_an_artifact_error(spoiled):
    folder = spoiled()
    shutil.rmtree(folder / "saved_model")
    (folder / "saved_model").mkdir()
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"no model")
    describe(folder, "saved_model", "savedmodel")
    with pytest.raises(ArtifactError, match="saved_model: expected a model that imgclf exported"):
        load(folder / "saved_model")


@pytest.mark.parametrize("links", [True, False])
def test_a_saved_model_answers_under_a_path_that_tensorflow_takes_for_a_pattern(colours, tmp_path, monkeypatch, links):
    folder = shutil.copytree(colours, tmp_path / "RUN [x] é")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    pixels = np.full((1, 8, 8, 3), (0, 255, 0), np.float32)
    monkeypatch.chdir(folder)
    for path in (folder / "saved_model", "saved_model"):
        np.testing.assert_array_equal(load(path).probabilities(pixels).argmax(1), [1])


@pytest.mark.parametrize("fields", [{"labels": ("red", "green")}, {"image_size": 9}])
@pytest.mark.parametrize("name", ["model.tflite", "saved_model"])
def test_labels_and_size_that_are_not_the_models_are_an_artifact_error(spoiled, fields, name):
    with pytest.raises(ArtifactError, match="found 3 at 8 px"):
        load(spoiled(**fields) / name)


def test_a_folder_without_a_model_says_how_to_make_one(spoiled):
    folder = spoiled(files={})
    with pytest.raises(ArtifactError, match=re.escape(f"imgclf export {folder} makes it")):
        load(folder)


@pytest.mark.parametrize(
    ("names", "precision", "expected"),
    [
        (("model.keras", "model-int8.tflite", "model.tflite"), "auto", "model.tflite"),
        (("model.keras", "model-int8.tflite"), "auto", "model-int8.tflite"),
        (("model.keras", "model-int8.tflite"), "float32", "model.keras"),
        (("model.keras",), "auto", "model.keras"),
    ],
)
def test_keras_predicts_only_where_nothing_else_can_and_says_so(names, precision, expected, caplog):
    formats = {"model.keras": ("keras", "float32"), "model-int8.tflite": ("litert", "int8")}
    files = {}
    for name in names:
        format, has = formats.get(name, ("litert", "float32"))
        files[name] = File(format, "0", 1, has)
    facts = Artifact(("a", "b"), 8, "squash", "small", ("probabilities",), "", files)
    caplog.set_level("INFO", "imgclf")
    assert loading.choose(Path("run"), facts, "auto", precision, 1) == expected
    assert ("imgclf export run makes a faster model" in caplog.text) == (expected == "model.keras")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"precision": "int8"}, "--quantize int8 makes it"),
        ({"engine": "onnx"}, "--format onnx makes it"),
        ({"precision": "bf16"}, "--format openvino makes it"),
    ],
)
def test_what_was_not_exported_is_asked_for_with_the_command_that_makes_it(spoiled, options, advice):
    folder = spoiled()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=advice):
        load(folder, **options)


def test_exports_without_a_run_name_what_they_contain_as_nothing_can_be_exported_from_them(colours):
    with pytest.raises(ArtifactError, match=r"onnx in float32, found .*litert in float32.* Choose another --engine or"):
        load(colours, engine="onnx")


@pytest.mark.parametrize(
    "options", [{"engine": "torch"}, {"precision": "int4"}, {"engine": "savedmodel"}, {"precision": "float16"}]
)
def test_an_engine_or_a_precision_that_does_not_fit_is_a_usage_error(colours, options):
    with pytest.raises(UsageError, match=r"--engine|--precision"):
        load(colours / "model.tflite", **options)


def test_an_unknown_format_is_refused_with_advice(spoiled):
    folder = spoiled()
    (folder / "model.pt").write_bytes(b"")
    describe(folder, "model.pt", "torch")
    with pytest.raises(ArtifactError, match=r"sklearn, litert, onnx, openvino, savedmodel, keras, found tor"):
        load(folder / "model.pt")


def test_a_pickle_is_never_loaded(tmp_path, spoiled):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    trap = tmp_path / "model.pkl"
    trap.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ArtifactError, match="pickles above all, are never loaded"):
        load(trap)
    for name, format in (("model.keras", "keras"), ("model.tflite", "litert"), ("model.onnx", "onnx")):
        folder = spoiled(files={})
        shutil.copyfile(trap, folder / name)
        describe(folder, name, format)
        with pytest.raises(ArtifactError, match=f"{name}: "):
            load(folder / name)
        shutil.rmtree(folder)
    assert not (tmp_path / "sprung").exists()


def test_below_the_threshold_there_is_no_label(colours, spoiled):
    pixels = [plain("red"), np.zeros((8, 8, 3), np.uint8)]
    careful = spoiled(decision=Decision(reject_below=0.5))
    for strict in (load(colours, reject_below=0.5), load(careful)):
        sure, unsure = strict.predict(pixels)
        assert (sure.label, sure.rejected) == ("red", False)
        assert (unsure.label, unsure.rejected, unsure.error) == (None, True, None)
        assert unsure.confidence == pytest.approx(1 / 3)
        assert len(unsure.top(3)) == 3
    assert load(careful, reject_below=0.0).predict(pixels)[1].label == "red"


def test_embeddings_come_with_the_answers_where_they_are_asked_for(classifier):
    with_them = classifier.predict([plain("red"), b"", plain("blue")], embeddings=True)
    assert with_them[0].embedding == pytest.approx([1, 0, 0])
    assert with_them[1].embedding is None
    assert with_them[2].embedding == pytest.approx([0, 0, 1])
    assert classifier.predict([plain("red")])[0].embedding is None


def test_tta_averages_over_the_mirror_image(spoiled):
    half = np.concatenate([plain("red")[:, :4], plain("blue")[:, 4:]], axis=1)
    lop_sided = load(spoiled())
    answer = lop_sided.runtime.outputs
    lop_sided.runtime.outputs = lambda pixels, names: answer(np.repeat(pixels[:, :, :4], 2, axis=2), names)
    assert lop_sided.predict([half])[0].top(3)[0] == ("red", pytest.approx(SURE, rel=1e-4))
    both = dict(lop_sided.predict([half], tta=True)[0].top(3))
    assert both["red"] == both["blue"] == pytest.approx(SURE / 2 + (1 - SURE) / 4, rel=1e-4)


def test_many_images_give_the_answers_of_few(colours, monkeypatch):
    from ai_edge_litert import interpreter

    threads: list[int] = []

    def opened(path: str, num_threads: int) -> interpreter.Interpreter:
        threads.append(num_threads)
        return original(path, num_threads=num_threads)

    original = interpreter.Interpreter
    monkeypatch.setattr(interpreter, "Interpreter", opened)
    monkeypatch.setattr(environment, "cpu_count", lambda: 3)
    classifier = load(colours)
    names = [("red", "green", "blue")[place % 3] for place in range(100)]
    assert [p.label for p in classifier.stream(plain(name) for name in names)] == names
    assert threads == [3, 1, 1, 1]
    assert [p.label for p in classifier.predict([plain("green")])] == ["green"]


@pytest.mark.parametrize(("name", "package"), [("model.tflite", "ai_edge_litert"), ("saved_model", "tensorflow")])
def test_without_the_package_the_error_names_it(colours, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingError, match=package):
        load(colours / name)


@pytest.mark.parametrize(("name", "loads_tensorflow"), [("model.tflite", False), ("saved_model", True)])
def test_a_fresh_process_is_quiet_and_loads_tensorflow_for_a_saved_model_only(
    colours, tmp_path, name, loads_tensorflow
):
    path = saved(tmp_path / "red.png", "red")
    code = "import sys, imgclf\nprint(imgclf.load(sys.argv[1]).predict(sys.argv[2:])[0].label)\n"
    code += "print({'tensorflow', 'keras', 'sklearn', 'scipy', 'matplotlib', 'grain', 'rich'} & {*sys.modules})"
    command = [sys.executable, "-c", code, str(colours / name), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    answer, loaded = done.stdout.splitlines()
    assert (answer, done.stderr) == ("red", "")
    assert loaded == "set()" or loads_tensorflow
    assert ("'tensorflow'" in loaded) == loads_tensorflow


@pytest.mark.parametrize("engine", ["litert", "savedmodel"])
def test_every_engine_gets_preprocessed_pixels(engine, colours, tmp_path):
    folder = Path(shutil.copytree(colours, tmp_path / "model"))
    artifact.write(folder, replace(artifact.read(folder), preprocess="brightness=0.5,threshold=99"))
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = 255  # 127 after the first step: half of the image is white after the second, and half black
    [found] = load(folder, engine=engine).predict([image], embeddings=True)
    np.testing.assert_allclose(found.embedding, [0.5, 0.5, 0.5], atol=1e-6)
    artifact.write(folder, replace(artifact.read(folder), preprocess="brightness=0.5"))
    [found] = load(folder, engine=engine).predict([image], embeddings=True)
    np.testing.assert_allclose(found.embedding, [127 / 255 / 2] * 3, atol=1e-6)
