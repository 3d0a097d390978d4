"""Plays the same tasks in several ways at once, so that what their prompts have in common is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from rolecraft import agent
from rolecraft.evaluate.batches import Batch, Settings, begin, players_of
from rolecraft.evaluate.playing import Explain
from rolecraft.renderers import why_unparsed
from rolecraft.store import Run, lock
from rolecraft.team import Team
from rolecraft.types import Engine, Trajectory


@dataclass(frozen=True)
class Part:
    """One way in which the tasks are played: what `evaluate` is told of it. The engines of several share a cache."""

    settings: Settings
    team: Team
    engine: Engine
    run: Run
    playing: agent.Settings


async def play_together(parts: Sequence[Part], concurrency: int, explain: Explain = why_unparsed) -> None:
    """Play what the parts' runs miss, each task in all parts before the next, `concurrency` episodes at once.

    Raises what `evaluate` raises; what was finished stays.
    """
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(lock(part.run.path))
        batches = [begin(part.settings, part.team, part.run, part.playing) for part in parts]
        async for batch, trajectory in agent.at_once(_in_turn(parts, batches, explain), concurrency):
            batch.keep(trajectory)


def _in_turn(
    parts: Sequence[Part], batches: Sequence[Batch], explain: Explain
) -> Iterator[agent.Call[tuple[Batch, Trajectory]]]:
    """Yield what plays each part's first task, then each one's second, and so on, of those that are missing."""

    async def kept(batch: Batch, call: agent.Call[Trajectory]) -> tuple[Batch, Trajectory]:
        return batch, await call()

    missing = [batch.missing for batch in batches]
    wanted = [{task.id for task in tasks} for tasks in missing]
    calls = [
        players_of(part.settings, part.team, part.playing, explain).calls(tasks, part.engine)
        for part, tasks in zip(parts, missing, strict=True)
    ]
    for task in batches[0].tasks:
        for batch, names, waiting in zip(batches, wanted, calls, strict=True):
            if task.id in names:
                yield partial(kept, batch, next(waiting))
