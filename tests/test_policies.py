"""Policies: data in, the same data out, and an error that names what was meant."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf import policies
from imgclf.errors import UsageError
from imgclf.policies import OPERATIONS, POLICIES, Policy


@pytest.mark.parametrize("name", POLICIES)
def test_a_named_policy_comes_back_from_every_form(name: str, tmp_path: Path) -> None:
    policy = policies.find(name)
    assert policies.find(str(policy)) == policy
    assert Policy.from_dict(policy.to_dict()) == policy
    (tmp_path / "p.toml").write_text(policy.to_toml(), encoding="utf-8")
    assert policies.find(str(tmp_path / "p.toml")) == policy
    assert policy.name == name


@given(
    st.dictionaries(st.sampled_from(list(OPERATIONS)), st.floats(0, 1)).map(
        lambda shares: {name: share * OPERATIONS[name].most for name, share in shares.items()}
    )
)
def test_any_strengths_come_back_from_one_line_and_from_a_file(values: dict[str, float]) -> None:
    policy = Policy.from_dict(values)
    assert policies.find(str(policy)) == policy
    import tomllib

    assert Policy.from_dict(tomllib.loads(policy.to_toml())) == policy


def test_a_file_is_toml_or_json_and_order_and_zeros_do_not_matter(tmp_path: Path) -> None:
    toml, json = tmp_path / "mine.toml", tmp_path / "mine.json"
    toml.write_text("# mine\nrotate = 10\nflip = 0.5\ngray = 0\n", encoding="utf-8")
    json.write_text('{"flip": 0.5, "rotate": 10.0}', encoding="utf-8")
    assert policies.find(str(toml)) == policies.find(str(json)) == policies.find("rotate=10, flip=0.5")
    assert policies.find(str(toml)).operations == (("flip", 0.5), ("rotate", 10.0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("standrad", "expected none, light.*found 'standrad'. Did you mean 'standard'"),
        ("", "--augment: expected none"),
        ("rotat=10", "unknown operation 'rotat'. Did you mean 'rotate'"),
        ("gry=1", "unknown operation 'gry'. Did you mean 'gray'"),
        ("flip_vertical=0.5", "Did you mean 'flip-vertical'"),
        ("rotate=400", "rotate: expected a number from 0 to 180 degrees, found 400.0. The nearest is 180."),
        ("flip=-1", "flip: expected a number from 0 to 0.5 of the images, found -1.0. The nearest is 0."),
        ("crop=inf", "The nearest is 0.99."),
        ("crop=nan", "crop: expected a number from 0 to 0.99 of the area, found nan.$"),
        ("rotate=ten", "found 'rotate=ten'"),
        ("rotate=1,flip", "found 'flip' without a strength"),
        ("rotate=1,rotate=2", "rotate twice"),
        ("rotate=1,pick=2", "pick: expected at most 1"),
        ("flip=0.5,pick=1", "pick: expected at most 0"),
        ("rotate=1,chains=3", "chains: expected pick beside it"),
        ("rotate=1,pick=1.5", "found 'pick=1.5'"),
        ("there-is-none.toml", "there-is-none.toml: cannot be read"),
    ],
)
def test_an_impossible_policy_is_explained(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        policies.find(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.toml", "rotate: 10", "p.toml: expected lines such as flip = 0.5, found no toml"),
        ("p.json", "[1]", "p.json: expected operations and their strengths, found list"),
        ("p.toml", 'rotate = "10"', "p.toml: rotate: expected a number from 0 to 180 degrees, found '10'.$"),
        ("p.toml", "flip = true", "p.toml: flip: expected a number.*found True"),
        ("p.toml", "rotates = 10", "p.toml: unknown operation 'rotates'. Did you mean 'rotate'"),
        ("p.toml", "rotate = 1\npick = 0.5", "pick: expected a whole number from 0 to 10"),
    ],
)
def test_an_impossible_file_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        policies.find(str(tmp_path / name))


def test_what_must_stay_upright_is_not_mirrored_and_hardly_rotated() -> None:
    policy, notes = policies.find("crop=0.2,flip=0.5,flip-vertical=0.2,rotate=90,hue=5").upright()
    assert policy == policies.find("crop=0.2,rotate=15,hue=5")
    assert [note.split()[0] for note in notes] == ["flip=0.5", "flip-vertical=0.2", "rotate=90"]
    assert policy.upright() == (policy, [])


def test_the_crops_of_the_policies_are_those_that_the_docs_state() -> None:
    """Least area and largest aspect ratio."""
    crops = {name: (1 - POLICIES[name].strength("crop"), 1 + POLICIES[name].strength("stretch")) for name in POLICIES}
    assert crops["light"] == pytest.approx((0.8, 1.1))
    assert crops["standard"] == pytest.approx((0.5, 4 / 3), abs=0.01)
    assert crops["heavy"] == pytest.approx((0.25, 4 / 3), abs=0.01)


def test_the_former_name_of_an_operation_still_works() -> None:
    assert policies.find("grey=0.5") == policies.find("gray=0.5")
    assert policies.find("grey=0.5").to_dict() == {"gray": 0.5}
