"""Turns a documented function into a tool spec, and a model's arguments into what the function takes."""

from __future__ import annotations

import functools
import inspect
import keyword
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from rolecraft.errors import UserError
from rolecraft.tools._docstring import read as read_docstring
from rolecraft.tools._records import default_of, note_of
from rolecraft.tools._types import Kind, kind_of
from rolecraft.types import Json, ToolSpec

_ROUTINES = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


@dataclass(frozen=True, slots=True)
class Described:
    """A function as a tool: its spec, what reads its arguments, and whether it waits for the object it is called on."""

    spec: ToolSpec
    read: Callable[[Mapping[str, Json]], dict[str, Any]]
    receiver: bool


@dataclass(frozen=True, slots=True)
class _Source:
    """What a callable is made of: the function that was written, and the parameters that are left to be given.

    `known` are the names of all of them: a docstring may describe those that a partial has fixed.
    """

    written: Callable[..., Any]
    name: str
    doc: str
    parameters: list[inspect.Parameter]
    known: frozenset[str]
    receiver: bool


def describe(function: Callable[..., Any], name: str | None = None, description: str | None = None) -> Described:
    """Return a typed, documented function as a tool; raises UserError naming the parameter that is neither."""
    source = _source(function)
    name = source.name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise UserError(
            f"{name!r} cannot be a tool's name; use a function name of up to 64 letters, digits and _, "
            "or give another: @tool(name='...')"
        )
    told, documented = read_docstring(source.doc)
    if not (description or told):
        raise UserError(
            f"tool {name!r} has no docstring; say in its first line what it does, for the model to read: "
            'add """What it does.""" below its def, or @tool(description="...")'
        )
    _refuse_strangers(name, documented, source)
    hints = _hints(source.written, name)
    names = {p.name: _told_name(p.name) for p in source.parameters}
    found = {p.name: _parameter(name, p, hints, documented) for p in source.parameters}
    properties = {names[own]: schema for own, (_, schema) in found.items()}
    required = [names[p.name] for p in source.parameters if p.default is p.empty]
    spec = ToolSpec(name, description or told, {"type": "object", "properties": properties, "required": required})
    readers = {names[own]: (own, kind) for own, (kind, _) in found.items()}

    def read(arguments: Mapping[str, Json]) -> dict[str, Any]:
        given = ((*readers[told], told, value) for told, value in arguments.items())
        return {own: kind.read(value, told) for own, kind, told, value in given}

    return Described(spec, read, source.receiver)


def _source(function: Callable[..., Any]) -> _Source:
    written, fixed, outer = function, set[str](), function
    while isinstance(written, functools.partial | staticmethod | classmethod):
        if isinstance(written, functools.partial):
            fixed |= set(written.keywords)
            written = written.func
        else:
            written = outer = written.__func__
    if isinstance(written, type) or not callable(written):
        raise UserError(f"{written!r} is no function; put @tool above a function or above the methods of a class")
    name, doc = getattr(written, "__name__", type(written).__name__), inspect.getdoc(written) or ""
    if not isinstance(written, _ROUTINES) and not hasattr(written, "__wrapped__"):
        written = outer = cast("Callable[..., Any]", getattr(written, "__call__"))  # noqa: B004, B009  a callable object
        doc = inspect.cleandoc(written.__doc__ or "") or doc
    if inspect.isgeneratorfunction(written) or inspect.isasyncgenfunction(written):
        raise UserError(f"tool {name!r} is a generator; a tool answers once, so return a list instead of yielding")
    try:
        parameters = list(inspect.signature(outer).parameters.values())
    except (TypeError, ValueError) as error:
        raise UserError(f"tool {name!r} does not tell its parameters ({error}); wrap it in a function") from error
    receiver = _has_receiver(written, parameters, function)
    kept = [p for p in parameters[receiver:] if p.name not in fixed]
    known = frozenset(inspect.signature(written).parameters)
    return _Source(written, name, doc, kept, known, receiver)


def _has_receiver(written: Callable[..., Any], parameters: list[inspect.Parameter], given: Any) -> bool:
    """Tell whether the first parameter is the object or class that a method is called on."""
    if isinstance(given, classmethod):
        return True
    within = getattr(written, "__qualname__", "").rpartition(".")[0]
    in_class = isinstance(written, types.FunctionType) and within and not within.endswith("<locals>")
    first = parameters[0] if parameters else None
    return bool(in_class and first is not None and first.name in ("self", "cls") and first.annotation is first.empty)


def _told_name(name: str) -> str:
    """Return the name that a model is told: `class_` has its underscore because of Python alone."""
    bare = name.removesuffix("_")
    return bare if keyword.iskeyword(bare) else name


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UserError(f"tool {name!r} has an annotation that cannot be read: {error}") from error


def _refuse_strangers(tool: str, documented: Mapping[str, str], source: _Source) -> None:
    for name in documented:
        if name not in source.known | {_told_name(known) for known in source.known}:
            raise UserError(f"tool {tool!r} documents {name!r}, which is not one of its parameters")


def _parameter(
    tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any], documented: Mapping[str, str]
) -> tuple[Kind, dict[str, Json]]:
    """Return what a parameter's type is to a model, and its schema with description and default."""
    name, where = parameter.name, f"parameter {parameter.name!r} of tool {tool!r}"
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UserError(
            f"{where} must be passable by name; no * or / before it: take one list or dict, or name each parameter"
        )
    if name not in hints:
        raise UserError(f"{where} has no type; annotate it, for example {name}: str")
    hint = hints[name]
    description = note_of(hint) or documented.get(name) or documented.get(_told_name(name), "")
    if not description:
        raise UserError(f"{where} is not described; add '{name}: ...' under 'Args:' in the docstring")
    if parameter.default is None:  # null then means left out: see without_nulls
        hint = _not_none(hint)
    kind = kind_of(hint, where)
    default = {} if parameter.default is parameter.empty else default_of(parameter.default)
    return kind, {**kind.schema, "description": description, **default}


def _not_none(hint: Any) -> Any:
    if typing.get_origin(hint) is Annotated:
        inner, *notes = typing.get_args(hint)
        return Annotated[(_not_none(inner), *notes)]
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    rest = tuple(a for a in typing.get_args(hint) if a is not type(None))
    return typing.Union[rest]  # noqa: UP007  (a union of a tuple of types has no other spelling)
