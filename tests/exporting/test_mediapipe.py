"""The file for MediaPipe: its metadata, read back byte by byte, and MediaPipe itself where it is installed."""

import shutil
import struct
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from imgclf import prediction
from imgclf.data import images
from imgclf.errors import ArtifactError, ExportError
from imgclf.exporting import artifacts, parity
from imgclf.prediction import artifact
from imgclf.runs import Run

NAME = "model-mediapipe.tflite"
LABELS = ["ants", "bées", "[moth]"]


class Table:
    """A table of a flatbuffer; a field is given by its place in the schema.

    Source: https://flatbuffers.dev/internals.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def _at(self, field: int) -> int:
        """Where a field is; 0 if it is not set."""
        fields = self.place - struct.unpack_from("<i", self.data, self.place)[0]
        [size] = struct.unpack_from("<H", self.data, fields)
        found = struct.unpack_from("<H", self.data, fields + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
        return self.place + found if found else 0

    def _follow(self, place: int) -> int:
        return place + struct.unpack_from("<I", self.data, place)[0]

    def number(self, field: int) -> int:
        return self.data[self._at(field)] if self._at(field) else 0

    def text(self, field: int) -> str:
        place = self._follow(self._at(field))
        [length] = struct.unpack_from("<I", self.data, place)
        return self.data[place + 4 : place + 4 + length].decode()

    def table(self, field: int) -> "Table":
        return Table(self.data, self._follow(self._at(field)))

    def tables(self, field: int) -> list["Table"]:
        place = self._follow(self._at(field))
        [length] = struct.unpack_from("<I", self.data, place)
        return [Table(self.data, self._follow(place + 4 + 4 * i)) for i in range(length)]

    def floats(self, field: int) -> list[float]:
        place = self._follow(self._at(field))
        [length] = struct.unpack_from("<I", self.data, place)
        return list(struct.unpack_from(f"<{length}f", self.data, place + 4))


@pytest.fixture(scope="module")
def made(pristine: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, object]]:
    """The run with the file for MediaPipe, and its row of the report. Read it, never write it."""
    run = Run(shutil.copytree(pristine.path, tmp_path_factory.mktemp("mediapipe") / "run"))
    [row] = artifacts.write(run, ["mediapipe"])
    return run, row


def test_the_file_takes_one_image_and_has_one_output_which_is_that_of_keras(
    made: tuple[Run, dict[str, object]], pristine: Run
) -> None:
    run, row = made
    assert (row["format"], row["file"], row["compared_on"]) == ("mediapipe", NAME, "images")
    assert row["max_difference"] < 1e-4 and row["label_agreement"] == 1
    interpreter = Interpreter(str(run.path / NAME))
    [given], [output] = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["shape"].tolist() == given["shape_signature"].tolist() == [1, 32, 32, 3]
    assert output["shape"].tolist() == [1, 3]
    interpreter.allocate_tensors()
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    interpreter.set_tensor(given["index"], pixels)
    interpreter.invoke()
    expected = parity.reference(artifacts.load_model(pristine, artifact.read(pristine.path)), pixels)
    assert interpreter.get_tensor(output["index"]) == pytest.approx(expected["probabilities"], abs=1e-4)


def metadata_of(path: Path) -> bytes:
    """The metadata in a LiteRT file, as the schema of ai-edge-litert finds them."""
    model = schema.Model.GetRootAs(path.read_bytes())
    found = {model.Metadata(i).Name(): model.Metadata(i).Buffer() for i in range(model.MetadataLength())}
    assert b"min_runtime_version" in found  # what the converter wrote is still there
    return bytes(model.Buffers(found[b"TFLITE_METADATA"]).DataAsNumpy())


def test_its_metadata_name_the_labels_and_let_pixels_in_as_they_are(made: tuple[Run, dict[str, object]]) -> None:
    path = made[0].path / NAME
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
        assert archive.read("labels.txt").decode().splitlines() == LABELS
    data = metadata_of(path)
    assert data[4:8] == b"M001"
    root = Table(data, struct.unpack_from("<I", data)[0])
    assert root.text(7) == "1.0.0"  # min_parser_version
    [graph] = root.tables(3)
    [pixels], [scores] = graph.tables(2), graph.tables(3)
    assert (pixels.text(0), scores.text(0)) == ("pixels", "probabilities")
    content = pixels.table(3)
    assert (content.number(0), content.table(1).number(0)) == (2, 1)  # ImageProperties, RGB
    [unit] = pixels.tables(4)
    assert unit.number(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])  # (pixel - 0) / 1
    [labels] = scores.tables(6)
    assert (labels.text(0), labels.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def test_imgclf_itself_does_not_predict_with_it(made: tuple[Run, dict[str, object]]) -> None:
    with pytest.raises(ArtifactError, match=r"in one of the formats sklearn, litert, .* found mediapipe"):
        prediction.load(made[0].path / NAME)
    assert prediction.load(made[0].path).outputs(np.zeros((1, 32, 32, 3), np.float32)).keys() >= {"embedding"}


def test_a_model_of_numbers_is_refused_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    facts = artifact.read(run.path)
    artifact.write(run.path, replace(facts, task="regression", outputs=("values",)))
    monkeypatch.setattr(artifacts, "load_model", None)
    with pytest.raises(ExportError, match=r"model-mediapipe\.tflite: not exported, since .* predicts numbers"):
        artifacts.write(run, ["mediapipe"])
    assert "mediapipe" not in artifacts.everything(run)
    assert "mediapipe: left out" in caplog.text


def test_a_model_with_preprocessing_is_refused_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact.write(run.path, replace(artifact.read(run.path), preprocess="denoise,gray"))
    monkeypatch.setattr(artifacts, "load_model", None)
    with pytest.raises(ExportError, match=r"model-mediapipe\.tflite: not exported, .* --preprocess denoise,gray\."):
        artifacts.write(run, ["mediapipe"])
    assert "mediapipe" not in artifacts.everything(run)


@pytest.mark.parametrize(("resize", "warned"), [("crop", True), ("squash", False)])
def test_another_way_to_squares_than_that_of_mediapipe_is_told(
    run: Run, resize: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    artifact.write(run.path, replace(artifact.read(run.path), resize=resize))
    artifacts.write(run, ["mediapipe"])
    assert ("trained with --resize crop" in caplog.text) == warned


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of MediaPipe's own code
        yield


def test_the_schema_of_mediapipe_reads_the_same(made: tuple[Run, dict[str, object]], quiet: None) -> None:
    fields = pytest.importorskip("mediapipe.tasks.metadata.metadata_schema_py_generated")
    root = fields.ModelMetadataT.InitFromPackedBuf(metadata_of(made[0].path / NAME))
    [graph] = root.subgraphMetadata
    [pixels], [scores] = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert pixels.content.contentProperties.colorSpace == fields.ColorSpaceType.RGB
    [normalization] = [unit.options for unit in pixels.processUnits]
    assert isinstance(normalization, fields.NormalizationOptionsT)
    assert (list(normalization.mean), list(normalization.std)) == ([0.0], [1.0])
    [labels] = scores.associatedFiles
    assert (labels.name, labels.type) == (b"labels.txt", fields.AssociatedFileType.TENSOR_AXIS_LABELS)


def test_mediapipe_classifies_as_keras_does(
    made: tuple[Run, dict[str, object]], pristine: Run, photographs: Path, quiet: None
) -> None:
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    pixels = np.stack([images.load(path, 32) for path in sorted(photographs.rglob("*.*"))])
    expected = parity.reference(
        artifacts.load_model(pristine, artifact.read(pristine.path)), pixels.astype(np.float32)
    )["probabilities"]
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(made[0].path / NAME)))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for image, row in zip(pixels, expected, strict=True):
            answer = classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, image))
            found = {category.category_name: category.score for category in answer.classifications[0].categories}
            assert found == pytest.approx(dict(zip(LABELS, row.tolist(), strict=True)), abs=1e-4)
