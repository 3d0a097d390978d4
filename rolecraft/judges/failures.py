"""Says why a task failed: one class per trajectory, from its calls against the reference's.

Not covered: whether the answer is right, which the benchmark's own judge decided before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rolecraft import toolschema
from rolecraft.judges import replies
from rolecraft.judges._equality import difference
from rolecraft.judges.answers import holds
from rolecraft.types import Json, Message, Task, ToolCall, Trajectory, Verdict

CLASSES: Mapping[str, str] = {
    "needless call": "called a tool although none fits",
    "unparsed": "wrote a call that could not be read",
    "no such tool": "called a tool that does not exist",
    "wrong tool": "called a tool that the task does not need",
    "wrong arguments": "called the right tool with wrong arguments",
    "ran out": "reached the limit of turns, repeats or tokens",
    "gave up": "said that it cannot be done",
    "missing step": "made right calls, but not all of them",
    "gave up early": "answered without a call that was needed",
    "wrong order": "made the right calls in the wrong order",
    "extra call": "made a call too many after all the right ones",
    "tool failed": "made the right calls, and one of them was answered by an error",
    "wrong answer": "made the right calls and answered wrongly",
}
"""The classes and what each means."""
LISTED: Mapping[str, str] = {
    "no such tool": "hallucinated tool",
    "wrong order": "wrong order",
    "wrong arguments": "wrong arguments",
    "missing step": "missed step",
    "wrong tool": "wrong tool",
    "gave up early": "early stop",
}
"""The classes by which what tuning mends is told, with the names that they are known by."""


def judge(trajectory: Trajectory) -> Verdict:
    """Accept a trajectory that made the reference's calls and ended by itself; the reason is else the class."""
    found = classify(trajectory)
    right = found == "wrong answer"  # the calls are not to blame, and this judge does not look at the answer
    return Verdict(float(right), "" if right else f"{found}: {CLASSES[found]}")


def failure(trajectory: Trajectory) -> str | None:
    """Return the class of a trajectory whose verdict is below 1; None where it is 1, or there is none."""
    return None if trajectory.verdict is None or trajectory.verdict.score >= 1 else classify(trajectory)


def classify(trajectory: Trajectory) -> str:
    """Return the one class of CLASSES that explains best why a trajectory failed, supposing that it did.

    A made call is *right* when it equals a reference call that no other call was (an argument left out is its
    default), or when it calls the same tool
    and its observation, if that is no error, holds every expected answer (code and queries can be written in many
    ways). The first that holds decides:

    1. needless call: the reference has no calls, and one was attempted.
    2. A call is missing: some reference call was not made, and neither was the last one, which stands for those it
       builds on (not so where the reference says `ordered: false`). In this order: unparsed, no such tool, wrong
       tool, each unless a later message made a right call and so repaired it; wrong arguments, for a tool that a
       missing call needs; then, without such a fault, ran out or gave up; missing step if a right call was made; gave
       up early.
    3. None is missing: wrong order (not so where `ordered: false`), ran out or gave up, extra call, tool failed, wrong
       answer.

    Where the reference does not tell the calls: unparsed, no such tool, ran out, gave up, wrong answer.
    """
    reference = trajectory.task.reference
    attempts, wanted = _attempts(trajectory), _wanted(trajectory)
    if wanted is None:
        return _unrepaired(attempts, [], trajectory) or _unanswered(trajectory) or "wrong answer"
    if not wanted and attempts:
        return "needless call"
    ordered = bool(reference.get("ordered", True))
    matched = _match(attempts, wanted, _listed(reference.get("answers", ())))
    reached_last = ordered and len(wanted) - 1 in matched.values()
    if len(matched) < len(wanted) and not reached_last:
        return _why_missing(attempts, matched, wanted, trajectory)
    order = [matched[i] for i in sorted(matched)]
    if ordered and order != sorted(order):
        return "wrong order"
    if len(attempts) > len(wanted):
        return _unanswered(trajectory) or "extra call"
    failed = any(attempts[i].failed for i in matched)
    return _unanswered(trajectory) or ("tool failed" if failed else "wrong answer")


def calls_made(trajectory: Trajectory) -> tuple[ToolCall, ...]:
    """Return the calls of the episode; those in the task's opening messages are not its own."""
    return tuple(call for _, message in replies(trajectory) for call in message.tool_calls)


def wanted(task: Task, call: ToolCall) -> bool | None:
    """Return whether a call equals one of the task's reference; None where that lists no calls."""
    asked = Trajectory(task.id, task, task.messages)
    calls = _wanted(asked)
    if calls is None:
        return None
    made = _Attempt(_completed(call, _defaults(asked)), 0)
    return any(_equals(made, one) for one in calls)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A call made in the episode's message number `place`, or (None) one that did not parse."""

    call: ToolCall | None
    place: int
    observation: str = ""
    failed: bool = False


