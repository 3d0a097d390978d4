"""A cell is known by everything that decides its result, and by nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import claims
import pytest

from rolecraft.errors import DataError, SettingsError
from rolecraft.reproduce import cells, claim

SEARCH = {"small": {"search": {"training.learning_rate": [1e-3, 2e-3], "adapter.r": [2, 4]}}, "large": {}}
STAGES = {
    "small": {
        "settings": {"training": {"max_steps": 4}},
        "stages": [{"adapter": {"r": 8}}, {"adapter": {"name": "mor"}}],
    },
    "large": {},
}


def final(read: claim.Claim, arm: str = "small", seed: int = 0, weights: str = "w", **chosen) -> cells.Cell:
    return cells.final_cell(read, arm, seed, weights, chosen)


def test_settings_are_laid_over_the_recipe_the_arm_s_last(tmp_path):
    (stage,) = cells.stages(claims.make(tmp_path), "large")
    recipe = stage.recipe
    assert recipe.adapter.settings.r == 4
    assert recipe.adapter.settings.lora_alpha == 4
    assert recipe.training.lr_scheduler_type == "cosine"


def test_another_adapter_takes_over_nothing_of_the_one_before(tmp_path):
    first, second = (stage.recipe for stage in cells.stages(claims.make(tmp_path, arms=STAGES), "small"))
    assert (first.adapter.name, first.adapter.settings.r, first.adapter.settings.lora_alpha) == ("lora", 8, 4)
    assert (second.adapter.name, second.adapter.settings.r) == ("mor", 16)


def test_a_mistake_in_an_arm_is_told_with_its_name(tmp_path):
    read = claims.make(tmp_path, arms={"small": {"settings": {"training": {"learning_rat": 1}}}, "large": {}})
    with pytest.raises(SettingsError, match=r"arm 'small'.*Did you mean 'learning_rate'"):
        cells.stages(read, "small")


def test_an_arm_without_a_number_of_steps_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="max_steps is not set"):
        cells.stages(claims.make(tmp_path, settings={"training": {"max_steps": -1}}), "small")


def test_an_arm_that_would_stop_early_is_refused(tmp_path):
    training = {"max_steps": 4, "eval_steps": 2, "early_stopping_patience": 1}
    settings = {"training": training, "data": {"validation": 0.1}}
    with pytest.raises(SettingsError, match=r"arm 'small'.*do all of their steps"):
        cells.stages(claims.make(tmp_path, settings=settings), "small")


def test_an_arm_that_would_be_played_as_another_than_its_last_step_left_it_is_refused(tmp_path):
    settings = {"on_policy": {"teacher": "nano", "validation": 8}}
    with pytest.raises(SettingsError, match=r"arm 'small'.*on_policy.validation is set"):
        cells.stages(claims.make(tmp_path, settings=settings), "small")


def test_stages_by_name_may_start_from_the_base_and_are_then_other_cells(tmp_path):
    def named(start: str | None) -> cells.Cell:
        last = {} if start is None else {"start": start}
        stages = {"one": {"adapter": {"r": 8}}, "two": {}, "three": last}
        return final(claims.make(tmp_path, arms={"small": {"stages": stages}, "large": {}}))

    assert [stage.start for stage in named(None).stages] == [None, "one", "two"]
    digests = {start: cells.digest(named(start)) for start in (None, "two", "one", "base")}
    assert digests[None] == digests["two"]
    assert len(set(digests.values())) == 3


def test_names_of_stages_do_not_make_other_cells(tmp_path):
    listed = claims.make(tmp_path, arms={"small": {"stages": [{"adapter": {"r": 8}}, {}]}, "large": {}})
    named = claims.make(tmp_path, arms={"small": {"stages": {"a": {"adapter": {"r": 8}}, "b": {}}}, "large": {}})
    assert cells.digest(final(listed)) == cells.digest(final(named))


def test_every_point_of_the_grid_is_a_cell_with_its_share_of_the_steps(tmp_path):
    read = claims.make(tmp_path, arms=SEARCH, settings={"training": {"max_steps": 100}}, budget={"search_share": 0.3})
    found = cells.search_cells(read, "small", "w")
    assert [tuple(cell.search.values()) for cell in found] == [(1e-3, 2), (1e-3, 4), (2e-3, 2), (2e-3, 4)]
    assert {cell.stages[0].recipe.training.max_steps for cell in found} == {30}
    assert {cell.seed for cell in found} == {100}
    assert len({cell.name for cell in found}) == 4
    assert cells.search_cells(read, "large", "w") == ()


def test_what_the_search_chose_is_laid_over_the_last_stage(tmp_path):
    stages = {**STAGES["small"], "search": {"adapter.r": [2, 4]}}
    read = claims.make(tmp_path, arms={"small": stages, "large": {}})
    assert [stage.recipe.adapter.settings.r for stage in final(read, **{"adapter.r": 4}).stages] == [8, 4]


def test_the_best_searched_value_is_chosen_and_a_failed_one_never():
    found = [
        claims.result("small", 100, "0010", search={"adapter.r": 2}),
        claims.result("small", 100, "0110", search={"adapter.r": 4}),
        claims.result("small", 100, "0101", search={"adapter.r": 8}),
        claims.result("small", 100, "1", search={"adapter.r": 16}, scores={}, failed="the loss is nan"),
    ]
    assert cells.choose(found) == {"adapter.r": 4}
    with pytest.raises(DataError, match=r"every searched setting of arm 'small' failed.*the loss is nan"):
        cells.choose(found[3:])


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {**claims.SMALL["settings"], "training": {"max_steps": 3, "per_device_train_batch_size": 2}}},
        {"evaluation": {**claims.SMALL["evaluation"], "n": 3}},
        {"evaluation": {**claims.SMALL["evaluation"], "max_tokens": 5}},
        {"budget": {"most_steps": 8}},
        {"budget": {"curve": 2}},
    ],
)
def test_what_decides_the_result_changes_the_name(tmp_path, change):
    assert final(claims.make(tmp_path)).name != final(claims.make(tmp_path, **change)).name


def test_the_seed_the_base_and_a_chosen_value_change_the_name(tmp_path):
    read = claims.make(tmp_path)
    cells_ = [final(read), final(read, seed=1), final(read, weights="v"), final(read, **{"adapter.r": 3})]
    assert len({cell.name.rpartition("-")[2] for cell in cells_}) == 4


def test_an_arm_plays_in_a_world_of_its_own(tmp_path):
    arms = {"small": {"options": {"families": ["calc"], "tools": False}}, "large": {}}
    read = claims.make(tmp_path, arms=arms)
    assert final(read).evaluation.options == {"families": ["calc"], "tools": False}
    assert cells.final_cell(read, "large", 0, "w", {}).evaluation == read.evaluation
    assert final(read).name != final(claims.make(tmp_path)).name


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Another title", "question": "Another question?"},
        {"seeds": [0, 1, 2]},
        {"paper": {"figures": {"small": {"accuracy": 1}}}},
        {"evaluation": {**claims.SMALL["evaluation"], "development_n": 1}},  # nothing is chosen
        {"budget": {"minutes": 5}},
        {"settings": {**claims.SMALL["settings"], "model": {"renderer": None}}},  # its default, said
    ],
)
def test_what_decides_nothing_leaves_the_name(tmp_path, change):
    assert final(claims.make(tmp_path)).name == final(claims.make(tmp_path, **change)).name


def test_what_is_reported_does_not_change_a_search(tmp_path):
    one, other = (
        cells.search_cells(
            claims.make(tmp_path, arms=SEARCH, evaluation={**claims.SMALL["evaluation"], "n": n}), "small", "w"
        )
        for n in (2, 3)
    )
    assert [cell.name for cell in one] == [cell.name for cell in other]


def finished(tmp_path) -> tuple[cells.Cell, cells.Result]:
    cell = final(claims.make(tmp_path))
    return cell, claims.result("small", 0, "10", configuration=cells.configuration(cell))


def test_a_written_cell_is_read_back_as_it_was(tmp_path):
    cell, result = finished(tmp_path)
    cells.write(cell, result, tmp_path / "results")
    assert cells.finished(cell, tmp_path / "results") == result
    assert [path.name for path in (tmp_path / "results").iterdir()] == [f"{cell.name}.json"]
    assert cells.finished(final(claims.make(tmp_path), seed=1), tmp_path / "results") is None


def test_what_another_claim_has_run_is_not_run_again(tmp_path):
    cell, result = finished(tmp_path)
    other = replace(cell, claim="others", arm="of-another-name")
    cells.write(other, replace(result, claim="others", arm="of-another-name"), tmp_path / "results" / "others")
    assert cells.finished(cell, tmp_path / "results" / "mine") == replace(result, claim=cell.claim)
    assert cells.finished(final(claims.make(tmp_path), seed=1), tmp_path / "results" / "mine") is None
    assert cells.finished(final(claims.make(tmp_path), "large"), tmp_path / "results" / "mine") is None


def test_a_cell_made_before_a_setting_existed_is_known_again(tmp_path):
    cell, result = finished(tmp_path)
    path = cells.write(cell, result, tmp_path / "results")
    data = json.loads(path.read_text())
    del data["configuration"]["stages"][0]["model"]["attn_implementation"]
    path.write_text(json.dumps(data))
    assert cells.finished(cell, tmp_path / "results") is not None


def test_a_cell_whose_default_has_changed_since_is_not_finished(tmp_path):
    cell, result = finished(tmp_path)
    path = cells.write(cell, result, tmp_path / "results")
    data = json.loads(path.read_text())
    data["configuration"]["stages"][0]["adapter"]["bias"] = "all"
    path.write_text(json.dumps(data))
    assert cells.finished(cell, tmp_path / "results") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"claim": "x"}', '{"scores": {"test": {"scor": 1}}}'])
def test_a_damaged_cell_is_named(tmp_path, damage):
    cell, _ = finished(tmp_path)
    (tmp_path / f"{cell.name}.json").write_text(damage)
    with pytest.raises(DataError, match=rf"{cell.name}\.json: not a finished cell"):
        cells.finished(cell, tmp_path)


def test_every_arm_of_every_claim_resolves():
    for name in claim.names():
        read = claim.load(claim.find(name))
        for arm in (arm for arm, told in read.arms.items() if told.tuned):
            grid = cells.search_cells(read, arm, "w")
            assert final(read, arm, **(grid[0].search if grid else {})).stages
