"""Checks that the episode left its tools in the state that the reference describes.

Not covered: how it got there. Tools that the reference does not name may be in any state.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping

from rolecraft.types import Json, Trajectory, Verdict

_MAX_DEPTH = 64
_TOLERANCE = 1e-9  # relative; sums of floats depend on their order


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 if every tool in `reference["state"]` ended in the state given there, else 0; a part for each tool.

    Objects are equal with the same keys, lists in the same order; 1 equals 1.0 and differs from true.
    """
    wanted = trajectory.task.reference.get("state")
    if not isinstance(wanted, Mapping):
        return Verdict(0.0, "the task's reference has no 'state' by tool name; add it, or use another judge")
    if trajectory.final_state is None:
        return Verdict(0.0, "the episode recorded no final state", dict.fromkeys(wanted, 0.0))
    reasons = {name: _tool_difference(name, state, trajectory.final_state) for name, state in wanted.items()}
    wrong = [reason for reason in reasons.values() if reason]
    return Verdict(float(not wrong), "; ".join(wrong), {name: float(not reason) for name, reason in reasons.items()})


def _tool_difference(name: str, wanted: Json, final: Mapping[str, Json]) -> str | None:
    return difference(wanted, final[name], name) if name in final else f"no tool {name!r} left a state"


def difference(wanted: Json, got: Json, place: str = "state", depth: int = 0) -> str | None:
    """Return the first difference as one line that names its place, or None if both are equal."""
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
    else:
        return None if _same(wanted, got) else f"{place}: expected {reprlib.repr(wanted)}, got {reprlib.repr(got)}"
    return next((found for a, b, where in pairs if (found := difference(a, b, where, depth + 1))), None)


def _same(wanted: Json, got: Json) -> bool:
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted is got
    if isinstance(wanted, float) or isinstance(got, float):
        return _close(wanted, got)
    return bool(wanted == got)


def _close(wanted: Json, got: Json) -> bool:
    try:
        return wanted == got or math.isclose(wanted, got, rel_tol=_TOLERANCE)
    except (TypeError, OverflowError):  # not a number, or a whole one beyond every float
        return False


def _keys(word: str, these: Mapping[str, Json], those: Mapping[str, Json]) -> str:
    names = [repr(key) for key in these if key not in those]
    return f"{word} {', '.join(names[:5])}; " if names else ""
