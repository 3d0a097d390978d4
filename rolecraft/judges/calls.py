"""Checks every call of the episode: it names a tool of the task and its arguments fit that tool's JSON Schema.

Not covered: whether a call was the right one to make, and what the tool answered.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rolecraft.judges import replies
from rolecraft.tools import misfit
from rolecraft.types import ToolCall, ToolSpec, Trajectory, Verdict

Kind = Literal["unparsed", "unknown", "arguments"]
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one call: message number `place`, the tool's name, the kind of fault, and why in words."""

    place: int
    name: str
    kind: Kind
    why: str

    def __str__(self) -> str:
        return f"messages[{self.place}]: {self.why}"


def judge(trajectory: Trajectory) -> Verdict:
    """Return the share of right calls among all, unparsed ones included; 1 where no call was made.

    The parts are three shares of all calls: `parsed`, `known` (parsed, and the tool exists) and `fitting` (known, and
    the arguments fit; it is the score).
    """
    total = sum(len(m.tool_calls) + (m.unparsed is not None) for _, m in replies(trajectory))
    if not total:
        return Verdict(1.0, "no calls", {"parsed": 1.0, "known": 1.0, "fitting": 1.0})
    found = list(faults(trajectory))
    parsed = total - sum(fault.kind == "unparsed" for fault in found)
    known = parsed - sum(fault.kind == "unknown" for fault in found)
    right = total - len(found)
    parts = {"parsed": parsed / total, "known": known / total, "fitting": right / total}
    if not found:
        return Verdict(1.0, "", parts)
    more = "; ..." if len(found) > _SHOWN else ""
    reason = f"{len(found)} of {total} calls are wrong: {'; '.join(map(str, found[:_SHOWN]))}{more}"
    return Verdict(right / total, reason, parts)


def faults(trajectory: Trajectory) -> Iterator[Fault]:
    """Yield what is wrong with each wrong call of the episode, in order."""
    for place, message in replies(trajectory):
        for call in message.tool_calls:
            fault = _fault(place, call, trajectory.task.tools)
            if fault is not None:
                yield fault
        if message.unparsed is not None:
            yield Fault(place, "", "unparsed", f"a call that does not parse: {reprlib.repr(message.unparsed)}")


def _fault(place: int, call: ToolCall, tools: tuple[ToolSpec, ...]) -> Fault | None:
    named = [spec for spec in tools if spec.name == call.name]
    if not named:
        return Fault(place, call.name, "unknown", _unknown(call.name, tools))
    reasons = [misfit(spec, call.arguments) for spec in named]
    # several tools of one name are alternatives
    return None if None in reasons else Fault(place, call.name, "arguments", reasons[0] or "")


def _unknown(name: str, tools: tuple[ToolSpec, ...]) -> str:
    names = [spec.name for spec in tools]
    near = difflib.get_close_matches(name[:64], names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"tools: {', '.join(names[:8]) or 'none'}"
    return f"no tool {reprlib.repr(name)}; {hint}"
