"""Tools and a dialogue told inside a prompt become tools and a dialogue."""

from __future__ import annotations

import json

import pytest
from public import FOLDER, needs

from rolecraft import store
from rolecraft.errors import DataError
from rolecraft.importers import toolrl
from rolecraft.judges import calls
from rolecraft.types import Message, ToolCall, ToolSpec


def row(**changes):
    return {**toolrl.EXAMPLE, **changes}


def test_the_dialogue_is_taken_apart_and_only_the_reply_at_its_end_is_trained():
    trajectory = toolrl.convert(row())
    call = ToolCall("Count_Gulls", {"pier": 4}, "call_0")
    assert trajectory.messages == (
        Message("user", "How many gulls sit on pier 4?"),
        Message("assistant", "<think>\nI look.\n</think>\n\n", (call,), weight=0.0),
        Message("tool", "12", tool_call_id="call_0"),
        Message("assistant", "<think>\nThat is all.\n</think>\n\nThere are 12 gulls on pier 4."),
    )
    assert trajectory.task.tools == (
        ToolSpec(
            "Count_Gulls",
            "Counts gulls on a pier",
            {
                "type": "object",
                "properties": {
                    "pier": {"type": "integer", "description": "Number of the pier"},
                    "kind": {"type": "string", "description": "Kind of gull", "default": "herring"},
                },
                "required": ["pier"],
            },
        ),
    )


def test_calls_one_a_line_are_made_at_once():
    line = json.dumps({"name": "Count Gulls", "parameters": {"pier": 1}})
    reply = toolrl.convert(row(output=f"<think> a </think>\n<tool_call>\n{line}\n{line}\n</tool_call>")).messages[-1]
    assert [call.id for call in reply.tool_calls] == ["call_1", "call_2"]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("List[List[float]]", "array"),
        ("Tuple[float, float]", "array"),
        ("Dict", "object"),
        (["string", "null"], "string"),
    ],
)
def test_types_have_the_words_of_json_schema(told, kind):
    listed = toolrl.EXAMPLE["instruction"].replace('"type": "int"', f'"type": {json.dumps(told)}')
    history = "<user> hm? </user>"
    (tool,) = toolrl.convert(row(instruction=listed, input=history)).task.tools
    assert tool.parameters["properties"]["pier"]["type"] == kind


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instruction": "no tools"}, "no list of tools"),
        ({"output": "bare"}, "'bare' is in no tag"),
        ({"output": "<think> only </think>"}, "no reply"),
        ({"output": '<tool_call>\n{"name": "Count Gulls", "parameters": {"pier": "[1"}}\n</tool_call>'}, "no integer"),
        ({"output": '<tool_call>\n{"name": "Feed", "parameters": {}}\n</tool_call>'}, "'Feed', which is no tool"),
        ({"output": '<tool_call>\n{"name": "Count Gulls", "parameters": {"x": 1}}\n</tool_call>'}, "argument 'x'"),
        ({"output": "<tool_call>\n{\n</tool_call>"}, "not JSON"),
        ({"output": "<tool_call></tool_call>"}, "without a call"),
        ({"input": "<obs> [] </obs>"}, "answers no call"),
        ({"input": "x" * 300_000}, "at most 200,000"),
    ],
)
def test_a_corrupt_row_is_told(changes, said):
    with pytest.raises(DataError, match=said):
        toolrl.convert(row(**changes))


@needs("toolrl")
def test_the_public_rows_convert_but_for_those_whose_values_are_cut():
    told = store.BadRows()
    read = list(store.read_trajectories(FOLDER / "toolrl" / "rlla_sft.json", "toolrl", "skip", told))
    assert (told.total, len(read)) == (400, 371)
    assert sum(calls.judge(t).score < 1 for t in read) == 11  # wrong in the source; converted as they are
