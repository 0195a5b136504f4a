import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgclf import __version__
from imgclf.errors import ArtifactError
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact, File
from imgclf.settings import Decoding

FACTS = Artifact(
    labels=("ants", "bees"),
    image_size=96,
    resize="squash",
    backbone="small-cnn",
    outputs=("probabilities", "embedding"),
    data_sha256="d0",
    files={"model.tflite": File("litert", "ab", 3)},
)


def changed(folder: Path, **values: object) -> Path:
    """A folder whose artifact.json is that of FACTS with other values; None takes a key away."""
    artifact.write(folder, FACTS)
    content = json.loads((folder / "artifact.json").read_text()) | values
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "artifact.json").write_text(json.dumps(content))
    return folder


def test_the_file_on_disk_has_these_keys_and_values(tmp_path):
    artifact.write(tmp_path, FACTS)
    assert json.loads((tmp_path / "artifact.json").read_text()) == {
        "schema": 1,
        "imgclf": __version__,
        "labels": ["ants", "bees"],
        "image_size": 96,
        "resize": "squash",
        "backbone": "small-cnn",
        "temperature": 1.0,
        "outputs": ["probabilities", "embedding"],
        "data_sha256": "d0",
        "files": {"model.tflite": {"format": "litert", "sha256": "ab", "bytes": 3}},
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    labels=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4, unique=True)
)
def test_what_is_written_is_read_back(tmp_path, labels):
    facts = replace(FACTS, labels=tuple(labels), temperature=1.25)
    artifact.write(tmp_path, facts)
    assert artifact.read(tmp_path) == facts


def test_decoding_rules_are_written_only_where_they_were_chosen(tmp_path):
    chosen = replace(FACTS, window="0,4095", allow_truncated=True)
    for facts in (FACTS, chosen):
        artifact.write(tmp_path, facts)
        assert artifact.read(tmp_path) == facts
        written = json.loads((tmp_path / "artifact.json").read_text())
        assert ("window" in written, "allow_truncated" in written) == (facts is chosen, facts is chosen)
    assert artifact.read(tmp_path).decoding == Decoding("squash", "0,4095", allow_truncated=True)


def test_preprocessing_travels_and_keeps_versions_away_that_would_leave_it_out(tmp_path):
    artifact.write(tmp_path, FACTS)
    assert json.loads((tmp_path / "artifact.json").read_text())["schema"] == 1
    facts = replace(FACTS, preprocess="denoise,jpeg=40")
    artifact.write(tmp_path, facts)
    assert json.loads((tmp_path / "artifact.json").read_text())["schema"] == 2
    assert artifact.read(tmp_path) == facts
    assert artifact.read(tmp_path).decoding.steps == (("denoise", 3), ("jpeg", 40))
    with pytest.raises(ArtifactError, match=r"damaged description of a model.*unknown step 'melt'"):
        artifact.read(changed(tmp_path, preprocess="melt"))


def test_keys_of_later_versions_are_ignored_within_a_schema(tmp_path):
    assert artifact.read(changed(tmp_path, threshold=0.5)) == FACTS


def test_a_folder_without_artifact_json_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=re.escape(f"{tmp_path}: expected an exported model (with artifact.json)")):
        artifact.read(tmp_path)


