from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft.renderers import CallSyntax, why_unparsed
from rolecraft.renderers._calls import Reply, parse, read_call
from rolecraft.renderers._json import MAX_CHARACTERS
from rolecraft.renderers._tools import signature
from rolecraft.types import ToolCall, ToolSpec

LINES = CallSyntax(arguments_key="args", compact=True)
TAGGED = CallSyntax(open="<tool_call>\n", close="\n</tool_call>")
DEBT = ToolSpec("read_debt", "debt", {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]})


def nested(value: str) -> str:
    return f'{{"name":"f","args":{{"a":{value}}}}}'


def lines(text: str) -> Reply:
    return parse([(text, False)], LINES, tags_are_tokens=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name":"f","args":{"a":1}', "a closing } is missing"),
        ('{"name":"f","args":{"a":"1}}', 'a closing " is missing'),
        ('{"name":"f","args":{"a":1}}}', "something follows the object"),
        ('{"name":"f" "args":{}}', "expected ','"),
        ("{'name':'f'}", "a key in double quotes"),
        ('{"name":"f","args":{"a":"x\ny"}}', "a line break inside a text"),
        ('{"args":{}}', 'no "name"'),
        ('{"name":3,"args":{}}', '"name" must be the name of a tool'),
        ('{"name":" ","args":{}}', '"name" must be the name of a tool'),
        ('{"name":"f","args":[1]}', '"args" must be an object, got a list'),
        ('{"name":"f","args":"{}"}', '"args" must be an object, got text'),
        ('{"name":"f","args":null}', '"args" must be an object, got null'),
        ('{"name":"f","argz":{}}', "no such key 'argz'"),
        ('{"name":"f","args":{"a":1,"a":2}}', "key 'a' is there twice"),
        ('{"name":"f","args":{"a":NaN}}', "NaN is not a number"),
        ('{"name":"f","args":{"a":-Infinity}}', "-Infinity is not a number"),
        ('{"name":"f","args":{"a":1e999}}', "too large"),
        (nested("9" * 309), "more than 308 digits"),
        ('{"name":"f","args":{"a":"\\ud800"}}', "half of a surrogate pair"),
        (nested("[" * 50_000), "nested more than 80 deep"),
        (nested("[" * 79 + "]" * 79), "nested more than 80 deep"),
        (nested(f'"{"x" * MAX_CHARACTERS}"'), "longer than"),
    ],
)
def test_a_refused_call_is_kept_verbatim_and_explained_alike(text: str, reason: str) -> None:
    answer = read_call(text, LINES)
    assert isinstance(answer, str)
    assert lines(text).calls == ()
    assert lines(text).unparsed == text
    assert re.search(reason, why_unparsed(text))
    assert re.search(reason, answer)


def test_a_call_without_arguments_is_a_call() -> None:
    assert read_call('{"name":"now"}', LINES) == ToolCall("now", {})


def test_depth_80_is_read() -> None:
    text = nested("[" * 78 + "]" * 78)
    assert isinstance(read_call(text, LINES), ToolCall)


def test_brackets_inside_a_text_do_not_count() -> None:
    assert read_call(nested(f'"{"[{" * 60}"'), LINES) == ToolCall("f", {"a": "[{" * 60})


def test_text_before_the_calls_is_the_content() -> None:
    assert lines('first\n\n{"name":"f"}\n{"name":"g"}') == Reply(
        "first\n", (ToolCall("f", {}), ToolCall("g", {})), None
    )


def test_text_between_and_after_calls_is_kept() -> None:
    reply = lines('a\n{"name":"f"}\nb\n{"name":"g"}\nc')
    assert (reply.content, len(reply.calls)) == ("a\nb\nc", 2)


def test_several_malformed_calls_are_a_line_each() -> None:
    assert lines('{"name":1}\n{"name":"f"}\n{"x"').unparsed == '{"name":1}\n{"x"'


def test_a_tag_that_is_not_closed_is_malformed() -> None:
    reply = parse([('<tool_call>\n{"name": "f"}', False)], TAGGED, tags_are_tokens=False)
    assert (reply.calls, reply.unparsed) == ((), '<tool_call>\n{"name": "f"}')
    assert why_unparsed(reply.unparsed) == "not closed: </tool_call> is missing"


def test_a_call_opened_twice_keeps_the_second() -> None:
    text = '<tool_call>\n{"na<tool_call>\n{"name": "g"}\n</tool_call>'
    reply = parse([(text, False)], TAGGED, tags_are_tokens=False)
    assert (reply.calls, reply.unparsed) == ((ToolCall("g", {}),), '<tool_call>\n{"na')


def test_tags_in_plain_text_open_nothing_where_the_tokenizer_has_them() -> None:
    segments = [('<tool_call>\n{"name": "f"}\n</tool_call>', False)]
    assert parse(segments, TAGGED, tags_are_tokens=True).calls == ()


def test_a_closing_tag_alone_is_text() -> None:
    assert parse([("a", False), ("</tool_call>", True)], TAGGED, tags_are_tokens=True).content == "a</tool_call>"


def test_the_reason_names_the_tools_there_are() -> None:
    assert why_unparsed('{"name":"raed_debt","args":{}}', (DEBT,)) == "no tool 'raed_debt'; tools: read_debt"


def test_the_reason_names_the_keys_there_are() -> None:
    assert why_unparsed('{"name":"read_debt","args":{"kay":1}}', (DEBT,)) == "read_debt has no key 'kay'; keys: key"


def test_prose_is_told_what_a_call_is() -> None:
    assert why_unparsed("call read_debt please") == "not JSON: a call is an object in { }"


