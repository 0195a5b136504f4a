"""The public API: its names, and the examples of docs/python.md."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest
from conftest import fill

import imgclf
from imgclf import settings
from imgclf.cli.app import COMMANDS
from imgclf.errors import ImgclfError

FUNCTIONS = (
    *(
        "augment",
        "baseline",
        "calibrate",
        "compare",
        "convolve",
        "describe",
        "evaluate",
        "explain",
        "export",
        "features",
    ),
    *("ingest", "kfold", "load", "read", "resume", "search", "train", "tune"),
    *("curves", "drift", "suggest", "suspects"),
)
RESULTS = (
    *("Augmented", "Baseline", "Classifier", "Convolution", "CrossValidation", "Dataset", "Description", "Evaluation"),
    *("Explanation", "FeatureTable", "Ingestion", "Match", "Prediction", "Run", "SearchResult"),
    *("Curves", "Drift", "Suggestions", "Suspects", "Tuning"),
)
SETTINGS = (
    *(
        "AugmentConfig",
        "BaselineConfig",
        "CalibrateConfig",
        "ConvolveConfig",
        "DataConfig",
        "DescribeConfig",
        "EvaluateConfig",
    ),
    *("ExplainConfig", "ExportConfig", "FeaturesConfig", "IngestConfig", "KfoldConfig", "PredictConfig"),
    *("SearchConfig", "TrainConfig", "TuneConfig"),
    *("CurvesConfig", "DriftConfig", "SuggestConfig", "SuspectsConfig"),
)
ERRORS = (
    *("ArtifactError", "DatasetError", "ExportError", "GateError", "ImageError", "ImgclfError"),
    *("MissingError", "RunError", "UsageError"),
)
PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_exported_names_are_these():
    assert sorted(imgclf.__all__) == sorted([*FUNCTIONS, *RESULTS, *SETTINGS, *ERRORS])
    assert set(imgclf.__all__) <= set(dir(imgclf))
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = imgclf.fit


def test_every_name_is_what_its_kind_says():
    assert all(inspect.isfunction(getattr(imgclf, name)) for name in FUNCTIONS)
    assert all(inspect.isclass(getattr(imgclf, name)) for name in RESULTS)
    assert all(issubclass(getattr(imgclf, name), settings.Config) for name in SETTINGS)
    assert all(issubclass(getattr(imgclf, name), ImgclfError) for name in ERRORS)


def test_no_function_shares_its_name_with_a_package_or_module():
    package = Path(imgclf.__file__).parent
    names = {path.stem for path in package.iterdir()}
    assert not names & set(imgclf.__all__)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_function_is_documented_with_its_errors(function):
    documentation = inspect.getdoc(getattr(imgclf, function))
    assert documentation and "Raises:" in documentation


@pytest.mark.parametrize("command", sorted({*FUNCTIONS} & {*COMMANDS}))
def test_a_command_calls_the_function_of_its_name(command):
    source = inspect.getsource(getattr(import_module(f"imgclf.cli.{command}"), command))
    assert f"imgclf.{command}(" in source


def test_the_page_has_an_example_of_every_function():
    text = PAGE.read_text(encoding="utf-8")
    examples = "".join(example.source for example in doctest.DocTestParser().get_examples(text))
    assert [name for name in FUNCTIONS if f"imgclf.{name}(" not in examples] == []


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", ("ant", "bee"), count=40, size_px=32, suffix=".png", seed=0)
    examples = doctest.DocTestParser().get_doctest(PAGE.read_text(encoding="utf-8"), {}, PAGE.name, str(PAGE), 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner().run(examples, out=complaints.append)
    assert result.failed == 0, "".join(complaints)
    assert result.attempted > 15
