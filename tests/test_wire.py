"""The wire form keeps the record: round trips over generated conversations, and what reading refuses."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory, Verdict

# a high and a low surrogate side by side are one character to JSON, so only lone ones can be kept
TEXT = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('\ud800\0"\\{}\n\u2028é😀')),
    max_size=20,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=3)
CALLS = st.builds(ToolCall, name=TEXT, arguments=OBJECTS, id=TEXT)
OPTIONAL = st.none() | TEXT
ASSISTANT = st.builds(
    Message,
    role=st.just("assistant"),
    content=TEXT,
    tool_calls=st.lists(CALLS, max_size=3).map(tuple),
    speaker=OPTIONAL,
    unparsed=OPTIONAL,
    strict=st.none() | st.builds(Message, st.just("assistant"), TEXT, unparsed=OPTIONAL),
    weight=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
)
OTHER = st.builds(
    Message, role=st.sampled_from(["system", "user", "tool"]), content=TEXT, tool_call_id=OPTIONAL, name=OPTIONAL
)
FAILED = st.builds(Message, role=st.just("tool"), content=TEXT, tool_call_id=OPTIONAL, failed=st.booleans())
MESSAGES = st.lists(ASSISTANT | OTHER | FAILED, min_size=1, max_size=5).map(tuple)
SPECS = st.lists(st.builds(ToolSpec, name=TEXT, description=TEXT), max_size=2).map(tuple)
TASKS = st.builds(Task, id=TEXT, messages=st.lists(OTHER, max_size=2).map(tuple), tools=SPECS, reference=OBJECTS)
TRAJECTORIES = st.builds(
    Trajectory,
    id=TEXT,
    task=TASKS,
    messages=MESSAGES,
    stop=st.sampled_from(["imported", "answered", "max_turns"]),
    seed=st.integers(0, 9),
    final_state=st.none() | OBJECTS,
    verdict=st.none() | st.builds(Verdict, score=st.floats(0, 1), reason=TEXT),
    lineage=st.lists(TEXT, max_size=2).map(tuple),
)
FORMS = st.sampled_from(["string", "object"])


def through_text(value):
    return json.loads(wire.dumps(value).encode("utf-8").decode("utf-8"))


@given(ASSISTANT | OTHER, FORMS)
def test_a_message_survives_being_written_and_read(message, form):
    assert wire.message_from_json(through_text(wire.message_to_json(message, form))) == message


@given(TRAJECTORIES, FORMS)
def test_a_trajectory_survives_being_written_and_read(trajectory, form):
    assert wire.trajectory_from_json(through_text(wire.trajectory_to_json(trajectory, form))) == trajectory


WIRE_CALLS = st.builds(
    lambda name, arguments, identity: {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    TEXT,
    TEXT | OBJECTS.map(wire.dumps) | OBJECTS.map(lambda value: wire.dumps(value)[:-1]),
    TEXT.filter(bool),
)


def canonical(call):
    arguments = wire.read_arguments(call["function"]["arguments"])
    if arguments is None:
        return call
    return call | {"function": call["function"] | {"arguments": wire.dumps(arguments)}}


@given(st.lists(WIRE_CALLS, min_size=1, max_size=4))
def test_calls_come_back_in_their_places_whether_they_parse_or_not(calls):
    row = {"role": "assistant", "content": None, "tool_calls": calls}
    assert wire.message_to_json(wire.message_from_json(row))["tool_calls"] == [canonical(call) for call in calls]


@given(OBJECTS)
def test_arguments_as_text_and_as_object_are_the_same_call(arguments):
    rows = [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": form}}]}
        for form in (arguments, wire.dumps(arguments))
    ]
    assert wire.message_from_json(rows[0]) == wire.message_from_json(rows[1])


NO_OBJECTS = {
    "cut": '{"a": 1',
    "list": "[1]",
    "null": "null",
    "text": '"x"',
    "number": "7",
    "nan": '{"a": NaN}',
    "infinite": '{"a": 1e999}',
    "twice": '{"a": 1, "a": 2}',
    "brackets": "[" * 5000,
    "digits": '{"a": ' + "9" * 5000 + "}",
    "deep": '{"a": ' * 70 + "1" + "}" * 70,
}


@pytest.mark.parametrize("arguments", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_arguments_that_are_no_json_object_are_kept_verbatim(arguments):
    row = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}
    message = wire.message_from_json(row)
    assert message.tool_calls == ()
    assert arguments in message.unparsed
    assert wire.message_to_json(message)["tool_calls"][0]["function"]["arguments"] == arguments


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{broken",
        "",
        '{"index": 0, "id": "\\q", "name": "f", "arguments": {bad}',
        '{"index": 7, "id": "a", "name": "f", "arguments": {bad}',
        '{"index": 0, "id": "a", "name": "f", "arguments": {}}',
        '{"index": 0, "id": "a", "name": "f", "arguments": bad} and more',
    ],
)
def test_any_text_a_model_wrote_as_a_call_survives(text):
    message = Message("assistant", "so", (ToolCall("g", {"x": 1}, "b"),), unparsed=text)
    assert wire.message_from_json(through_text(wire.message_to_json(message))) == message


def test_empty_arguments_are_a_call_without_any():
    row = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "now", "arguments": ""}}]}
    assert wire.message_from_json(row).tool_calls == (ToolCall("now", {}),)


def test_an_openai_row_is_written_back_as_it_was():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"città":"Forlì"}'}}
    schema = {"type": "object", "properties": {"città": {"type": "string"}}}
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call, call | {"id": "call_2"}], "weight": 0},
            {"role": "tool", "content": "sun", "tool_call_id": "call_1"},
            {"role": "tool", "content": "rain", "tool_call_id": "call_2"},
            {"role": "assistant", "content": "Sun ☀ and rain.", "speaker": "summarizer", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
    }
    assert wire.dumps(wire.trajectory_to_json(wire.trajectory_from_json(row))) == wire.dumps(row)


def test_the_task_is_what_comes_before_the_first_reply():
    roles = ("system", "user", "assistant", "user", "assistant")
    row = {"messages": [{"role": role, "content": role} for role in roles]}
    assert [m.role for m in wire.trajectory_from_json(row).task.messages] == ["system", "user"]


def test_a_tool_is_the_same_bare_or_wrapped_or_in_a_list_as_text():
    bare = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}
    wrapped = {"type": "function", "function": bare}
    assert wire.tool_from_json(bare) == wire.tool_from_json(wrapped)
    assert wire.tools_from_json(json.dumps([bare])) == wire.tools_from_json([wrapped])


def test_null_known_keys_are_absent():
    nulls = dict.fromkeys(
        ["refusal", "audio", "function_call", "tool_calls", "tool_call_id", "name", "weight", "speaker"]
    )
    row = {"role": "assistant", "content": "hi", "annotations": [], **nulls}
    assert wire.message_from_json(row) == Message("assistant", "hi")


def test_text_parts_are_joined():
    row = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert wire.message_from_json(row).content == "ab"


def test_reasoning_moves_into_the_content():
    row = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
    assert wire.message_from_json(row).content == "<think>\n2+2\n</think>\n\n4"


def test_only_a_tool_message_that_failed_is_marked():
    failed, fine = Message("tool", "error: x", failed=True), Message("tool", "error: x")
    assert wire.message_to_json(failed) == {"role": "tool", "content": "error: x", "failed": True}
    assert "failed" not in wire.message_to_json(fine)
    assert wire.message_from_json({"role": "tool", "content": "1", "failed": None}) == Message("tool", "1")
    with pytest.raises(DataError, match=r"'failed' is str 'yes'; write true or false"):
        wire.message_from_json({"role": "tool", "content": "1", "failed": "yes"})
    with pytest.raises(DataError, match=r"messages\[0\]: 'failed' belongs to tool messages; this is 'user'"):
        wire.trajectory_from_json({"messages": [{"role": "user", "content": "1", "failed": True}]})


def test_a_developer_message_is_a_system_message():
    assert wire.message_from_json({"role": "developer", "content": "x"}).role == "system"


CALL = {"function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "assistant", "content": "a", "wieght": 1}]}, r"messages\[0\].*'wieght'.*'weight'"),
        ({"messages": [{"role": "assistant", "content": "a", "foo": None}]}, "'foo'; delete it"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "'bot'.*must be one of system, user"),
        ({"messages": [{"role": "user"}]}, "needs 'content'"),
        ({"messages": [{"role": "user", "content": 7}]}, "'content' is int 7"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, r"content\[0\].*'image_url'|image_url"),
        ({"messages": [{"role": "user", "content": "a", "weight": 1}]}, "'weight' belongs to assistant"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [CALL]}]}, "'tool_calls' belongs to assistant"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": -1}]}, "0 or more"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": True}]}, "write a number"),
        ({"messages": [{"role": "assistant", "refusal": "no"}]}, "'refusal' is not supported; move the text"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "'arguments' is missing"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "'custom'"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "'arguments' is missing"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "function: is missing or null"),
        ({"messages": []}, "needs 'messages'"),
        ({"conversations": []}, "name the importer"),
        ([1], "must be an object"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": "[{]"}, "tools: the text is not JSON"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f", "function": None}]}, "tools"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": None}]}, "tools"),
        ({"messages": [{"role": "user", "content": "a"}], "opening": 2}, "'opening' is 2"),
        ({"messages": [{"role": "user", "content": "a"}], "stop": "bored"}, "'bored'"),
        ({"messages": [{"role": "user", "content": "a"}], "seed": "1"}, "whole number"),
        ({"messages": [{"role": "user", "content": "a"}], "verdict": {"score": 10**40}}, "write a number"),
    ],
)
def test_a_bad_row_is_told_with_place_and_remedy(row, said):
    with pytest.raises(DataError, match=said):
        wire.trajectory_from_json(row)


def test_padding_by_tables_is_left_out():
    city = {"type": "string", "enum": None}
    schema = {"type": "object", "properties": {"city": city, "query": None}, "anyOf": None}
    spec = wire.tool_from_json({"name": "f", "description": None, "parameters": schema})
    assert spec.parameters == {"type": "object", "properties": {"city": {"type": "string"}}}
    part = {"type": "text", "text": "a", "image_url": None}
    assert wire.message_from_json({"role": "user", "content": [part]}).content == "a"


def test_a_tool_without_parameters_may_say_so_with_an_empty_list():
    spec = wire.tool_from_json({"name": "f", "parameters": {"type": "object", "properties": []}})
    assert spec == wire.tool_from_json({"name": "f"})


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"type": "object", "properties": None},
            r"tools\[0\]: parameters.properties is null; write what the tool takes",
        ),
        ({"type": "object", "required": None}, "parameters.required is null"),
        ({"type": "object", "properties": ["a"]}, r"tools\[0\]: 'parameters' has at 'properties' list"),
        ({"type": "string"}, "a tool's arguments are an object"),
        ([], "it must be a JSON Schema"),
        ("{}", "it must be a JSON Schema"),
        (True, "it must be a JSON Schema"),
    ],
)
def test_a_malformed_schema_makes_a_bad_row(parameters, said):
    row = {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f", "parameters": parameters}]}
    with pytest.raises(DataError, match=said):
        wire.trajectory_from_json(row)


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [100, 700])
def test_what_is_nested_without_end_makes_a_bad_row(levels):
    call = {"function": {"name": "f", "arguments": nested(levels)}}
    with pytest.raises(DataError, match="nested more than 64 deep"):
        wire.message_from_json({"role": "assistant", "tool_calls": [call]})
    with pytest.raises(DataError, match="nested more than 64 deep"):
        wire.tool_from_json({"name": "f", "parameters": {"default": nested(levels)}})


def old_call(name, **fields):
    return {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": "{}"}} | fields


def test_the_older_words_for_calls_are_read_as_todays():
    row = {
        "messages": [
            {"role": "user", "content": "?"},
            old_call("f"),
            {"role": "function", "name": "f", "content": "1"},
            old_call("f"),
            {"role": "function", "name": "f", "content": "2"},
            {"role": "assistant", "content": "3"},
        ],
        "functions": [{"name": "f", "description": "d"}],
    }
    read = wire.settled(wire.trajectory_from_json(row))
    assert [call.id for message in read.messages for call in message.tool_calls] == ["call_0", "call_1"]
    assert [(m.tool_call_id, m.content) for m in read.messages if m.role == "tool"] == [
        ("call_0", "1"),
        ("call_1", "2"),
    ]
    assert read.task.tools == (ToolSpec("f", "d"),)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"functions": [{"name": "f"}], "tools": [{"name": "g"}]}, "both 'functions' and 'tools'"),
        ({"functions": "f"}, "'functions' is str; write a list"),
        ({"messages": [old_call("f", tool_calls=[{"id": "a"}])]}, "both 'function_call' and 'tool_calls'"),
    ],
)
def test_older_words_beside_todays_are_refused(row, said):
    with pytest.raises(DataError, match=said):
        wire.trajectory_from_json({"messages": [{"role": "user", "content": "?"}], **row})


def test_an_old_result_of_another_function_answers_no_call():
    messages = [{"role": "user", "content": "?"}, old_call("f"), {"role": "function", "name": "g", "content": "1"}]
    read = wire.trajectory_from_json({"messages": messages, "functions": [{"name": "f"}]})
    assert read.messages[2].tool_call_id is None


@pytest.mark.parametrize(
    "text", ["{", '{"a": NaN}', '{"a": -Infinity}', '{"a":1,"a":2}', "[" * 100_000, "9" * 5000], ids=range(6)
)
def test_text_that_is_not_strict_json_is_a_data_error(text):
    with pytest.raises(DataError, match="JSON"):
        wire.loads(text)


@pytest.mark.parametrize("value", [{1, 2}, object(), 10**5000], ids=["set", "object", "digits"])
def test_what_json_cannot_hold_is_a_data_error(value):
    with pytest.raises(DataError, match="cannot write"):
        wire.dumps({"a": value})


def test_writing_never_fails_on_numbers_a_model_may_write():
    message = Message("assistant", tool_calls=(ToolCall("f", {"x": math.nan}),))
    assert "NaN" in wire.message_from_json(through_text(wire.message_to_json(message))).unparsed


KEYS = st.sampled_from(
    "functions function_call required "
    "messages tools role content tool_calls function name arguments weight speaker unparsed type text parameters "
    "properties opening verdict score parts id reference turns annotations strict reasoning_content description".split()
)
WORDS = st.sampled_from(["assistant", "user", "function", "text", "{}", "{", "f", ""])
ANYTHING = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


@given(ANYTHING, st.lists(ANYTHING, max_size=2), st.dictionaries(KEYS, ANYTHING, max_size=2))
def test_any_json_is_a_trajectory_or_a_data_error(whole, messages, message):
    role = {"role": "assistant", "content": None}
    for row in (whole, {"messages": messages}, {"messages": [role | message]}, {"messages": [role]} | message):
        try:
            trajectory = wire.trajectory_from_json(row)
        except DataError:
            continue
        assert wire.trajectory_from_json(wire.trajectory_to_json(trajectory)) == trajectory
