"""Reads a request's body as JSON that nothing later can choke on, and its keys strictly, whatever the API."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.server.errors import Refused
from rolecraft.types import Json

MAX_DEPTH = 64
_MAX_BITS = 1024  # of a whole number anywhere in a request

_Body = TypeVar("_Body", bound=BaseModel)


def bad(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """Return the error of a request that is wrong."""
    return Refused(400, message, param=param, code=code)


def read_object(body: bytes) -> dict[str, Json]:
    """Return the JSON object in a body that nothing later can choke on."""
    try:
        value = wire.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise bad(f"the body is not UTF-8: {error}") from error
    except DataError as error:
        raise bad(f"the body is {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise bad(f"the body is {type(value).__name__}; send a JSON object")
    for key, item in value.items():
        for fault in _faults({key: item}):
            raise bad(f"{reprlib.repr(key)} {fault}", key if key.isascii() else None)
    return value


def _faults(root: Json) -> Iterator[str]:
    """Yield what makes a value dangerous further on; without recursion, since its depth is the question."""
    waiting: list[tuple[Json, int]] = [(root, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            yield f"is nested more than {MAX_DEPTH} deep"
            return
        if isinstance(value, str) and not value.isascii() and _has_surrogate(value):
            yield "holds half of a surrogate pair, which is no text"
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            yield f"holds a whole number of more than {_MAX_BITS} bits"
        elif isinstance(value, dict):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def without_inert(
    given: Mapping[str, Json], inert: Mapping[str, tuple[Json, ...]], remedies: Mapping[str, str]
) -> dict[str, Json]:
    """Return the keys that say something; raises Refused for a key of `inert` whose value asks for something."""
    fields = {key: value for key, value in given.items() if value is not None}
    for key in [key for key in fields if key in inert]:
        if fields.pop(key) not in inert[key]:
            raise bad(f"{key!r} is not supported; {remedies.get(key, 'leave it out')}", key, "unsupported_parameter")
    return fields


def validated(kind: type[_Body], fields: Mapping[str, Json], inert: Mapping[str, Any]) -> _Body:
    """Return the fields as a `kind`; raises Refused for the first that does not fit, naming the nearest known key."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _misfit(error, kind, inert) from error


def _misfit(error: ValidationError, kind: type[BaseModel], inert: Mapping[str, Any]) -> Refused:
    """Return the first of pydantic's findings in our words."""
    found = error.errors(include_url=False, include_context=False)[0]
    steps = [step for step in found["loc"] if not (isinstance(step, str) and "[" in step)]
    nested = _within(kind, steps[:1]) is not None
    param = ".".join(map(str, steps if nested else steps[:1]))
    if found["type"] == "missing":
        return bad(f"{param!r} is missing", param, "missing_required_parameter")
    if found["type"] == "extra_forbidden":
        known = _keys(_within(kind, steps[:-1]) or kind) + (list(inert) if len(steps) == 1 else [])
        near = difflib.get_close_matches(str(steps[-1])[:64], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "leave it out"
        return bad(f"unknown parameter {reprlib.repr(steps[-1])}; {remedy}", param[:64], "unknown_parameter")
    rule = found["msg"][0].lower() + found["msg"][1:]
    return bad(f"{param!r} is {reprlib.repr(found['input'])}: {rule}", param, "invalid_value")


def _within(kind: type[BaseModel], steps: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model that stands below these keys; None if something else does."""
    found: type[BaseModel] | None = kind
    for step in steps:
        fields = {} if found is None else {field.alias or key: field for key, field in found.model_fields.items()}
        told = fields[step].annotation if step in fields else None
        candidates = (told, *get_args(told))
        found = next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return found


def _keys(kind: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in kind.model_fields.items()]
