"""Reads what an episode's first step did, whatever its team, and judges it beside the annotated one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

from rolecraft import wire
from rolecraft.benchmarks.static.metrics import Step, measure, score
from rolecraft.errors import DataError
from rolecraft.importers import GIVE_UP
from rolecraft.types import Json, Message, Trajectory, Verdict

_NAMED = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.){1,200})"')


def judge(trajectory: Trajectory) -> Verdict:
    """Return the step's score, and its metrics as parts."""
    right, said = right_step(trajectory.task.reference), said_step(trajectory)
    tools = {spec.name for spec in trajectory.task.tools}
    found = score(said, right)
    reason = "" if found >= 1 else f"{_told(said)}; right is: {_told(right)}"
    return Verdict(min(1.0, found), reason, measure(said, right, tools))


def right_step(reference: Mapping[str, Json]) -> Step:
    """Return the annotated step of a task."""
    calls = reference["calls"]
    names, arguments = tuple(call["name"] for call in calls), tuple(call["arguments"] for call in calls)
    return Step(reference["plan"], names, arguments, reference["answer"])


def said_step(trajectory: Trajectory) -> Step:
    """Return what the episode's first step did: all that was said until a tool, or a remark, answered it.

    Whoever was to call (`acting` in the reference) and wrote no call planned one. A first role that was cut designated
    nobody, which its team takes for a plan of its own (`unmarked`).
    """
    reference = trajectory.task.reference
    episode = trajectory.messages[len(trajectory.task.messages) :]
    first = itertools.takewhile(lambda message: message.role != "tool", episode)
    said = [message for message in first if message.role == "assistant"]
    if not said or (trajectory.stop == "max_turns" and len(said) == len(episode) == 1):
        return Step(None)
    if any(message.tool_calls or message.unparsed is not None for message in said):
        return _calling(said)
    last = said[-1].content.rpartition("</think>")[2].strip()
    if trajectory.stop == "gave_up" or last == GIVE_UP:
        return Step("give up")
    cut = trajectory.stop == "length" and len(said) == 1 and reference.get("unmarked") == "call"
    if cut or said[-1].speaker in reference.get("acting", ()):
        return Step("call")
    return Step("finish", answer=last)


def _calling(said: Sequence[Message]) -> Step:
    calls = [(call.name, dict(call.arguments)) for message in said for call in message.tool_calls]
    raw = [message.unparsed for message in said if message.unparsed is not None]
    told = [*calls, *((found.group(1), _arguments(text)) for text in raw if (found := _NAMED.search(text)))]
    return Step("call", tuple(name for name, _ in told), tuple(arguments for _, arguments in told))


def _arguments(text: str) -> dict[str, Json] | None:
    """Return the arguments of a call that was not read, if the text is one object that has them."""
    try:
        told = wire.loads(text)
    except DataError:
        return None
    found = told.get("arguments") if isinstance(told, dict) else None
    return found if isinstance(found, dict) else None


def _told(step: Step) -> str:
    if step.plan == "call":
        return f"it calls {', '.join(step.names) or 'nothing'}"
    return {"finish": "it answers", "give up": "it gives up", None: "it does nothing"}[step.plan]
