"""What the JSON Schema of a tool's arguments says of their keys, seen through `allOf`, `anyOf`, `oneOf` and `$ref`.

Not covered: whether arguments fit a schema, and whether a schema keeps every rule of its draft; tools and judges tell.
"""

from __future__ import annotations

import reprlib
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rolecraft.types import Json

KINDS = ("string", "integer", "number", "boolean", "array", "object", "null")
"""The types of JSON Schema."""

_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")  # schemas by name
_LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = (
    "additionalProperties", "unevaluatedProperties", "propertyNames", "items", "additionalItems", "contains",
    "unevaluatedItems", "not", "if", "then", "else",
)  # fmt: skip
_SAME_OBJECT = ("allOf", "anyOf", "oneOf")  # their schemas speak of the object that the schema around them speaks of
_MAX_PARTS = 1_000
_MAX_DEPTH = 64


def properties(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return the keys that an object of this schema may have, each with the first schema found for it."""
    found: dict[str, Json] = {}
    for part in _parts([schema], schema):
        for key, inner in _mapping(part.get("properties")).items():
            found.setdefault(key, inner)
    return found


def required(schema: Mapping[str, Json]) -> tuple[str, ...]:
    """Return the keys that every object of this schema must have: of alternatives, those that all of them require."""
    return tuple(_required(schema, schema, {}, _MAX_DEPTH))


def is_open(schema: Mapping[str, Json]) -> bool:
    """Tell whether the schema says that an object may have other keys than it lists."""
    return any("patternProperties" in part or part.get("additionalProperties") for part in _parts([schema], schema))


def allows_null(schema: Json, root: Json = None) -> bool:
    """Tell whether null fits the schema, whose references begin at `root` (None: at itself)."""
    return _allows_null(schema, schema if root is None else root, {}, _MAX_DEPTH)


def without_nulls(schema: Mapping[str, Json], arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return arguments without the nulls, at any depth, that the schema has no place for.

    Tables with a column for each key that any row has, as Arrow and Parquet are, pad all other rows with them. A null
    stays in a list, and under a key that is listed, or covered by an explicit `additionalProperties`, and may be null.
    """
    return dict(_without_nulls([schema], arguments, schema))


def without_padding(schema: Json) -> Any:
    """Return a schema without the keywords and properties that are null, at any depth, as tables pad them.

    A `const` or `default` of null stays where the rest of the schema allows null. An empty list in the place of an
    empty object, as PHP writes it, becomes one.
    """
    if not isinstance(schema, Mapping):
        return schema
    rest = {key: value for key, value in schema.items() if value is not None}
    kept: dict[str, Json] = {}
    for key, value in schema.items():
        if value is not None:
            kept[key] = _without_padding(key, value)
        elif key in ("const", "default") and allows_null(rest):
            kept[key] = None
    return kept


def fault(schema: Json) -> str | None:
    """Return what makes a schema unusable as that of a tool's arguments, with its place, or None."""
    if not isinstance(schema, Mapping):
        return f"is {_shown(schema)}; it must be a JSON Schema of type object"
    kinds = schema.get("type", "object")
    if kinds != "object" and kinds != ["object"]:
        return f"has type {_shown(kinds)}; a tool's arguments are an object"
    waiting: list[tuple[str, Json, int]] = [("", schema, 0)]
    while waiting:
        place, inner, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            return f"is nested more than {_MAX_DEPTH} deep"
        if isinstance(inner, bool):
            continue
        if not isinstance(inner, Mapping):
            return f"has at {place[:80]!r} {_shown(inner)}; a schema is an object, true or false"
        for key, value in inner.items():
            there = f"{place}.{key}".lstrip(".")
            wrong = _keyword_fault(key, value)
            if wrong:
                return f"has at {there[:80]!r} {_shown(value)}; it must be {wrong}"
            waiting += [(f"{there}{step}", item, depth + 1) for step, item in _schemas_in(key, value)]
    return None


def _parts(schemas: Iterable[Json], root: Json) -> Iterator[Mapping[str, Json]]:
    """Yield the schemas that speak of one object, each once: `schemas`, those they combine and those they refer to."""
    waiting, seen = list(schemas), set[int]()
    while waiting and len(seen) < _MAX_PARTS:
        part = waiting.pop(0)
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [inner for key in _SAME_OBJECT for inner in _sequence(part.get(key))]
        waiting += [part.get(key) for key in ("if", "then", "else")]
        waiting += _mapping(part.get("dependentSchemas")).values()
        waiting += [_target(root, part["$ref"])] if "$ref" in part else []


def _required(schema: Json, root: Json, known: dict[int, Mapping[str, None]], depth: int) -> Mapping[str, None]:
    """Return the required keys in order; `known` are those of schemas met before, so each is looked at once."""
    if not isinstance(schema, Mapping) or depth == 0:
        return {}
    if id(schema) in known:
        return known[id(schema)]
    known[id(schema)] = {}  # what a schema says by referring to itself
    found: dict[str, None] = dict.fromkeys(map(str, _sequence(schema.get("required"))))
    for part in (*_sequence(schema.get("allOf")), _target(root, schema.get("$ref"))):
        found |= _required(part, root, known, depth - 1)
    for key in ("anyOf", "oneOf"):
        first, *others = [_required(part, root, known, depth - 1) for part in _sequence(schema.get(key))] or [{}]
        found |= {name: None for name in first if all(name in other for other in others)}
    known[id(schema)] = found
    return found


def _target(root: Json, reference: Json) -> Json:
    """Return the schema that a reference inside `root` leads to; None where it leads nowhere."""
    if reference != "#" and not str(reference).startswith("#/"):
        return None
    found = root
    for step in urllib.parse.unquote(reference).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(key)
        else:
            found = found[int(key)] if isinstance(found, list) and key.isdecimal() and int(key) < len(found) else None
    return found


def _allows_null(schema: Json, root: Json, known: dict[int, bool], depth: int) -> bool:
    """Tell whether null fits; `known` tells it of schemas met before, so each is looked at once."""
    if not isinstance(schema, Mapping):
        return schema is True
    if depth == 0 or id(schema) in known:
        return known.get(id(schema), False)
    known[id(schema)] = False  # what a schema allows by referring to itself

    def allows(part: Json) -> bool:
        return _allows_null(part, root, known, depth - 1)

    choices = [_sequence(schema[key]) for key in ("anyOf", "oneOf") if schema.get(key)]
    known[id(schema)] = schema.get("nullable") is True or (  # OpenAPI's word for it
        _states_null(schema)
        and ("$ref" not in schema or allows(_target(root, schema["$ref"])))
        and all(map(allows, _sequence(schema.get("allOf"))))
        and all(any(map(allows, some)) for some in choices)
    )
    return known[id(schema)]


def _states_null(schema: Mapping[str, Json]) -> bool:
    """Tell whether the type and the values that a schema states, if any, have null among them."""
    kinds = schema.get("type", "null")
    typed = "null" in (kinds if isinstance(kinds, list | tuple) else (kinds,))
    return typed and None in _sequence(schema.get("enum", [None])) and schema.get("const") is None


def _without_nulls(schemas: Sequence[Json], value: Json, root: Json) -> Any:
    """Return the value without nulls that none of `schemas`, which all speak of it, has a place for."""
    parts = list(_parts(schemas, root))
    if isinstance(value, Mapping):
        inner = {key: _schemas_of(key, parts) for key in value}
        return {
            key: _without_nulls(inner[key], item, root)
            for key, item in value.items()
            if item is not None or any(allows_null(schema, root) for schema in inner[key])
        }
    if isinstance(value, list | tuple):
        items = [part["items"] for part in parts if isinstance(part.get("items"), Mapping)]
        tuples = [_sequence(part.get(key)) for part in parts for key in ("prefixItems", "items")]
        return [
            _without_nulls([*items, *(some[place] for some in tuples if place < len(some))], item, root)
            for place, item in enumerate(value)
        ]
    return value


def _schemas_of(key: str, parts: Sequence[Mapping[str, Json]]) -> list[Json]:
    """Return the schemas for one key of an object: those that list it, else those for keys that are not listed."""
    listed = [part["properties"][key] for part in parts if key in _mapping(part.get("properties"))]
    others = [part["additionalProperties"] for part in parts if part.get("additionalProperties")]
    patterns = [inner for part in parts for inner in _mapping(part.get("patternProperties")).values()]
    return listed or [*patterns, *others]


def _without_padding(key: str, value: Json) -> Json:
    if key in _NAMED and isinstance(value, Mapping):
        return {name: without_padding(inner) for name, inner in value.items() if inner is not None}
    if key in _NAMED and value == []:
        return {}
    if isinstance(value, list) and (key in _LISTED or key == "items"):
        return [without_padding(inner) for inner in value]
    return without_padding(value) if key in _SINGLE else value


def _keyword_fault(key: str, value: Json) -> str | None:
    """Return what the value of a keyword must be if it is something else; the schemas in it are not looked at."""
    if key in _NAMED and not isinstance(value, Mapping):
        return "an object with a schema for each name"
    if key in _LISTED and not (isinstance(value, list) and value):
        return "a list of at least one schema"
    if key == "required" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        return "a list of names"
    if key == "enum" and not isinstance(value, list):
        return "a list of values"
    if key == "$ref" and not isinstance(value, str):
        return "text"
    kinds = value if isinstance(value, list) else [value]
    if key == "type" and not (kinds and all(kind in KINDS for kind in kinds)):
        return f"one of {', '.join(KINDS)}, or a list of them"
    return None


def _schemas_in(key: str, value: Json) -> list[tuple[str, Json]]:
    """Return the schemas under a keyword, each with the step that leads to it."""
    if key in _NAMED:
        return [(f".{name}", inner) for name, inner in value.items()]
    if key in _LISTED or (key == "items" and isinstance(value, list)):
        return [(f"[{place}]", inner) for place, inner in enumerate(value)]
    return [("", value)] if key in _SINGLE else []


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list | tuple) else ()


def _shown(value: Json) -> str:
    return "null" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"
