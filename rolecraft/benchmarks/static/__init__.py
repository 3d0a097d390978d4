"""static: each annotated step of your trajectories is one task, asked on its annotated history (teacher-forced).

These are α-UMi's static metrics (arXiv 2401.07324, section 4.1). Nothing runs: an episode ends with the first reply
that calls, and only its first step counts. A team plays on the history divided among its roles, so that one file
serves every team. The metrics stand in the verdicts' parts; a task's score is that of `metrics.score`.

Not covered: replies of weight 0, calls that do not parse, and what would have come of another step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rolecraft import catalog, store, team, thoughts
from rolecraft.benchmarks import _asked
from rolecraft.benchmarks.static.judge import judge
from rolecraft.errors import DataError, SettingsError
from rolecraft.importers import GIVE_UP
from rolecraft.team import Team
from rolecraft.types import Environment, Json, Message, Task, ToolCall, Trajectory

__all__ = ["SPLITS", "Settings", "in_roles", "judge", "open", "reference", "tasks"]

SPLITS = ("test",)


@dataclass(frozen=True, slots=True)
class Settings:
    """Which trajectories, read as `importer` does; without a `path`, a few examples.

    Of more than `size` steps a sample is asked that the seed decides. `thoughts`: histories that have none get those
    that training writes by rule (see thoughts). A bad row stops, or is skipped.
    """

    path: Path | None = None
    importer: str = "openai"
    size: int | None = None
    thoughts: Literal["none", "rule"] = "none"
    on_bad_row: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        """Raise SettingsError for a size that asks nothing."""
        if self.size is not None and self.size < 1:
            raise SettingsError(f"static needs a size of at least 1; got {self.size!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the steps of the trajectories, in their order; raises DataError for a row that has none to ask for."""
    if split not in SPLITS:
        raise SettingsError(f"static has no split {split!r}; it has {', '.join(SPLITS)}")
    found = [step for trajectory in _read(settings) for step in _steps(_thinking(trajectory, settings))]
    if settings.size is not None and settings.size < len(found):
        chosen = sorted(random.Random(seed).sample(range(len(found)), settings.size))
        found = [found[place] for place in chosen]
    return tuple(found)


def in_roles(asked: Sequence[Task], players: Team) -> tuple[Task, ...]:
    """Return the tasks with their histories in a team's roles; raises NotFound for a team that has no rule for it."""
    follows = players.next_speaker(Message("assistant", speaker=players.first))
    unmarked = "call" if follows is not None and players.role(follows).acts else "finish"
    told = {"unmarked": unmarked, "acting": [role.name for role in players.roles if role.acts]}
    return tuple(
        replace(task, messages=_in_roles(task.messages, players), reference={**task.reference, **told})
        for task in asked
    )


def open(task: Task) -> Environment:
    """Open the task for one episode, which ends with its calls; raises DataError if the task is no step."""
    if missing := next((key for key in ("plan", "calls", "answer") if key not in task.reference), None):
        raise DataError(f"task {task.id!r} has no {missing!r} in its reference; only tasks of static open here")
    return _asked.open_told(task, judge)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return the annotated step, in the roles of a team."""
    players = team.find(team_name)
    calls = tuple(ToolCall(one["name"], one["arguments"]) for one in task.reference["calls"])
    solved = _asked.solved(task, Message("assistant", task.reference["answer"], calls), team_name, judge)
    record = replace(solved, stop="gave_up" if players.gives_up(solved.messages[-1]) else "answered")
    return replace(record, verdict=judge(record))


def _read(settings: Settings) -> Iterator[Trajectory]:
    if settings.path is None:
        example = catalog.find("importers", "toolbench")
        return iter([example.convert(example.EXAMPLE)])
    return store.read_trajectories(settings.path, settings.importer, settings.on_bad_row)


def _thinking(trajectory: Trajectory, settings: Settings) -> Trajectory:
    return thoughts.written(trajectory) if settings.thoughts == "rule" else trajectory


def _steps(trajectory: Trajectory) -> Iterator[Task]:
    """Yield each annotated step: a reply, or what several roles said until a call or an answer."""
    start = 0
    for place, message in enumerate(trajectory.messages):
        if message.role != "assistant":
            start = place + 1
            continue
        following = trajectory.messages[place + 1 : place + 2]
        if _is_lone(message) or not following or following[0].role != "assistant":
            said = trajectory.messages[start : place + 1]
            if any(one.weight != 0 for one in said) and all(one.unparsed is None for one in said):
                yield _task(trajectory, start, said)
            start = place + 1


def _task(trajectory: Trajectory, start: int, said: Sequence[Message]) -> Task:
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for one in said for call in one.tool_calls]
    answer = said[-1].content.rpartition("</think>")[2].strip()
    gives_up = answer == GIVE_UP or (not _is_lone(said[-1]) and any(each.gives_up(said[-1]) for each in _teams()))
    plan = "call" if calls else "give up" if gives_up else "finish"
    told: Mapping[str, Json] = {
        "family": plan,
        "plan": plan,
        "calls": calls,
        "answer": "" if calls else GIVE_UP if gives_up else answer,
    }
    return Task(f"{trajectory.id}/{start}", trajectory.messages[:start], trajectory.task.tools, told)


def _teams() -> Iterator[Team]:
    return (team.find(name) for name in catalog.names("teams"))


def _is_lone(message: Message) -> bool:
    return (message.speaker or "assistant") == "assistant"


def _in_roles(messages: Sequence[Message], players: Team) -> tuple[Message, ...]:
    divided = tuple(messages)
    if "assistant" not in players.speakers:
        divided = team.divided(messages, players)
    known = {*players.speakers, None, "assistant"}
    strange = next((one.speaker for one in divided if one.role == "assistant" and one.speaker not in known), None)
    if strange is not None:
        raise DataError(
            f"the history has messages of {strange!r}, which is no role of team {players.name!r} "
            f"({', '.join(players.speakers)}); name the team whose they are, or give trajectories of a lone assistant"
        )
    return divided
