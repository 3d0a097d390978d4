"""The keys of a JSON object, read strictly: a wrong one is told with its place, its value and the remedy."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from rolecraft.errors import DataError
from rolecraft.types import Json

REMEDIES = {
    "function_call": "write it as an entry of 'tool_calls'",
    "functions": "write them as 'tools'",
    "refusal": "move the text into 'content'",
    "audio": "write what was said into 'content'",
    "annotations": "delete them",
    "conversations": "this row is not OpenAI JSON: name the importer of its format",
}

_WANTED = {str: "text", list: "a list", int: "a whole number", float: "a number", bool: "true or false"}


def read_object(data: Json, known: Sequence[str], where: str) -> dict[str, Json]:
    """Return the keys of `data` that are not null; raises DataError for one that is not known, null or not."""
    if not isinstance(data, Mapping):
        raise DataError(f"{where}: is {shown(data)}; it must be an object with {', '.join(known)}")
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:40], known, n=1, cutoff=0.7)
            remedy = REMEDIES.get(key) or (f"did you mean {near[0]!r}?" if near else "delete it")
            raise DataError(f"{where}: unknown key {reprlib.repr(key)}; {remedy} (known: {', '.join(known)})")
    return {key: value for key, value in data.items() if value is not None}


def read_field(fields: Mapping[str, Json], key: str, kind: type[Any], where: str, *default: Json) -> Any:
    """Return the value of `key` if it is of `kind`, or the default if there is one and no value."""
    if default and key not in fields:
        return default[0]
    value = fields.get(key)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = _WANTED.get(kind, "an object")
    raise DataError(f"{where}: {key!r} is {shown(value)}; write {wanted}")


def read_choice(fields: Mapping[str, Json], key: str, choices: Sequence[str], where: str, *default: str) -> Any:
    """Return the text under `key` if it is one of `choices`, or the default if there is one and no value."""
    value = read_field(fields, key, str, where, *default)
    if value not in choices:
        raise DataError(f"{where}: {key!r} is {reprlib.repr(value)}; it must be one of {', '.join(choices)}")
    return value


def shown(value: Json) -> str:
    """Return a value as an error tells of it."""
    return "missing or null" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"