def tagged(text: str) -> str:
    return f"<tool_call>\n{text}\n</tool_call>"


RIGHT = '{"name": "read_debt", "arguments": {"key": "x"}}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"[{RIGHT}, {RIGHT}]", "a list, not a call; write each call as an object, in a <tool_call> of its own"),
        (f"{RIGHT}\n{RIGHT}", "two objects; write each call in a <tool_call> of its own"),
        (f"{RIGHT}, {RIGHT}", "two objects; write each call in a <tool_call> of its own"),
        ('{"name": "read_debt", "parameters": {}}', 'the arguments stand under "parameters"; write "arguments"'),
        ('{"name": "read_debt", "args": {}}', 'the arguments stand under "args"; write "arguments"'),
        ('{"name": "read_debt", "arguments": "{}"}', '"arguments" must be an object, got text'),
        ('{"arguments": {}}', 'no "name"'),
        ('{"name": "read_debt" "arguments": {}}', "not JSON: expected ',' at '\"arguments\":' (character 22)"),
        ('{"name": "read_debt, "arguments": {}}', "not JSON: expected ',' at 'arguments\": ' (character 23)"),
        ('{"name": "read_debt", "arguments": {}', "not JSON: a closing } is missing (character 38)"),
        ('{"name": "read_debt}', 'not JSON: a closing " is missing (character 10)'),
        (f"{RIGHT} That is all.", "text after the object: 'That is all.'"),
        (f"```json\n{RIGHT}\n```", "text before the object: '```json'"),
        (f"{RIGHT}}}", "not JSON: something follows the object at '}' (character 49)"),
        ("read_debt(x)", "not JSON: a call is an object in { }"),
    ],
)
def test_the_reason_names_the_fault_in_a_tagged_call(text: str, reason: str) -> None:
    unparsed = parse([(tagged(text), False)], TAGGED, tags_are_tokens=False).unparsed
    assert unparsed == tagged(text)
    assert why_unparsed(unparsed, (DEBT,)) == reason


def test_the_reason_names_the_familys_own_key() -> None:
    llama = CallSyntax(arguments_key="parameters", ignored=("type",))
    text = '{"name":"f","arguments":{}}\n{"name":1}'
    assert why_unparsed(text, (), llama) == 'the arguments stand under "arguments"; write "parameters"'
    assert why_unparsed('{"name":1}\n{"name":"f"}', (), LINES) == '"name" must be the name of a tool'
    assert why_unparsed(f"[{RIGHT}]", (), LINES) == (
        "a list, not a call; write each call as an object, on a line of its own"
    )


def test_keys_that_a_schema_reaches_by_reference_are_known() -> None:
    tool = ToolSpec("f", "", {"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": DEBT.parameters}})
    assert why_unparsed('{"name":"f","args":{"kay":1}}', (tool,)) == "f has no key 'kay'; keys: key"
    assert signature(tool) == "f(key)"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(['{"name"', ":", '"f"', ",", '"args"', "{", "}", "[", "]", '"', "\\", "\n", "1", " ", "x"])
    )
)
def test_any_text_is_explained_and_taken_apart(parts: list[str]) -> None:
    text = "".join(parts)
    assert why_unparsed(text)
    for tag in ("", "<tool_call>"):
        for syntax in (LINES, TAGGED):
            parse([(tag + text, False)], syntax, tags_are_tokens=False)


@pytest.mark.parametrize("piece", ['{"name":', '{"', '"\\', "{\n", "[", "<tool_call>", '{"name":"f"}', '{"name":"f"};'])
def test_long_hostile_replies_are_taken_apart(piece: str) -> None:
    text = piece * 20_000
    assert lines(text) is not None
    assert parse([(text, False)], TAGGED, tags_are_tokens=False) is not None


def test_a_signature_tells_types_choices_and_what_is_optional() -> None:
    properties = {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["c", "f"]},
        "tags": {"type": "array"},
        "odd": {"type": ["string", "null"]},
    }
    tool = ToolSpec("w", "", {"type": "object", "properties": properties, "required": ["city", "days"]})
    assert signature(tool) == "w(city,days:int,unit?:c|f,tags?:list,odd?)"


THINKING = "<think>\nI could\n{call}\nbut no.\n</think>\n\n"


@pytest.mark.parametrize(
    ("syntax", "call"),
    [(LINES, '{"name":"f","args":{}}'), (TAGGED, '<tool_call>\n{"name":"f","arguments":{}}\n</tool_call>')],
)
def test_a_call_that_reasoning_considers_is_text(syntax: CallSyntax, call: str) -> None:
    thought = THINKING.replace("{call}", call)

    def read(text: str) -> Reply:
        return parse([(text, False)], syntax, tags_are_tokens=False)

    assert read(f"{thought}I will not.") == Reply(f"{thought}I will not.", (), None)
    assert read(f"{thought}Look:\n{call}") == Reply(f"{thought}Look:", (ToolCall("f", {}),), None)
    assert read(f"<think>\n{call}") == Reply(f"<think>\n{call}", (), None)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
def test_a_call_that_reasoning_considers_is_text_where_tags_are_tokens(tokens: bool) -> None:
    call = [("<tool_call>", True), ('\n{"name":"f","arguments":{}}\n', False), ("</tool_call>", True)]
    thought = [("<think>", True), *call, ("</think>", True)]
    if not tokens:
        thought = [("<think>", False), *call, ("</think> ", False)]
    said = "".join(text for text, _ in thought)
    assert parse(thought, TAGGED, tags_are_tokens=True) == Reply(said, (), None)
    assert parse([*thought, *call], TAGGED, tags_are_tokens=True) == Reply(said, (ToolCall("f", {}),), None)
