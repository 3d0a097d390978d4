"""A conversation of a data file is held to what may be trained: calls that are listed, each answered once, in order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

TOOL = ToolSpec("f", "", {"type": "object", "properties": {"x": {"type": "string"}}})
QUESTION, ANSWER = Message("user", "?"), Message("assistant", "So.")


def calls(*ids, **fields):
    return Message("assistant", tool_calls=tuple(ToolCall("f", {}, identity) for identity in ids), **fields)


def result(identity, content=""):
    return Message("tool", content or f"of {identity}", tool_call_id=identity)


def settled(*messages, tools=(TOOL,)):
    return wire.settled(Trajectory("t", Task("t", messages[:1], tools), messages)).messages


def test_results_are_put_into_the_order_of_the_calls():
    read = settled(QUESTION, calls("a", "b", "c"), result("c"), result("a"), result("b"), ANSWER)
    assert [message.tool_call_id for message in read[2:5]] == ["a", "b", "c"]


def test_an_opening_is_settled_with_its_conversation():
    messages = (QUESTION, calls("a", "b"), result("b"), result("a"), QUESTION, ANSWER)
    read = wire.settled(Trajectory("t", Task("t", messages[:5], (TOOL,)), messages))
    assert read.task.messages == read.messages[:5]
    assert read.messages[2] == result("a")


def test_results_without_ids_answer_the_calls_in_their_order():
    read = settled(QUESTION, calls("a", "b"), Message("tool", "1"), Message("tool", "2"), ANSWER)
    assert [(message.tool_call_id, message.content) for message in read[2:4]] == [("a", "1"), ("b", "2")]


def test_calls_without_ids_take_results_without_ids():
    messages = (QUESTION, calls("", ""), Message("tool", "1"), Message("tool", "2"), ANSWER)
    assert settled(*messages) == messages


@pytest.mark.parametrize("last", [calls("a", "b"), ANSWER, QUESTION])
def test_a_conversation_may_end_anywhere_but_among_results(last):
    assert settled(QUESTION, last)[-1] == last


def test_one_id_may_be_used_again_in_a_later_message():
    messages = (QUESTION, calls("a"), result("a", "1"), calls("a"), result("a", "2"), ANSWER)
    assert settled(*messages) == messages


def test_what_a_team_remarks_stands_after_the_results():
    remark = Message("tool", "error: no call was written")
    messages = (QUESTION, calls("a", "b", unparsed="{"), remark, result("b"), result("a"), ANSWER)
    assert settled(*messages)[2:5] == (result("a"), result("b"), remark)
    lone = (QUESTION, Message("assistant", "hm", speaker="executor"), remark, ANSWER)
    assert settled(*lone) == lone


def test_a_call_whose_arguments_do_not_parse_is_answered_by_its_id_too():
    row = {
        "messages": [
            {"role": "user", "content": "?"},
            {
                "role": "assistant",
                "weight": 0,
                "tool_calls": [
                    {"id": "a", "function": {"name": "f", "arguments": "{"}},
                    {"id": "b", "function": {"name": "f", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "content": "2", "tool_call_id": "b"},
            {"role": "tool", "content": "1", "tool_call_id": "a"},
        ],
        "tools": [wire.tool_to_json(TOOL)],
    }
    read = wire.settled(wire.trajectory_from_json(row))
    assert [message.content for message in read.messages[2:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ((calls("a", "b"), result("b"), ANSWER), r"messages\[1\]: the call 'a' \(f\) has no result; add a message"),
        ((calls("a", "b"), result("b")), "the call 'a'"),
        ((calls("a"), ANSWER), "the call 'a'"),
        ((calls("a"), QUESTION, result("a")), "the call 'a'"),
        ((calls("", ""), Message("tool", "1"), ANSWER), r"messages\[1\]: the call 'f' has no result"),
        (
            (calls("a"), result("b"), ANSWER),
            r"messages\[2\]: tool_call_id 'b' is no call of the assistant message before",
        ),
        ((calls("a"), result("a"), result("a"), ANSWER), r"messages\[3\]: tool_call_id 'a' is answered twice"),
        ((ANSWER, result("a")), r"messages\[2\]: tool_call_id 'a' is no call"),
        ((result("a"), ANSWER), r"messages\[1\]: tool_call_id 'a' is no call"),
        ((ANSWER, Message("tool", "1")), r"messages\[2\]: the result of no call"),
        ((calls("a"), result("a"), Message("tool", "1"), ANSWER), "the result of no call"),
        ((calls("a"), Message("tool", "1"), Message("tool", "2"), ANSWER), r"messages\[3\]: the result of no call"),
        ((calls("a", "a"), result("a"), ANSWER), r"messages\[1\]: two calls have one id"),
    ],
)
def test_results_that_do_not_fit_the_calls_are_refused(messages, said):
    with pytest.raises(DataError, match=said):
        settled(QUESTION, *messages)


def test_a_call_of_a_tool_that_the_row_does_not_list_is_refused():
    with pytest.raises(DataError, match=r"messages\[1\]: calls 'g', which is not among the row's tools; it lists f"):
        settled(QUESTION, Message("assistant", tool_calls=(ToolCall("g", {}, "a"),)))
    with pytest.raises(DataError, match="it lists none"):
        settled(QUESTION, calls("a"), tools=())
    with pytest.raises(DataError, match="did you mean 'read_debt'"):
        settled(
            QUESTION, Message("assistant", tool_calls=(ToolCall("raed_debt", {}),)), tools=(ToolSpec("read_debt", ""),)
        )


def test_a_mistake_that_is_not_trained_may_call_anything():
    messages = (QUESTION, calls("a", weight=0.0), result("a", "no such tool"), ANSWER)
    assert settled(*messages, tools=()) == messages


def test_padded_arguments_lose_their_nulls():
    call = ToolCall("f", {"x": "1", "town": None}, "a")
    read = settled(QUESTION, Message("assistant", tool_calls=(call,)), result("a"))
    assert read[1].tool_calls == (ToolCall("f", {"x": "1"}, "a"),)


TOOLBENCH = Path(__file__).parents[2] / "shared/evaldata/toolbench_example/answer"


@pytest.mark.skipif(not TOOLBENCH.exists(), reason="needs the public sample toolbench_example")
def test_public_conversations_in_the_older_words_hold():
    read = []
    for path in sorted(TOOLBENCH.rglob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))["answer_generation"]
        for messages in found.get("train_messages", [])[-1:]:
            row = {"messages": messages, "functions": found["function"]}
            known = wire.without_unknown_keys(row, wire.KNOWN_ROW, Counter())
            read.append(wire.settled(wire.trajectory_from_json(known)))
    assert len(read) == 9
    for messages in (trajectory.messages for trajectory in read):
        made = [call.id for message in messages for call in message.tool_calls]
        last = [call.id for call in messages[-1].tool_calls]  # to finish, which nothing answers
        assert [message.tool_call_id for message in messages if message.role == "tool"] + last == made != []
