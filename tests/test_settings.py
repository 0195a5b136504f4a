"""Settings check themselves, name the option, and go to JSON and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.errors import UsageError
from imgclf.settings import DataConfig, EvaluateConfig, PredictConfig, TrainConfig, names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "guess"}, "--method: expected one of auto, probe, finetune, full, scratch, found 'guess'"),
        ({"image_size": 8}, "--image-size: expected 16 to 1024 pixels, found 8"),
        ({"image_sizes": "32,x"}, "--image-sizes: expected numbers"),
        ({"epochs": 0}, "--epochs"),
        ({"lr": -1.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "together under 1"),
        ({"export": "tensorrt"}, "--export"),
        ({"export": "litert,none"}, "none alone"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"warmup_epochs": float("inf")}, "--warmup-epochs"),
        ({"epochs": "2"}, "--epochs: expected int or nothing, found '2'"),
        ({"offline": 1}, "--offline: expected bool"),
        ({"epochs": True}, "--epochs"),
        ({"group_by": "("}, "--group-by: expected a regular expression, parent or a column, found '\\('"),
        ({"rename": "ant"}, "--rename: expected old=new, each class once, found 'ant'"),
        ({"rename": "ant="}, "--rename"),
        ({"rename": "ant=bee=cat"}, "--rename"),
        ({"rename": "ant=bee,ant=cat"}, "--rename"),
        ({"depth": 0}, "--depth"),
        ({"box_margin": -0.1}, "--box-margin"),
    ],
)
def test_an_impossible_setting_names_its_option(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [TrainConfig(seed=7, classes="a,b"), EvaluateConfig(top_k=3), PredictConfig(top=2)])
def test_settings_come_back_from_their_json(config: TrainConfig | EvaluateConfig | PredictConfig) -> None:
    assert type(config).from_dict(config.to_dict()) == config


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(UsageError, match="'epoch'"):
        TrainConfig.from_dict({"epoch": 3})


def test_new_names_of_classes_are_pairs() -> None:
    assert TrainConfig(rename=" ant = wood ant , bee=wasp").renames == {"ant": "wood ant", "bee": "wasp"}
    assert TrainConfig().renames == {}


def test_classes_are_chosen_after_reading_when_labels_change() -> None:
    assert [DataConfig(**{name: "x=y"}).relabels for name in ("labels", "rename", "class_map")] == [True] * 3
    assert not DataConfig(classes="x").relabels


@given(
    st.lists(
        st.text(st.characters(exclude_characters=", \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85", codec="ascii"), min_size=1)
    )
)
def test_items_between_commas_are_found(items: list[str]) -> None:
    assert names(" , ".join(items)) == tuple(items)
