"""ShareGPT rows with calls are read in whatever order their turns come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_importers import lost

from rolecraft import store
from rolecraft.errors import DataError
from rolecraft.importers import glaive
from rolecraft.judges import calls
from rolecraft.types import Message, ToolCall

DATA = Path(__file__).parents[2] / "shared/evaldata/glaive_demo/glaive_toolcall_en_demo.json"


def converted(*turns, **row):
    return glaive.convert({"conversations": [{"from": a, "value": b} for a, b in turns], **row}).messages


def call(name, arguments):
    return json.dumps({"name": name, "arguments": arguments})


def test_a_thought_and_its_call_are_one_message():
    messages = converted(("human", "?"), ("gpt", "I look."), ("function_call", call("f", {"x": 1})))
    assert messages[1:] == (Message("assistant", "I look.", (ToolCall("f", {"x": 1}, "call_0"),)),)


@pytest.mark.parametrize(
    "turns",
    [
        [("function_call", call("f", {})), ("function_call", call("g", "{}"))],
        [("function_call", f"[{call('f', {})}, {call('g', {})}]")],
    ],
)
@pytest.mark.parametrize("results", [["1", "2"], ['["1", 2]']])
def test_parallel_calls_are_one_message_and_each_gets_its_result(turns, results):
    messages = converted(("human", "?"), *turns, *(("observation", text) for text in results))
    assert [c.name for c in messages[1].tool_calls] == ["f", "g"]
    assert [(m.tool_call_id, m.content) for m in messages[2:]] == [("call_0", "1"), ("call_1", "2")]


def test_a_list_that_answers_one_call_stays_as_it_is():
    messages = converted(("human", "?"), ("function_call", call("f", {})), ("observation", '["1"]'))
    assert messages[2].content == '["1"]'


def test_a_call_without_result_does_not_take_the_next_one():
    turns = [
        ("function_call", call("f", {})),
        ("human", "and?"),
        ("function_call", call("g", {})),
        ("observation", "1"),
    ]
    assert converted(*turns)[-1].tool_call_id == "call_1"


def test_the_same_speaker_may_come_twice():
    roles = [m.role for m in converted(("human", "a"), ("human", "b"), ("gpt", "c"), ("gpt", "d"))]
    assert roles == ["user", "user", "assistant", "assistant"]


@pytest.mark.parametrize("text", ["{broken", "[]", '{"name": "f"}', "[1]", '{"name": 1, "arguments": {}}', "7", ""])
def test_a_call_that_does_not_parse_is_kept_verbatim(text):
    messages = converted(("human", "?"), ("function_call", text), ("observation", "what?"))
    assert messages[1:] == (Message("assistant", unparsed=text), Message("tool", "what?"))


def test_arguments_that_do_not_parse_keep_their_call():
    messages = converted(("human", "?"), ("function_call", call("f", "{'x': 1}")), ("observation", "1"))
    assert messages[1].unparsed.endswith('"name": "f", "arguments": {\'x\': 1}}')
    assert messages[2].tool_call_id == "call_0"


def test_a_system_text_may_stand_beside_the_conversation():
    assert converted(("human", "?"), system="Be brief.")[0] == Message("system", "Be brief.")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"conversations": []}, "at least one"),
        ({"messages": []}, "unknown keys 'messages'"),
        ({"conversations": [{"from": "bot", "value": "a"}]}, r"conversations\[0\]: 'from' is 'bot'"),
        ({"conversations": [{"from": "gpt", "value": None}]}, "'value' is NoneType"),
        ({"conversations": [{"from": "gpt"}]}, "'from' and 'value'"),
        ({"conversations": [{"from": ["gpt"], "value": ""}]}, "'from' is"),
        ({"conversations": [{"from": "observation", "value": "1"}]}, "answers no call"),
        ({"conversations": [{"from": "human", "value": "1"}], "tools": "[{"}, "tools: the text is not JSON"),
    ],
)
def test_a_corrupt_row_is_told(row, said):
    with pytest.raises(DataError, match=said):
        glaive.convert(row)


@pytest.mark.skipif(not DATA.exists(), reason=f"needs the public sample {DATA.name}")
def test_the_public_sample_converts_whole_with_every_call_right_and_answered():
    rows = json.loads(DATA.read_text(encoding="utf-8"))
    trajectories = list(store.read_trajectories(DATA, "glaive"))
    assert len(trajectories) == len(rows) == 200
    assert [t.id for t, row in zip(trajectories, rows, strict=True) if lost(row, t)] == []
    assert [t.id for t in trajectories if calls.judge(t).score < 1] == []
    messages = [message for t in trajectories for message in t.messages]
    assert sum(len(m.tool_calls) for m in messages) == sum(m.tool_call_id is not None for m in messages) == 137
