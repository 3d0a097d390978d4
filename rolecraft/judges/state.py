"""Checks that the episode left its tools in the state that the reference describes.

Not covered: how it got there. Tools that the reference does not name may be in any state.
"""

from __future__ import annotations

from collections.abc import Mapping

from rolecraft.judges._equality import difference
from rolecraft.types import Json, Trajectory, Verdict

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
    return difference(wanted, final[name], name, _TOLERANCE) if name in final else f"no tool {name!r} left a state"
