"""Plays a benchmark with a team, resumably and in several processes if wanted, and scores what came of it.

Not covered: static evaluation against annotated replies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rolecraft import agent, catalog, wire
from rolecraft import team as teams
from rolecraft.benchmarks import Scripted
from rolecraft.errors import DataError, SettingsError
from rolecraft.evaluate.playing import EngineOpener, Explain, Players, play
from rolecraft.evaluate.tables import (
    calling_table,
    comparison,
    failure_table,
    family_table,
    lenient_note,
    parts_table,
    score_table,
    scores_json,
    trials_note,
    write_summary,
)
from rolecraft.renderers import why_unparsed
from rolecraft.scores import Scores, score, spent
from rolecraft.settings import from_dict, to_dict
from rolecraft.store import Run, lock
from rolecraft.strategies import Chosen
from rolecraft.team import Team
from rolecraft.types import Engine, Json, Task, Trajectory

__all__ = [
    "Settings",
    "baselines",
    "calling_table",
    "comparison",
    "evaluate",
    "failure_table",
    "family_table",
    "lenient_note",
    "parts_table",
    "play_splits",
    "run",
    "score_table",
    "scores_json",
    "splits",
    "tasks",
    "trials_note",
    "write_summary",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is played: a benchmark's split at a seed, its own `options`, and how many tasks and episodes at once.

    `name` is the row of the score table that the run fills, such as the model's. `shots` is how many solved tasks
    stand before each question, for baselines. `strategy` is how each episode is played (None: reply by reply). Each of
    `workers` processes plays `concurrency` episodes at once. `model` tells what plays (see `bases.identity`), `command`
    how to repeat it; both are recorded with the run.
    """

    name: str = "model"
    benchmark: str | Path = "toolworld"
    split: str = "test"
    seed: int = 0
    limit: int | None = None
    shots: int = 0
    concurrency: int = 16
    workers: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    strategy: Chosen | None = None
    model: str = ""
    command: str = ""


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


def splits(benchmark: str | Path) -> str:
    """Return what is played where nobody says: a benchmark's `REPORTED` splits, else `test`, else all that it has."""
    module = catalog.find("benchmarks", benchmark)
    if hasattr(module, "REPORTED"):
        return "+".join(module.REPORTED)
    names = getattr(module, "SPLITS", ("test",))
    return "test" if "test" in names else "+".join(names)


def baselines(settings: Settings) -> dict[str, dict[str, Scores]]:
    """Return what the benchmark's trivial policies score on the same tasks, by policy and split; often there are none.

    They are played by a plain agent, and nothing of them is kept.
    """
    policies = getattr(catalog.find("benchmarks", settings.benchmark), "POLICIES", {})
    plain = teams.find("single", instructions=False)
    asked = {split: tasks(replace(settings, split=split, shots=0), plain) for split in settings.split.split("+")}
    players = _players(replace(settings, strategy=None), plain, agent.Settings(), why_unparsed)

    async def played(chosen: Sequence[Task], engine: Engine) -> Scores:
        return score([record async for record in players.episodes(chosen, engine)], seed=settings.seed)

    return {
        name: {split: asyncio.run(played(chosen, Scripted(policy))) for split, chosen in asked.items()}
        for name, policy in policies.items()
    }


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

    Raises EngineError when the engine fails, DataError when `run` is of another evaluation, and UserError when another
    process writes it; what was finished stays in `run`, and the same call goes on from there.
    """
    with lock(run.path):
        batch = _begin(settings, team, run, playing)
        players = _players(settings, team, playing, explain)
        async for trajectory in players.episodes(batch.missing, engine):
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
    with lock(run.path):
        batch = _begin(settings, team, run, playing)
        _play_all([batch], _players(settings, team, playing, explain), open_engine, console)
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
    with lock(run.path):
        batches = [_begin(each, team, Run(run.path / each.split), playing) for each in splits]
        _play_all(batches, _players(settings, team, playing, explain), open_engine, console)
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
                f"{str(run.path)!r} holds another evaluation: {_difference(key, before.get(key), now[key])}; "
                "choose another run folder, or repeat the command that made this one"
            )
    held = _held(run, chosen)
    run.write_settings(told)
    run.write_lineage({"command": settings.command, "model": settings.model})
    return _Batch(settings, chosen, run, held)


def _held(run: Run, chosen: Sequence[Task]) -> dict[str, Trajectory]:
    """Return the episodes that `run` holds of the chosen tasks; raises DataError for a task that was another then."""
    wanted = {task.id: task for task in chosen}
    held = {t.task.id: t for t in run.trajectories() if t.task.id in wanted}
    for name, record in held.items():
        if _told(record.task) != _told(wanted[name]):
            raise DataError(
                f"{str(run.path)!r} holds an episode of task {name!r} as it was before it was changed; "
                "choose another run folder"
            )
    return held


def _told(task: Task) -> str:
    """Return a task as text that is the same after it was written and read."""
    return wire.dumps(wire.trajectory_to_json(Trajectory(task.id, task, task.messages)))


def _difference(key: str, before: Json, now: Json) -> str:
    """Say how a setting changed; of one with keys, those that did."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        before, now = ({name: each[name] for name in changed if name in each} for each in (before, now))
    return f"{key} was {before!r}, now {now!r}"


def _identity(told: Mapping[str, Any]) -> dict[str, Json]:
    """Return what two runs must share for the episodes of one to stand in the other."""
    free = ("name", "limit", "concurrency", "workers", "command")
    evaluation = {key: value for key, value in told.get("evaluation", {}).items() if key not in free}
    return evaluation and {**evaluation, **{key: told.get(key) for key in ("team", "playing")}}


def _play_all(batches: Sequence[_Batch], players: Players, open_engine: EngineOpener, console: Console | None) -> None:
    settings = batches[0].settings
    owners = {task.id: batch for batch in batches for task in batch.tasks}
    missing = [task for batch in batches for task in batch.missing]
    written, computed = list[int](), list[int]()
    with Progress(*Progress.get_default_columns(), "{task.completed}/{task.total}", console=console) as bar:
        shown = bar.add_task(settings.name, total=len(owners), completed=len(owners) - len(missing))

        def keep(trajectory: Trajectory) -> None:
            owners[trajectory.task.id].keep(trajectory)
            used = spent(trajectory)
            written.append(used.completion)
            computed.append(used.prompt - used.cached)
            bar.advance(shown)

        if not missing:
            return
        began = time.monotonic()
        play(players, missing, open_engine, keep, settings.workers)
        if console is not None:
            console.print(_rate(sum(written), sum(computed), time.monotonic() - began))


def _rate(written: int, computed: int, seconds: float) -> str:
    told = f"{written:,} tokens written and {computed:,} of prompts computed in {seconds:.1f} s, the start included"
    return f"{told}: {written / seconds:,.1f} tokens/s" if seconds else told


def _players(settings: Settings, team: Team, playing: agent.Settings, explain: Explain) -> Players:
    many, seed = settings.concurrency, settings.seed
    return Players(settings.benchmark, team, playing, explain, many, seed, settings.options, settings.strategy)
