"""Plays a benchmark's tasks for training: which ones a step takes, with what seed, and what is told of the episodes."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, fields, replace
from functools import partial

from rolecraft import agent, catalog
from rolecraft.errors import SettingsError
from rolecraft.recipe import DataSettings, open_benchmark
from rolecraft.renderers import why_unparsed
from rolecraft.team import Team
from rolecraft.train.processes import ALONE, Processes
from rolecraft.types import Engine, Environment, Task, Trajectory


@dataclass(frozen=True, slots=True)
class World:
    """A benchmark's tasks and what opens one."""

    tasks: tuple[Task, ...]
    open: Callable[[Task], Environment]

    def of_step(self, step: int, count: int) -> tuple[Task, ...]:
        """Return the tasks of a step, counted from 1: one after the other, and from the first again at the end."""
        first = (step - 1) * count
        return tuple(self.tasks[place % len(self.tasks)] for place in range(first, first + count))

    def others(self, step: int, count: int, taken: Set[str]) -> tuple[Task, ...]:
        """Return the tasks from where a step of `count` begins, all of them once but those whose ids are `taken`."""
        first = (step - 1) * count % len(self.tasks)
        return tuple(one for one in (*self.tasks[first:], *self.tasks[:first]) if one.id not in taken)


def world(data: DataSettings, size: int, seed: int | None = None) -> World:
    """Return `size` tasks of the recipe's benchmark, at another `seed` if one is given.

    Raises SettingsError where there is none, or it has no tasks to train on.
    """
    if not data.benchmark:
        raise SettingsError(
            "this recipe plays tasks while it learns; set data.benchmark to a benchmark with a training split"
        )
    known = {one.name for one in fields(catalog.find("benchmarks", data.benchmark).Settings)}
    benchmark, settings = open_benchmark(replace(data, size=size if "size" in known else None))
    found = tuple(benchmark.tasks(settings, data.split, data.seed if seed is None else seed))[:size]
    if not found:
        raise SettingsError(f"{data.benchmark!r} has no tasks in split {data.split!r}; name another, or raise its size")
    return World(found, benchmark.opener(settings) if hasattr(benchmark, "opener") else benchmark.open)


def collect(
    told: World,
    asked: Sequence[Task],
    engine: Engine,
    team: Team,
    playing: agent.Settings,
    seed: int,
    processes: Processes = ALONE,
) -> list[Trajectory]:
    """Play the tasks at once and return their episodes in the order of the tasks, whichever ended first.

    Each of several `processes` plays a share, and returns the episodes of all.
    """
    own = processes.run_of(len(asked))
    found = played([partial(told.open, asked[place]) for place in own], engine, team, playing, seed)
    return processes.merged({place: found[asked[place].id] for place in own})


def played(
    openers: Sequence[agent.Opener], engine: Engine, team: Team, playing: agent.Settings, seed: int
) -> dict[str, Trajectory]:
    """Play all at once and return the episodes by their tasks' ids."""

    async def gather() -> dict[str, Trajectory]:
        found = agent.play(openers, team, engine, playing, concurrency=len(openers), seed=seed, explain=why_unparsed)
        return {episode.id: episode async for episode in found}

    return asyncio.run(gather())


def measure(episodes: Sequence[Trajectory]) -> dict[str, float]:
    """Return what is told of a step's episodes: the score, and how often tools were called.

    `over_calls` is the share of episodes that call more than the right solution does, where that is known: a student
    may learn to call too much, and its loss does not show it (arXiv 2607.07050).
    """
    made = [sum(len(message.tool_calls) for message in episode.messages) for episode in episodes]
    right = [episode.task.reference.get("calls") for episode in episodes]
    over = [count > len(calls) for count, calls in zip(made, right, strict=True) if calls is not None]
    return {
        "score": statistics.fmean(episode.verdict.score if episode.verdict else 0.0 for episode in episodes),
        "calls": statistics.fmean(made),
        "turns": statistics.fmean(len(episode.turns) for episode in episodes),
        "answered": statistics.fmean(episode.stop == "answered" for episode in episodes),
        **({"over_calls": statistics.fmean(over)} if over else {}),
    }
