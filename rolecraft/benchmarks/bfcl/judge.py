"""Judges the calls of an episode as BFCL does.

Where no function fits, BFCL takes everything but a readable call for right, garbage as well: the part `parsed` tells
the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rolecraft.benchmarks.bfcl.checker import fault
from rolecraft.benchmarks.bfcl.schemas import tool_name
from rolecraft.judges import replies
from rolecraft.types import Json, ToolCall, Trajectory, Verdict


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 for the calls that BFCL accepts, else 0 with the reason."""
    said = [message for _, message in replies(trajectory)]
    calls = [call for message in said for call in message.tool_calls]
    parsed = all(message.unparsed is None for message in said)
    wrong = _wrong(calls, trajectory.task.reference, parsed) if said else "there is no reply"
    return Verdict(0.0 if wrong else 1.0, wrong, {"parsed": float(parsed)})


def _wrong(calls: Sequence[ToolCall], reference: Mapping[str, Json], parsed: bool) -> str:
    category = reference["family"]
    if category.endswith("irrelevance"):
        return f"{calls[0].name[:64]} was called though no function fits" if calls else ""
    if not parsed and not category.endswith("relevance"):
        return "a call could not be read"
    if not calls:
        return "no function was called"
    if category.endswith("relevance"):
        return ""
    names = {tool_name(function["name"]): function["name"] for function in reference["functions"]}
    if stray := next((call.name for call in calls if call.name not in names), None):
        return f"no function {stray[:64]!r}; there are {', '.join(names)}"[:300]
    made = [{names[call.name]: call.arguments} for call in calls]
    return fault(made, reference["functions"], reference["answers"], category)
