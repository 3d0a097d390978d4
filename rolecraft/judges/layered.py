"""The reward of reinforcement, in layers: is it well formed, are the calls right, is the task done, in few steps.

Each layer is a part of the verdict and can be weighed and normalised by itself (`advantages.layered`); the score is
their weighted mean. A layer that cannot be told of a trajectory is left out of its parts and of its mean. The task's
layer is the verdict that the benchmark's own judge gave before. Efficiency pays only where the task is done: brevity
must never pay by itself. Not covered: what the steps said.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rolecraft.errors import SettingsError
from rolecraft.judges import replies
from rolecraft.types import Json, Judge, Message, ToolCall, Trajectory, Verdict

LAYERS = ("format", "calls", "task", "efficiency")
_ORDER_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """How much each layer counts; `binary` is 1 for a well-formed episode that did its task, else 0 (Tool-N1).

    A weight of 0 leaves a layer out.
    """

    format: float = 0.5
    calls: float = 1.0
    task: float = 2.0
    efficiency: float = 0.3
    binary: bool = False

    def __post_init__(self) -> None:
        """Refuse weights that weigh nothing."""
        weights = {name: getattr(self, name) for name in LAYERS}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise SettingsError(f"reward.{name} is {weight!r}; a weight is a number, at least 0")
        if not any(weights.values()):
            raise SettingsError("reward: all weights are 0; give one layer a weight")


def judge(trajectory: Trajectory) -> Verdict:
    """Return the verdict by the weights that are the default."""
    return rewarding(Settings())(trajectory)


def rewarding(settings: Settings) -> Judge:
    """Return the judge that weighs the layers so."""

    def reward(trajectory: Trajectory) -> Verdict:
        parts = {name: value for name in LAYERS if (value := _FIND[name](trajectory)) is not None}
        if settings.binary:
            score = float(parts.get("format") == 1.0 and parts.get("task") == 1.0)
        else:
            weights = {name: getattr(settings, name) for name in parts}
            total = math.fsum(weights.values())
            score = math.fsum(weights[name] * parts[name] for name in parts) / total if total else 0.0
        low = [f"{name} {value:.2f}" for name, value in parts.items() if value < 1]
        return Verdict(min(1.0, score), ", ".join(low), parts)

    return reward


def well_formed(trajectory: Trajectory) -> float:
    """Return 1 where each reply is in the family's own form and the last one closes the episode, else 0.

    An answer closes it; where a benchmark's episode ends with its calls, and runs none of them, so do calls.

    Judged by the raw text: one call that cannot be read, or was read leniently, spoils it, as does an end by length, by
    turns, by repeats or by giving up.
    """
    said = [message for _, message in replies(trajectory)]
    clean = all(message.unparsed is None and message.strict is None for message in said)
    return float(bool(said) and clean and trajectory.stop == "answered" and _closes(trajectory, said[-1]))


def calls_right(trajectory: Trajectory) -> float | None:
    """Return how near the calls came to the reference's, from 0 to 1; None where the reference does not list them.

    ToolRL's formula (arXiv 2504.13958, section 3.3): the names' overlap, and for each wanted call the best unused one
    of its name, by its keys' overlap and its equal values; as a share of the most there is. Where order matters, a
    fifth is the longest run of names in order. No call where none is wanted is 1, any call there 0.
    """
    wanted = _wanted(trajectory)
    if wanted is None:
        return None
    made = [call for _, message in replies(trajectory) for call in message.tool_calls]
    unread = any(message.unparsed is not None for _, message in replies(trajectory))
    if not wanted:
        return float(not made and not unread)
    score = _overlap([call.name for call in made], [call.name for call in wanted])
    free = list(made)
    for call in wanted:
        rated = [(_likeness(call, one), -place) for place, one in enumerate(free) if one.name == call.name]
        if rated:
            best, place = max(rated)
            score += best
            del free[-place]
    found = score / (1 + sum(1 + len(call.arguments) for call in wanted))
    if not trajectory.task.reference.get("ordered", True):
        return found
    names = [call.name for call in made], [call.name for call in wanted]
    return (1 - _ORDER_SHARE) * found + _ORDER_SHARE * _common(*names) / max(map(len, names))


def done(trajectory: Trajectory) -> float | None:
    """Return the score that the benchmark's judge gave, None where none did."""
    return None if trajectory.verdict is None else trajectory.verdict.score


def lean(trajectory: Trajectory) -> float | None:
    """Return how few calls an episode made, from 0 to its task's score; None where nobody knows how few suffice.

    Each call beyond the reference's, and each that repeats an earlier one or cannot be read, costs its share of them.
    """
    reference, score = trajectory.task.reference.get("calls"), done(trajectory)
    if score is None or isinstance(reference, bool) or not isinstance(reference, int | list | tuple):
        return None
    needed = reference if isinstance(reference, int) else len(reference)
    said = [message for _, message in replies(trajectory)]
    keys = [_key(call) for message in said for call in message.tool_calls]
    waste = max(0, len(keys) - needed) + sum(message.unparsed is not None for message in said)
    waste = max(waste, len(keys) - len(set(keys)))
    return score * (1 - min(1.0, waste / max(1, needed)))


_FIND = {"format": well_formed, "calls": calls_right, "task": done, "efficiency": lean}


def _closes(trajectory: Trajectory, last: Message) -> bool:
    # calls that are run leave observations after them, so calls that come last are the episode's end
    return trajectory.messages[-1] is last and bool(last.tool_calls or last.content.strip())


def _wanted(trajectory: Trajectory) -> list[ToolCall] | None:
    calls = trajectory.task.reference.get("calls")
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) and "name" in call for call in calls):
        return None
    return [ToolCall(str(call["name"]), call.get("arguments") or {}) for call in calls]


def _overlap(some: Sequence[Any], others: Sequence[Any]) -> float:
    """Return the share of what both have in what either has, each as often as it is there."""
    one, other = Counter(some), Counter(others)
    both = (one & other).total()
    either = one.total() + other.total() - both
    return both / either if either else 1.0


def _likeness(wanted: ToolCall, made: ToolCall) -> float:
    equal = sum(key in made.arguments and _same(made.arguments[key], value) for key, value in wanted.arguments.items())
    return _overlap(list(made.arguments), list(wanted.arguments)) + equal


def _same(one: Json, other: Json) -> bool:
    try:
        return one == other and isinstance(one, bool) == isinstance(other, bool)
    except RecursionError:
        return False


def _common(some: Sequence[str], others: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(others) + 1)
    for one in some:
        before = 0
        for place, other in enumerate(others, 1):
            before, row[place] = row[place], before + 1 if one == other else max(row[place], row[place - 1])
    return row[-1]


def _key(call: ToolCall) -> str:
    try:
        return json.dumps([call.name, call.arguments], sort_keys=True, default=str)
    except (RecursionError, TypeError, ValueError):
        return call.name
