"""Tool calls on the wire; one whose arguments are not a JSON object is kept as text, with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from rolecraft.errors import DataError
from rolecraft.types import Json, ToolCall
from rolecraft.wire.fields import read_choice, read_field, read_object, shown
from rolecraft.wire.text import MAX_DEPTH, depth_within, dumps, loads, read_arguments

ArgumentsForm = Literal["string", "object"]
"""How `arguments` are written: a JSON string as OpenAI does, or an object as chat templates like it. Both are read."""


def call_to_json(call: ToolCall, arguments: ArgumentsForm = "string") -> dict[str, Json]:
    """Return the call as an entry of `tool_calls`; a call without an id is written without one."""
    value = dumps(dict(call.arguments)) if arguments == "string" else dict(call.arguments)
    return _call_json(call.id, call.name, value)


def _call_json(identity: str, name: str, arguments: Json) -> dict[str, Json]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": identity, **call} if identity else call


def read_calls(fields: Mapping[str, Json], where: str) -> tuple[tuple[ToolCall, ...], str | None]:
    """Return the calls, and the text of those whose arguments are not an object (None if there are none)."""
    calls, raw = [], [read_field(fields, "unparsed", str, where)] if "unparsed" in fields else []
    for position, entry in enumerate(read_field(fields, "tool_calls", list, where, [])):
        identity, name, arguments = _read_call(entry, f"{where}.tool_calls[{position}]")
        if isinstance(arguments, Mapping) and not depth_within(arguments, MAX_DEPTH):
            raise DataError(f"{where}.tool_calls[{position}]: 'arguments' is nested more than {MAX_DEPTH} deep")
        read = read_arguments(arguments) if isinstance(arguments, str) else arguments
        if read is None:
            raw.append(_raw_call(position, identity, name, arguments))
        else:
            calls.append(ToolCall(name, read, identity))
    return tuple(calls), "\n".join(raw) if raw else None


def _read_call(entry: Json, where: str) -> tuple[str, str, Json]:
    """Return id, name and arguments (an object or text) of one entry of `tool_calls`."""
    fields = read_object(entry, ("id", "type", "function", "index"), where)
    read_choice(fields, "type", ("function",), where, "function")
    function = read_object(fields.get("function"), ("name", "arguments"), f"{where}.function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str | Mapping):
        raise DataError(f"{where}: 'arguments' is {shown(arguments)}; write a JSON string or an object, {{}} for none")
    return read_field(fields, "id", str, where, ""), read_field(function, "name", str, where), arguments


_STRING = r'"(?:[^"\\\n]|\\.)*"'
_RAW_CALL = re.compile(
    rf'^\{{"index": (\d{{1,4}}), "id": ({_STRING}), "name": ({_STRING}), "arguments": ', re.MULTILINE
)


def _raw_call(position: int, identity: str, name: str, arguments: str) -> str:
    """Return a call as text: its place, id and name, and its arguments exactly as they were."""
    return f'{{"index": {position}, "id": {dumps(identity)}, "name": {dumps(name)}, "arguments": {arguments}}}'


def insert_raw_calls(unparsed: str | None, calls: Sequence[Json]) -> list[Json] | None:
    """Return `calls` with the raw calls of `unparsed` where they were; None if `unparsed` is any other text."""
    text = unparsed or ""
    heads = list(_RAW_CALL.finditer(text))
    ends = [head.start() - 1 for head in heads[1:]] + [len(text)]
    placed = list(calls)
    try:
        for head, end in zip(heads, ends, strict=False):
            call = _call_json(loads(head[2]), loads(head[3]), text[head.end() : end - 1])
            placed.insert(int(head[1]), call)
    except DataError:
        return None
    # a model may write text that only looks like ours: what reading would not give back exactly stays text
    return placed if heads and read_calls({"tool_calls": placed}, "message")[1] == unparsed else None
