import shutil
from dataclasses import replace

import numpy as np
import pytest

from imgclf import environment, prediction, storage
from imgclf.data import dataset as datasets
from imgclf.data import images
from imgclf.errors import ArtifactError, MissingError, RunError, UsageError
from imgclf.exporting import artifacts, litert, savedmodel
from imgclf.prediction import artifact
from imgclf.prediction.artifact import File
from imgclf.runs import Run
from imgclf.settings import ExportConfig


def contents(run) -> dict[str, bytes]:
    return {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_both_formats_agree_with_keras_on_answers_that_span_the_scale(exported, photographs):
    run, rows = exported
    assert [(row["format"], row["file"]) for row in rows] == [("litert", "model.tflite"), ("savedmodel", "saved_model")]
    for row in rows:
        assert row["max_difference"] <= 1e-4
        assert row["label_agreement"] == 1
        assert (row["compared"], row["compared_on"]) == (16, "images")
    assert rows[0]["max_difference_from_bytes"] is None
    assert 0 < rows[1]["max_difference_from_bytes"] <= 0.02

    files = sorted(path for path in photographs.rglob("*") if path.is_file())
    pixels = np.stack([images.load(path, 32) for path in files]).astype(np.float32)
    by_litert = prediction.load(run.litert).probabilities(pixels)
    by_savedmodel = prediction.load(run.saved_model).probabilities(pixels)
    from_bytes = savedmodel.predict_bytes(run.saved_model, [path.read_bytes() for path in files])
    assert by_litert.min() < 0.1
    assert by_litert.max() > 0.9
    assert ((by_litert > 0.2) & (by_litert < 0.8)).sum() > 10
    assert np.abs(by_litert - by_savedmodel).max() < 1e-4
    assert np.abs(by_litert - from_bytes).max() < 0.02


def test_artifact_json_describes_the_files_with_their_hashes(exported):
    run, rows = exported
    facts = artifact.read(run.path)
    assert facts.outputs == ("probabilities", "embedding", "feature_map")
    assert list(facts.files) == ["model.keras", "model.tflite", "saved_model"]
    for name, file in facts.files.items():
        artifact.verify(run.path, facts, name)
        assert file.bytes == artifact.hash_tree(run.path / name)[1]
    assert [row["bytes"] for row in rows] == [facts.files[row["file"]].bytes for row in rows]
    assert not list(run.path.glob(f"*{storage.STAGE}"))


def test_a_run_with_brackets_in_its_name_is_exported(pristine, tmp_path):
    run = Run(shutil.copytree(pristine.path, tmp_path / "run [x] $x é"))
    [row] = artifacts.write(run, ["savedmodel"])
    assert row["max_difference_from_bytes"] is not None
    assert run.saved_model.is_dir()


@pytest.mark.parametrize("format", ["litert", "savedmodel", "mediapipe"])
def test_an_export_that_disagrees_leaves_the_old_one(exported, tmp_path, monkeypatch, format):
    run = Run(shutil.copytree(exported[0].path, tmp_path / "run"))
    before = contents(run)

    def other(model, **options):
        """The graph of the same network with other weights in its last layer."""
        layer = model.get_layer("logits")
        kernel, bias = layer.get_weights()
        layer.set_weights([-np.abs(kernel), bias])
        return trace(model, **options)

    trace = savedmodel.trace
    monkeypatch.setattr(savedmodel, "trace", other)
    with pytest.raises(ArtifactError, match=r"within 0\.0001 of Keras's.*not kept") as raised:
        artifacts.write(run, [format])
    assert str(run.path / artifacts.FILES[format]) in str(raised.value)
    assert contents(run) == before


def test_a_savedmodel_that_resizes_otherwise_is_found_out_from_bytes(run, monkeypatch):
    write = savedmodel.write
    monkeypatch.setattr(savedmodel, "write", lambda *given: write(*given[:-1], replace(given[-1], resize="crop")))
    with pytest.raises(ArtifactError, match="for encoded images"):
        artifacts.write(run, ["savedmodel"])
    assert not run.saved_model.exists()


def test_an_export_that_cannot_be_described_leaves_the_old_one(exported, tmp_path, monkeypatch):
    run = Run(shutil.copytree(exported[0].path, tmp_path / "run"))
    before = contents(run)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "install", full)
    for format in ("litert", "savedmodel"):
        with pytest.raises(RunError, match="No space left on device"):
            artifacts.write(run, [format])
        assert contents(run) == before


def test_an_export_that_is_killed_between_file_and_description_is_finished_by_the_next_command(
    run, photographs, monkeypatch
):
    artifacts.write(run, ["litert"])
    old = run.litert.read_bytes()
    with run.lock(), storage.stage(run.path) as stage:  # another model of the same classes
        facts = artifact.read(run.path)
        shutil.copy(run.litert, stage)
        with (stage / run.litert.name).open("ab") as file:
            file.write(bytes(16))
        changed = File("litert", *artifact.hash_tree(stage / run.litert.name))
        artifact.write(stage, replace(facts, files={**facts.files, run.litert.name: changed}))
        with monkeypatch.context() as patch:
            patch.setattr(storage, "finish_install", lambda folder: None)  # killed before the first file is moved
            storage.install(stage, run.path)
    (run.path / storage.READY / run.litert.name).rename(run.litert)  # or after it
    assert prediction.load(run.path).labels == ("ants", "bées", "[moth]")
    assert run.litert.read_bytes() == old + bytes(16)
    assert not (run.path / storage.READY).exists()


