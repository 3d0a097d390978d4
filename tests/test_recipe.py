"""Recipes: read from YAML, checked before anything is loaded, written back as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolecraft.errors import NotFound, SettingsError
from rolecraft.recipe import Recipe, differences, load_recipe, read_recipe, recipe_to_dict

DATA = {
    "model": {"base": "here", "dtype": "bfloat16"},
    "team": {"preset": "mor", "instructions": False},
    "data": {"benchmark": "toolworld", "size": 50, "options": {"families": ["calc"]}},
    "adapter": {"name": "lora", "r": 12, "target_modules": ["q_proj", "v_proj"]},
    "training": {"learning_rate": "4e-3", "max_steps": 7, "extra": {"adam_beta2": 0.99}},
}


def test_a_recipe_survives_being_written_and_read():
    recipe = read_recipe(DATA)
    assert read_recipe(recipe_to_dict(recipe)) == recipe


def test_the_adapters_own_settings_are_read_by_its_module():
    adapter = read_recipe(DATA).adapter
    assert (adapter.name, adapter.settings.r, adapter.settings.target_modules) == ("lora", 12, ("q_proj", "v_proj"))


def test_an_empty_recipe_has_every_default():
    recipe = read_recipe({})
    assert (recipe.model.base, recipe.team.preset, recipe.adapter.name) == ("nano", "single", "lora")


def test_flags_overrule_the_file(tmp_path):
    (tmp_path / "r.yaml").write_text("training: {max_steps: 7}\n")
    recipe = load_recipe(tmp_path / "r.yaml", ["training.max_steps=9", "adapter.r=3", "data.path=x.jsonl"])
    assert (recipe.training.max_steps, recipe.adapter.settings.r, recipe.data.path) == (9, 3, "x.jsonl")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"trainig": {}}, "unknown section 'trainig' in recipe. Did you mean 'training'"),
        ({"training": {"warmup_ratio": 0.1}}, "unknown key 'warmup_ratio' in training. Did you mean 'warmup_steps'"),
        ({"model": {"bse": "nano"}}, "Did you mean 'base'"),
        ({"adapter": {"rank": 8}}, "unknown key 'rank' in adapter"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate is 'fast'"),
        ({"training": {"per_device_train_batch_size": 0}}, "per_device_train_batch_size is 0"),
        ({"training": {"num_train_epochs": 0}}, "nothing is trained"),
        ({"training": 5}, "section 'training' holds 5"),
        ({"data": {"path": "a", "benchmark": "toolworld"}}, "give one of them"),
        ({"data": {"max_length": 1}}, "data.max_length is 1"),
        ({"data": {"size": 0}}, "data.size is 0"),
        ({"adapter": {"name": 3}}, "adapter.name is 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(data, told):
    with pytest.raises(SettingsError, match=told):
        read_recipe(data)


def test_an_unknown_adapter_is_answered_with_those_there_are():
    with pytest.raises(NotFound, match="Did you mean 'lora'"):
        read_recipe({"adapter": {"name": "lorra"}})


def test_differences_are_told_by_section_and_key():
    recipe = read_recipe(DATA)
    other: Recipe = replace(recipe, training=replace(recipe.training, learning_rate=1.0, report_to="wandb"))
    assert differences(recipe, other, ("training.report_to",)) == ["training.learning_rate: 0.004 -> 1.0"]
    assert differences(recipe, recipe) == []


def test_a_group_is_at_least_one_row_and_in_one_batch():
    assert read_recipe({"data": {"group": 8}}).data.group == 8
    with pytest.raises(SettingsError, match=r"data\.group is 0"):
        read_recipe({"data": {"group": 0}})
    with pytest.raises(SettingsError, match=r"above training\.per_device_train_batch_size, 2"):
        read_recipe({"data": {"group": 4}, "training": {"per_device_train_batch_size": 2}})
