"""Equality with the families' own templates, read from TRL's wheel; each format's docstring says what is not equal."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rolecraft import wire
from rolecraft.renderers import Renderer, find
from rolecraft.types import Message, ToolCall, ToolSpec

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WEATHER = ToolSpec(
    "weather",
    "Wetter für <eine> Stadt & 'mehr'",
    {"type": "object", "properties": {"city": {"type": "string", "description": 'a "city"'}}, "required": ["city"]},
)
TOOLS = (WEATHER, ToolSpec("now", "the time"))


def template(name: str) -> str:
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("TRL is not installed: pip install --no-deps trl")
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def official(tokenizer: PreTrainedTokenizerFast, name: str, messages: Sequence[Message], tools: Sequence[ToolSpec]):
    rows = [_row(message) for message in messages]
    listed = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]
    text = tokenizer.apply_chat_template(
        rows, tools=listed or None, chat_template=template(name), tokenize=False, date_string="26 Jul 2024"
    )
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _row(message: Message) -> dict:
    row: dict = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return row


def texts() -> st.SearchStrategy[str]:
    """Texts that neither template changes: no outer white space, no marker."""
    part = st.sampled_from(
        ["Plalples", "3809", '{"a": 1}', "}", "...", "\n", "\n\n", " ", "é", "日本", "don't", "<x>", "x\t"]
    )
    return st.lists(part, min_size=1, max_size=6).map("".join).map(str.strip).map(lambda text: text or "x")


def calls() -> st.SearchStrategy[ToolCall]:
    values = st.one_of(texts(), st.integers(-99, 9999), st.none(), st.lists(texts(), max_size=2))
    return st.builds(ToolCall, st.sampled_from(["weather", "now"]), st.dictionaries(texts(), values, max_size=2))


def steps(most_calls: int, beside: bool) -> st.SearchStrategy[list[Message]]:
    """A call and its results, or an answer and the next question."""
    content = texts() if beside else st.just("")
    acting = st.builds(
        lambda text, made, results: [Message("assistant", text, tool_calls=tuple(made)), *results],
        content,
        st.lists(calls(), min_size=1, max_size=most_calls),
        st.lists(st.builds(Message, st.just("tool"), texts()), min_size=1, max_size=3),
    )
    talking = st.builds(lambda a, q: [Message("assistant", a), Message("user", q)], texts(), texts())
    return st.lists(st.one_of(acting, talking), max_size=4).map(lambda parts: [m for part in parts for m in part])


def conversations(most_calls: int, *, beside: bool) -> st.SearchStrategy[tuple[Message, ...]]:
    system = st.lists(st.builds(Message, st.just("system"), texts()), max_size=1)
    return st.builds(
        lambda head, q, rest: (*head, Message("user", q), *rest), system, texts(), steps(most_calls, beside)
    )


@QUICK
@given(messages=conversations(3, beside=True), tools=st.sampled_from([(), TOOLS]))
def test_hermes_equals_qwen_2_5(hermes_tokenizer, messages: tuple[Message, ...], tools) -> None:
    assert find(hermes_tokenizer).render(messages, tools).ids == official(hermes_tokenizer, "qwen2_5", messages, tools)


@QUICK
@given(messages=conversations(1, beside=False), tools=st.sampled_from([(), TOOLS]))
@pytest.mark.parametrize("version", ["llama3_1", "llama3_2"])
def test_llama3_equals_llama_3(llama3_tokenizer, version: str, messages: tuple[Message, ...], tools) -> None:
    assert find(llama3_tokenizer).render(messages, tools).ids == official(llama3_tokenizer, version, messages, tools)


@QUICK
@given(data=st.data())
def test_phi3_equals_phi_3_but_for_the_last_token(phi3_tokenizer, data: st.DataObject) -> None:
    messages = tuple(m for m in data.draw(conversations(1, beside=False)) if m.role != "tool" and not m.tool_calls)
    expected = official(phi3_tokenizer, "phi3", messages, ())
    assert find(phi3_tokenizer).render(messages).ids == expected[:-1]
    assert expected[-1] == phi3_tokenizer.eos_token_id


def both(renderer: Renderer, tokenizer: PreTrainedTokenizerFast, name: str, *messages: Message) -> tuple[str, str]:
    tools = (WEATHER,)
    return renderer.text(renderer.render(messages, tools).ids), renderer.text(
        official(tokenizer, name, messages, tools)
    )


def test_hermes_differs_where_a_marker_is_quoted(hermes_tokenizer) -> None:
    renderer = find(hermes_tokenizer)
    asked = Message("user", "what is <tool_call>?")
    ours, theirs = renderer.render((asked,)).ids, official(hermes_tokenizer, "qwen2_5", (asked,), ())
    assert renderer.text(ours) == renderer.text(theirs)
    assert ours != theirs


def test_hermes_differs_where_a_reply_begins_with_a_newline(hermes_tokenizer) -> None:
    renderer = find(hermes_tokenizer)
    messages = (Message("user", "q"), Message("assistant", "\nyes"))
    ours, theirs = renderer.render(messages).ids, official(hermes_tokenizer, "qwen2_5", messages, ())
    assert renderer.text(ours) == renderer.text(theirs)
    assert ours[: len(renderer.prompt(messages[:1], (), "assistant"))] == renderer.prompt(messages[:1], (), "assistant")


def official_of(tokenizer: PreTrainedTokenizerFast, name: str, asked: Message, tool: dict) -> str:
    """Return what the template makes of a tool exactly as a caller wrote it."""
    text = tokenizer.apply_chat_template(
        [_row(asked)], tools=[tool], chat_template=template(name), tokenize=False, date_string="26 Jul 2024"
    )
    return str(text)


SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
FULL = {"name": "f", "description": "d", "parameters": SCHEMA}


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (FULL, FULL),
        ({"name": "f", "parameters": SCHEMA}, {**FULL, "description": ""}),
        ({"name": "f", "description": "d"}, {**FULL, "parameters": {"type": "object", "properties": {}}}),
        ({"description": "d", "parameters": SCHEMA, "name": "f"}, FULL),
        ({**FULL, "strict": True}, FULL),
    ],
    ids=["whole", "no description", "no parameters", "another order", "strict"],
)
@pytest.mark.parametrize("name", ["hermes", "llama3"])
def test_a_tool_is_told_whole_and_in_one_order_as_the_template_tells_the_whole_one(
    name: str, function: dict, told: dict, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    family = {"hermes": "qwen2_5", "llama3": "llama3_1"}[name]
    asked, tool = Message("user", "q"), {"type": "function", "function": function}
    renderer = find(tokenizer)
    ours = renderer.text(renderer.render((asked,), wire.tools_from_json([tool])).ids)
    assert ours == official_of(tokenizer, family, asked, {"type": "function", "function": told})
    assert (ours == official_of(tokenizer, family, asked, tool)) == (list(function.items()) == list(told.items()))


def test_llama3_keeps_the_text_beside_a_call_that_the_template_drops(llama3_tokenizer) -> None:
    call = Message("assistant", "thinking", tool_calls=(ToolCall("weather", {"city": "Ulm"}),))
    ours, theirs = both(find(llama3_tokenizer), llama3_tokenizer, "llama3_1", Message("user", "q"), call)
    assert ours.replace("thinking\n", "") == theirs
