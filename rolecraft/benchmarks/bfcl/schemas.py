"""From a function as BFCL describes it to the tool that a model is told of.

Not covered: the types of Java and JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rolecraft.errors import DataError
from rolecraft.types import Json, ToolSpec

_KINDS = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "any": "string",
    "string": "string",
    "integer": "integer",
    "boolean": "boolean",
    "array": "array",
}
"""BFCL's types in JSON Schema's words, as its own conversion has them; its checker takes `any` for text as well."""

_PLAIN: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,)}
"""What values of a type are in Python; an `enum` holds texts where nobody took care."""


def specs(functions: Sequence[Mapping[str, Json]]) -> tuple[ToolSpec, ...]:
    """Return the functions as tools; raises DataError for a type that is not known and for two of one name."""
    found = tuple(
        ToolSpec(tool_name(function["name"]), function.get("description", ""), _schema(function["parameters"]))
        for function in functions
    )
    names = [spec.name for spec in found]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two functions are called {twin!r} once dots are written as underscores")
    return found


def tool_name(function_name: str) -> str:
    """Return the name that a tool may bear: APIs know letters, digits, `_` and `-`, and BFCL's names have dots."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", function_name)


def _schema(described: Mapping[str, Json]) -> dict[str, Json]:
    """Return the JSON Schema; `optional` is no word of it, and says no more than `required` does."""
    schema = {key: value for key, value in described.items() if key != "optional"}
    kind = described.get("type", "string")
    if kind not in _KINDS:
        raise DataError(f"unknown type {kind!r} in a function of BFCL; known are {', '.join(_KINDS)}")
    schema["type"] = _KINDS[kind]
    if "properties" in described:
        schema["properties"] = {name: _schema(inner) for name, inner in described["properties"].items()}
    if "items" in described:
        schema["items"] = _schema(described["items"])
    return _with_possible_values(schema)


def _with_possible_values(schema: dict[str, Json]) -> dict[str, Json]:
    """Return the schema without an `enum` that no value of its type is in: a list's is meant for its items."""
    allowed = schema.get("enum", [])
    if schema["type"] not in _PLAIN or any(isinstance(value, _PLAIN[schema["type"]]) for value in allowed):
        return schema
    rest = {key: value for key, value in schema.items() if key != "enum"}
    if allowed and "items" in rest and "enum" not in rest["items"]:
        rest["items"] = _with_possible_values({**rest["items"], "enum": allowed})
    return rest
