"""What a judge is, the parts of a trajectory that all of them read, and `weigh`, which makes one judge of several.

To add a judge, write `judges/x.py` with `judge(trajectory) -> Verdict`: pure (no clock, file, network or random number;
the same trajectory gets the same verdict), its score and parts in 0..1, its reason in words a user can act on. A bad
trajectory is a low score with a reason, never an exception: what a model or a data set wrote is hostile, so bound it.
One that needs an engine, a group or settings is made by a function that takes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from rolecraft.errors import SettingsError
from rolecraft.types import Judge, Message, Trajectory, Verdict

__all__ = ["JudgeFile", "replies", "weigh"]


class JudgeFile(Protocol):
    """The contract of a file in this folder."""

    def judge(self, trajectory: Trajectory) -> Verdict:
        """Return the verdict on one trajectory."""
        ...


def replies(trajectory: Trajectory) -> tuple[tuple[int, Message], ...]:
    """Return the assistant messages of the episode with their places; those of the task's opening are not its own."""
    opening = trajectory.task.messages
    start = len(opening) if trajectory.messages[: len(opening)] == opening else 0
    numbered = enumerate(trajectory.messages)
    return tuple((place, m) for place, m in numbered if place >= start and m.role == "assistant")


def weigh(judges: Mapping[str, tuple[Judge, float]]) -> Judge:
    """Return a judge whose score is the weighted mean of the named ones; weights are relative.

    Its parts are each judge's score under its name, and that judge's own parts as `name.part`; its reason names every
    judge below 1. Raises SettingsError for no judges or a weight that is not a positive number; the judge it returns
    raises it for a judge whose score is not in 0..1.
    """
    if not judges:
        raise SettingsError("no judges to weigh; give at least one as {name: (judge, weight)}")
    for name, (_, weight) in judges.items():
        if not (math.isfinite(weight) and weight > 0):
            raise SettingsError(f"the weight of judge {name!r} is {weight!r}; it must be a positive number")
    total = math.fsum(weight for _, weight in judges.values())

    def judge(trajectory: Trajectory) -> Verdict:
        verdicts = {name: _checked(name, part(trajectory)) for name, (part, _) in judges.items()}
        score = math.fsum(verdicts[name].score * weight for name, (_, weight) in judges.items()) / total
        parts = {name: verdict.score for name, verdict in verdicts.items()}
        inner = {f"{name}.{part}": value for name, verdict in verdicts.items() for part, value in verdict.parts.items()}
        reasons = [f"{name}: {verdict.reason}" for name, verdict in verdicts.items() if verdict.score < 1]
        return Verdict(min(1.0, score), "; ".join(reasons), parts | inner)

    return judge


def _checked(name: str, verdict: Verdict) -> Verdict:
    if not 0 <= verdict.score <= 1:
        raise SettingsError(f"judge {name!r} returned the score {verdict.score!r}; make it return one in 0..1")
    return verdict
