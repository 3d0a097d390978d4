"""Strict JSON text: what is written always encodes, and what is read has one meaning."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from rolecraft.errors import DataError
from rolecraft.types import Json
from rolecraft.wire.fields import shown

MAX_DEPTH = 64
"""Of a call's arguments and a tool's schema; whatever walks them later stays far from Python's own limit."""


def dumps(value: Json) -> str:
    """Return compact JSON text that always encodes to UTF-8: Unicode as it is, lone surrogates as escapes.

    Raises DataError for what JSON cannot hold. Infinities are written as Python's json does.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"cannot write as JSON: {error}; use only objects, lists, text, numbers and null") from error
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def loads(text: str) -> Json:
    """Return the value of strict JSON text: no NaN, no infinity, no key twice; raises DataError with the reason."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not usable JSON: {error}") from error


def read_arguments(text: str) -> dict[str, Json] | None:
    """Return the arguments in a JSON string, or None if it is not a JSON object; empty text is a call without any."""
    if not text.strip():
        return {}
    try:
        value = loads(text)
    except DataError:
        return None
    return value if isinstance(value, dict) and depth_within(value, MAX_DEPTH) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{shown(value)} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a JSON number")
    return value


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value: dict[str, Json] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {key!r} is given twice")
        value[key] = item
    return value


def depth_within(value: Json, limit: int) -> bool:
    """Tell whether objects and lists are nested at most `limit` deep."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return limit > 0 and all(depth_within(item, limit - 1) for item in items)
