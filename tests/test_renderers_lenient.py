"""Calls in any form that names an offered tool are read; code, prose and quotations stay text; nothing takes long."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft import catalog
from rolecraft.renderers import reread, settled_length, why_unread
from rolecraft.renderers._calls import parse, write_call
from rolecraft.types import Message, ToolCall, ToolSpec


def tool(name: str, *keys: str) -> ToolSpec:
    return ToolSpec(name, "", {"type": "object", "properties": {key: {} for key in keys}, "required": list(keys)})


TOOLS = (tool("look", "at"), tool("now"), tool("map.find", "x", "y"))
CALL = '{"name": "look", "arguments": {"at": "Rome"}}'
LOOK = ToolCall("look", {"at": "Rome"})
NOW = ToolCall("now", {})


def read(text: str, *, cut: bool = False) -> Message:
    return reread(Message("assistant", text), text, TOOLS, cut=cut)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (CALL, [LOOK]),
        (f"```json\n{CALL}\n```", [LOOK]),
        (f"```\n{CALL}\n```\n\n", [LOOK]),
        (f"```json {CALL}```", [LOOK]),
        (f"```json\n{CALL}\n{CALL}\n```", [LOOK, LOOK]),
        (f"```json\n{CALL}\n```\n```json\n{CALL}\n```", [LOOK, LOOK]),
        (f"[{CALL}, {CALL}]", [LOOK, LOOK]),
        (f"{CALL}\n{CALL}", [LOOK, LOOK]),
        (f"{CALL}; {CALL}", [LOOK, LOOK]),
        ('{"name": "look", "parameters": {"at": "Rome"}}', [LOOK]),
        ('{"name": "look", "arguments": "{\\"at\\": \\"Rome\\"}"}', [LOOK]),
        ('{"type": "function", "function": {"name": "look", "arguments": {"at": "Rome"}}}', [LOOK]),
        ('{"function": "look", "arguments": {"at": "Rome"}}', [LOOK]),
        (f'{{"tool_calls": [{CALL}]}}', [LOOK]),
        ('{"name": "look", "arguments": {"at": "Rome",},}', [LOOK]),
        ('{"name": "look", "arguments": {\n"at": "Rome", // a city\n}}', [LOOK]),
        ('{"name": "look", "arguments": {"at": "http://a",}}', [ToolCall("look", {"at": "http://a"})]),
        ('{"name": "look", "arguments": {"at": "a\nb"}}', [ToolCall("look", {"at": "a\nb"})]),
        ("{'name': 'look', 'arguments': {'at': 'Rome'}}", [LOOK]),
        ("{'name': 'look', 'arguments': {'at': None}}", [ToolCall("look", {"at": None})]),
        ('{"name": "now"}', [NOW]),
        ('{"name": "now", "arguments": ""}', [NOW]),
        ('look(at="Rome")', [LOOK]),
        ("look(at='Rome')\nnow()", [LOOK, NOW]),
        ("[look(at='Rome'), now()]", [LOOK, NOW]),
        ("```python\nlook(at='Rome')\n```", [LOOK]),
        (
            "map.find(x=-1.5, y=[1, {'a': (True, null)}])",
            [ToolCall("map.find", {"x": -1.5, "y": [1, {"a": [True, None]}]})],
        ),
        ('look(at="\\d")', [ToolCall("look", {"at": "\\d"})]),
        (f"<|python_tag|>{CALL}", [LOOK]),
        (f"[TOOL_CALLS] [{CALL}, {CALL}]", [LOOK, LOOK]),
        ('[TOOL_CALLS]look[ARGS]{"at": "Rome"}', [LOOK]),
        (f"<tools>\n{CALL}\n</tools>", [LOOK]),
        (f"<|tool_call|>[{CALL}]<|/tool_call|>", [LOOK]),
        (f"```json\r\n{CALL}\r\n```\r\n", [LOOK]),
        ("look(at='Rome')\r\nnow()\r\n", [LOOK, NOW]),
    ],
)
def test_a_call_in_any_common_form_is_read_and_marked(text, calls):
    message = read(text)
    assert list(message.tool_calls) == calls
    assert (message.content, message.unparsed) == ("", None)
    assert message.strict == Message("assistant", text)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"I look it up.\n\n{CALL}", "I look it up."),
        (f"I look it up.\n```json\n{CALL}\n```", "I look it up."),
        (f"The call is: {CALL}", "The call is:"),
        (f"{CALL}\nIt is sunny.", "It is sunny."),
        (f"<think>\n{CALL}?\n</think>\n\n{CALL}", f"<think>\n{CALL}?\n</think>"),
        ("I look.\nlook(at='Rome')", "I look."),
        (f"<think>Hm.</think>{CALL}", "<think>Hm.</think>"),
        (f"<think>Hm.</think> ```json\n{CALL}\n```", "<think>Hm.</think>"),
        ("<think>Hm.</think>look(at='Rome')", "<think>Hm.</think>"),
    ],
)
def test_text_beside_a_call_is_the_content(text, content):
    assert read(text).tool_calls == (LOOK,)
    assert read(text).content == content


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hamlet.",
        "{}",
        "[]",
        "[1, 2]",
        '{"name": "Bob", "age": 3}',
        '{"name": "Bob", "parameters": {}, "description": "a man"}',
        f"So it looks:\n```json\n{CALL}\n```\nThis calls the tool.",
        f"So it looks: {CALL} and no otherwise.",
        "```python\ndef look(at):\n    return at\n```",
        "```python\nx = look(at='Rome')\nprint(x)\n```",
        "look(at) tells what is there.",
        "look(at='Rome') is how it is called.\nUse it.",
        f"<think>\n{CALL}\n</think>\n\nNo.",
        f"<think>\n{CALL}",
        "The mark [TOOL_CALLS] opens calls, <tool_call> too.",
        "open('x')",
    ],
)
def test_code_prose_and_other_json_stay_text(text):
    assert read(text) == Message("assistant", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "look", "arguments": {"at": "Rome"}', "a closing } is missing"),
        ('{"name": "lok", "arguments": {"at": "Rome"}}', "no tool 'lok'; tools: look, now, map.find"),
        ('{"name": "look", "arguments": ["Rome"]}', '"arguments" must be an object, got a list'),
        ('{"name": "look", "arguments": "Rome"}', '"arguments" are text that holds no object'),
        ('{"name": "look"}', 'no "arguments"; look needs at'),
        ('{"name": "look", "at": "Rome"}', "no such key 'at'"),
        (
            '{"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}',
            "a tool's description, not a call",
        ),
        ("{'name': 'look', 'arguments': {'at': 'L'Aquila'}}", "a key in double quotes"),
        ("look('Rome')", "write each argument of 'look' with its name"),
        ("look(at=open('x'))", "not a literal value"),
        ("look(at=f'{x}')", "not a call with literal values"),
        ("look(**{'at': 1})", "not a call with literal values"),
        ("```json\n" + CALL[:-1] + "\n```", "a closing } is missing"),
        ("<|python_tag|>[1, 2]", "a call must be an object, got a number"),
        (f"[{CALL}, 3]", "a list of calls with something else in it"),
    ],
)
def test_what_looks_like_a_call_and_is_none_is_unparsed_with_a_reason(text, reason):
    message = read(text)
    assert message.tool_calls == ()
    assert message.unparsed == text
    assert message.content == ""
    assert reason in why_unread(text, TOOLS)


@pytest.mark.parametrize("whole", [CALL, f"```json\n{CALL}\n```", f"[TOOL_CALLS] [{CALL}]", f"I look.\n{CALL}"])
def test_a_call_that_is_cut_anywhere_after_its_bracket_never_is_content(whole):
    for end in range(whole.index("{") + 1, whole.rindex("}")):
        message = read(whole[:end], cut=True)
        assert message.unparsed is not None
        assert "{" not in message.content


def test_other_json_that_is_cut_stays_text():
    for text in ('{"person": {"name": "B', '{"name": "Bob", "a', "[1, 2, ", '{"type": "object", "prop'):
        assert read(text, cut=True) == Message("assistant", text)


def test_a_reply_with_strict_calls_is_not_read_again():
    message = Message("assistant", CALL, tool_calls=(NOW,))
    assert reread(message, CALL, TOOLS) is message


def test_strict_calls_leave_no_empty_fences_behind():
    message = Message("assistant", "```json\n```", tool_calls=(NOW,))
    assert reread(message, f"```json\n{CALL}\n```", TOOLS) == Message("assistant", tool_calls=(NOW,))


def test_what_the_family_could_not_read_is_read_leniently():
    bad = '<tool_call>\n{"name": "look", "arguments": {"at": "Rome",}}\n</tool_call>'
    message = reread(Message("assistant", "So.", unparsed=bad), f"So.\n{bad}", TOOLS)
    assert (message.content, message.tool_calls, message.unparsed) == ("So.", (LOOK,), None)
    assert message.strict == Message("assistant", "So.", unparsed=bad)


def test_nobody_calls_without_tools():
    assert reread(Message("assistant", CALL), CALL, ()) == Message("assistant", CALL)


SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    st.builds(ToolCall, st.sampled_from(["look", "now"]), st.dictionaries(st.text(max_size=4), VALUES, max_size=3)),
    min_size=1,
    max_size=3,
)
FAMILIES = sorted(catalog.names("renderers"))


def _named_for(syntax, arguments):
    """Return arguments whose names the syntax can write."""
    if syntax.style != "python":
        return arguments
    return {f"k{number}": value for number, value in enumerate(arguments.values())}


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=50)
@given(calls=CALLS)
def test_what_is_written_in_the_family_s_syntax_reads_strictly(family, calls):
    syntax = catalog.find("renderers", family).FORMAT.calls
    calls = [ToolCall(call.name, _named_for(syntax, call.arguments)) for call in calls]
    written = [write_call(call, syntax) for call in calls]
    if any(mark in one for one in written for mark in syntax.tags):
        return
    if syntax.listed:
        text = f"{syntax.open}[{syntax.between.join(written)}]{syntax.close}"
    else:
        text = syntax.between.join(syntax.open + one + syntax.close for one in written)
    reply = parse([(text, False)], syntax, tags_are_tokens=False)
    message = Message("assistant", reply.content, tool_calls=reply.calls, unparsed=reply.unparsed)
    assert list(message.tool_calls) == calls
    assert reread(message, text, TOOLS).strict is None


@settings(deadline=None, max_examples=200)
@given(calls=CALLS, fenced=st.booleans(), listed=st.booleans())
def test_any_call_in_json_is_read_as_it_was_written(calls, fenced, listed):
    if any("properties" in call.arguments for call in calls):
        return
    written = [json.dumps({"name": call.name, "arguments": dict(call.arguments)}) for call in calls]
    text = f"[{', '.join(written)}]" if listed else "\n".join(written)
    assert list(read(f"```json\n{text}\n```" if fenced else text).tool_calls) == calls


PIECES = [
    *"lo now() ) } ] [ { text [TOOL_CALLS] [TOOL look[ARGS] <tool_call> </tool_call> </tool <think> </think>".split(),
    *("look(at=1), no", "now() look(at='a')", f"{CALL} now()", "\r\n", "\r"),
    *("'", '"', ":", ": ", ",", ";", "`", "```", "```json\n", "\n```", "\n", " ", "look(", "look(at=1)"),
    *(CALL, CALL[:20], "{'name': 'look', 'arguments': {'at': 1}}", '{"a": 1}', '{"name": "x"'),
]


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=10), st.booleans())
def test_any_text_is_read_and_what_was_settled_begins_its_content(pieces, cut):
    text, settled = "", 0
    for piece in pieces:
        text += piece
        before, settled = settled, settled_length(text, TOOLS, settled)
        assert settled >= before
    message = read(text, cut=cut)
    assert message.content.startswith(text[:settled])
    assert message.strict is None or message.tool_calls or message.unparsed
    if message.unparsed is not None:
        assert why_unread(message.unparsed, TOOLS)


def test_names_nested_too_deeply_for_python_are_no_arguments():
    text = json.dumps({"name": "look", "arguments": "a" + ".a" * 9_000})
    assert read(text).unparsed == text
    assert "nested too deeply" in why_unread(text, TOOLS)
    assert settled_length(text, TOOLS) == 0


@pytest.mark.parametrize("text", ["look(at=1), now()", f"So:\n{CALL} now()", "So:\nlook(at=1)now()", f"{CALL}; now()"])
def test_a_call_on_the_line_of_another_is_held_back_letter_by_letter(text):
    settled = 0
    for end in range(1, len(text) + 1):
        settled = settled_length(text[:end], TOOLS, settled)
    assert text[:settled] == read(text).content
    assert len(read(text).tool_calls) == 2


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=200), st.booleans())
def test_no_text_raises(text, cut):
    read(text, cut=cut)


@pytest.mark.parametrize(
    "part", [*PIECES, "(", "-", "\\", "{\n", "```\n", "{}\n", "{name}\n", '{"name":}\n', "look(\n", "not "]
)
@pytest.mark.parametrize("end", ["", "\n", "\n```\n"])
def test_100_kb_of_anything_are_read_within_seconds(part, end):
    text = (part + end) * (100_000 // len(part + end))
    started = time.monotonic()
    read(text, cut=True)
    settled_length(text, TOOLS)
    assert time.monotonic() - started < 10
