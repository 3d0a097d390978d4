"""Plays a benchmark with a team, resumably and in several processes if wanted, and shows its scores as tables and JSON.

Not covered: static evaluation against annotated replies.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rolecraft import agent, catalog
from rolecraft.errors import DataError, EngineError, SettingsError
from rolecraft.judges import failures
from rolecraft.renderers import why_unparsed
from rolecraft.scores import Score, Scores, paired, score
from rolecraft.settings import from_dict, to_dict
from rolecraft.store import Run, atomic
from rolecraft.team import Team
from rolecraft.types import Engine, Json, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Settings:
    """What is played: a benchmark's split at a seed, its own `options`, and how many tasks and episodes at once.

    `name` is the row of the score table that the run fills, such as the model's. `shots` is how many solved tasks
    stand before each question, for baselines. Each of `workers` processes plays `concurrency` episodes at once.
    `model` tells what plays (see `bases.identity`), `command` how to repeat it; both are recorded with the run.
    """

    name: str = "model"
    benchmark: str = "toolworld"
    split: str = "test"
    seed: int = 0
    limit: int | None = None
    shots: int = 0
    concurrency: int = 16
    workers: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    command: str = ""


EngineOpener = Callable[[], AbstractContextManager[Engine]]
"""Opens an engine and closes it at the end; for workers it must be picklable, as `functools.partial` of a function."""

_GRACE = 2.0  # seconds that a worker gets to end
Explain = Callable[[str], str]
"""Says what is wrong with a call that did not parse."""


def tasks(settings: Settings, team: Team) -> tuple[Task, ...]:
    """Return the tasks that `settings` name, the first `limit` of them; raises NotFound, SettingsError or DataError."""
    benchmark = catalog.find("benchmarks", settings.benchmark)
    options = from_dict(benchmark.Settings, settings.options, f"{settings.benchmark} options")
    found: tuple[Task, ...] = tuple(benchmark.tasks(options, settings.split, settings.seed))[: settings.limit]
    if not found:
        raise DataError(f"{settings.benchmark!r} has no tasks in split {settings.split!r}; raise its size or the limit")
    if settings.shots and not hasattr(benchmark, "few_shot"):
        raise SettingsError(f"{settings.benchmark!r} has no examples to show (few_shot); use shots 0")
    return tuple(benchmark.few_shot(found, team.name, settings.shots)) if settings.shots else found


async def evaluate(
    settings: Settings,
    team: Team,
    engine: Engine,
    run: Run,
    playing: agent.Settings = agent.Settings(),
    *,
    explain: Explain = why_unparsed,
) -> Scores:
    """Play on an open engine the tasks that `run` does not hold yet, write each episode as it ends, and score all.

    Raises EngineError when the engine fails and DataError when `run` is of another evaluation; what was finished
    stays in `run`, and the same call goes on from there.
    """
    batch = _begin(settings, team, run, playing)
    async for trajectory in _episodes(settings, batch.missing, team, engine, playing, explain):
        batch.keep(trajectory)
    return batch.scores()


def run(
    settings: Settings,
    team: Team,
    open_engine: EngineOpener,
    run: Run,
    playing: agent.Settings = agent.Settings(),
    *,
    explain: Explain = why_unparsed,
    console: Console | None = None,
) -> Scores:
    """Do what `evaluate` does in this process or, where `settings.workers` are several, in fresh ones, with progress.

    Each worker has one thread and an engine of its own: small models gain more from processes than from threads.
    This process alone writes `run`. A worker's failure is raised here as EngineError, and stops the others.
    """
    batch = _begin(settings, team, run, playing)
    _play_all([batch], team, open_engine, playing, explain, console)
    return batch.scores()


def play_splits(
    settings: Settings,
    team: Team,
    open_engine: EngineOpener,
    run: Run,
    playing: agent.Settings = agent.Settings(),
    *,
    explain: Explain = why_unparsed,
    console: Console | None = None,
) -> dict[str, Scores]:
    """Do what `run` does for several splits, `settings.split` naming them as `test+tools`, and open engines only once.

    Each split has its own run folder, of its name, in `run`.
    """
    splits = [replace(settings, split=split) for split in settings.split.split("+")]
    batches = [_begin(each, team, Run(run.path / each.split), playing) for each in splits]
    _play_all(batches, team, open_engine, playing, explain, console)
    return {batch.settings.split: batch.scores() for batch in batches}


@dataclass(slots=True)
class _Batch:
    """The tasks of one split, the run that holds their episodes, and those that it holds already, by task id."""

    settings: Settings
    tasks: tuple[Task, ...]
    run: Run
    held: dict[str, Trajectory]

    @property
    def missing(self) -> list[Task]:
        return [task for task in self.tasks if task.id not in self.held]

    def keep(self, trajectory: Trajectory) -> None:
        self.run.append(trajectory)
        self.held[trajectory.task.id] = trajectory

    def scores(self) -> Scores:
        return score((self.held[task.id] for task in self.tasks), seed=self.settings.seed)


def _begin(settings: Settings, team: Team, run: Run, playing: agent.Settings) -> _Batch:
    """Record what is played, and find what is there already; raises DataError if that was played otherwise."""
    chosen = tasks(settings, team)  # a misspelt option is told as one, not as another evaluation
    told = {"evaluation": to_dict(settings), "team": {"preset": team.name}, "playing": to_dict(playing)}
    before, now = _identity(run.settings()), _identity(told)
    for key in now:
        if before and before.get(key) != now[key]:
            raise DataError(
                f"{str(run.path)!r} holds another evaluation: {key} was {before.get(key)!r}, now {now[key]!r}; "
                "choose another run folder, or repeat the command that made this one"
            )
    run.write_settings(told)
    run.write_lineage({"command": settings.command, "model": settings.model})
    wanted = {task.id for task in chosen}
    return _Batch(settings, chosen, run, {t.task.id: t for t in run.trajectories() if t.task.id in wanted})


def _identity(told: Mapping[str, Any]) -> dict[str, Json]:
    """Return what two runs must share for the episodes of one to stand in the other."""
    free = ("name", "limit", "concurrency", "workers", "command")
    evaluation = {key: value for key, value in told.get("evaluation", {}).items() if key not in free}
    return evaluation and {**evaluation, **{key: told.get(key) for key in ("team", "playing")}}


def _play_all(
    batches: Sequence[_Batch],
    team: Team,
    open_engine: EngineOpener,
    playing: agent.Settings,
    explain: Explain,
    console: Console | None,
) -> None:
    settings = batches[0].settings
    owners = {task.id: batch for batch in batches for task in batch.tasks}
    missing = [task for batch in batches for task in batch.missing]
    part = _Part(settings, team, open_engine, playing, explain)
    with Progress(*Progress.get_default_columns(), "{task.completed}/{task.total}", console=console) as bar:
        shown = bar.add_task(settings.name, total=len(owners), completed=len(owners) - len(missing))

        def keep(trajectory: Trajectory) -> None:
            owners[trajectory.task.id].keep(trajectory)
            bar.advance(shown)

        if missing and settings.workers > 1:
            _play_in_workers(part, missing, keep)
        elif missing:
            asyncio.run(part.play(missing, keep))


@dataclass(frozen=True, slots=True)
class _Part:
    """All that one process needs to play tasks."""

    settings: Settings
    team: Team
    open_engine: EngineOpener
    playing: agent.Settings
    explain: Explain

    async def play(self, chosen: Sequence[Task], keep: Callable[[Trajectory], None]) -> None:
        with self.open_engine() as engine:
            async for episode in _episodes(self.settings, chosen, self.team, engine, self.playing, self.explain):
                keep(episode)


def _episodes(
    settings: Settings, chosen: Sequence[Task], team: Team, engine: Engine, playing: agent.Settings, explain: Explain
) -> AsyncIterator[Trajectory]:
    open_world = catalog.find("benchmarks", settings.benchmark).open
    openers = (partial(open_world, task) for task in chosen)
    many = settings.concurrency
    return agent.play(openers, team, engine, playing, concurrency=many, seed=settings.seed, explain=explain)


def _play_in_workers(part: _Part, chosen: Sequence[Task], keep: Callable[[Trajectory], None]) -> None:
    context = _context()
    count = min(part.settings.workers, len(chosen))
    workers: dict[Connection, BaseProcess] = {}
    try:
        with _one_thread():
            for i in range(count):
                reader, writer = context.Pipe(duplex=False)
                workers[reader] = context.Process(target=_work, args=(part, chosen[i::count], writer))
                workers[reader].start()
                writer.close()  # the worker's copy is then the only one: its end is seen here
        _gather(workers, keep)
    finally:
        _stop(list(workers.values()))


def _context() -> Any:  # typeshed gives contexts no common type with Process
    """Return how workers are started: forked, where the system can, off a helper that has loaded what this one has.

    The helper starts with the first worker and stays, so that only that one waits seconds for torch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in _PRELOADED if name in sys.modules])
    return context


