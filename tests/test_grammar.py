from __future__ import annotations

import random
from dataclasses import replace

import any_schema
import pytest

from rolecraft import renderers
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.errors import ContractError, DataError
from rolecraft.grammar import Wanted, write
from rolecraft.grammar.fenced import OBJECT
from rolecraft.grammar.shapes import Limits
from rolecraft.renderers import CallSyntax, Renderer
from rolecraft.team import called_next
from rolecraft.types import Message, ToolCall, ToolSpec

FORMATS = ("nano", "hermes", "llama3", "phi3", "phi4_mini", "mistral", "mistral_nemo")
DEBT = ToolSpec("read_debt", "debt", {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]})
NOOP = ToolSpec("noop", "nothing")
TOOLS = (DEBT, NOOP)
ASK = ToolCall("read_debt", {"key": "Plalples"})
ROLES = ("executor", "summarizer")


@pytest.fixture(scope="module", params=FORMATS)
def spoken(request):
    """A format's renderer and grammars."""
    tokenizer = request.getfixturevalue(f"{request.param}_tokenizer")
    renderer = renderers.find(tokenizer)
    return renderer, Grammars(renderer, tokenizer, len(tokenizer), Settings(Limits(text=12, items=3)))


def fits(spoken, wanted, message):
    renderer, grammars = spoken
    return any_schema.follows(grammars.start(wanted), renderer.reply(message))


def said(content="", *calls):
    return Message("assistant", content, tool_calls=calls)


@pytest.mark.parametrize(
    ("choice", "message", "fit"),
    [
        ("auto", said("The rank is 3."), True),
        ("auto", said("It is\n\n 3.\n"), True),
        ("auto", said(""), True),
        ("auto", said("", ASK), True),
        ("auto", said("I need the debt.", ASK), True),
        ("auto", said("I need\nthe debt.", ASK, ToolCall("noop", {})), True),
        ("auto", said("", ToolCall("write_debt", {"key": "a"})), False),
        ("auto", said("", ToolCall("read_debt", {"kee": "a"})), False),
        ("auto", said("", ToolCall("read_debt", {})), False),
        ("none", said("The rank is 3."), True),
        ("none", said("", ASK), False),
        ("none", said("I need the debt.", ASK), False),
        ("required", said("", ASK), True),
        ("required", said("", ASK, ASK, ToolCall("noop", {})), True),
        ("required", said("I need the debt.", ASK), False),
        ("required", said("The rank is 3."), False),
        ("required", said(""), False),
        ("noop", said("", ToolCall("noop", {})), True),
        ("noop", said("", ASK), False),
        ("noop", said("The rank is 3."), False),
    ],
)
def test_a_reply_is_what_was_asked_for(spoken, choice, message, fit):
    assert fits(spoken, Wanted(TOOLS, choice), message) is fit


def test_a_held_reply_of_a_family_whose_calls_are_python_is_json_that_it_reads(phi4_mini_tokenizer):
    calls = replace(renderers.find(phi4_mini_tokenizer).format.calls, style="python")
    renderer = Renderer(replace(renderers.find(phi4_mini_tokenizer).format, calls=calls), phi4_mini_tokenizer)
    grammars = Grammars(renderer, phi4_mini_tokenizer, len(phi4_mini_tokenizer), Settings(Limits(text=12)))
    text = '<|tool_call|>[{"name": "read_debt", "arguments": {"key": "a\'b"}}]<|/tool_call|>'
    reply = renderer.reply(Message("assistant", unparsed=text))
    assert any_schema.follows(grammars.start(Wanted(TOOLS, "required")), reply)
    assert renderer.parse(reply, "assistant").tool_calls == (ToolCall("read_debt", {"key": "a'b"}),)


def test_parallel_calls_can_be_off(spoken):
    one, two = said("", ASK), said("", ASK, ASK)
    for choice in ("auto", "required", "read_debt"):
        assert fits(spoken, Wanted(TOOLS, choice, parallel=False), one)
        assert not fits(spoken, Wanted(TOOLS, choice, parallel=False), two)
        assert fits(spoken, Wanted(TOOLS, choice), two)


