"""Turns a documented function into a tool spec, and says in one line why arguments do not fit a spec."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jsonschema
import referencing

from rolecraft.errors import UserError
from rolecraft.types import Json, ToolSpec

MAX_DEPTH = 16
"""Deepest nesting of lists and objects in a call's arguments."""

MAX_SIZE = 100_000
"""Most characters and items in a call's arguments."""

_SHOWN = 60
_SCALARS: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Warnings?):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def describe(function: Callable[..., Any]) -> ToolSpec:
    """Return the spec of a typed, documented function; raises UserError naming the parameter that is neither."""
    name = getattr(function, "__name__", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise UserError(f"{name!r} cannot be a tool's name; use a function name of up to 64 letters, digits and _")
    description, documented = _read_docstring(inspect.getdoc(function) or "")
    if not description:
        raise UserError(f"tool {name!r} has no docstring; say in its first line what it does, for the model to read")
    hints = _hints(function, name)
    signature = inspect.signature(function).parameters
    _refuse_strangers(name, documented, signature)
    properties: dict[str, Json] = {}
    for parameter in signature.values():
        properties[parameter.name] = _property(name, parameter, hints, documented)
    required = [p.name for p in signature.values() if p.default is p.empty]
    return ToolSpec(name, description, {"type": "object", "properties": properties, "required": required})


def misfit(spec: ToolSpec, arguments: Mapping[str, Json]) -> str | None:
    """Return why `arguments` do not fit `spec` as one short line that names what is expected, or None if they do.

    Stricter than JSON Schema in one point: an argument the schema does not list is refused, unless it sets
    `additionalProperties` or `patternProperties`. Bounded: neither depth nor size of hostile arguments hurts.
    """
    if not isinstance(arguments, Mapping):
        return f"{spec.name} needs its arguments as one object; got {_shown(arguments)}"
    oversized = _oversized(arguments)
    if oversized:
        return f"the arguments of {spec.name} are {oversized}"
    schema = spec.parameters
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    if missing:
        return f"{spec.name} needs {_quoted(missing)}; got {_quoted(arguments) or 'nothing'}"
    unknown = [name for name in arguments if name not in properties]
    if unknown and not ("patternProperties" in schema or schema.get("additionalProperties")):
        return f"{spec.name} takes {_quoted(properties) or 'no arguments'}; not {_quoted(unknown)}"
    # An empty registry: a `$ref` to somewhere else must never make the validator fetch it.
    validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    error = jsonschema.exceptions.best_match(validator.iter_errors(arguments))
    return None if error is None else _told(spec.name, error)


def without_nulls(spec: ToolSpec, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return `arguments` without the optional ones that are null where the schema has no null: models write those."""
    properties, required = spec.parameters.get("properties", {}), spec.parameters.get("required", ())
    return {
        name: value
        for name, value in arguments.items()
        if value is not None or name in required or name not in properties or _nullable(properties[name])
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


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UserError(f"tool {name!r} has an annotation that cannot be read: {error}") from error


def _refuse_strangers(tool: str, documented: Mapping[str, str], signature: Mapping[str, inspect.Parameter]) -> None:
    for name in documented:
        if name not in signature:
            raise UserError(f"tool {tool!r} documents {name!r}, which is not one of its parameters")


def _property(
    tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any], documented: Mapping[str, str]
) -> dict[str, Json]:
    name = parameter.name
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UserError(f"parameter {name!r} of tool {tool!r} must be passable by name; no * or / before it")
    if name not in hints:
        raise UserError(f"parameter {name!r} of tool {tool!r} has no type; annotate it, for example {name}: str")
    hint, description = hints[name], documented.get(name, "")
    if typing.get_origin(hint) is Annotated:
        notes = [note for note in typing.get_args(hint)[1:] if isinstance(note, str)]
        hint, description = typing.get_args(hint)[0], notes[0] if notes else description
    if not description:
        raise UserError(
            f"parameter {name!r} of tool {tool!r} is not described; add '{name}: ...' under 'Args:' in the docstring"
        )
    optional = parameter.default is not parameter.empty
    if optional and parameter.default is None:  # null then means left out: see without_nulls
        hint = _not_none(hint)
    schema = {**_schema(hint, f"parameter {name!r} of tool {tool!r}"), "description": description}
    if optional and parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def _not_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    rest = tuple(a for a in typing.get_args(hint) if a is not type(None))
    return typing.Union[rest]  # noqa: UP007  (a union of a tuple of types has no other spelling)


def _schema(hint: Any, where: str) -> dict[str, Json]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if hint is type(None):
        return {"type": "null"}
    if origin is Annotated:
        return _schema(arguments[0], where)
    if origin is Literal:
        return _enumeration(arguments)
    if hint is list or origin is list:
        return {"type": "array", "items": _schema(arguments[0], where)} if arguments else {"type": "array"}
    if hint is dict or (origin is dict and arguments[0] is str):
        return {"type": "object", "additionalProperties": _schema(arguments[1], where) if arguments else True}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(argument, where) for argument in arguments]}
    shown = getattr(hint, "__name__", None) if origin is None else None
    raise UserError(
        f"{where} is a {shown or hint}, which JSON cannot carry; "
        "use str, int, float, bool, list[...], dict[str, ...], Literal[...] or a union of them"
    )


def _enumeration(values: Sequence[Any]) -> dict[str, Json]:
    kinds = {_SCALARS.get(type(value)) for value in values}
    kind = kinds.pop() if len(kinds) == 1 else None
    return {"type": kind, "enum": list(values)} if kind else {"enum": list(values)}


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the text before the first section as one line, and the descriptions under `Args:` by parameter."""
    opening: list[str] = []
    described: dict[str, str] = {}
    section, last, indent = "", "", 0
    for line in text.splitlines():
        head = _SECTION.match(line)
        if head:
            section = head.group(1)
        elif not section:
            opening.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            entry = _ENTRY.match(line.strip()) if not last or depth <= indent else None
            if entry:
                last, indent = entry.group(1).lstrip("*"), depth
                described[last] = entry.group(2).strip()
            elif last:
                described[last] = f"{described[last]} {line.strip()}".strip()
    return " ".join(" ".join(opening).split()), described


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
    wanted: Any = error.validator_value
    same_place = error.parent is not None and error.parent.absolute_path == error.absolute_path
    kinds = _kinds_of_union(error) or (_kinds_of_union(error.parent) if same_place else [])
    if error.validator == "type" and not kinds:
        kinds = [wanted] if isinstance(wanted, str) else wanted
    if kinds:
        expected = " or ".join(_WORDS.get(kind, kind) for kind in kinds)
        return f"{tool} needs {where!r} to be {expected}; got {got}"
    if error.validator == "enum":
        return f"{tool} needs {where!r} to be one of {', '.join(map(_shown, wanted[:12]))}; got {got}"
    if error.validator == "required":
        return f"{tool} needs {_quoted(wanted)} in {where!r}; got {got}"
    return f"{tool}: {where!r}: {_cut(error.message, 200)}"


def _kinds_of_union(error: Any) -> list[str]:
    """Return the types of a union that was missed, where each of its parts is one plain type; else nothing."""
    if error is None or error.validator not in ("anyOf", "oneOf"):
        return []
    kinds = [choice.get("type") for choice in error.validator_value if isinstance(choice, Mapping)]
    plain = [kind for kind in kinds if isinstance(kind, str)]
    return plain if len(plain) == len(error.validator_value) else []


def _nullable(schema: Json) -> bool:
    if not isinstance(schema, Mapping):  # true and false are schemas too
        return bool(schema)
    kinds = schema.get("type", ())
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    listed = "null" in (kinds if isinstance(kinds, list | tuple) else (kinds,))
    return listed or None in schema.get("enum", ()) or any(map(_nullable, choices)) or not (kinds or choices)


def _quoted(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = [repr(_cut(str(name))) for name in list(names)[:12]]
    return ", ".join([*shown, "..."] if len(names) > 12 else shown)


def _shown(value: Json) -> str:
    return _cut(repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr))


def _cut(text: str, length: int = _SHOWN) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