_PRELOADED = ("rolecraft.engine",)


def _work(part: _Part, chosen: Sequence[Task], writer: Connection) -> None:
    """Be a worker: send each episode as it finishes, then None; send the reason as text when something fails."""
    # Ctrl-C reaches the parent, who then ends its workers; sys.exit lets them close engines and tools first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        asyncio.run(part.play(chosen, writer.send))
        writer.send(None)
    except BrokenPipeError:  # the parent is gone
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - a process boundary: the parent raises it again, in words
        writer.send(f"{type(error).__name__}: {error}")


def _gather(workers: Mapping[Connection, BaseProcess], keep: Callable[[Trajectory], None]) -> None:
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
                keep(result)


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


def comparison(a: Iterable[Trajectory], b: Iterable[Trajectory]) -> Table:
    """Return the paired test of `b` against `a` as a table."""
    found = paired(a, b)
    table = Table(title="against the other run, on the same tasks", title_justify="left")
    for column in ("difference", "95 % interval", "p", "better", "worse", "n", "test"):
        table.add_column(column, justify="right")
    low, high = (100 * bound for bound in found.interval)
    counts = (str(found.better), str(found.worse), str(found.n))
    table.add_row(f"{100 * found.difference:+.1f}", f"{low:+.1f} to {high:+.1f}", f"{found.p:.4f}", *counts, found.test)
    return table


