"""Plays a benchmark with a team, resumably and in several processes if wanted, and scores what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from rolecraft import agent, catalog
from rolecraft import team as teams
from rolecraft.benchmarks import Scripted
from rolecraft.errors import SettingsError
from rolecraft.evaluate.batches import Settings, begin, play_all, players_of, tasks
from rolecraft.evaluate.playing import EngineOpener, Explain
from rolecraft.evaluate.static import static_json, static_table, write_static
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
from rolecraft.evaluate.together import Part, play_together
from rolecraft.renderers import why_unparsed
from rolecraft.scores import Scores, score
from rolecraft.store import Run, lock
from rolecraft.team import Team
from rolecraft.types import Engine, Task

__all__ = [
    "Part",
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
    "play_together",
    "run",
    "score_table",
    "scores_json",
    "splits",
    "static_json",
    "static_table",
    "tasks",
    "trials_note",
    "write_static",
    "write_summary",
]


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
    players = players_of(replace(settings, strategy=None), plain, agent.Settings(), why_unparsed)

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
        batch = begin(settings, team, run, playing)
        players = players_of(settings, team, playing, explain)
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
        batch = begin(settings, team, run, playing)
        play_all([batch], players_of(settings, team, playing, explain), open_engine, console)
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

    Each split has its own run folder, of its name, in `run`. Raises SettingsError for a split that is named twice.
    """
    names = settings.split.split("+")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"split {twice!r} is named {names.count(twice)} times in {settings.split!r}; name it once")
    splits = [replace(settings, split=split) for split in names]
    with lock(run.path):
        batches = [begin(each, team, Run(run.path / each.split), playing) for each in splits]
        play_all(batches, players_of(settings, team, playing, explain), open_engine, console)
    return {batch.settings.split: batch.scores() for batch in batches}