def test_a_reply_has_at_most_as_many_calls_as_the_limit(spoken):
    assert fits(spoken, Wanted(TOOLS, "required"), said("", *[ASK] * 8))
    assert not fits(spoken, Wanted(TOOLS, "required"), said("", *[ASK] * 9))


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("I need the debt. Next: executor.", True),
        ("I have the result. Next: summarizer.", True),
        ("Next: executor.", True),
        ("One line.\nNext: executor.", True),
        ("Next: nobody. Next: executor.", True),
        ("I need the debt.", False),
        ("I need the debt. Next: reasoner.", False),
        ("Next: executor. Then more.", False),
        ("aNext: executor.", False),
        ("", False),
    ],
)
def test_a_reasoner_ends_by_naming_a_role(spoken, text, fit):
    assert fits(spoken, Wanted(TOOLS, next_roles=ROLES), said(text)) is fit


def test_a_reasoner_makes_no_call(spoken):
    renderer, _ = spoken
    call = renderer.reply_text(said("", ASK))
    assert not fits(spoken, Wanted(TOOLS, next_roles=ROLES), said("I need the debt.", ASK))
    message = said(f"I write\n{call}\nNext: executor.")
    if not renderer.tags_are_tokens or not renderer.call_syntax.open:
        assert not fits(spoken, Wanted(TOOLS, next_roles=ROLES), message)


@pytest.mark.parametrize("choice", ["none", "auto", "required", "read_debt"])
def test_whatever_is_drawn_parses(spoken, choice):
    renderer, grammars = spoken
    start = grammars.start(Wanted(TOOLS, choice))
    for seed in range(12):
        message = renderer.parse(any_schema.draw(start.copy(), random.Random(seed)), "executor")
        assert message.unparsed is None
        assert {call.name for call in message.tool_calls} <= {tool.name for tool in TOOLS}
        if choice == "none":
            assert not message.tool_calls
        if choice in ("required", "read_debt"):
            assert message.tool_calls
            assert not message.content


def test_whatever_a_reasoner_draws_names_a_role_within_its_tokens(spoken):
    renderer, grammars = spoken
    start = grammars.start(Wanted(TOOLS, next_roles=ROLES))
    for seed in range(12):
        ids = any_schema.draw(start.copy(), random.Random(seed), most=60)
        message = renderer.parse(ids, "reasoner")
        assert called_next(message.content) in ROLES
        assert (message.tool_calls, message.unparsed) == ((), None)


@pytest.mark.parametrize("name", ['a"b', "%json {", "<[2]>", "a/b", "<tool_call>", "é 😀", "{", "x" * 256])
def test_a_tools_name_is_only_a_name(spoken, name):
    tool = replace(DEBT, name=name)
    assert fits(spoken, Wanted((tool, NOOP), "required"), said("", ToolCall(name, {"key": "a"})))
    assert not fits(spoken, Wanted((tool, NOOP), "required"), said("", ToolCall(name + "!", {"key": "a"})))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 257, "\x00", "\x7f"])
def test_a_name_that_cannot_be_written_is_refused(nano_tokenizer, name):
    with pytest.raises(DataError, match=r"tools\[1\]\.name is"):
        write(renderers.find(nano_tokenizer), Wanted((NOOP, ToolSpec(name, "")), "required"), Limits())


def test_a_choice_that_is_no_tool_is_refused_with_the_nearest(nano_tokenizer):
    renderer = renderers.find(nano_tokenizer)
    with pytest.raises(DataError, match=r"choice is 'read_dept'.*Did you mean 'read_debt'"):
        write(renderer, Wanted(TOOLS, "read_dept"), Limits())
    with pytest.raises(DataError, match="choice is 'required' and there are no tools"):
        write(renderer, Wanted((), "required"), Limits())


def test_two_tools_of_one_name_are_alternatives(spoken):
    other = ToolSpec("read_debt", "", {"type": "object", "properties": {"year": {"type": "integer"}}})
    for arguments in ({"key": "a"}, {"year": 3}):
        assert fits(spoken, Wanted((DEBT, other), "required"), said("", ToolCall("read_debt", arguments)))


