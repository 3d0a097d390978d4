"""The fields of Python's records: dataclasses, TypedDicts and NamedTuples."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from rolecraft.errors import UserError
from rolecraft.tools._docstring import read
from rolecraft.tools._plain import plain
from rolecraft.types import Json


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field: its type, whether it must be given, and the description and default that its schema tells."""

    name: str
    hint: Any
    required: bool
    notes: dict[str, Json]


def is_record(hint: Any) -> bool:
    """Tell whether a type is a dataclass, a TypedDict or a NamedTuple."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or _is_typed_dict(hint) or _is_named_tuple(hint))


def record_fields(hint: Any, where: str) -> list[RecordField]:
    """Return the fields of a record; raises UserError where an annotation cannot be read."""
    try:
        hints = typing.get_type_hints(hint, include_extras=True)
    except NameError as error:
        raise UserError(f"{where} is a {hint.__name__} with an annotation that cannot be read: {error}") from error
    _, documented = read(inspect.getdoc(hint) or "")
    fields = []
    for name, (required, default) in _fields(hint, hints).items():
        if name not in hints:
            raise UserError(f"{where} is a {hint.__name__} whose {name!r} has no type; annotate it")
        kind, mark = _unmarked(hints[name])
        description = note_of(kind) or documented.get(name, "")
        notes = {"description": description} if description else {}
        needed = required if mark is None else mark
        fields.append(RecordField(name, kind, needed, notes | default_of(default)))
    return fields


def note_of(hint: Any) -> str:
    """Return the description in `Annotated[type, "..."]`, `Field(description=...)` or `Doc("...")`; "" for none."""
    notes = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    for note in notes:
        text = note if isinstance(note, str) else getattr(note, "description", getattr(note, "documentation", None))
        if isinstance(text, str) and text:
            return text
    return ""


def default_of(value: Any) -> dict[str, Json]:
    """Return `{"default": value}`, or nothing for None and for what JSON cannot hold."""
    if value is None:
        return {}
    try:
        return {"default": json.loads(json.dumps(plain(value), allow_nan=False))}
    except (TypeError, ValueError):
        return {}


def _is_typed_dict(hint: Any) -> bool:
    return issubclass(hint, dict) and hasattr(hint, "__required_keys__")


def _is_named_tuple(hint: Any) -> bool:
    return issubclass(hint, tuple) and hasattr(hint, "_field_defaults")


def _fields(hint: Any, hints: dict[str, Any]) -> dict[str, tuple[bool, Any]]:
    """Return whether each field must be given, and its default, None for none."""
    if _is_typed_dict(hint):
        return {name: (name in hint.__required_keys__, None) for name in hints}
    if _is_named_tuple(hint):
        defaults = hint._field_defaults
        return {name: (name not in defaults, defaults.get(name)) for name in hint._fields if name in hints}
    made_of = inspect.signature(hint).parameters.values()
    return {p.name: (p.default is p.empty, None if p.default is p.empty else p.default) for p in made_of}


def _unmarked(hint: Any) -> tuple[Any, bool | None]:
    """Return the type in `Required[...]`, `NotRequired[...]` or `ReadOnly[...]`, and what that says of its key.

    `__required_keys__` does not know of marks in annotations that are text.
    """
    mark: bool | None = None
    hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
    while (name := getattr(typing.get_origin(hint), "_name", "")) in ("Required", "NotRequired", "ReadOnly"):
        mark = mark if name == "ReadOnly" else name == "Required"
        hint = typing.get_args(hint)[0]
    return hint, mark
