"""The template saved beside a model, rendered by transformers alone, beside the renderer: the same ids."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import QWEN_SPLIT, train
from families import FAMILIES, as_json, conversations, row

from rolecraft import catalog
from rolecraft.renderers import Renderer, write_template
from rolecraft.team import Role
from rolecraft.types import Message, ToolCall, ToolSpec

ANY = dataclasses.replace(FAMILIES[0], calls=3, beside=True, results=True, tools=True)


def renderer_and_tokenizer(name: str):
    """Return a renderer of the format with a byte-level tokenizer that has its family's tokens."""
    family = next((one for one in FAMILIES if one.format == name), ANY)
    tokenizer = train(QWEN_SPLIT, list(family.special), family.marks, eos_token=family.special[0])
    return Renderer(catalog.find("renderers", name).FORMAT, tokenizer), tokenizer


@pytest.mark.parametrize("name", catalog.names("renderers"))
@pytest.mark.parametrize(("speaker", "instructions"), [("assistant", ""), ("reasoner", "Think.\nThen act.")])
def test_the_saved_template_prompts_as_the_renderer_does(name: str, speaker: str, instructions: str) -> None:
    renderer, tokenizer = renderer_and_tokenizer(name)
    tags = renderer.tags_are_tokens
    tokenizer.chat_template = write_template(renderer.format, speaker, instructions, tags_are_tokens=tags)
    role = Role(speaker, instructions)
    for messages, tools in conversations(dataclasses.replace(ANY, format=name)):
        seen, prompt = role.view(messages), messages[-1].role != "assistant"
        ours = renderer.prompt(seen, tools, speaker) if prompt else renderer.render(seen, tools).ids
        assert ours == theirs(tokenizer, messages, as_json(tools), prompt=prompt)


@pytest.mark.parametrize("name", catalog.names("renderers"))
@pytest.mark.parametrize("told_tools", [True, False])
def test_the_saved_template_reminds_and_leaves_tools_out_as_the_view_does(name: str, told_tools: bool) -> None:
    renderer, tokenizer = renderer_and_tokenizer(name)
    role = Role("planner", "Plan.", told_tools=told_tools, reminder="What's next?\nSay so.")
    tokenizer.chat_template = write_template(
        renderer.format,
        role.name,
        role.instructions,
        reminder=role.reminder,
        told_tools=told_tools,
        tags_are_tokens=renderer.tags_are_tokens,
    )
    for messages, tools in conversations(dataclasses.replace(ANY, format=name)):
        if messages[-1].role != "assistant":
            ours = renderer.prompt(role.view(messages), role.tools(tools), role.name)
            assert ours == theirs(tokenizer, messages, as_json(tools), prompt=True)


def theirs(tokenizer, messages, tools, *, prompt: bool) -> tuple[int, ...]:
    text = tokenizer.apply_chat_template(
        [row(message) for message in messages], tools=tools or None, tokenize=False, add_generation_prompt=prompt
    )
    return tuple(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", ["hermes", "nano", "phi3"])
def test_the_saved_template_tells_a_bare_tool_and_arguments_in_text_alike(name: str) -> None:
    renderer, tokenizer = renderer_and_tokenizer(name)
    tokenizer.chat_template = write_template(renderer.format, tags_are_tokens=renderer.tags_are_tokens)
    call = {"type": "function", "function": {"name": "now", "arguments": '{"zone": "</tool_call>"}'}}
    bare = [{"type": "function", "function": {"name": "now"}}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}],
        tools=bare,
        tokenize=False,
    )
    message = Message("assistant", tool_calls=(ToolCall("now", {"zone": "</tool_call>"}),))
    ours = renderer.text(renderer.render((Message("user", "q"), message), (ToolSpec("now", ""),)).ids)
    assert text.replace('{"zone": ', '{"zone":') == ours.replace('{"zone": ', '{"zone":')


def test_a_signature_in_the_saved_template_tells_types_and_choices_alike() -> None:
    renderer, tokenizer = renderer_and_tokenizer("nano")
    tokenizer.chat_template = write_template(renderer.format)
    kinds = {
        "n": {"type": "integer"},
        "unit": {"type": "string", "enum": ["c", "f"]},
        "many": {"type": "string", "enum": list("abcdefghi")},
        "any": {},
        "items": {"type": ["array", "null"]},
    }
    tool = ToolSpec("f", "a  tool\nof two lines", {"type": "object", "properties": kinds, "required": ["n"]})
    asked = (Message("user", "q"),)
    assert renderer.prompt(asked, (tool,), "assistant") == theirs(tokenizer, asked, as_json([tool]), prompt=True)
