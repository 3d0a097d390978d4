"""Leaves out the keys of a row that nothing reads, and counts them, where the user asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rolecraft.errors import DataError
from rolecraft.types import Json
from rolecraft.wire.messages import MESSAGE_KEYS
from rolecraft.wire.rows import ROW_KEYS
from rolecraft.wire.text import loads

Keys = Any
"""What is read of a JSON value: an object's keys, each with what is read of it; a list of that; None for all of it."""

_FUNCTION: Keys = dict.fromkeys(("name", "description", "parameters", "strict"))
_CALLED: Keys = dict.fromkeys(("name", "arguments"))
_CALL: Keys = {"id": None, "type": None, "index": None, "function": _CALLED}
_MESSAGE: Keys = {
    **dict.fromkeys(MESSAGE_KEYS),
    "content": [dict.fromkeys(("type", "text"))],
    "tool_calls": [_CALL],
    "function_call": _CALLED,
}

KNOWN_TOOL: Keys = {"type": None, "function": _FUNCTION, **_FUNCTION}
"""What is read of a tool, bare or wrapped."""

KNOWN_ROW: Keys = {
    **dict.fromkeys(ROW_KEYS),
    "messages": [_MESSAGE],
    "opening": [_MESSAGE],
    "tools": [KNOWN_TOOL],
    "functions": [_FUNCTION],
}
"""What is read of a row."""


def without_unknown_keys(value: Json, known: Keys, dropped: Counter[str], place: str = "") -> Any:
    """Return the value with what is `known` of it; `dropped` counts the others, as in `messages[].mood`.

    The text of a JSON list, in the place of a list, is read.
    """
    if isinstance(known, list):
        items = _list(value)
        if items is None:
            return value
        return [without_unknown_keys(item, known[0], dropped, f"{place}[]") for item in items]
    if not isinstance(known, Mapping) or not isinstance(value, Mapping):
        return value
    places = {key: f"{place}.{key}".lstrip(".") for key in value}
    dropped.update(places[key] for key in value if key not in known)
    return {
        key: without_unknown_keys(item, known[key], dropped, places[key]) for key, item in value.items() if key in known
    }


def _list(value: Json) -> list[Json] | None:
    """Return a list, given as such or as JSON text; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = loads(value)
        except DataError:
            return None
    return value if isinstance(value, list) else None
