"""Glaive function-calling conversations in ShareGPT form, as LLaMA-Factory and many data sets lay them out.

A row has `conversations`, a list of `{"from", "value"}`, and `tools`, a list of tools or that list as JSON text; also
`system` and `id`. `from` is human, gpt, function_call, observation or system, in any order: a gpt before a
function_call is the thought of the message that makes the call, and function_calls in a row are parallel. A
function_call holds one call or a list of them; its arguments are an object or JSON text. Observations answer the calls
that wait, oldest first; a single one that is a list as long as the calls answers them all.

Not covered: the older Glaive form with one `chat` text per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.types import Json, Trajectory

EXAMPLE: Mapping[str, Json] = {
    "conversations": [
        {"from": "human", "value": "Is it warmer in Bergen or in Malmö?"},
        {"from": "gpt", "value": "I will look up both."},
        {
            "from": "function_call",
            "value": '[{"name": "read_temperature", "arguments": {"town": "Bergen"}},'
            ' {"name": "read_temperature", "arguments": "{\\"town\\": \\"Malmö\\"}"}]',
        },
        {"from": "observation", "value": '{"celsius": 9}'},
        {"from": "observation", "value": '{"celsius": 12}'},
        {"from": "gpt", "value": "It is warmer in Malmö: 12 °C against 9 °C."},
        {"from": "human", "value": "Thank you!"},
        {"from": "gpt", "value": "You are welcome."},
    ],
    "tools": '[{"name": "read_temperature", "description": "Temperature in a town now", "parameters":'
    ' {"type": "object", "properties": {"town": {"type": "string", "description": "Name of the town"}},'
    ' "required": ["town"]}}]',
}

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}

KEYS: wire.Keys = {
    "conversations": [dict.fromkeys(("from", "value"))],
    "tools": [wire.KNOWN_TOOL],
    "system": None,
    "id": None,
}


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the trajectory in one row; raises DataError."""
    unknown = [key for key in row if key not in KEYS]
    if unknown:
        raise DataError(f"unknown keys {', '.join(map(repr, unknown[:5]))}; a row has {', '.join(KEYS)}")
    conversation = row.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise DataError("needs 'conversations', a list of at least one {'from', 'value'}")
    system = row.get("system")
    writer = _Writer([{"role": "system", "content": system}] if system else [])
    for place, turn in enumerate(conversation):
        speaker, text = _turn(turn, f"conversations[{place}]")
        following = conversation[place + 1] if place + 1 < len(conversation) else {}
        writer.add(speaker, text, isinstance(following, Mapping) and following.get("from") == "observation")
    identity = row.get("id")
    return wire.trajectory_from_json(
        {
            "messages": writer.messages,
            "tools": row.get("tools") or [],
            "id": None if identity is None else str(identity),
        }
    )


def _turn(turn: Json, where: str) -> tuple[str, str]:
    if not isinstance(turn, Mapping) or turn.keys() != {"from", "value"}:
        raise DataError(f"{where}: must be an object with 'from' and 'value', and nothing else")
    speaker, text = turn["from"], turn["value"]
    if speaker not in (*_ROLES, "function_call", "observation"):
        raise DataError(f"{where}: 'from' is {speaker!r}; it must be human, gpt, function_call, observation or system")
    if not isinstance(text, str):
        raise DataError(f"{where}: 'value' is {type(text).__name__}; it must be text")
    return speaker, text


class _Writer:
    """Writes wire messages turn by turn, and knows which calls wait for their result."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self._last = ""
        self._made = 0
        self._waiting: list[str] = []

    def add(self, speaker: str, text: str, more_results: bool) -> None:
        if speaker == "function_call":
            self._call(text)
        elif speaker == "observation":
            self._observe(text, more_results)
        else:
            self.messages.append({"role": _ROLES[speaker], "content": text})
        self._last = speaker

    def _call(self, text: str) -> None:
        if self._last not in ("gpt", "function_call"):
            self.messages.append({"role": "assistant", "content": None})
        if self._last != "function_call":
            self._waiting = []
        message, calls = self.messages[-1], _read_calls(text)
        if calls is None:
            message["unparsed"] = "\n".join(filter(None, (message.get("unparsed"), text)))
            return
        for call in calls:
            identity = f"call_{self._made}"
            self._made += 1
            self._waiting.append(identity)
            function = {"name": call["name"], "arguments": call["arguments"]}
            message.setdefault("tool_calls", []).append({"id": identity, "type": "function", "function": function})

    def _observe(self, text: str, more_results: bool) -> None:
        unparsed = any("unparsed" in message for message in self.messages)
        if not self._waiting and not unparsed:
            raise DataError("an observation answers no call; there are more results than calls")
        together = [] if more_results or self._last == "observation" else _read_list(text)
        results = together if len(together) == len(self._waiting) > 1 else [text]
        for result in results:
            answer = {"tool_call_id": self._waiting.pop(0)} if self._waiting else {}
            self.messages.append({"role": "tool", "content": result, **answer})


def _read_calls(text: str) -> list[dict[str, Json]] | None:
    """Return the calls in a function_call, or None if it is anything else."""
    try:
        value = wire.loads(text)
    except DataError:
        return None
    calls = value if isinstance(value, list) else [value]
    return calls if calls and all(map(_is_call, calls)) else None


def _is_call(value: Json) -> bool:
    named = isinstance(value, dict) and value.keys() == {"name", "arguments"} and isinstance(value["name"], str)
    return named and isinstance(value["arguments"], str | dict)


def _read_list(text: str) -> list[str]:
    try:
        value = wire.loads(text)
    except DataError:
        return []
    items = value if isinstance(value, list) else []
    return [item if isinstance(item, str) else wire.dumps(item) for item in items]
