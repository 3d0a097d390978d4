"""What each Python type is to a model: the schema that tells of it, and how a value that fits is read back.

A record (dataclass, TypedDict, NamedTuple) is an object, an Enum one of its members' words, a date is text. Models of
pydantic, and types annotated with its `Field`, bring their own schema and validation; pydantic is not imported here.
"""

from __future__ import annotations

import collections.abc
import datetime
import decimal
import enum
import pathlib
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jsonschema

from rolecraft.errors import UserError
from rolecraft.tools._plain import word
from rolecraft.tools._records import is_record, record_fields
from rolecraft.types import Json

_SCALARS: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_LISTS: Mapping[Any, Callable[[list[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_UNIONS = (typing.Union, types.UnionType)
_WANTED = (
    "str, int, float, bool, list[...], dict[str, ...], Literal[...], an Enum, a dataclass, a TypedDict, "
    "a date or a union of them"
)


class Unfit(Exception):
    """A value that fits its schema and yet is none of the type; the text says where, what is wanted and what came."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type as a model sees it: its schema, and the value of the type for a JSON value, given where that stands."""

    schema: dict[str, Json]
    read: Callable[[Json, str], Any]


def kind_of(hint: Any, where: str, inside: tuple[Any, ...] = ()) -> Kind:
    """Return what a type is to a model; `where` names the parameter and `inside` the records around it.

    Raises UserError for a type that JSON cannot carry, and for a record that nests itself.
    """
    hint = _named(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_pydantic(hint):
        return _of_pydantic(hint, where)
    if origin is Annotated:
        return kind_of(arguments[0], where, inside)
    if origin in _UNIONS:
        return _union(arguments, [kind_of(argument, where, inside) for argument in arguments])
    if origin is Literal:
        return _choice([(word(v) if isinstance(v, enum.Enum) else v, v) for v in arguments])
    if origin is tuple or hint is tuple:
        return _tuple(arguments, where, inside)
    bare = origin or hint
    if bare in _LISTS:
        return _list(_LISTS[bare], kind_of(arguments[0] if arguments else Any, where, inside))
    if bare in _OBJECTS:
        return _object(arguments or (str, Any), where, inside)
    return _lone(hint, where, inside)


def _lone(hint: Any, where: str, inside: tuple[Any, ...]) -> Kind:
    """Return the kind of a type that is made of no others, or of a record."""
    if hint in (Any, object):
        return Kind({}, _same)
    if hint in _SCALARS:
        return Kind({"type": _SCALARS[hint]}, _NUMBERS.get(hint, _same))
    if hint in _TEXTS:
        return _text(*_TEXTS[hint])
    if isinstance(hint, type) and issubclass(hint, enum.Enum) and len(hint):
        return _choice([(word(member), member) for member in hint])
    if is_record(hint):
        return _record(hint, where, inside)
    shown = getattr(hint, "__name__", None) if typing.get_origin(hint) is None else None
    raise UserError(f"{where} is a {shown or hint}, which JSON cannot carry; use {_WANTED}")


def _named(hint: Any) -> Any:
    """Return the type behind a NewType or a `type X = ...`."""
    while hasattr(hint, "__supertype__") or hasattr(hint, "__value__"):
        hint = hint.__supertype__ if hasattr(hint, "__supertype__") else hint.__value__
    return hint


def _same(value: Json, place: str) -> Any:
    return value


def _integer(value: Json, place: str) -> Any:
    return int(value) if isinstance(value, float) else value


def _number(value: Json, place: str) -> Any:
    return float(value) if isinstance(value, int) else value


_NUMBERS = {int: _integer, float: _number}


def _finite(text: str) -> decimal.Decimal:
    value = decimal.Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return value


_TEXTS: Mapping[Any, tuple[Callable[[str], Any], str, str]] = {
    datetime.datetime: (datetime.datetime.fromisoformat, "date-time", "a date and time like 2031-05-31T14:30:00"),
    datetime.date: (datetime.date.fromisoformat, "date", "a date like 2031-05-31"),
    datetime.time: (datetime.time.fromisoformat, "time", "a time like 14:30:00"),
    uuid.UUID: (uuid.UUID, "uuid", "a UUID like 123e4567-e89b-12d3-a456-426614174000"),
    decimal.Decimal: (_finite, "decimal", "a decimal number as text, like '12.50'"),
    pathlib.Path: (pathlib.Path, "path", "a path"),
}


def _text(make: Callable[[str], Any], form: str, wanted: str) -> Kind:
    def read(value: Json, place: str) -> Any:
        try:
            return make(value)
        except (ValueError, ArithmeticError):
            raise Unfit(f"{place!r} to be {wanted}; got {value[:60]!r}") from None

    return Kind({"type": "string", "format": form}, read)


def _choice(choices: Sequence[tuple[Json, Any]]) -> Kind:
    """Return the kind of a value that is one of several, each told by a JSON value; `true` is not 1."""
    told = [word for word, _ in choices]
    kinds = {_SCALARS.get(type(word)) for word in told}
    kind = kinds.pop() if len(kinds) == 1 else None

    def read(value: Json, place: str) -> Any:
        return next(m for word, m in choices if word == value and isinstance(word, bool) == isinstance(value, bool))

    return Kind({"type": kind, "enum": told} if kind else {"enum": told}, read)


def _list(make: Callable[[list[Any]], Any], item: Kind) -> Kind:
    def read(value: Json, place: str) -> Any:
        return make([item.read(one, f"{place}[{i}]") for i, one in enumerate(value)])

    return Kind({"type": "array", "items": item.schema} if item.schema else {"type": "array"}, read)


def _tuple(arguments: Sequence[Any], where: str, inside: tuple[Any, ...]) -> Kind:
    if not arguments or arguments[-1] is Ellipsis:
        return _list(tuple, kind_of(arguments[0] if arguments else Any, where, inside))
    items = [kind_of(argument, where, inside) for argument in arguments]
    bounds = {"minItems": len(items), "maxItems": len(items)}

    def read(value: Json, place: str) -> Any:
        return tuple(item.read(one, f"{place}[{i}]") for i, (item, one) in enumerate(zip(items, value, strict=True)))

    return Kind({"type": "array", "prefixItems": [item.schema for item in items], **bounds}, read)


def _object(arguments: Sequence[Any], where: str, inside: tuple[Any, ...]) -> Kind:
    """Return the kind of a dict: of any keys, or, where they are an Enum or texts of a Literal, of those alone."""
    keys, item = kind_of(arguments[0], where, inside), kind_of(arguments[1], where, inside)
    if keys.schema.get("type", "string") != "string" or "format" in keys.schema:
        raise UserError(f"{where} is a dict whose keys are no text, which JSON cannot carry; use dict[str, ...]")

    def read(value: Json, place: str) -> Any:
        return {keys.read(key, place): item.read(one, f"{place}.{key}") for key, one in value.items()}

    if "enum" in keys.schema:
        return Kind(_closed(dict.fromkeys(keys.schema["enum"], item.schema), []), read)
    return Kind({"type": "object", "additionalProperties": item.schema or True}, read)


def _closed(properties: dict[str, Json], required: list[str]) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _union(arguments: Sequence[Any], kinds: Sequence[Kind]) -> Kind:
    """Return a kind that reads a value as the type it has already, else as the first type that it can be."""
    validators = [jsonschema.Draft202012Validator(kind.schema) for kind in kinds]

    def read(value: Json, place: str) -> Any:
        unfit = Unfit(f"{place!r} to be one of its types")
        for argument, kind in zip(arguments, kinds, strict=True):
            if argument is type(value):
                return kind.read(value, place)
        for kind, validator in zip(kinds, validators, strict=True):
            if validator.is_valid(value):
                try:
                    return kind.read(value, place)
                except Unfit as error:
                    unfit = error
        raise unfit

    return Kind({"anyOf": [kind.schema for kind in kinds]}, read)


def _record(hint: Any, where: str, inside: tuple[Any, ...]) -> Kind:
    if hint in inside:
        raise UserError(f"{where} holds a {hint.__name__} that nests itself; a model is told of flat ones only")
    told = record_fields(hint, where)
    kinds = {field.name: kind_of(field.hint, f"{where}, field {field.name!r},", (*inside, hint)) for field in told}
    properties = {field.name: {**kinds[field.name].schema, **field.notes} for field in told}

    def read(value: Json, place: str) -> Any:
        given = {key: kinds[key].read(one, f"{place}.{key}") for key, one in value.items()}
        try:
            return hint(**given)
        except (ValueError, AssertionError) as error:  # its own check of what it is made of
            raise Unfit(f"{place!r} to be a {hint.__name__} ({error}); got {str(value)[:60]}") from error

    return Kind(_closed(properties, [field.name for field in told if field.required]), read)


def _is_pydantic(hint: Any) -> bool:
    """Tell whether a type is pydantic's to describe; where nobody imported pydantic, none is."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return False
    if typing.get_origin(hint) is Annotated:
        return any(isinstance(note, type(pydantic.Field())) for note in typing.get_args(hint)[1:])
    return isinstance(hint, type) and typing.get_origin(hint) is None and issubclass(hint, pydantic.BaseModel)


def _of_pydantic(hint: Any, where: str) -> Kind:
    pydantic = sys.modules["pydantic"]
    adapter = pydantic.TypeAdapter(hint)

    def read(value: Json, place: str) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as errors:
            first = errors.errors()[0]
            deeper = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            got = str(first["input"])[:60]
            raise Unfit(f"{place + deeper!r} to be right ({first['msg']}); got {got!r}") from None

    schema = adapter.json_schema()
    return Kind(_inlined(schema, schema.pop("$defs", {}), where, ()), read)


def _inlined(schema: Json, definitions: Mapping[str, Json], where: str, seen: tuple[str, ...]) -> Any:
    """Return a schema with its definitions in the places that refer to them, which a tool's schema can hold."""
    if isinstance(schema, list):
        return [_inlined(item, definitions, where, seen) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in seen:
        raise UserError(f"{where} holds a {name} that nests itself; a model is told of flat ones only")
    kept = {key: value for key, value in schema.items() if not (key == "$ref" and name) and key != "discriminator"}
    found = {key: _inlined(value, definitions, where, seen) for key, value in kept.items()}
    return {**_inlined(definitions[name], definitions, where, (*seen, name)), **found} if name in definitions else found