def test_a_newer_schema_is_refused_with_the_version_that_wrote_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"schema 2 or older, found 3, written by imgclf 9\.0"):
        artifact.read(changed(tmp_path, schema=3, imgclf="9.0"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"a"', b"null", b"{}", b"\xff\xfe", b'{"schema": "1"}'])
def test_damaged_json_is_an_artifact_error_that_names_the_file(tmp_path, content):
    (tmp_path / "artifact.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path / "artifact.json"))):
        artifact.read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", None),
        ("labels", []),
        ("labels", "ants"),
        ("labels", [1, 2]),
        ("image_size", 0),
        ("image_size", "big"),
        ("resize", "stretch"),
        ("files", ["model.tflite"]),
        ("files", {"model.tflite": {}}),
        ("temperature", "warm"),
        ("temperature", math.nan),
        ("temperature", 0),
        ("temperature", math.inf),
        ("image_size", math.inf),
        ("labels", ["ants", "ants"]),
        ("labels", ["ants", ""]),
        ("labels", ["ants", "\ud800"]),
        ("files", {"model.tflite": {"format": "litert", "sha256": "\ud800", "bytes": 3}}),
        ("outputs", ["embedding"]),
        ("outputs", None),
        ("reject_below", math.nan),
        ("reject_below", 1.5),
        ("decision", {"outlier_above": math.nan}),
        ("decision", {"outlier_above": math.inf}),
        ("decision", {"outlier_above": "far"}),
        ("decision", {"set_from": -0.1}),
        ("decision", {"positive": "ants", "threshold": math.nan}),
        ("decision", {"positive": "wasps", "threshold": 0.5}),
        ("decision", {"set_from": 0.5, "coverage": 2}),
        ("files", {"model.tflite": {"format": "litert", "sha256": "ab", "bytes": -1}}),
        ("files", {"model.tflite": {"format": "litert", "sha256": "ab", "bytes": math.inf}}),
        ("files", {"model.tflite": {"format": "litert", "sha256": "ab", "bytes": 3, "agreement": {"int8": math.nan}}}),
    ],
)
def test_an_impossible_value_is_an_artifact_error(tmp_path, key, value):
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.read(changed(tmp_path, **{key: value}))


@pytest.mark.parametrize(
    "name",
    [
        "../model.tflite",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "",
        ".",
        "C:\\model",
        "C:model",
        "..\\x",
        "a\0b",
        "a/",
        ".. ",
    ],
)
def test_no_file_of_an_artifact_lies_outside_of_its_folder(tmp_path, name):
    with pytest.raises(ArtifactError, match="is not a path in its folder"):
        artifact.read(changed(tmp_path, files={name: {"format": "litert", "sha256": "ab", "bytes": 3}}))
    inside = changed(tmp_path, files={"in/a..b.tflite": {"format": "litert", "sha256": "ab", "bytes": 3}})
    assert list(artifact.read(inside).files) == ["in/a..b.tflite"]


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "model").write_bytes(b"abc")
    assert artifact.hash_tree(tmp_path / "model") == (hashlib.sha256(b"abc").hexdigest(), 3)


def test_the_hash_of_a_folder_covers_names_and_contents_and_nothing_else(tmp_path):
    def tree(name: str, files: dict[str, bytes]) -> tuple[str, int]:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return artifact.hash_tree(tmp_path / name)

    first = tree("first", {"a": b"1", "in/b": b"23"})
    assert first[1] == 3
    assert tree("copy", {"in/b": b"23", "a": b"1"}) == first
    assert tree("renamed", {"a": b"1", "in/c": b"23"}) != first
    assert tree("changed", {"a": b"1", "in/b": b"24"}) != first
    assert tree("more", {"a": b"1", "in/b": b"23", "c": b""}) != first


def test_hashing_nothing_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="No such file"):
        artifact.hash_tree(tmp_path / "none")


def test_a_file_that_was_changed_missing_or_not_described_is_told_apart(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        artifact.verify(tmp_path, FACTS, "model.tflite")
    (tmp_path / "model.tflite").write_bytes(b"abc")
    with pytest.raises(ArtifactError, match="changed or damaged"):
        artifact.verify(tmp_path, FACTS, "model.tflite")
    with pytest.raises(ArtifactError, match=r"describes, found model\.tflite there"):
        artifact.verify(tmp_path, FACTS, "other.tflite")
    right = replace(FACTS, files={"model.tflite": File("litert", hashlib.sha256(b"abc").hexdigest(), 3)})
    artifact.verify(tmp_path, right, "model.tflite")
