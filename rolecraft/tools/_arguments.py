"""Says in one line why a call's arguments do not fit a tool's spec, and turns those that do into what it means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema

from rolecraft import schemas, toolschema
from rolecraft.types import Json, ToolSpec

MAX_DEPTH = 16
"""Deepest nesting of lists and objects in a call's arguments."""

MAX_SIZE = 100_000
"""Most characters and items in a call's arguments."""

_SHOWN = 60
_WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def misfit(spec: ToolSpec, arguments: Mapping[str, Json]) -> str | None:
    """Return why `arguments` do not fit `spec` as one short line that names what is expected, or None if they do.

    Stricter than JSON Schema in one point: an argument the schema does not list is refused, unless it sets
    `additionalProperties` or `patternProperties`. Bounded: neither a hostile schema nor hostile arguments hurt.
    """
    if not isinstance(arguments, Mapping):
        return f"{spec.name} needs its arguments as one object; got {_shown(arguments)}"
    oversized = _oversized(arguments)
    if oversized:
        return f"the arguments of {spec.name} are {oversized}"
    try:
        return _misfit(spec.name, schemas.usable(spec.parameters), arguments)
    except schemas.Unusable as error:
        return f"the schema of {spec.name} {error}"
    except RecursionError:
        return f"the schema of {spec.name} or these arguments are nested too deeply to be checked"


def _misfit(tool: str, schema: Mapping[str, Json], arguments: Mapping[str, Json]) -> str | None:
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    if missing:
        return f"{tool} needs {_quoted(missing)}; got {_quoted(arguments) or 'nothing'}"
    keys = schemas.keys_of(schema)
    unknown = [name for name in arguments if name not in keys.listed]
    if unknown and not keys.invites:
        return f"{tool} takes {_quoted(keys.listed) or 'no arguments'}; not {_quoted(unknown)}"
    matching = schemas.within()
    schema = schemas.bounded(schemas.closed(schema, keys), arguments, matching)
    validator = schemas.validator(schema, matching)
    error = jsonschema.exceptions.best_match(validator.iter_errors(arguments))
    return None if error is None else _told(tool, error)


def without_nulls(spec: ToolSpec, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return `arguments` without the optional ones that are null where the schema has no null: models write those."""
    properties, required = toolschema.properties(spec.parameters), toolschema.required(spec.parameters)
    return {
        name: value
        for name, value in arguments.items()
        if value is not None
        or name in required
        or name not in properties
        or toolschema.allows_null(properties[name], spec.parameters)
    }


def convert(schema: Json, value: Json) -> Json:
    """Return a value that fits `schema` as the Python type the schema means: 2 is 2.0 where a number is asked."""
    if not isinstance(schema, Mapping):
        return value
    kind = schema.get("type")
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "array" and "items" in schema and isinstance(value, list | tuple):
        return [convert(schema["items"], item) for item in value]
    if kind == "object" and isinstance(value, Mapping):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        return {key: convert(properties.get(key, rest), item) for key, item in value.items()}
    return value


def _oversized(arguments: Mapping[str, Json]) -> str | None:
    pending: list[tuple[Json, int]] = [(arguments, 1)]
    size = 0
    while pending:
        value, depth = pending.pop()
        if depth > MAX_DEPTH:
            return f"nested more than {MAX_DEPTH} deep; send flat ones"
        size += len(value) if isinstance(value, str) else 1
        if isinstance(value, Mapping):
            size += sum(len(str(key)) for key in value)
            pending += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            pending += [(item, depth + 1) for item in value]
        if size + len(pending) > MAX_SIZE:
            return f"longer than {MAX_SIZE} characters; send shorter ones"
    return None


def _told(tool: str, error: jsonschema.ValidationError) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    where, got = _cut(place.lstrip(".")), _shown(error.instance)
    at, inside = (f" {where!r}:", f" in {where!r}") if where else ("", "")
    wanted: Any = error.validator_value
    same_place = error.parent is not None and error.parent.absolute_path == error.absolute_path
    kinds = _kinds_of_union(error) or (_kinds_of_union(error.parent) if same_place else [])
    if error.validator == "type" and not kinds:
        kinds = [wanted] if isinstance(wanted, str) else wanted
    choices = wanted if error.validator == "enum" else isinstance(error.schema, Mapping) and error.schema.get("enum")
    if choices:
        return f"{tool} needs {where!r} to be one of {', '.join(map(_shown, choices[:12]))}; got {got}"
    if kinds:
        expected = " or ".join(_WORDS.get(kind, kind) for kind in kinds)
        return f"{tool} needs {where!r} to be {expected}; got {got}"
    if error.validator == "required":
        return f"{tool} needs {_quoted(wanted)}{inside}; got {got}"
    return f"{tool}:{at} {_cut(error.message, 200)}"


def _kinds_of_union(error: Any) -> list[str]:
    """Return the types of a union that was missed, where each of its parts is one plain type; else nothing."""
    if error is None or error.validator not in ("anyOf", "oneOf"):
        return []
    kinds = [choice.get("type") for choice in error.validator_value if isinstance(choice, Mapping)]
    plain = [kind for kind in kinds if isinstance(kind, str)]
    return plain if len(plain) == len(error.validator_value) else []


def _quoted(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = [repr(_cut(str(name))) for name in list(names)[:12]]
    return ", ".join([*shown, "..."] if len(names) > 12 else shown)


def _shown(value: Json) -> str:
    return _cut(repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr))


def _cut(text: str, length: int = _SHOWN) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
