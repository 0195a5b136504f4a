"""What a fresh process has loaded after each entrance, and what works where packages are missing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imgclf.cli.app import COMMANDS

HEAVY = ("tensorflow", "keras", "jax", "torch", "sklearn", "scipy", "matplotlib", "grain")
ARRAYS = ("numpy", "PIL")

REPORT = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def imgclf_code(*arguments: str) -> str:
    """Code that does what `imgclf ARGUMENTS` does and goes on after it."""
    return f"""
import sys
from imgclf.cli.app import main
sys.argv = ["imgclf", *{list(map(str, arguments))!r}]
try:
    main()
except SystemExit as exit:
    code = exit.code
"""


def loaded_after(code: str) -> set[str]:
    """Top-level packages in `sys.modules` of a fresh process that ran `code`."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def run_without(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in which `package` cannot be imported."""
    absent = f"import sys; sys.modules[{package!r}] = None\n"
    return subprocess.run([sys.executable, "-c", absent + code], capture_output=True, text=True, timeout=120)


def test_import_imgclf_loads_neither_arrays_nor_frameworks():
    assert not loaded_after("import imgclf; imgclf.TrainConfig(); dir(imgclf)") & {*HEAVY, *ARRAYS, "typer", "rich"}


def test_help_loads_neither_arrays_nor_frameworks():
    loaded = loaded_after(imgclf_code("--help"))
    assert "typer" in loaded
    assert not loaded & {*HEAVY, *ARRAYS}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_loads_neither_arrays_nor_frameworks(command):
    assert not loaded_after(imgclf_code(command, "--help")) & {*HEAVY, *ARRAYS}


def test_reading_a_folder_loads_no_framework(image_folder):
    loaded = loaded_after(f"import imgclf; imgclf.read(__import__('pathlib').Path({str(image_folder())!r}))")
    assert "PIL" in loaded
    assert not loaded & set(HEAVY)


def test_the_catalogue_loads_no_framework():
    assert not loaded_after(imgclf_code("models")) & set(HEAVY)


def test_prediction_through_litert_loads_no_framework(trained_run):
    image = next((trained_run.path.parent / "images").rglob("*.png"))
    loaded = loaded_after(imgclf_code("predict", trained_run.path, image))
    assert "ai_edge_litert" in loaded
    assert not loaded & {*HEAVY, "pydantic"}  # Typer would load it for options, at the price of half an inference


def test_class_activation_maps_of_an_artifact_load_no_framework(trained_run, tmp_path):
    """Nor the generators of numpy.random and Matplotlib: a cold explanation takes little longer than a prediction."""
    image = next((trained_run.path.parent / "images").rglob("*.png"))
    for name in ("artifact.json", "model.tflite", "outliers.npz"):
        if (trained_run.path / name).is_file():
            shutil.copy(trained_run.path / name, tmp_path)
    code = imgclf_code("explain", tmp_path, image, "-o", tmp_path / "maps", "--json")
    loaded = loaded_after(f"{code}\nassert not code, code\nassert 'numpy.random' not in sys.modules")
    assert len(list((tmp_path / "maps").iterdir())) == 1
    assert "ai_edge_litert" in loaded
    assert not loaded & {*HEAVY, "pandas", "pydantic"}


def test_a_convolution_loads_no_framework(tmp_path):
    (tmp_path / "image.csv").write_text("1,2,3\n4,5,6\n7,8,9\n")
    code = imgclf_code("convolve", tmp_path / "image.csv", "--kernel", "box", "--numbers")
    loaded = loaded_after(f"{code}\nassert not code, code")
    assert "numpy" in loaded
    assert not loaded & {"tensorflow", "keras", "jax", "torch", "sklearn", "pandas"}


def test_a_classifier_on_hand_made_features_needs_no_framework(image_folder, tmp_path):
    data, run = image_folder(count=12), tmp_path / "run"
    made = ("--model", "svm", "--features", "hog", "--image-size", "32")
    code = "".join(
        f"{imgclf_code(*command)}\nassert not code, (code, sys.argv)\n"
        for command in (
            ("train", data, *made, "-o", run),
            ("predict", run, data),
            ("evaluate", run, data),
            ("card", run),
            ("kfold", data, *made, "--folds", "2", "-o", tmp_path / "folds"),
        )
    )
    loaded = loaded_after(code)
    assert {"sklearn", "skimage", "skops"} <= loaded
    assert not loaded & {"keras", "tensorflow", "jax", "torch"}
    assert (run / "report.html").is_file()


def test_prediction_loads_no_settings_of_training(trained_run):
    image = next((trained_run.path.parent / "images").rglob("*.png"))
    code = imgclf_code("predict", trained_run.path, image) + "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "imgclf.settings.prediction" in done.stdout.split()
    assert not {"imgclf.settings.training", "imgclf.policies"} & set(done.stdout.split())


@pytest.mark.parametrize("package", ["tensorflow", "keras", "ai_edge_litert", "numpy", "PIL", "sklearn"])
def test_import_and_help_work_without_a_package(package):
    done = run_without(package, "import imgclf\n" + imgclf_code("--help") + "sys.exit(code)")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_tensorflow_training_ends_with_exit_code_5_and_its_name(image_folder, tmp_path: Path):
    code = imgclf_code("train", image_folder(), "-o", tmp_path / "run", "--backbone", "small-cnn") + "sys.exit(code)"
    done = run_without("tensorflow", code)
    assert done.returncode == 5
    assert "tensorflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_litert_prediction_ends_with_exit_code_5_and_its_name(trained_run):
    image = next((trained_run.path.parent / "images").rglob("*.png"))
    done = run_without("ai_edge_litert", imgclf_code("predict", trained_run.litert, image) + "sys.exit(code)")
    assert done.returncode == 5
    assert "litert" in done.stderr
    assert "Traceback" not in done.stderr
