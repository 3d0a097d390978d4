"""Plays tasks several times each, and tells what state the world was in before each reply.

Not covered: what the tries are worth (`credit`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rolecraft import agent
from rolecraft.team import Team
from rolecraft.train.collecting import World, played
from rolecraft.train.processes import ALONE, Processes
from rolecraft.types import Engine, Environment, Json, Observation, Task, ToolCall, Toolset, ToolSpec, Trajectory

_MARK = "#"


@dataclass(slots=True)
class Watched:
    """A toolbox that notes its state after each call, as a digest; all else is the toolbox's own."""

    toolbox: Toolset
    before: str = ""
    after: list[tuple[ToolCall, str]] = field(default_factory=list)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as the model is told of them, in order."""
        return self.toolbox.specs

    async def call(self, call: ToolCall) -> Observation:
        """Run one call."""
        observation = await self.toolbox.call(call)
        self.after.append((call, digest(await asyncio.to_thread(self.toolbox.state))))
        return observation

    def fork(self) -> Toolset:
        """Return a fork of the toolbox, which nobody watches."""
        return self.toolbox.fork()

    def branch(self) -> Toolset:
        """Return a branch of the toolbox, which nobody watches."""
        return self.toolbox.branch()

    def commit(self) -> None:
        """Commit the toolbox."""
        self.toolbox.commit()

    def state(self) -> Mapping[str, Json]:
        """Return the toolbox's state."""
        return self.toolbox.state()

    def close(self) -> None:
        """Close the toolbox."""
        self.toolbox.close()


@dataclass(frozen=True, slots=True)
class Played:
    """A judged episode of a try, the number of its task's group, and the world's state before each reply."""

    episode: Trajectory
    group: int
    states: tuple[Hashable, ...]


def play(
    told: World,
    asked: Sequence[Task],
    group: int,
    engine: Engine,
    team: Team,
    playing: agent.Settings,
    seed: int,
    first: int = 0,
    *,
    watch: bool = False,
    processes: Processes = ALONE,
) -> list[Played]:
    """Play each task `group` times, all at once, and return the tries in the order of the tasks; `watch` the states.

    Their groups are numbered from `first`.

    The tries at a task differ by their seeds alone, so they share the prompt, which is computed once. Each of several
    `processes` plays a run of the tries, and returns those of all.
    """
    boxes: dict[str, Watched] = {}
    names = [
        (place, f"{task.id}{_MARK}{first + place}.{number}")
        for place, task in enumerate(asked)
        for number in range(group)
    ]
    own = {number: names[number] for number in processes.run_of(len(names))}
    openers = [partial(_open, told.open, asked[place], name, boxes if watch else None) for place, name in own.values()]
    found = played(openers, engine, team, playing, seed)
    return processes.merged(
        {
            number: Played(found[name], first + place, states(found[name], boxes.get(name)))
            for number, (place, name) in own.items()
        }
    )


def states(episode: Trajectory, box: Watched | None) -> tuple[Hashable, ...]:
    """Return what the world was before each reply; nothing where nobody watched.

    That is who speaks, the state of the tools, and what they have shown so far, in whatever order: where tools only
    look things up, what is known is all that changes.
    """
    if box is None:
        return ()
    found, shown, done, waiting = list[Hashable](), set[str](), set[str](), list(episode.turns)
    for message in episode.messages[len(episode.task.messages) :]:
        if waiting and message == waiting[0].message:
            marks = [mark for call, mark in box.after if call.id in done]
            found.append((waiting.pop(0).speaker, marks[-1] if marks else box.before, frozenset(shown)))
            done |= {call.id for call in message.tool_calls}
        elif message.role == "tool":
            shown.add(digest([message.name, message.content]))
    return tuple(found)


def digest(value: Json) -> str:
    """Return a short name of a value; equal values have the same."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _open(
    open_task: Callable[[Task], Environment], task: Task, name: str, boxes: dict[str, Watched] | None
) -> Environment:
    environment = open_task(task)
    environment = replace(environment, task=replace(environment.task, id=name))
    if boxes is None:
        return environment
    boxes[name] = Watched(environment.toolbox, digest(environment.toolbox.state()))
    return replace(environment, toolbox=boxes[name])
