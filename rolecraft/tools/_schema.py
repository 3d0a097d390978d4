"""Turns a documented function into a tool spec."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from rolecraft.errors import UserError
from rolecraft.tools._docstring import read
from rolecraft.types import Json, ToolSpec

_SCALARS: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def describe(function: Callable[..., Any]) -> ToolSpec:
    """Return the spec of a typed, documented function; raises UserError naming the parameter that is neither."""
    name = getattr(function, "__name__", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise UserError(f"{name!r} cannot be a tool's name; use a function name of up to 64 letters, digits and _")
    description, documented = read(inspect.getdoc(function) or "")
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
