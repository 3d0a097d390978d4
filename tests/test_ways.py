"""A recipe learns in one way, and what is told of it is refused where it cannot be meant."""

from __future__ import annotations

import itertools

import pytest

from rolecraft import recipe, ways
from rolecraft.errors import NotFound, SettingsError
from rolecraft.recipe import read_recipe, recipe_to_dict

TOLD = {
    "on_policy": {"teacher": "nano"},
    "experience": {"stage": "one"},
    "reinforcement": {"tasks": 2},
    "preference": {"beta": 0.2},
}
PLAYED = {"data": {"benchmark": "toolworld"}}


@pytest.mark.parametrize("both", list(itertools.combinations(ways.SECTIONS, 2)))
def test_two_ways_in_one_recipe_are_refused_by_name(both):
    sections = PLAYED | {name: TOLD[name] for name in both}
    for read in (read_recipe, lambda told: recipe.check_sections(told, "recipe")):
        with pytest.raises(SettingsError, match=f"{both[0]}.*{both[1]}|{both[1]}.*{both[0]}"):
            read(sections)


def test_experience_whose_update_is_preference_is_both_and_reads_back():
    played = {"stage": "one", "update": "preference", "tries": 4}
    for preference in ({}, {"preference": {"beta": 0.3}}):
        told = read_recipe(PLAYED | {"experience": played} | preference)
        assert told.preference is not None
        assert told.preference.beta == (0.3 if preference else 0.1)
        assert read_recipe(recipe_to_dict(told)) == told


def test_a_teacher_that_is_not_there_is_told_before_anything_runs():
    with pytest.raises(NotFound, match="nowhere"):
        recipe.check_sections(PLAYED | {"on_policy": {"teacher": "/nowhere/at/all"}}, "recipe")
