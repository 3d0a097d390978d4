"""A round learns from what proved right, has its checker learn from what the outcome says, and is played once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolecraft import store
from rolecraft.errors import DataError, SettingsError
from rolecraft.judges.failures import wanted
from rolecraft.recipe import read_recipe
from rolecraft.stages import Stage, require_order
from rolecraft.train import pairs, rounds
from rolecraft.types import Check, Message, Task, ToolCall, ToolSpec, Trajectory, Trials, Verdict

GOOD, BAD = ToolCall("find", {"key": "Ro"}, "1"), ToolCall("find", {"key": "Po"}, "2")
ASKED = Message("user", "debt of Ro?")


def episode(call, score, *, checks=(), listed=True, name="t"):
    reference = {"calls": [{"name": "find", "arguments": {"key": "Ro"}}]} if listed else {}
    task = Task(name, (ASKED,), (ToolSpec("find", "find a key"),), reference)
    act = Message("assistant", tool_calls=(call,), speaker="assistant")
    messages = (
        ASKED,
        act,
        Message("tool", "12", tool_call_id=call.id),
        Message("assistant", "12", speaker="assistant"),
    )
    trials = Trials("checked", checks=tuple(checks))
    return Trajectory(name, task, messages, stop="answered", verdict=Verdict(score), trials=trials)


def weights(row):
    return [message.weight for message in row.messages if message.role == "assistant"]


def test_a_call_is_wanted_if_the_reference_makes_it():
    listed, unlisted = episode(GOOD, 1).task, episode(GOOD, 1, listed=False).task
    assert (wanted(listed, GOOD), wanted(listed, BAD), wanted(unlisted, GOOD)) == (True, False, None)


@pytest.mark.parametrize(
    ("call", "score", "kept"), [(GOOD, 1.0, [1.0, 1.0]), (GOOD, 0.0, [1.0, 0.0]), (BAD, 1.0, [0.0, 1.0])]
)
def test_what_proved_right_is_trained_and_the_rest_is_context(call, score, kept):
    (row,), report = rounds.learn([episode(call, score)])
    assert weights(row) == kept
    assert (report.score, report.confirmed) == (score, sum(kept))


def test_an_episode_with_nothing_right_is_no_row():
    assert rounds.learn([episode(BAD, 0.0)])[0] == []


def test_the_checker_is_measured_and_trained_by_the_outcome():
    checks = [
        Check(1, (GOOD,), right=True),  # let pass what was right
        Check(1, (BAD,), right=False),  # sent back what was wrong
        Check(1, (GOOD,), right=False),  # sent back what was right
        Check(1, (BAD,), right=True),  # let pass what was wrong
    ]
    rows, report = rounds.learn([episode(GOOD, 1.0, checks=checks)])
    assert (report.checks, report.objections, report.precision, report.recall) == (4, 2, 0.5, 0.5)
    said = [row.messages[-1].content for row in rows if row.messages[-1].speaker == "checker"]
    assert sorted(said) == ['{"right":"no"}'] * 2 + ['{"right":"yes"}'] * 2
    assert report.opinions == 4


def test_no_more_opinions_of_right_actions_are_learned_than_of_wrong_ones():
    checks = [Check(1, (GOOD,), right=True)] * 9 + [Check(1, (BAD,), right=True)] * 2
    rows, report = rounds.learn([episode(GOOD, 1.0, checks=checks)])
    said = [row.messages[-1].content for row in rows if row.messages[-1].speaker == "checker"]
    assert (said.count('{"right":"yes"}'), said.count('{"right":"no"}'), report.opinions) == (2, 2, 4)


def test_where_nothing_is_known_of_an_action_its_check_is_left_out():
    unknown = [Check(1, (GOOD,), right=False), Check(3, (), right=False, answer="11")]
    known = [Check(1, (GOOD,), right=True), Check(3, (), right=True, answer="12")]
    found = episode(GOOD, 0.0, checks=[*unknown, *known], listed=False)
    assert list(rounds.labels(found)) == [(check, False) for check in known]


def test_rows_are_read_back_as_they_were_written():
    from rolecraft import wire

    rows, _ = rounds.learn([episode(GOOD, 0.0, checks=[Check(1, (BAD,), right=True)])])
    for row in rows:
        assert weights(wire.trajectory_from_json(wire.trajectory_to_json(row))) == weights(row)


def told(**experience):
    return read_recipe({"data": {"benchmark": "toolworld"}, "experience": experience})


def test_a_round_is_of_an_earlier_stage_and_of_a_benchmark():
    with pytest.raises(SettingsError, match="no earlier stage"):
        require_order([Stage("one", told(stage="two"))])
    with pytest.raises(SettingsError, match=r"data\.benchmark"):
        read_recipe({"data": {"path": "x.jsonl"}, "experience": {"stage": "one"}})
    with pytest.raises(SettingsError, match="checker"):
        told(stage="one", strategy="greedy")
    assert require_order([Stage("one", replace(told(stage="x"), experience=None)), Stage("two", told(stage="one"))])


def test_a_round_that_prefers_moves_what_played():
    begun = Stage("one", replace(told(stage="x"), experience=None))
    prefers = told(stage="one", update="preference")
    assert require_order([begun, Stage("two", prefers, start="one")])
    with pytest.raises(SettingsError, match=r"'two' learns by preference .* starts from 'base'.*set its start to one"):
        require_order([begun, Stage("two", prefers)])


def test_a_round_that_prefers_is_told_of_its_pairs(tmp_path):
    found = [episode(GOOD, 1.0, checks=[Check(1, (BAD,), right=False)])]
    _, report = rounds.learn(found)
    report = rounds._write_pairs(found, report, tmp_path, told(stage="one", update="preference").experience)
    assert (report.pairs, report.opinions) == (1, 1)
    assert len(list(store.read_pairs(tmp_path / rounds.PAIRS))) == 2
    assert "learned: 1 pairs of actions, 1 opinions" in rounds.say(rounds.to_json(report))


def test_a_round_without_pairs_is_refused_with_what_to_raise(tmp_path):
    found = [episode(GOOD, 1.0)]
    with pytest.raises(DataError, match=r"stage 'one' give no pairs.*experience\.tries"):
        rounds._write_pairs(found, rounds.learn(found)[1], tmp_path, told(stage="one", update="preference").experience)


def test_tries_at_a_task_are_played_apart_and_keep_its_name():
    task = Task("t", (ASKED,))
    assert rounds._names(task, 3) == ["t", "t#1", "t#2"]


def test_what_no_reply_of_the_episode_wrote_is_not_trained():
    told = episode(GOOD, 1.0)
    opening = (Message("user", "Which?"), Message("assistant", "Old words."), ASKED)
    closed = replace(told.messages[-1], weight=0.0)  # an answer by code, which closes the record
    whole = replace(told, task=replace(told.task, messages=opening), messages=(*opening, *told.messages[1:-1], closed))
    (row,), report = rounds.learn([whole])
    assert (weights(row), report.confirmed) == ([0.0, 1.0, 0.0], 1)
    worse = replace(whole, messages=(*whole.messages[:-1], closed.edited(content="6")), verdict=Verdict(0.0))
    assert pairs.of_actions([whole, worse]) == []


@pytest.mark.parametrize(("failed", "kept"), [(False, [1.0, 0.0, 1.0]), (True, [1.0, 1.0, 1.0])])
def test_a_call_that_was_made_before_is_right_only_if_it_had_failed(failed, kept):
    told = episode(GOOD, 1.0)
    again = (replace(told.messages[1], tool_calls=(replace(GOOD, id="9"),)), Message("tool", "12", tool_call_id="9"))
    before = (*told.messages[:2], replace(told.messages[2], failed=failed))
    (row,), _ = rounds.learn([replace(told, messages=(*before, *again, told.messages[-1]))])
    assert weights(row) == kept
