"""Messages on the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from rolecraft.errors import DataError
from rolecraft.types import Json, Message, WireRole
from rolecraft.wire.calls import ArgumentsForm, call_to_json, insert_raw_calls, read_calls
from rolecraft.wire.fields import REMEDIES, read_choice, read_field, read_object, shown

_OWN_KEYS = (
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "name",
    "speaker",
    "unparsed",
    "weight",
    "failed",
    "strict",
)
_REASONING_KEYS = ("reasoning_content", "reasoning")
_EMPTY_KEYS = ("refusal", "audio", "function_call", "annotations")
_OTHER_PARTS = ("image_url", "input_audio", "file", "refusal")  # null in a table that has other parts in other rows

MESSAGE_KEYS = (*_OWN_KEYS, *_REASONING_KEYS, *_EMPTY_KEYS)
"""The keys that a message may have."""


def message_to_json(message: Message, arguments: ArgumentsForm = "string") -> dict[str, Json]:
    """Return the message as OpenAI chat JSON with our optional keys and `weight`; `ids` are not written."""
    calls = [call_to_json(call, arguments) for call in message.tool_calls]
    with_raw = insert_raw_calls(message.unparsed, calls)
    weight = message.weight if message.weight not in (0, 1) else int(message.weight)  # OpenAI wants integers
    optional = (
        ("tool_calls", with_raw or calls or None),
        ("tool_call_id", message.tool_call_id),
        ("name", message.name),
        ("speaker", message.speaker),
        ("unparsed", None if with_raw else message.unparsed),
        ("weight", weight),
        ("failed", message.failed or None),
        ("strict", message.strict and message_to_json(message.strict, arguments)),
    )
    content = None if message.content == "" and (with_raw or calls) else message.content
    return {"role": message.role, "content": content} | {key: value for key, value in optional if value is not None}


def message_from_json(data: Json, where: str = "message") -> Message:
    """Return the message in OpenAI chat JSON; raises DataError that names the place and the remedy."""
    fields = read_object(data, MESSAGE_KEYS, where)
    for key in _EMPTY_KEYS:
        if fields.get(key):
            raise DataError(f"{where}: {key!r} is not supported; {REMEDIES[key]}")
    if fields.get("role") == "developer":
        fields["role"] = "system"
    calls, unparsed = read_calls(fields, where)
    if "content" not in data and not calls and unparsed is None:
        raise DataError(f"{where}: needs 'content'; write text, or null beside 'tool_calls'")
    weight = read_field(fields, "weight", float, where, None)
    if weight is not None and not 0 <= weight < math.inf:
        raise DataError(f"{where}: 'weight' is {weight}; it must be 0 or more")
    return Message(
        role=read_choice(fields, "role", get_args(WireRole), where),
        content=_read_content(fields, where),
        tool_calls=calls,
        tool_call_id=read_field(fields, "tool_call_id", str, where, None),
        name=read_field(fields, "name", str, where, None),
        speaker=read_field(fields, "speaker", str, where, None),
        unparsed=unparsed,
        weight=weight,
        failed=read_field(fields, "failed", bool, where, False),
        strict=_read_strict(fields["strict"], f"{where}.strict") if "strict" in fields else None,
    )


def _read_strict(data: Json, where: str) -> Message:
    if isinstance(data, Mapping) and data.get("strict") is not None:  # nested without end it would exhaust the stack
        raise DataError(f"{where}: has a 'strict' of its own; delete it")
    return message_from_json(data, where)


def _read_content(fields: Mapping[str, Json], where: str) -> str:
    content = fields.get("content", "")
    if isinstance(content, list):
        content = "".join(_read_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    if not isinstance(content, str):
        raise DataError(f"{where}: 'content' is {shown(content)}; write text, a list of text parts, or null")
    reasoning = next((text for key in _REASONING_KEYS if (text := read_field(fields, key, str, where, ""))), "")
    return f"<think>\n{reasoning}\n</think>\n\n{content}" if reasoning else content


def _read_part(part: Json, where: str) -> str:
    if isinstance(part, Mapping):
        part = {key: value for key, value in part.items() if value is not None or key not in _OTHER_PARTS}
    fields = read_object(part, ("type", "text"), where)
    read_choice(fields, "type", ("text",), where)
    return str(read_field(fields, "text", str, where))
