"""Whether two JSON values are the same, for every judge alike."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping

from rolecraft.types import Json

_MAX_DEPTH = 64


def difference(wanted: Json, got: Json, place: str, tolerance: float = 0.0, depth: int = 0) -> str | None:
    """Return the first difference as one line that names its place, or None if both are equal.

    Objects are equal with the same keys, lists in the same order; 1 equals 1.0 and differs from true, at any depth.
    `tolerance` is between floats, and relative.
    """
    if depth > _MAX_DEPTH:
        return f"{place[:80]}...: nested more than {_MAX_DEPTH} deep"
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        if wanted.keys() != got.keys():
            return f"{place}: {_keys('missing', wanted, got)}{_keys('unexpected', got, wanted)}".rstrip("; ")
        pairs = ((wanted[key], got[key], f"{place}.{key}") for key in wanted)
    elif isinstance(wanted, list | tuple) and isinstance(got, list | tuple):
        if len(wanted) != len(got):
            return f"{place}: expected {len(wanted)} items, got {len(got)}"
        pairs = ((a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(wanted, got, strict=True)))
    elif _same(wanted, got, tolerance):
        return None
    else:
        return f"{place}: expected {reprlib.repr(wanted)}, got {reprlib.repr(got)}"
    return next((found for a, b, where in pairs if (found := difference(a, b, where, tolerance, depth + 1))), None)


def _same(wanted: Json, got: Json, tolerance: float) -> bool:
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted is got
    if isinstance(wanted, float) or isinstance(got, float):
        return _close(wanted, got, tolerance)
    return bool(wanted == got)


def _close(wanted: Json, got: Json, tolerance: float) -> bool:
    try:
        return wanted == got or math.isclose(wanted, got, rel_tol=tolerance)
    except (TypeError, OverflowError):  # not a number, or a whole one beyond every float
        return False


def _keys(word: str, these: Mapping[str, Json], those: Mapping[str, Json]) -> str:
    names = [repr(key) for key in these if key not in those]
    return f"{word} {', '.join(names[:5])}; " if names else ""
