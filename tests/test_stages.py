"""Stages are read from a recipe's YAML with flags for all or for one, and what cannot be meant is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rolecraft import stages
from rolecraft.errors import ContractError, NotFound, SettingsError
from rolecraft.recipe import load_recipe

MOR = {"name": "mor", "roles": {"reasoner": 1, "executor": 1, "summarizer": 1}, "router": False, "r": 2}
MOR["top_k"] = {"reasoner": 0, "executor": 0, "summarizer": 0}
RECIPE = {
    "data": {"benchmark": "toolworld", "size": 8, "options": {"families": ["hub"]}},
    "adapter": {"name": "lora", "r": 4, "lora_alpha": 8},
    "training": {"max_steps": 5, "learning_rate": 1e-3},
    "stages": {
        "global": {"training": {"max_steps": 3}},
        "local": {"team": {"preset": "mor"}, "adapter": MOR},
        "other": {"start": "base", "training": {"learning_rate": 2e-3}},
    },
}


def write(tmp_path: Path, **told) -> Path:
    (tmp_path / "staged.yaml").write_text(yaml.safe_dump({**RECIPE, **told}, sort_keys=False))
    return tmp_path / "staged.yaml"


def test_a_stage_lays_its_sections_over_the_recipe_and_starts_from_the_one_before(tmp_path):
    first, second, third = stages.load(write(tmp_path))
    assert [one.name for one in (first, second, third)] == ["global", "local", "other"]
    assert [one.start for one in (first, second, third)] == [None, "global", None]
    assert [one.recipe.training.max_steps for one in (first, second, third)] == [3, 5, 5]
    assert (first.recipe.adapter.settings.r, second.recipe.adapter.name) == (4, "mor")
    assert second.recipe.adapter.settings.lora_alpha is None  # another adapter takes over nothing


def test_a_flag_is_for_every_stage_and_one_with_a_stage_s_name_for_that(tmp_path):
    flags = ["training.max_steps=7", "stages.local.training.learning_rate=5e-3"]
    found = stages.load(write(tmp_path), flags)
    assert [one.recipe.training.max_steps for one in found] == [7, 7, 7]
    assert [one.recipe.training.learning_rate for one in found] == [1e-3, 5e-3, 2e-3]


def test_a_flag_says_what_a_stage_starts_from(tmp_path):
    flags = ["stages.local.start=base", "stages.other.start=global", "stages.local.training.max_steps=2"]
    _, local, other = stages.load(write(tmp_path), flags)
    assert (local.start, other.start, local.recipe.training.max_steps) == (None, "global", 2)
    with pytest.raises(SettingsError, match="starts from 'nowhere', which is no earlier stage"):
        stages.load(write(tmp_path), ["stages.local.start=nowhere"])


def test_what_a_run_writes_down_is_read_back(tmp_path):
    found = stages.load(write(tmp_path), ["training.max_steps=7"])
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(stages.to_dict(found), sort_keys=False))
    assert stages.load(path) == found


@pytest.mark.parametrize(
    ("told", "error", "why"),
    [
        ({"stages": {}}, SettingsError, "write each stage's name"),
        ({"stages": {"a/b": {}}}, SettingsError, "'a/b' names a folder"),
        ({"stages": {"checkpoint-3": {}}}, SettingsError, "begin it with neither"),
        ({"stages": {"one": {"start": "two"}, "two": {}}}, SettingsError, "'one' starts from 'two'"),
        ({"stages": {"one": {"start": "one"}}}, SettingsError, "no earlier stage"),
        ({"stages": {"one": 3}}, SettingsError, "stage 'one' holds 3"),
        ({"stages": {"one": {"training": 3}}}, SettingsError, "section 'training' holds 3"),
        ({"stages": {"one": {"training": {"max_step": 3}}}}, SettingsError, "Did you mean 'max_steps'"),
        ({"stages": {"one": {"trainng": {}}}}, SettingsError, "stage 'one'.*Did you mean 'training'"),
        ({"stages": {"one": {"team": {"preset": "mro"}}}}, NotFound, "no 'mro' in teams"),
        ({"stages": {"one": {}, "two": {"data": {"benchmark": None, "path": "no"}}}}, NotFound, "no file 'no'"),
        ({"stages": {"one": {}, "two": {"model": {"base": "./no"}}}}, NotFound, r"no folder './no'"),
        ({"stages": {"one": {"team": {"preset": "mor"}, "adapter": MOR}, "two": {}}}, SettingsError, "'one', whose"),
        ({"stages": {"one": {}, "two": {"adapter": MOR}}}, ContractError, "has LoRAs for reasoner"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_trained(tmp_path, told, error, why):
    with pytest.raises(error, match=why):
        stages.check(write(tmp_path, **told))


def test_a_flag_for_a_stage_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'local'"):
        stages.check(write(tmp_path), ["stages.locl.training.max_steps=1"])


def test_where_one_tuning_is_asked_for_stages_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="has stages"):
        load_recipe(write(tmp_path))
