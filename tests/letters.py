"""A benchmark for tests: toolworld's tasks, judged by how often the letter e is written.

An untuned base earns nothing by toolworld's own judge, and there must be something to learn.
"""

from __future__ import annotations

from dataclasses import replace

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, tasks
from rolecraft.types import Environment, Task, Trajectory, Verdict

__all__ = ["Settings", "open", "tasks"]


def open(task: Task) -> Environment:
    """Open the world of a task; its episode earns the share of e among the letters that were written."""
    return replace(toolworld.open(task), judge=share)


def share(trajectory: Trajectory) -> Verdict:
    """Return the share of e among all that was written."""
    said = "".join(turn.message.content + str(turn.message.unparsed or "") for turn in trajectory.turns)
    return Verdict(said.count("e") / max(1, len(said)))