def test_without_tools_a_reply_is_text(spoken):
    assert fits(spoken, Wanted(()), said("The rank is 3."))
    assert not fits(spoken, Wanted(()), said("", ASK))


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("choice", "message", "fit"),
    [
        ("none", said('{"name": "Ada", "age": 36}'), True),
        ("none", said("Ada is 36."), False),
        ("none", said('{"name": "Ada"}'), False),
        ("none", said('{"name": "Ada", "age": 36} So.'), False),
        ("none", said("", ASK), False),
        ("auto", said('{"name": "Ada", "age": 36}'), True),
        ("auto", said("", ASK), True),
        ("auto", said("Text."), False),
        ("required", said("", ASK), True),
        ("required", said('{"name": "Ada", "age": 36}'), False),
    ],
)
def test_an_answer_in_json_fits_its_schema_or_calls(spoken, choice, message, fit):
    renderer, _ = spoken
    if renderer.call_syntax.compact:
        message = replace(message, content=message.content.replace(": ", ":").replace(", ", ","))
    assert fits(spoken, Wanted(TOOLS, choice, schema=PERSON), message) is fit


def test_an_answer_may_hold_any_object_where_its_schema_says_no_more(spoken):
    written = said('{"a":[1,{"b":null}]}') if spoken[0].call_syntax.compact else said('{"a": [1, {"b": null}]}')
    assert fits(spoken, Wanted(schema={"type": "object"}), written)


def test_arguments_that_quote_the_formats_own_words_are_written_as_the_renderer_does(spoken):
    tool = ToolSpec(
        "f", "", {"type": "object", "properties": {"x": {"enum": ["<tool_call>", "</tool_call>", "<|im_end|>"]}}}
    )
    for value in tool.parameters["properties"]["x"]["enum"]:
        assert fits(spoken, Wanted((tool,), "required"), said("", ToolCall("f", {"x": value})))


def test_a_format_whose_calls_have_no_fixed_beginning_is_refused(nano_tokenizer):
    form = replace(renderers.find(nano_tokenizer).format, calls=CallSyntax(begins=r"\w+\("))
    with pytest.raises(ContractError, match="cannot be told from text"):
        write(Renderer(form, nano_tokenizer), Wanted(TOOLS), Limits())


@pytest.mark.parametrize("role", ["a  b", " a", "x.y", ""])
def test_a_role_that_cannot_be_named_is_refused(nano_tokenizer, role):
    with pytest.raises(DataError, match="cannot be named as the next one"):
        write(renderers.find(nano_tokenizer), Wanted(next_roles=(role,)), Limits())


def test_unsupported_keywords_are_refused_or_ignored_and_told(nano_tokenizer):
    renderer = renderers.find(nano_tokenizer)
    tool = ToolSpec("f", "", {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}})
    with pytest.raises(DataError, match=r"tools\[1\]\.parameters\.properties\.x\.uniqueItems"):
        write(renderer, Wanted((NOOP, tool), "required"), Limits())
    grammar = write(renderer, Wanted((NOOP, tool), "required"), Limits(), "ignore")
    assert grammar.ignored == ("tools[1].parameters.properties.x.uniqueItems",)


def test_tools_that_may_not_be_called_are_not_read(nano_tokenizer):
    bad = ToolSpec("f", "", {"type": "object", "not": {}})
    write(renderers.find(nano_tokenizer), Wanted((NOOP, bad), "noop"), Limits())
    write(renderers.find(nano_tokenizer), Wanted((NOOP, bad), "none"), Limits())


POINT = ToolSpec(
    "move",
    "move",
    {
        "type": "object",
        "properties": {
            "to": {"type": "array", "items": {"type": "integer"}},
            "how": {"type": "object", "properties": {"fast": {"type": "boolean"}}},
        },
    },
)


@pytest.mark.parametrize(
    ("arguments", "fit"),
    [
        ("{}", True),
        ("{\n}", False),
        ('{"to": []}', True),
        ('{"to": [\n  ]}', False),
        ('{"to": [\n    3,\n    4\n  ]}', True),
        ('{"to": [3, 4],\n "how": {}}', True),
        ('{"how": {\n  }}', False),
        ('{"how": {\n  "fast": true\n  }}', True),
    ],
)
def test_what_is_empty_in_a_fenced_block_holds_no_gap(hermes_tokenizer, arguments, fit):
    renderer = renderers.find(hermes_tokenizer)
    grammars = Grammars(renderer, hermes_tokenizer, len(hermes_tokenizer), Settings())
    wanted = Wanted((POINT,), "required", lenient=True, block=OBJECT)
    text = f'{OBJECT.opening}"move"{OBJECT.after_name}{arguments}{OBJECT.after_arguments}{OBJECT.closing}'
    ids = [*hermes_tokenizer.encode(text, add_special_tokens=False), renderer.end_id]
    assert any_schema.follows(grammars.start(wanted), ids) is fit
