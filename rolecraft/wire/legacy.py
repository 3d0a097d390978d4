"""OpenAI's older `functions`, `function_call` and role `function`, turned into tools and tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rolecraft.errors import DataError
from rolecraft.types import Json


def modern(row: Mapping[str, Json], where: str) -> Mapping[str, Json]:
    """Return the row in today's words; raises DataError for one that uses old and new words for the same thing."""
    found = dict(row)
    functions = found.pop("functions", None)
    if functions is not None:
        if found.get("tools"):
            raise DataError(f"{where}: has both 'functions' and 'tools'; write all of them as 'tools'")
        if not isinstance(functions, list):
            raise DataError(f"{where}: 'functions' is {type(functions).__name__}; write a list, as 'tools'")
        found["tools"] = [{"type": "function", "function": function} for function in functions]
    if isinstance(found.get("messages"), list):
        found["messages"] = _modern_messages(found["messages"])
    return found


def _modern_messages(messages: list[Json]) -> list[Json]:
    """Return the messages with an id for each old call; a result is that of the last one that waits for its own."""
    found: list[Json] = []
    waiting: str | None = None
    name: Json = None
    made = 0
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            found.append(message)
            continue
        changed: dict[str, Any] = dict(message)
        call = changed.pop("function_call", None)
        if call:
            if changed.get("tool_calls"):
                raise DataError(f"messages[{number}]: has both 'function_call' and 'tool_calls'; write one of them")
            waiting, made = f"call_{made}", made + 1
            changed["tool_calls"] = [{"id": waiting, "type": "function", "function": call}]
            name = call.get("name") if isinstance(call, Mapping) else None
        if changed.get("role") == "function":
            changed["role"] = "tool"
            if waiting and changed.get("name") in (None, name):
                changed["tool_call_id"], waiting = waiting, None
        found.append(changed)
    return found
