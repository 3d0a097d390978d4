"""Plays the cells of a claim on columns: a base, a tuned adapter or a trivial policy, resumed to the episode.

Everything is kept in the play's run folder, as `rolecraft eval` keeps it. Not covered: tuning (`trial`), and which
cells there are (`board`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

import rolecraft.reproduce.cells as cells
import rolecraft.reproduce.columns as columns
import rolecraft.reproduce.machine as machine
from rolecraft import agent, bases, contract, engine, evaluate, strategies, team
from rolecraft.benchmarks import Scripted
from rolecraft.engine import LocalEngine, RoleEngines, matcher
from rolecraft.errors import DataError, RolecraftError
from rolecraft.evaluate.playing import EngineOpener
from rolecraft.judges import failures, replies, strict
from rolecraft.reproduce.cells import hash_json
from rolecraft.reproduce.clock import Clock
from rolecraft.reproduce.columns import Column, Mode
from rolecraft.reproduce.plays import Play, Record, Verdict, configuration, place_of, write
from rolecraft.scores import Scores
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.types import Engine, Message, Prompt, Sampling, Task, Trajectory

SLOTS = 16
_PROBED = 4
TOGETHER = "together"
"""How many cells were played at once, in the log of a run that was: its prompts were computed for several."""


@dataclass(frozen=True, slots=True)
class Player:
    """What plays: the base at `base`, a name, a folder or a file, and an adapter if any; `identity` tells both."""

    base: str
    adapter: Path | None
    team: Team
    dtype: Any
    identity: str


def run(play: Play, folder: Path, results: Path, paths: Mapping[str, str], *, side_by_side: int = 1) -> Record:
    """Play in `folder/<its name>`, or go on with it there, and write the record into the claim's folder `results`.

    `paths` says where bases lie that have no place of their own. Raises what `evaluate.run` raises.
    """
    place = folder / play.name
    scores, pace, model = _scores(play, place, find_player(play, folder, results, paths))
    what = _settings(play, "")
    asked = evaluate.tasks(what, _plain())  # without the examples that are shown before them
    held = {one.task.id: one for one in Run(place).trajectories()}
    record = Record(
        claim=play.claim,
        arm=play.arm,
        mode=play.mode_name,
        column=play.column_name,
        seed=play.seed,
        base=play.base,
        configuration=configuration(play),
        score=round(scores.score, 6),
        interval=tuple(round(bound, 6) for bound in scores.interval),
        tasks=hash_tasks(asked),
        verdicts={task.id: _verdict(held[task.id]) for task in asked},
        calling={name: value if value is None else round(value, 6) for name, value in asdict(scores.calling).items()},
        cost=_cost(scores, shared=any(TOGETHER in part for part in Run(place).metrics())),
        seconds=round(pace * scores.n, 1),
        seconds_per_task=round(pace, 4),
        machine={**machine.describe(side_by_side), "model": model},
    )
    write(play, record, results)
    return record


def probe(play: Play, folder: Path, paths: Mapping[str, str]) -> float:
    """Play the first few tasks of a play that needs no tuning, and return the seconds of one; what is played stays."""
    what = replace(play, tuning=None)
    _, pace, _ = _scores(what, folder / what.name, _untuned(what, paths), limit=_PROBED)
    return pace


def check(name: str, column: Column) -> None:
    """Raise DataError if a column has fewer tasks than are asked, before anything is tuned for them."""
    found = len(evaluate.tasks(asking(name, column), _plain()))
    if found < column.n:
        raise DataError(f"column {name!r} has {found} tasks, not {column.n}; set its n to at most {found}")


def asking(name: str, column: Column) -> evaluate.Settings:
    """Return what is played of a column, without examples."""
    benchmark, _, split = name.partition(":")
    return evaluate.Settings(
        benchmark=benchmark,
        split=split,
        seed=column.seed,
        limit=column.n,
        concurrency=SLOTS,
        options=columns.options(name, column),
    )


def hash_tasks(tasks: Sequence[Task]) -> str:
    """Return a digest of what tasks ask and tell."""
    return hash_json([[task.id, [message.content for message in task.messages]] for task in tasks])


def hash_questions(tasks: Sequence[Task]) -> str:
    """Return a digest of what tasks ask, whatever a system message tells before: arms may be told it otherwise."""
    asked = [[message.content for message in task.messages if message.role != "system"] for task in tasks]
    return hash_json([[task.id, messages] for task, messages in zip(tasks, asked, strict=True)])


def episode_settings(mode: Mode) -> agent.Settings:
    """Return how an episode is played in a mode."""
    return agent.Settings(
        max_turns=mode.max_turns,
        sampling=Sampling(max_tokens=mode.max_tokens),
        constrained=mode.constrain,
        skip_repeats=mode.repeats == "skip",
        first_call=mode.first_call,
    )


def constrain(mode: Mode) -> Literal["always", "asked"]:
    """Return which replies a grammar holds in a mode."""
    return "always" if mode.constrain else "asked"


def open_player(player: Player, mode: Mode) -> LocalEngine | RoleEngines:
    """Open the engine that plays in a mode."""
    settings = engine.Settings(
        max_requests=SLOTS,
        max_context=mode.max_context,
        constrain=constrain(mode),
        grammar=matcher.Settings(on_unsupported=mode.on_unsupported),
    )
    return engine.open_local(player.base, player.adapter, player.dtype, settings=settings)


def find_player(play: Play, folder: Path, results: Path, paths: Mapping[str, str]) -> Player | None:
    """Return what plays, None for a policy; raises RolecraftError if the tuning that it needs is not there."""
    if play.policy is not None:
        return None
    if play.tuning is None:
        return _untuned(play, paths)
    adapter = place_of(play.tuning, cells.finished(play.tuning, results), folder)
    if adapter is None:
        raise RolecraftError(f"the adapter of {play.tuning.title!r} is not in {folder}; repeat the command to tune it")
    recipe, told = play.tuning.stages[-1].recipe, contract.read(adapter)
    merged = contract.base_of(told, adapter) if told and play.tuning.stages[-1].start else ""
    base = merged or paths.get(play.base, play.base)
    players = team.find(recipe.team.preset, instructions=recipe.team.instructions)
    # of the adapter the digest, not its place
    known = bases.identity(f"{play.base} ({play.weights})", adapter).replace(str(adapter), play.tuning.name)
    return Player(base, adapter, players, recipe.model.dtype, known)


def _untuned(play: Play, paths: Mapping[str, str]) -> Player:
    players = team.find("single", instructions=not play.mode.bare)
    base = paths.get(play.base, play.base)
    return Player(base, None, players, play.mode.dtype, f"{play.base} ({play.weights})")


def _scores(play: Play, place: Path, player: Player | None, limit: int | None = None) -> tuple[Scores, float, str]:
    """Play what is not in `place` yet; returns the scores, the mean seconds of a task, and what played."""
    if player is None:
        policy = columns.policies(play.column_name)[play.policy or ""]
        opener: EngineOpener = partial(_scripted, policy)
        players, playing, model = _plain(), agent.Settings(), f"policy {play.policy}"
    else:
        opener = partial(open_player, player, play.mode)
        players, playing, model = player.team, episode_settings(play.mode), player.identity
    what = replace(what_is_played(play, model), limit=limit or play.column.n)
    run = Run(place)
    clock = Clock([run])
    try:
        scores = evaluate.run(what, players, partial(clock.opened, opener), run, playing, console=Console(quiet=True))
    finally:
        clock.log()
    parts = run.metrics()  # of a part that was killed (-9) nothing is known
    played = sum(part["played"] for part in parts)
    return scores, sum(part["seconds"] for part in parts) / played if played else 0.0, model


def what_is_played(play: Play, model: str) -> evaluate.Settings:
    """Return the evaluation that a play is, of what `model` tells."""
    settings = _settings(play, model)
    return settings if play.policy is not None else in_mode(settings, play.mode)


def in_mode(settings: evaluate.Settings, mode: Mode) -> evaluate.Settings:
    """Return the evaluation as it is in a mode, of which `episode_settings` and `open_player` tell the rest."""
    chosen = None if mode.strategy == "greedy" else strategies.parse(mode.strategy)
    return replace(settings, shots=mode.shots, strategy=chosen, first_thought=True if mode.first_thought else None)


def _scripted(policy: Callable[[Prompt], Message]) -> AbstractContextManager[Engine]:
    return nullcontext(Scripted(policy))


def _settings(play: Play, model: str) -> evaluate.Settings:
    what = asking(play.column_name, play.column)
    return replace(what, name=play.title, model=model, command=f"rolecraft reproduce {play.claim}")


def _plain() -> Team:
    return team.find("single", instructions=False)


def _cost(scores: Scores, *, shared: bool) -> dict[str, float | None]:
    """Return what a task cost, and what a strategy tried; its seconds are another measure where several are played.

    How many tokens of prompts were computed is left open where they were `shared` with other cells.
    """
    tried = {} if scores.tried is None else {**asdict(scores.tried)}
    told = {key: value for key, value in {**asdict(scores.cost), **tried}.items() if key not in ("seconds", "strategy")}
    if shared:
        told["computed"] = None
    return {key: value if value is None else round(value, 4) for key, value in told.items()}


def _verdict(trajectory: Trajectory) -> Verdict:
    assert trajectory.verdict is not None, trajectory.id
    score = trajectory.verdict.score
    return Verdict(
        score=round(score, 6),
        strict=round(trajectory.verdict.parts.get(strict.PART, score), 6),
        failure=failures.failure(trajectory),
        unparsed=any(message.unparsed is not None for _, message in replies(trajectory)),
    )
