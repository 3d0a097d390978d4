"""What a recipe may say of on-policy distillation, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecraft import recipe
from rolecraft.errors import NotFound, SettingsError
from rolecraft.on_policy import OnPolicySettings

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rollouts": 0}, "on_policy.rollouts is 0; it must be at least 1"),
        ({"temperature": 0.0}, "it must be above 0"),
        ({"gate": 0.0}, "null for no gate"),
        ({"depth_start": 13}, "it must be 1 to max_turns"),
        ({"depth_start": 0}, "it must be 1 to max_turns"),
        ({"weights": {"executor": -1.0}}, "on_policy.weights.executor is -1.0"),
        ({"validation": -1}, "0 for none"),
        ({"divergence": "forward", "estimate": "sampled"}, "tell of 'reverse' KL alone"),
        ({"player": "teacher", "estimate": "sampled"}, "the teacher's of 'forward'"),
    ],
)
def test_what_cannot_be_meant_is_told(wrong, told):
    with pytest.raises(SettingsError, match=told):
        OnPolicySettings("nano", **wrong)


def test_depth_grows_from_short_to_long_and_stays():
    told = OnPolicySettings("nano", depth_start=2, depth_every=10, max_turns=4)
    assert [told.depth(step) for step in (1, 10, 11, 20, 21, 30, 31, 500)] == [2, 2, 3, 3, 4, 4, 4, 4]
    assert OnPolicySettings("nano", max_turns=4).depth(1) == 4


def test_a_teacher_may_be_an_earlier_stage():
    assert OnPolicySettings("stages.teacher").stage == "teacher"
    assert OnPolicySettings("nano").stage is None


def test_a_recipe_survives_being_written_and_read():
    told = recipe.load_recipe(ROOT / "recipes" / "opd.yaml")
    assert told.on_policy is not None
    assert recipe.read_recipe(recipe.recipe_to_dict(told)) == told


def test_a_recipe_without_it_is_written_as_ever():
    told = recipe.load_recipe(ROOT / "recipes" / "quickstart.yaml")
    assert told.on_policy is None
    assert list(recipe.recipe_to_dict(told)) == ["model", "team", "data", "adapter", "training"]


def test_what_changed_in_it_is_told():
    told = recipe.load_recipe(ROOT / "recipes" / "opd.yaml")
    other = recipe.load_recipe(ROOT / "recipes" / "opd.yaml", ["on_policy.gate=2.0"])
    assert recipe.differences(told, other) == ["on_policy.gate: 1.0 -> 2.0"]
    plain = recipe.load_recipe(ROOT / "recipes" / "quickstart.yaml")
    assert any(line.startswith("on_policy.teacher: None -> 'nano'") for line in recipe.differences(plain, told))


def test_an_unknown_setting_is_told_with_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'rollouts'"):
        recipe.load_recipe(ROOT / "recipes" / "opd.yaml", ["on_policy.rollout=3"])


def test_a_teacher_that_is_not_there_is_told_before_anything_is_loaded():
    with pytest.raises(NotFound, match="nowhere"):
        recipe.check(ROOT / "recipes" / "opd.yaml", ["on_policy.teacher=./nowhere", "on_policy.teacher_adapter=null"])
