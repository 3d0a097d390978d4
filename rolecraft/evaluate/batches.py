"""What a run plays and holds: the tasks of one split, those that are played already, and how the rest are played.

Not covered: scores, and what is shown of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rolecraft import agent, catalog, reflection, wire
from rolecraft.errors import DataError, SettingsError
from rolecraft.evaluate.playing import EngineOpener, Explain, Players, play
from rolecraft.scores import Scores, score, spent
from rolecraft.settings import from_dict, to_dict
from rolecraft.store import Run
from rolecraft.strategies import Chosen
from rolecraft.team import Team
from rolecraft.types import Json, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Settings:
    """What is played: a benchmark's split at a seed, its own `options`, and how many tasks and episodes at once.

    `name` is the row of the score table that the run fills, such as the model's. `shots` is how many solved tasks
    stand before each question, for baselines. `strategy` is how each episode is played (None: reply by reply). `memory`
    is a file of lessons, of which each task is told those that fit it; none is added. Each of `workers` processes plays
    `concurrency` episodes at once. `model` tells what plays (see `bases.identity`), `command` how to repeat it; both
    are recorded with the run. Of each task `samples` episodes are played, each with a seed of its own (None: one, by
    the task's own id). `first_thought`: see `first_thought.py`.
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
    memory: Path | None = None
    samples: int | None = None
    first_thought: bool | None = None
    model: str = ""
    command: str = ""


def tasks(settings: Settings, team: Team) -> tuple[Task, ...]:
    """Return the tasks that `settings` name, the first `limit` of them; raises NotFound, SettingsError or DataError."""
    benchmark = catalog.find("benchmarks", settings.benchmark)
    options = from_dict(benchmark.Settings, settings.options, f"{settings.benchmark} options")
    found: tuple[Task, ...] = tuple(benchmark.tasks(options, settings.split, settings.seed))[: settings.limit]
    if not found:
        raise DataError(f"{settings.benchmark!r} has no tasks in split {settings.split!r}; raise its size or the limit")
    if hasattr(benchmark, "in_roles"):
        found = tuple(benchmark.in_roles(found, team))
    if settings.shots and not hasattr(benchmark, "few_shot"):
        raise SettingsError(f"{settings.benchmark!r} has no examples to show (few_shot); use shots 0")
    shown = tuple(benchmark.few_shot(found, team.name, settings.shots)) if settings.shots else found
    if settings.memory is not None:
        shown = reflection.reminded(shown, settings.memory)
    if settings.samples is None:
        return shown
    return tuple(replace(task, id=f"{task.id}#{sample + 1}") for sample in range(settings.samples) for task in shown)


@dataclass(slots=True)
class Batch:
    """The tasks of one split, the run that holds their episodes, and those that it holds already, by task id."""

    settings: Settings
    tasks: tuple[Task, ...]
    run: Run
    held: dict[str, Trajectory]

    @property
    def missing(self) -> list[Task]:
        """The tasks that are to be played."""
        return [task for task in self.tasks if task.id not in self.held]

    def keep(self, trajectory: Trajectory) -> None:
        """Write an episode that has ended."""
        self.run.append(trajectory)
        self.held[trajectory.task.id] = trajectory

    def scores(self) -> Scores:
        """Return the scores of all the tasks, each of which has been played."""
        return score((self.held[task.id] for task in self.tasks), seed=self.settings.seed)


def begin(settings: Settings, team: Team, run: Run, playing: agent.Settings) -> Batch:
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
    return Batch(settings, chosen, run, held)


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
    """Return a task as text that is the same after it was written and read, which drops nulls that tables pad."""
    once = wire.trajectory_to_json(Trajectory(task.id, task, task.messages))
    return wire.dumps(wire.trajectory_to_json(wire.trajectory_from_json(once)))


def _difference(key: str, before: Json, now: Json) -> str:
    """Say how a setting changed; of one with keys, those that did."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        before, now = ({name: each[name] for name in changed if name in each} for each in (before, now))
    return f"{key} was {before!r}, now {now!r}"


def _identity(told: Mapping[str, Any]) -> dict[str, Json]:
    """Return what two runs must share for the episodes of one to stand in the other."""
    free = ("name", "limit", "samples", "concurrency", "workers", "command")
    evaluation = {key: value for key, value in told.get("evaluation", {}).items() if key not in free}
    return evaluation and {**evaluation, **{key: told.get(key) for key in ("team", "playing")}}


def play_all(
    batches: Sequence[Batch],
    players: Players,
    open_engine: EngineOpener,
    console: Console | None,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Play what the batches miss, each episode kept as it ends; in one process no other begins once there is enough."""
    settings = batches[0].settings
    missing = [(batch, task) for batch in batches for task in batch.missing]  # splits may share a task's id
    total = sum(len(batch.tasks) for batch in batches)
    written, computed = list[int](), list[int]()
    with Progress(*Progress.get_default_columns(), "{task.completed}/{task.total}", console=console) as bar:
        shown = bar.add_task(settings.name, total=total, completed=total - len(missing))

        def keep(place: int, trajectory: Trajectory) -> None:
            missing[place][0].keep(trajectory)
            used = spent(trajectory)
            written.append(used.completion)
            computed.append(used.prompt - used.cached)
            bar.advance(shown)

        if not missing or enough():
            return
        began = time.monotonic()
        wanted: Iterator[Task] = (task for _, task in missing)
        if settings.workers == 1:
            wanted = itertools.takewhile(lambda _: not enough(), wanted)
        play(players, wanted, open_engine, keep, settings.workers)
        if console is not None:
            console.print(_rate(sum(written), sum(computed), time.monotonic() - began))


def _rate(written: int, computed: int, seconds: float) -> str:
    told = f"{written:,} tokens written and {computed:,} of prompts computed in {seconds:.1f} s, the start included"
    return f"{told}: {written / seconds:,.1f} tokens/s" if seconds else told


def players_of(settings: Settings, team: Team, playing: agent.Settings, explain: Explain) -> Players:
    """Return what plays the tasks of such settings."""
    many, seed = settings.concurrency, settings.seed
    first = bool(settings.first_thought)
    return Players(settings.benchmark, team, playing, explain, many, seed, settings.options, settings.strategy, first)