def _attempts(trajectory: Trajectory) -> list[_Attempt]:
    found, defaults = [], _defaults(trajectory)
    for place, message in replies(trajectory):
        later = trajectory.messages[place + 1 :]
        for nth, made in enumerate(message.tool_calls):
            told = _observation(later, made, nth)
            call = _completed(made, defaults)
            found.append(_Attempt(call, place, told.content, told.failed) if told else _Attempt(call, place))
        if message.unparsed is not None:
            found.append(_Attempt(None, place))
    return found


def _wanted(trajectory: Trajectory) -> list[ToolCall] | None:
    """Return the reference's calls, or None where it does not list them."""
    calls, defaults = trajectory.task.reference.get("calls"), _defaults(trajectory)
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) and "name" in call for call in calls):
        return None
    return [_completed(ToolCall(str(call["name"]), call.get("arguments") or {}), defaults) for call in calls]


def _defaults(trajectory: Trajectory) -> dict[str, dict[str, Json]]:
    """Return by tool the arguments that may be left out, with what they then are."""
    return {
        spec.name: {
            name: schema["default"]
            for name, schema in toolschema.properties(spec.parameters).items()
            if isinstance(schema, Mapping) and "default" in schema
        }
        for spec in trajectory.task.tools
    }


def _completed(call: ToolCall, defaults: Mapping[str, Mapping[str, Json]]) -> ToolCall:
    left_out = defaults.get(call.name)
    return replace(call, arguments={**left_out, **call.arguments}) if left_out else call


def _listed(value: Json) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _observation(later: Sequence[Message], call: ToolCall, nth: int) -> Message | None:
    """Find what the call returned: by its id, else by its place among the tool messages that follow at once."""
    for message in later:
        if call.id and message.tool_call_id == call.id:
            return message
    following = later[: nth + 1]
    if len(following) > nth and all(m.role == "tool" and not m.tool_call_id for m in following):
        return following[nth]
    return None


def _match(attempts: Sequence[_Attempt], wanted: Sequence[ToolCall], answers: Sequence[str]) -> dict[int, int]:
    """Return the index of the wanted call that each right attempt made, by the attempt's index; exact ones first."""
    matched: dict[int, int] = {}
    for is_right in (_equals, partial(_serves, answers=answers)):
        for i, attempt in enumerate(attempts):
            free = (j for j, call in enumerate(wanted) if j not in matched.values() and is_right(attempt, call))
            if i not in matched and (j := next(free, None)) is not None:
                matched[i] = j
    return matched


def _equals(attempt: _Attempt, wanted: ToolCall) -> bool:
    if attempt.call is None or attempt.call.name != wanted.name:
        return False
    try:
        return difference(_normal(wanted.arguments), _normal(attempt.call.arguments), wanted.name) is None
    except RecursionError:  # nested a thousand deep: no reference is
        return False


def _normal(value: Json) -> Json:
    """Return the value with runs of white space in its texts made one space, so that code may be laid out freely."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, Mapping):
        return {key: _normal(item) for key, item in value.items()}
    return [_normal(item) for item in value] if isinstance(value, list | tuple) else value


def _serves(attempt: _Attempt, wanted: ToolCall, answers: Sequence[str]) -> bool:
    named = attempt.call is not None and attempt.call.name == wanted.name
    return (
        named and not attempt.failed and bool(answers) and all(holds(attempt.observation, answer) for answer in answers)
    )


def _why_missing(
    attempts: Sequence[_Attempt], matched: Mapping[int, int], wanted: Sequence[ToolCall], trajectory: Trajectory
) -> str:
    missing = {call.name for j, call in enumerate(wanted) if j not in matched.values()}
    fault = _unrepaired(attempts, list(matched), trajectory)
    if fault is not None:
        return fault
    if any(a.call is not None and a.call.name in missing for i, a in enumerate(attempts) if i not in matched):
        return "wrong arguments"
    return _unanswered(trajectory) or ("missing step" if matched else "gave up early")


def _unrepaired(attempts: Sequence[_Attempt], right: Sequence[int], trajectory: Trajectory) -> str | None:
    """Return the first of unparsed, no such tool and wrong tool that no right call in a later message repaired."""
    last_right = max((attempts[i].place for i in right), default=-1)
    open_faults = [a for a in attempts if a.place >= last_right]
    if any(a.call is None for a in open_faults):
        return "unparsed"
    calls = [a.call for a in open_faults if a.call is not None]
    if any(call.name not in {spec.name for spec in trajectory.task.tools} for call in calls):
        return "no such tool"
    wanted = _wanted(trajectory)
    needed = {call.name for call in wanted or ()}
    return "wrong tool" if wanted is not None and any(call.name not in needed for call in calls) else None


def _unanswered(trajectory: Trajectory) -> str | None:
    if trajectory.stop == "gave_up":
        return "gave up"
    return "ran out" if trajectory.stop in ("max_turns", "repeated_call", "length", "engine_error") else None