def score_table(rows: Mapping[str, Mapping[str, Scores]]) -> Table:
    """Return the table of models or baselines by split: score in percent, 95 % interval, n."""
    splits = list(dict.fromkeys(split for row in rows.values() for split in row))
    cells = {name: [row.get(split) for split in splits] for name, row in rows.items()}
    return _table("score, % of tasks (95 % interval)", ["", *splits], cells)


def family_table(columns: Mapping[str, Scores]) -> Table:
    """Return the table of families by model or split."""
    names = sorted({name for scores in columns.values() for name in scores.families})
    cells = {name: [scores.families.get(name) for scores in columns.values()] for name in names}
    return _table("score by family, % (95 % interval)", ["family", *columns], cells)


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Score | Scores | None]]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for name, found in rows.items():
        table.add_row(name, *map(_cell, found))
    return table


def failure_table(columns: Mapping[str, Scores]) -> Table:
    """Return the table of failure classes by model or split, as counts of failed tasks."""
    table = Table(title="why tasks failed (count)", title_justify="left")
    table.add_column("class")
    table.add_column("meaning", style="dim")
    for column in columns:
        table.add_column(column, justify="right")
    for name, meaning in failures.CLASSES.items():
        counts = [scores.failures.get(name, 0) for scores in columns.values()]
        if any(counts):
            table.add_row(name, meaning, *map(str, counts))
    return table


def scores_json(scores: Scores) -> dict[str, Json]:
    """Return what `rolecraft eval --json` prints: score, n, interval, families; all scores in 0..1."""
    families = {name: _plain(found) for name, found in scores.families.items()}
    return {**_plain(scores), "families": families}


def write_summary(
    path: Path,
    untuned: Mapping[str, Mapping[str, Scores]],
    tuned: Mapping[str, Scores],
    seconds: Mapping[str, float],
    *,
    policies: Mapping[str, Mapping[str, Scores]] | None = None,
) -> None:
    """Write the quickstart's `summary.json`: rows by name and split, the tuned model by split, seconds by step."""
    summary = {
        "untuned": {name: _brief(row) for name, row in untuned.items()},
        "tuned": _brief(tuned),
        "policies": {name: _brief(row) for name, row in (policies or {}).items()},
        "seconds": {step: round(spent, 3) for step, spent in seconds.items()},
    }
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _cell(found: Score | Scores | None) -> str:
    if found is None:
        return "-"
    low, high = found.interval
    return f"{100 * found.score:.1f} ({100 * low:.0f}-{100 * high:.0f})\nn {found.n}"


def _plain(found: Score | Scores) -> dict[str, Json]:
    return {"score": found.score, "n": found.n, "interval": list(found.interval)}


def _brief(row: Mapping[str, Scores]) -> dict[str, Json]:
    return {split: {"score": scores.score, "n": scores.n} for split, scores in row.items()}
