"""Reads the JSON that a model wrote, within bounds, and says in a few words what is wrong with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from rolecraft.types import Json

MAX_CHARACTERS = 100_000
MAX_DEPTH = 80
MAX_DIGITS = 308

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_EXTRA = re.compile(r"[ \t]*[\]}]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_JSON_REASONS = {
    "Expecting value": "expected a value",
    "Expecting property name enclosed in double quotes": "expected a key in double quotes",
    "Expecting ':' delimiter": "expected ':'",
    "Expecting ',' delimiter": "expected ','",
    "Illegal trailing comma before end of object": "a comma too many",
    "Illegal trailing comma before end of array": "a comma too many",
    "Invalid control character at": "a line break inside a text",
    "Invalid \\escape": "a backslash that escapes nothing",
    "Extra data": "something follows the object",
}


class Malformed(ValueError):
    """Text that is not JSON: why, and the place of the character where that shows."""

    def __init__(self, reason: str, place: int) -> None:
        """Take the reason in words, and the place, from 0."""
        super().__init__(reason)
        self.place = place


def balanced_end(text: str, start: int, limit: int) -> int:
    """Return where the bracket opened at `start` is closed, or `limit` if it never is. Linear in the length."""
    depth = 0
    for match in _STRUCTURE.finditer(text, start, limit):
        token = match.group()
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
            if depth <= 0:
                # Brackets too many belong to the call, and make it malformed.
                extra = _EXTRA.match(text, match.end(), limit)
                return extra.end() if extra else match.end()
    return limit


def load(text: str, *, line_breaks: bool = False) -> Json:
    """Read JSON within bounds, its texts with `line_breaks` or not; raises ValueError with a short reason."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    depth = deepest = 0
    for match in _STRUCTURE.finditer(text):
        token = match.group()
        if len(token) == 1:
            depth += (token in "[{") - (token in "]}")
            deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ValueError(f"not JSON: nested more than {MAX_DEPTH} deep")
    try:
        data = json.loads(
            text,
            strict=not line_breaks,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise Malformed(_explain(error, depth), error.pos) from None
    if _SURROGATE.search(json.dumps(data, ensure_ascii=False)):
        raise ValueError("not text: half of a surrogate pair")
    return data


def _explain(error: json.JSONDecodeError, open_brackets: int) -> str:
    if "Unterminated string" in error.msg:
        return 'not JSON: a closing " is missing'
    if open_brackets > 0 and error.pos >= len(error.doc.rstrip()):
        return "not JSON: a closing } is missing"
    reason = _JSON_REASONS.get(error.msg, error.msg)
    return f"not JSON: {reason} at {brief(error.doc[error.pos : error.pos + 12])}"


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {brief(twice)} is there twice")
    return data


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {brief(digits)} is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"not JSON: {name} is not a number")


def brief(text: str) -> str:
    """Return the beginning of a text, quoted."""
    return repr(text if len(text) <= 24 else text[:24] + "...")


def kind(value: Json) -> str:
    """Return what kind of JSON a value is, in words."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]
