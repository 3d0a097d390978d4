"""Pairs are of actions from one state, each known to be right or wrong, and never of what was repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_train_rounds import ASKED, BAD, GOOD, episode

from rolecraft.train import pairs, rounds
from rolecraft.types import Check, Message, ToolCall, ToolSpec


def calls(found):
    return [[message.messages[-1].tool_calls[0].arguments["key"] for message in pair] for pair in found]


def test_an_action_that_was_sent_back_is_the_worse_one_of_where_it_was_taken():
    sent_back = episode(GOOD, 1.0, checks=[Check(1, (BAD,), right=False, answer="I look.")])
    critique = Message("user", "not run")
    told = replace(sent_back, messages=(ASKED, critique, *sent_back.messages[1:]))
    (pair,) = pairs.of_actions([told])
    assert calls([pair]) == [["Ro", "Po"]]
    assert [one.messages[:-1] for one in pair] == [(ASKED,)] * 2  # neither is told of the objection
    assert pair[1].messages[-1].content == "I look."
    assert pair[1].messages[-1].speaker == "assistant"


def test_an_action_that_was_answered_by_an_objection_shares_its_state_with_the_one_after_it():
    sent_back = Check(1, (replace(BAD, id=""),), right=False, answer="I look.", kept=True)
    right = episode(GOOD, 1.0, checks=[sent_back, Check(3, (GOOD,), right=True)])
    refused = (
        Message("assistant", "I look.", (replace(BAD, id="0"),), speaker="assistant"),
        Message("tool", "error: it is of no use", tool_call_id="0", failed=True),
    )
    told = replace(right, messages=(ASKED, *refused, *right.messages[1:]))
    (pair,) = pairs.of_actions([told])
    assert calls([pair]) == [["Ro", "Po"]]
    assert [one.messages[:-1] for one in pair] == [(ASKED,)] * 2
    again = (replace(refused[0], tool_calls=(replace(GOOD, id="0"),)), refused[1])  # a right one, refused by mistake
    mistaken = Check(1, (GOOD,), right=False, answer="I look.", kept=True)
    told = replace(episode(GOOD, 1.0, checks=[mistaken]), messages=(ASKED, *again, *right.messages[1:]))
    assert calls(pairs.of_actions([told, episode(BAD, 0.0, name="t#1")])) == [["Ro", "Po"]]


def test_objections_that_left_no_room_for_another_action_are_of_the_state_before_them():
    cut = episode(GOOD, 0.0, checks=[Check(1, (BAD,), right=False), Check(2, (BAD,), right=False)])
    cut = replace(cut, messages=cut.messages[:1])
    assert calls(pairs.of_actions([cut, episode(GOOD, 1.0, name="t#1")])) == [["Ro", "Po"]]


def test_several_tries_meet_in_the_states_that_they_share():
    right, wrong = episode(GOOD, 1.0), episode(BAD, 0.0, name="t#1")
    assert calls(pairs.of_actions([right, wrong])) == [["Ro", "Po"]]
    last = Message("assistant", "13", speaker="assistant")
    other = replace(right, id="t#1", verdict=wrong.verdict, messages=(*right.messages[:-1], last))
    answers = pairs.of_actions([right, other])
    assert [[one.messages[-1].content for one in pair] for pair in answers] == [["12", "13"]]


def test_there_is_no_pair_of_other_states_and_none_without_both_sides():
    other = replace(episode(BAD, 0.0), messages=(Message("user", "of Po?"), *episode(BAD, 0.0).messages[1:]))
    assert pairs.of_actions([episode(GOOD, 1.0), other]) == []
    assert pairs.of_actions([episode(BAD, 0.0), episode(BAD, 0.0, name="t#1")]) == []


def test_a_call_that_was_made_before_is_right_no_more():
    told = episode(GOOD, 0.0)
    act, other = (
        Message("assistant", tool_calls=(call,), speaker="assistant") for call in (replace(GOOD, id="3"), BAD)
    )
    result = Message("tool", "12", tool_call_id="3")
    repeated = replace(told, messages=(*told.messages[:3], act, result, *told.messages[3:]))
    wrong = replace(told, id="t#1", messages=(*told.messages[:3], other))
    assert pairs.of_actions([repeated, wrong]) == []


def test_where_the_reference_lists_no_calls_the_outcome_alone_says_what_was_right():
    right, wrong = episode(GOOD, 1.0, listed=False), episode(BAD, 0.0, listed=False, name="t#1")
    assert pairs.of_actions([right, wrong]) == []  # a call of a task that failed may have been right


def test_a_checker_is_to_prefer_what_the_outcome_says():
    told = episode(GOOD, 1.0)
    labelled = [(told, Check(1, (BAD,), right=True), False), (told, Check(1, (GOOD,), right=False), True)]
    said = [[one.messages[-1].content for one in pair] for pair in pairs.of_opinions(labelled)]
    assert said == [['{"right":"no"}', '{"right":"yes"}'], ['{"right":"yes"}', '{"right":"no"}']]


@pytest.mark.parametrize("calls", [(ToolCall("red", {}),), (GOOD, BAD)])
def test_an_action_is_right_only_if_all_of_its_calls_are(calls):
    told = replace(episode(GOOD, 1.0).task, tools=(ToolSpec("find", "find a key"),))
    assert pairs.action_is_right(told, calls) is False
    assert pairs.action_is_right(replace(told, reference={}), calls) is None


def test_an_action_that_makes_a_call_twice_is_not_right():
    told = episode(GOOD, 1.0)
    twice = Message("assistant", tool_calls=(GOOD, replace(GOOD, id="3")), speaker="assistant")
    doubled = replace(told, messages=(ASKED, twice, *told.messages[2:]))
    assert pairs.of_actions([doubled, episode(BAD, 0.0, name="t#1")]) == []


def test_a_refused_action_is_not_right_for_the_outcome_alone():
    refused = (
        Message("assistant", "I look.", (replace(BAD, id="0"),), speaker="assistant"),
        Message("tool", "error: it is of no use", tool_call_id="0", failed=True),
    )
    check = Check(1, (replace(BAD, id=""),), right=False, answer="I look.", kept=True)
    found = episode(GOOD, 1.0, checks=[check])
    unlisted = replace(found, task=replace(found.task, reference={"answers": ["12"]}))
    told = replace(unlisted, messages=(ASKED, *refused, *found.messages[1:]))
    assert pairs.of_actions([told]) == []
    (row, *_), _ = rounds.learn([told])
    weights = [message.weight for message in row.messages if message.role == "assistant"]
    assert weights == [0.0, 1.0, 1.0]
