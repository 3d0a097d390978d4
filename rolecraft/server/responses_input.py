"""Reads the input of the responses API as chat messages, and tells errors of these by the items that they came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rolecraft.server.bodies import bad
from rolecraft.server.errors import Refused
from rolecraft.types import Json

_TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_RENAMED = {"messages": "input", "response_format": "text.format", "max_completion_tokens": "max_output_tokens"}
_KEY = re.compile("'(" + "|".join(_RENAMED) + ")'")
_PLACE = re.compile(r"\bmessages\[(\d{1,9})\](?:\.tool_calls\[(\d{1,9})\])?(?:\.function\b)?")
_WORDS = {
    "a message with role 'tool' and its tool_call_id": "an item of type 'function_call_output' with its call_id",
    "tool_call_id": "call_id",
}


@dataclass(slots=True)
class Conversation:
    """Chat messages, with the place in the request that each message and each of its calls came from."""

    messages: list[dict[str, Json]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    _thoughts: list[str] = field(default_factory=list)
    _thought_at: str = ""

    def add(self, message: dict[str, Json], where: str) -> None:
        """Add a message; the reasoning before it is the assistant's, and before another's a message of its own."""
        if message.get("role") == "assistant":
            message |= self._reasoning()
        else:
            self.finish()
        self._append(message, where)

    def add_call(self, call: dict[str, Json], where: str) -> None:
        """Add a call, to the assistant's message before it if there is one and no reasoning came between."""
        if self._thoughts or not self.messages or self.messages[-1].get("role") != "assistant":
            self.add({"role": "assistant", "content": None}, where)
        self.messages[-1].setdefault("tool_calls", []).append(call)
        self.calls[-1].append(where)

    def think(self, text: str, where: str) -> None:
        """Add reasoning, which belongs to the assistant's message or call that comes next."""
        if text:
            self._thought_at = where if not self._thoughts else self._thought_at
            self._thoughts.append(text)

    def finish(self) -> None:
        """Add reasoning that nothing of the assistant's follows, as when its answer was cut."""
        if self._thoughts:
            self._append({"role": "assistant", "content": "", **self._reasoning()}, self._thought_at)

    def told(self, refused: Refused) -> Refused:
        """Return an error of the chat request in the words of the request that was sent."""
        message = _KEY.sub(lambda found: f"'{_RENAMED[found[1]]}'", _PLACE.sub(self._place, str(refused)))
        for word, ours in _WORDS.items():
            message = message.replace(word, ours)
        given = refused.param or ""
        key = next((key for key in _RENAMED if given.startswith(key)), None)
        param = refused.param if key is None else _RENAMED[key]
        return Refused(refused.status, message, param=param, code=refused.code, wait=refused.wait)

    def _append(self, message: dict[str, Json], where: str) -> None:
        self.messages.append(message)
        self.places.append(where)
        self.calls.append([])

    def _reasoning(self) -> dict[str, Json]:
        thoughts, self._thoughts = self._thoughts, []
        return {"reasoning_content": "\n\n".join(thoughts)} if thoughts else {}

    def _place(self, found: re.Match[str]) -> str:
        number, call = int(found[1]), int(found[2] or 0)
        if number >= len(self.places):
            return "the end of 'input'"
        calls = self.calls[number]
        return calls[call] if found[2] is not None and call < len(calls) else self.places[number]


def read_input(given: str | Sequence[Mapping[str, Json]], instructions: str | None) -> Conversation:
    """Return the input as chat messages: calls join the words before them, and reasoning what it led to."""
    found = Conversation()
    if instructions:
        found.add({"role": "system", "content": instructions}, "instructions")
    if isinstance(given, str):
        found.add({"role": "user", "content": given}, "input")
        return found
    for place, item in enumerate(given):
        _add(found, item, f"input[{place}]")
    found.finish()
    return found


def _add(found: Conversation, item: Mapping[str, Json], where: str) -> None:
    match item.get("type", "message"):
        case "reasoning":
            found.think(_text(item.get("content") or item.get("summary") or "", where), where)
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            found.add_call({"id": item.get("call_id"), "type": "function", "function": function}, where)
        case "function_call_output":
            output = _text(item.get("output"), where)
            found.add({"role": "tool", "tool_call_id": item.get("call_id"), "content": output}, where)
        case "message":
            found.add({"role": item.get("role"), "content": _text(item.get("content"), where)}, where)
        case other:
            told = f"{where} is of type {str(other)[:40]!r}; there are messages, reasoning, calls and outputs"
            raise bad(told, "input")


def _text(content: Json, where: str) -> str:
    """Return text or text parts as text; raises Refused for pictures and other parts."""
    if isinstance(content, str):
        return content
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise bad(f"{where} holds {str(kind)[:40]!r}, and only text is read", "input")
    return "".join(part["text"] for part in content)
