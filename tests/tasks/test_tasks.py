"""The seam: what every task has, and a task that is plugged in from outside."""

from pathlib import Path
from typing import Any

import pytest

from imgclf import tasks
from imgclf.data import reading
from imgclf.errors import UsageError
from imgclf.evaluation import scorers
from imgclf.evaluation.scorers import Scorer
from imgclf.prediction import forms
from imgclf.prediction.forms import Form
from imgclf.settings import DataConfig, ReadConfig
from imgclf.tasks import Task


def members(protocol: Any) -> set[str]:
    """What a protocol asks for."""
    own = {name for name in vars(protocol) if not name.startswith("_")}
    return own | set(vars(protocol).get("__annotations__", {}))


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_has_what_its_three_modules_are_asked_for(name: str) -> None:
    for protocol, module in ((Task, tasks.find(name)), (Form, forms.find(name)), (Scorer, scorers.find(name))):
        assert [each for each in members(protocol) if not hasattr(module, each)] == []


def test_the_default_comes_first_and_the_help_lists_all() -> None:
    assert tasks.names()[0] == tasks.DEFAULT == ReadConfig().task
    with pytest.raises(UsageError, match=r"--task: expected one of multiclass, .*found 'regresion'.*'regression'"):
        tasks.find("regresion")
    with pytest.raises(
        UsageError, match=r"found 'ordinal'\. Ordered classes .*--task regression takes grades as numbers"
    ):
        tasks.find("ordinal")


def test_a_task_from_outside_is_read_and_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Any) -> None:
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    text = "from imgclf.tasks.regression import *\nfrom imgclf.tasks import regression\n"
    text += "USUAL = ('halves',)\n\n\ndef encode(labels, names):\n    return regression.encode(labels, names) / 2\n"
    (plugin / "halved.py").write_text(text)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(plugin)])
    folder = images({"a.png": 10, "b.png": 20, "c.png": 30, "d.png": 40})
    (folder / "table.csv").write_text("path,halves\na.png,10\nb.png,20\nc.png,30\nd.png,40\n")
    dataset = reading.read(folder, DataConfig(task="halved", near_duplicates="off"), split=False)
    assert dataset.task == "halved" and dataset.class_names == ("halves",)
    assert dataset.labels.tolist() == [[5.0], [10.0], [15.0], [20.0]]


def test_what_a_task_lacks_is_refused_by_name() -> None:
    tasks.refuse("multiclass", "kfold")
    with pytest.raises(UsageError, match=r"--mixup does not support --task regression"):
        tasks.refuse("regression", "--mixup")
