"""Plays tasks in this process, or shares them among worker processes with an engine each."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rolecraft import agent, catalog, first_thought, loader
from rolecraft.errors import EngineError
from rolecraft.settings import from_dict
from rolecraft.strategies import Chosen
from rolecraft.team import Team
from rolecraft.types import Engine, Environment, Task, Trajectory

EngineOpener = Callable[[], AbstractContextManager[Engine]]
"""Opens an engine and closes it at the end; for workers it must be picklable, as `functools.partial` of a function."""
Explain = Callable[[str], str]
"""Says what is wrong with a call that did not parse."""
Keep = Callable[[int, Trajectory], None]
"""Takes an episode, with the place of its task among those that are played."""

_GRACE = 2.0  # seconds that a worker gets to end


@dataclass(frozen=True, slots=True)
class Players:
    """All that it takes to play a benchmark's tasks, but for an open engine."""

    benchmark: str | Path
    team: Team
    playing: agent.Settings
    explain: Explain
    concurrency: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    strategy: Chosen | None = None
    first_thought: bool = False

    def episodes(self, chosen: Iterable[Task], engine: Engine) -> AsyncIterator[Trajectory]:
        """Yield each task's episode as it ends."""
        return agent.at_once(self.calls(chosen, engine), self.concurrency)

    def numbered(self, chosen: Iterable[Task], engine: Engine) -> AsyncIterator[tuple[int, Trajectory]]:
        """Yield each task's place and its episode as it ends."""

        async def placed(place: int, call: agent.Call[Trajectory]) -> tuple[int, Trajectory]:
            return place, await call()

        waiting = (partial(placed, place, call) for place, call in enumerate(self.calls(chosen, engine)))
        return agent.at_once(waiting, self.concurrency)

    def calls(self, chosen: Iterable[Task], engine: Engine) -> Iterator[agent.Call[Trajectory]]:
        """Yield for each task what plays its episode."""
        open_world = self._open_world()
        openers = (partial(open_world, task) for task in chosen)
        player = agent.greedily if self.strategy is None else self.strategy.player()
        return agent.calls(
            openers,
            self.team,
            engine,
            self.playing,
            seed=self.seed,
            explain=self.explain,
            player=first_thought.prefixed(player) if self.first_thought else player,
        )

    def _open_world(self) -> Callable[[Task], Environment]:
        """Return what opens a task's world: the benchmark's `open`, or, made of its options, its `opener`."""
        benchmark = catalog.find("benchmarks", self.benchmark)
        open_world: Callable[[Task], Environment] = benchmark.open
        if hasattr(benchmark, "opener"):
            open_world = benchmark.opener(from_dict(benchmark.Settings, self.options, f"{self.benchmark} options"))
        return open_world


def play(players: Players, chosen: Iterable[Task], open_engine: EngineOpener, keep: Keep, workers: int = 1) -> None:
    """Give every task's episode to `keep` as it ends; raises EngineError for a worker that failed or died."""
    if workers > 1:
        _play_in_workers(players, list(chosen), open_engine, keep, workers)
    else:
        asyncio.run(_play(players, chosen, open_engine, keep))


async def _play(players: Players, chosen: Iterable[Task], open_engine: EngineOpener, keep: Keep) -> None:
    with open_engine() as engine:
        async for place, episode in players.numbered(chosen, engine):
            keep(place, episode)


def _play_in_workers(
    players: Players, chosen: Sequence[Task], open_engine: EngineOpener, keep: Keep, workers: int
) -> None:
    context = _context()
    count, numbered = min(workers, len(chosen)), list(enumerate(chosen))
    rules = (players.team.next_speaker, players.team.divide, players.team.gives_up)
    own = tuple({path for path in map(loader.origin, rules) if path})
    started: dict[Connection, BaseProcess] = {}
    try:
        with _one_thread():
            for i in range(count):
                reader, writer = context.Pipe(duplex=False)
                started[reader] = context.Process(
                    target=_work, args=(own, pickle.dumps(players), numbered[i::count], open_engine, writer)
                )
                started[reader].start()
                writer.close()  # the worker's copy is then the only one: its end is seen here
        _gather(started, keep)
    finally:
        _stop(list(started.values()))


def _context() -> Any:  # typeshed gives contexts no common type with Process
    """Return how workers are started: forked, where that is safe, off a helper that has loaded what this one has.

    The helper starts with the first worker and stays, so that only that one waits seconds for torch.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in _PRELOADED if name in sys.modules])
    return context


_PRELOADED = ("rolecraft.engine",)


def _work(
    own: tuple[Path, ...],
    players: bytes,
    chosen: Sequence[tuple[int, Task]],
    open_engine: EngineOpener,
    writer: Connection,
) -> None:
    """Be a worker: send each episode with its task's place as it ends, then None; or as text why something failed.

    `own` are the user's files that have the team's rules, without which the pickled `players` are not read.
    """
    # Ctrl-C reaches the parent, who then ends its workers; sys.exit lets them close engines and tools first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        for path in own:
            loader.load(path)

        def keep(place: int, episode: Trajectory) -> None:
            writer.send((chosen[place][0], episode))

        asyncio.run(_play(pickle.loads(players), [task for _, task in chosen], open_engine, keep))
        writer.send(None)
    except BrokenPipeError:  # the parent is gone
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - a process boundary: the parent raises it again, in words
        writer.send(f"{type(error).__name__}: {error}")


def _gather(workers: Mapping[Connection, BaseProcess], keep: Keep) -> None:
    """Keep what the workers send until every one is done; raises EngineError for one that failed or died."""
    running = set(workers)
    while running:
        ready = wait(list(running))
        for reader in [r for r in running if r in ready]:
            try:
                result = reader.recv()
            except (EOFError, OSError):
                workers[reader].join(timeout=_GRACE)
                raise EngineError(
                    f"an evaluation worker died with exit code {workers[reader].exitcode} (-9 is most often too little "
                    "memory); use fewer workers and repeat the command: finished episodes are kept"
                ) from None
            if isinstance(result, str):
                raise EngineError(f"an evaluation worker failed: {result}")
            if result is None:
                running.remove(reader)
            else:
                keep(*result)


def _stop(workers: Sequence[BaseProcess]) -> None:
    """End the workers: those that are done by themselves, others by SIGTERM, and what does not heed it by SIGKILL."""
    started = [worker for worker in workers if worker.pid is not None]
    for worker in started:
        worker.join(timeout=_GRACE)
        worker.terminate()
    for worker in started:
        worker.join(timeout=_GRACE)
        worker.kill()
        worker.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started inside find OMP_NUM_THREADS=1 before they import torch."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
