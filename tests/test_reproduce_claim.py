"""A claim's file says all that its verdict rests on, and a name that nothing bears is refused."""

from __future__ import annotations

import claims
import pytest

from rolecraft.errors import NotFound, SettingsError
from rolecraft.reproduce import claim, findings
from rolecraft.reproduce.board import Board
from rolecraft.reproduce.cells import Cell


def test_a_claim_is_called_what_its_file_is(tmp_path):
    read = claim.load(claims.write(tmp_path, "mine"))
    assert read.name == "mine"
    assert list(read.arms) == ["small", "large"]
    assert read.arms["large"].settings == {"adapter": {"r": 4}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"qestion": "?"}, "unknown key 'qestion' .* Did you mean 'question'"),
        ({"name": "other"}, "unknown key 'name'"),
        ({"source": ""}, "'source' is missing"),
        ({"arms": {}}, "name at least one arm"),
        ({"arms": {"small": {"setings": {}}, "large": {}}}, "unknown key 'setings' in arms.small"),
        ({"arms": {"small": {}, "large": {}, "Big one": {}}}, "'Big one'"),
        ({"arms": {"small": {"search": {"learning_rate": [1]}}, "large": {}}}, "write a setting as section.key"),
        ({"arms": {"small": {"search": {"training.learning_rate": []}}, "large": {}}}, "give a list"),
        ({"evaluation": {"split": ["test"]}}, "Did you mean 'splits'"),
        ({"evaluation": {"seed": 7}}, "development_seed is 7, the test seed"),
        ({"evaluation": {"n": 0}}, "at least 1"),
        ({"budget": {"search_share": 0}}, "search_share"),
        ({"budget": {"curve": 2, "most_steps": 9}}, "set one"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [100]}, "search_seed 100 is one of the seeds"),
        ({"comparisons": [{"better": "lage", "than": "small", "decides": "test"}]}, "'lage'.*Did you mean 'large'"),
        ({"comparisons": [{"better": "large", "than": "smal", "decides": "test"}]}, "'smal'.*Did you mean 'small'"),
        ({"comparisons": [{"better": "large", "than": "small", "decides": "tests"}]}, "'tests'.*Did you mean 'test'"),
        ({"comparisons": [{"better": "large", "than": "small"}]}, "no comparison with `decides`"),
        ({"paper": {"figures": {"huge": {"accuracy": 1}}}}, "paper.figures names arm 'huge'"),
    ],
)
def test_a_name_or_number_that_cannot_be_meant_is_refused(tmp_path, changes, told):
    with pytest.raises(SettingsError, match=told):
        claims.make(tmp_path, **changes)


def test_an_unknown_claim_is_answered_with_the_nearest():
    with pytest.raises(NotFound, match="Did you mean 'mor-vs-lora'"):
        claim.find("mor-vs-lor")


def test_every_claim_file_reads():
    assert {"assignment", "mor-count", "mor-losses", "mor-vs-lora"} <= set(claim.names())
    for name in claim.names():
        assert claim.load(claim.find(name)).name == name


def test_options_of_an_arm_are_refused_on_columns(tmp_path):
    path = claims.write(
        tmp_path, **{**claims.ON_COLUMNS, "arms": {"untuned": {"base": "nano", "options": {"size": 2}}}}
    )
    with pytest.raises(SettingsError, match="arm 'untuned' has options, and columns have their own"):
        claim.load(path)


def test_an_arm_may_be_tuned_at_some_of_the_seeds_alone(tmp_path):
    arms = {"small": {}, "large": {}, "other": {"seeds": [1]}}
    read = claims.make(tmp_path, arms=arms)
    assert [read.seeds_of(arm) for arm in arms] == [(0, 1), (0, 1), (1,)]
    assert read.seeds_of("other", [0]) == ()
    assert findings.find(read, claims.table({"small": ["01", "01"]}), {}).wanted == 5


@pytest.mark.parametrize(
    ("seeds", "better", "told"),
    [([7], "large", "is tuned at seed 7"), ([1], "other", "arm 'other' has 1 of 2 seeds")],
)
def test_a_deciding_arm_has_every_seed_and_none_that_is_not_there(tmp_path, seeds, better, told):
    arms = {"small": {}, "large": {}, "other": {"seeds": seeds}}
    with pytest.raises(SettingsError, match=told):
        claims.make(tmp_path, arms=arms, comparisons=[{"better": better, "than": "small", "decides": "test"}])


def test_seeds_of_an_arm_that_is_not_tuned_are_refused(tmp_path):
    arms = {"untuned": {"base": "nano", "seeds": [0]}, "tuned": {}}
    with pytest.raises(SettingsError, match="is not tuned"):
        claim.load(claims.write(tmp_path, **{**claims.ON_COLUMNS, "arms": arms}))


def test_on_columns_an_arm_is_played_at_its_own_seeds(tmp_path):
    arms = {"untuned": {"base": "nano"}, "tuned": {}, "once": {"seeds": [1]}}
    read = claim.load(claims.write(tmp_path, **{**claims.ON_COLUMNS, "arms": arms, "seeds": [0, 1]}))
    board = Board(read, tmp_path, weights=dict.fromkeys(arms, "abc"))
    seeds = {arm: {play.seed for play in board.plays([arm], read.seeds)} for arm in arms}
    assert seeds == {"untuned": {None}, "tuned": {0, 1}, "once": {1}}
    assert [cell.seed for cell in board.todo(["once"], read.seeds, [], tmp_path) if isinstance(cell, Cell)] == [1]
