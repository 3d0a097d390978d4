"""Compares a chat format with a tokenizer's own template on a few conversations, as text.

Not covered: whether the tokenizer splits that text alike; templates that change with the date.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rolecraft.errors import ContractError
from rolecraft.renderers._format import Format
from rolecraft.renderers._jinja import TemplateFailed, templates
from rolecraft.renderers._renderer import Renderer
from rolecraft.renderers._text import Tokenizer
from rolecraft.types import Message, ToolCall, ToolSpec

Probe = tuple[tuple[Message, ...], tuple[ToolSpec, ...]]

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}, "required": ["city"]}
_TOOLS = (ToolSpec("weather", "Weather of a city", _SCHEMA), ToolSpec("now", "The time"))
_SYSTEM, _ASKED = Message("system", "Be brief."), Message("user", "What is 2 + 3?")
_ANSWERED = (Message("assistant", "It is 5."), Message("user", "And 2 + 4?"))
_ACTED = (
    Message("assistant", tool_calls=(ToolCall("weather", {"city": "Ulm"}, "call00001"),)),
    Message("tool", "sunny", tool_call_id="call00001", name="weather"),
)

CHATS: tuple[Probe, ...] = (((_ASKED,), ()), ((_ASKED, *_ANSWERED), ()))
"""What a format must render as the template does to be the family's."""

OTHERS: tuple[Probe, ...] = (
    ((_SYSTEM, _ASKED, *_ANSWERED), ()),
    ((_ASKED,), _TOOLS),
    ((_SYSTEM, _ASKED), _TOOLS),
    ((_SYSTEM, _ASKED, *_ACTED), _TOOLS),
)
"""What tells families apart whose chats look alike."""


class Templated(Protocol):
    """What `transformers` offers of a tokenizer's own template."""

    special_tokens_map: Mapping[str, Any]

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """Return the template for a conversation with these tools."""
        ...


def own_text(tokenizer: Templated, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str | None:
    """Return the prompt that the tokenizer's own template writes, or None where it fails, as templates may."""
    rows = [_row(message) for message in messages]
    if tools and rows[0]["role"] == "system":  # where Phi-4 looks for them
        functions = ({"name": t.name, "description": t.description, "parameters": t.parameters} for t in tools)
        rows[0]["tools"] = json.dumps(list(functions), ensure_ascii=False)
    listed = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    variables = {**named, "tools": listed or None, "add_generation_prompt": True, "date_string": "26 Jul 2024"}
    try:
        template = tokenizer.get_chat_template(None, listed or None)
        return templates(os.getpid()).render(template, rows, **variables)
    except (TemplateFailed, ValueError):
        return None


def text_of(format: Format, tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str | None:
    """Return the prompt that `format` writes, or None where the tokenizer lacks its tokens."""
    try:
        renderer = Renderer(format, _Characters(tokenizer))
    except ContractError:
        return None
    return renderer.text(renderer.prompt(messages, tools, "assistant"))


def knows_tools(tokenizer: Templated) -> bool:
    """Tell whether the tokenizer's own template tells a model of its tools."""
    return all(tool.name in (own_text(tokenizer, (_SYSTEM, _ASKED), _TOOLS) or "") for tool in _TOOLS)


def _row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        row |= {"tool_call_id": message.tool_call_id, "name": message.name}
    return row


@dataclass(frozen=True, slots=True)
class _Mark:
    """An added token that leaves the text around it alone."""

    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False


class _Characters:
    """A tokenizer with another's added tokens and a token for each character: what it encodes, it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.init_kwargs: dict[str, Any] = {}
        self.unk_token_id: int | None = None
        marks = tokenizer.added_tokens_decoder.items()
        self._marks = {number: _Mark(token.content, token.special) for number, token in marks}
        self._first = max(self._marks, default=-1) + 1

    @property
    def added_tokens_decoder(self) -> Mapping[int, _Mark]:
        return self._marks

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [self._first + ord(character) for character in text]

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        return "".join(chr(number - self._first) for number in ids)
