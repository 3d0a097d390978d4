"""An episode as one plain async function, and `play`, which runs many of them at once by any strategy."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import rolecraft.step as step
from rolecraft.step import Episode, Settings, remarks
from rolecraft.team import Team
from rolecraft.types import Engine, Environment, Message, Trajectory

__all__ = [
    "Call",
    "Opener",
    "Player",
    "Settings",
    "at_once",
    "calls",
    "episode",
    "greedily",
    "opened",
    "play",
    "remarks",
    "together",
]

_Result = TypeVar("_Result")

Call = Callable[[], Coroutine[Any, Any, _Result]]
"""Begins something that others may run beside."""

Opener = Callable[[], Environment]
"""Opens one task's world; called when its episode begins, so that waiting episodes hold no processes."""

Player = Callable[[Episode], Awaitable[Trajectory]]
"""Plays one episode to its judged record; the strategies are such."""


async def greedily(episode: Episode) -> Trajectory:
    """Play one episode reply by reply, each taken as it comes (a chain of thoughts and actions, as in ReAct)."""
    end = await step.to_the_end(episode, step.begin(episode), episode.environment.toolbox.call)
    return await step.finish(episode, end)


async def episode(
    environment: Environment,
    team: Team,
    engine: Engine,
    settings: Settings = Settings(),
    *,
    seed: int = 0,
    explain: Callable[[str], str] = lambda text: "it is not a valid call",
    watch: Callable[[Message], None] = lambda message: None,
    player: Player = greedily,
) -> Trajectory:
    """Play one episode and return its judged record; the caller closes the environment.

    `explain` says what is wrong with a call that did not parse; `watch` sees each new message as it arrives.
    A model's mistakes end up in the record; only a fault of ours raises.
    """
    if team.form is None:
        return await player(Episode(environment, team, engine, settings, seed, explain, watch))
    async with team.form.opened(environment) as world:
        return await player(Episode(world, team, engine, settings, seed, explain, watch))


def play(
    openers: Iterable[Opener],
    team: Team,
    engine: Engine,
    settings: Settings = Settings(),
    *,
    concurrency: int = 16,
    seed: int = 0,
    explain: Callable[[str], str] = lambda text: "it is not a valid call",
    player: Player = greedily,
) -> AsyncIterator[Trajectory]:
    """Play episodes by `player`, at most `concurrency` at once, and yield each as it finishes.

    An episode samples from a seed made of `seed` and its task's id, so results depend neither on the order of
    admission nor on how tasks are spread over processes.
    """
    return at_once(calls(openers, team, engine, settings, seed=seed, explain=explain, player=player), concurrency)


def calls(
    openers: Iterable[Opener],
    team: Team,
    engine: Engine,
    settings: Settings,
    *,
    seed: int,
    explain: Callable[[str], str],
    player: Player,
) -> Iterator[Call[Trajectory]]:
    """Yield for each episode what plays it, as `play` does; for callers that run several plays at once."""

    async def one(opener: Opener) -> Trajectory:
        async with opened(opener) as environment:
            drawn = _episode_seed(seed, environment.task.id)
            return await episode(environment, team, engine, settings, seed=drawn, explain=explain, player=player)

    return (partial(one, opener) for opener in openers)


async def at_once(waiting: Iterable[Call[_Result]], concurrency: int) -> AsyncIterator[_Result]:
    """Yield what the calls return as each ends, at most `concurrency` of them at once, begun in their order.

    The first that fails ends the others, and its exception is raised after what had ended with it is yielded.
    """
    waiting = iter(waiting)
    running: set[asyncio.Task[_Result]] = set()
    try:
        while True:
            while len(running) < concurrency and (following := next(waiting, None)) is not None:
                running.add(asyncio.create_task(following()))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for finished in sorted(done, key=_has_failed):  # what is finished is not lost with one that is not
                yield finished.result()
    finally:
        for unfinished in running:
            unfinished.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def opened(opener: Opener) -> AsyncIterator[Environment]:
    """Give a world that is open until the block ends, whatever ends it."""
    environment = await _open(opener)
    try:
        yield environment
    finally:
        await _close(environment)


async def together(tasks: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Return the results of all, run at once; the first that fails ends the others, and its exception is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one) for one in tasks]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    return [task.result() for task in running]


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _episode_seed(seed: int, task_id: str) -> int:
    """Return 48 bits of a hash; an episode's turns add their number to it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task_id}".encode()).digest()[:6])


async def _open(opener: Opener) -> Environment:
    """Open a world off the event loop; one that opens while its episode is cancelled is closed again."""
    opening = asyncio.ensure_future(asyncio.to_thread(opener))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _close(await opening)
        raise


async def _close(environment: Environment) -> None:
    """Close a world off the event loop, to its end though its episode is cancelled: a thread not begun would be."""
    closing = asyncio.ensure_future(asyncio.to_thread(environment.toolbox.close))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await closing
        raise