def test_exports_in_another_folder_need_no_run_and_leave_it_as_it_is(exported, photographs, tmp_path):
    run = Run(shutil.copytree(exported[0].path, tmp_path / "run"))
    before = contents(run)
    rows = artifacts.export(run, ExportConfig(format="litert-float16,backbone"), output=tmp_path / "out" / "models")
    assert [row["file"] for row in rows] == ["model-float16.tflite", "backbone.npz"]
    assert contents(run) | {storage.LOCK: b""} == before | {storage.LOCK: b""}
    assert list(artifact.read(tmp_path / "out" / "models").files) in (
        ["model-float16.tflite"],
        ["outliers.npz", "model-float16.tflite"],
    )
    shutil.rmtree(run.path)
    images = sorted(path for path in photographs.rglob("*") if path.is_file())[:4]
    found = prediction.load(tmp_path / "out" / "models", precision="float16").predict(images)
    expected = prediction.load(exported[0].path).predict(images)
    assert [each.label for each in found] == [each.label for each in expected]
    with pytest.raises(RunError, match="expected a new or empty folder"):
        artifacts.export(exported[0], ExportConfig(format="litert"), output=tmp_path / "out" / "models")


def test_a_second_export_replaces_the_first(run):
    artifacts.write(run, ["litert"])
    run.litert.write_bytes(b"damaged")
    [row] = artifacts.write(run, ["litert"])
    assert run.litert.stat().st_size == row["bytes"]
    assert prediction.load(run.path).labels == ("ants", "bées", "[moth]")


def test_progress_and_order_do_not_depend_on_the_order_asked_for(run):
    seen = []
    rows = artifacts.write(run, ["backbone", "litert"], on_progress=lambda *step: seen.append(step))
    assert [row["format"] for row in rows] == ["litert", "backbone"]
    assert seen == [("exporting: loading the model", 0, None), ("exporting litert,", 1, 1)]


def test_without_readable_images_it_compares_made_up_ones_and_says_so(run, tmp_path, caplog):
    storage.write_json(run.config, {**run.read_config(), "data": str(tmp_path / "gone")})
    [row] = artifacts.write(run, ["litert"])
    assert row["compared_on"] == "made-up pixels"
    assert row["max_difference"] <= 1e-4
    assert "cannot be read any more" in caplog.text


def test_images_that_were_deleted_are_replaced_by_others(run, photographs, tmp_path):
    copy = shutil.copytree(photographs, tmp_path / "copy")
    storage.write_json(run.config, {**run.read_config(), "data": str(copy)})
    for sample in datasets.read_manifest(run.manifest, copy).part("test").samples[:10]:
        (copy / sample.path).write_bytes(b"")
    [row] = artifacts.write(run, ["litert"])
    assert (row["compared"], row["compared_on"]) == (14, "images")


@pytest.mark.parametrize("formats", [["onyx"], ["litert", "onyx"], []])
def test_an_unknown_format_is_a_usage_error(run, formats):
    with pytest.raises(UsageError, match=r"expected some of litert, litert-float16, .*, backbone, found"):
        artifacts.write(run, formats)


def test_a_damaged_model_is_a_run_error(run):
    run.model.write_bytes(run.model.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"model\.keras"):
        artifacts.write(run, ["litert"])
    run.model.unlink()
    with pytest.raises(RunError, match=r"model\.keras"):
        artifacts.write(run, ["litert"])


def test_a_foreign_model_is_a_run_error(run):
    import keras

    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]).save(run.model)
    facts = artifact.read(run.path)
    file = File("keras", *artifact.hash_tree(run.model))
    artifact.write(run.path, replace(facts, files={run.model.name: file}))
    with pytest.raises(RunError, match="expected a classifier of imgclf"):
        artifacts.write(run, ["litert"])


def test_without_permission_to_write_it_is_a_run_error(run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "stage", refuse)
    with pytest.raises(RunError, match="cannot be written"):
        artifacts.write(run, ["litert"])


def test_without_tensorflow_another_backend_is_told_so(run, monkeypatch):
    monkeypatch.setattr(artifacts, "keras_backend", lambda: "jax")
    monkeypatch.setattr(environment, "has_package", lambda name: name != "tensorflow")
    with pytest.raises(MissingError, match="tensorflow"):
        artifacts.write(run, ["litert"])


@pytest.mark.slow
def test_under_another_backend_a_child_process_exports_and_passes_errors_on(run, monkeypatch):
    monkeypatch.setattr(artifacts, "keras_backend", lambda: "jax")
    monkeypatch.setattr(litert, "convert", None)  # this process must not need it
    rows = artifacts.write(run, ["litert", "savedmodel"])
    assert [row["format"] for row in rows] == ["litert", "savedmodel"]
    assert prediction.load(run.path).labels == ("ants", "bées", "[moth]")
    run.model.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"model\.keras"):
        artifacts.write(run, ["litert", "savedmodel"])
