"""Runs one cell of a claim: tunes its stages, plays the tasks with what came of it, and writes the result.

Everything is kept in the cell's run folder, so a cell that was stopped or killed goes on from its last checkpoint and
its last episode. Not covered: which cells there are (`cells`), and running several (`reproduce`).
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import rolecraft.reproduce.machine as machine
import rolecraft.reproduce.playing as playing
import rolecraft.reproduce.work as work
from rolecraft import agent, bases, engine, evaluate, team, train
from rolecraft.errors import DataError, RolecraftError
from rolecraft.recipe import Recipe, recipe_to_dict
from rolecraft.reproduce.cells import VERSION, Cell, Played, Point, Result, Tuning, configuration, hash_json, write
from rolecraft.scores import Scores
from rolecraft.settings import to_dict
from rolecraft.stages import Stage
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train import checkpoints, precision, references, rounds, stages
from rolecraft.types import Sampling, Task

_SLOTS = 32
_PACE = ("step", "epoch", "learning_rate", "grad_norm", "tokens_per_second", "seconds_left")
_PROBED = 9
_PROBED_PLAY = 3  # a step of play is as long as many others


@dataclass(frozen=True, slots=True)
class _Stage:
    """A tuned stage: its recipe for one chunk, its run folder, and the step at which it is looked at."""

    recipe: Recipe
    folder: Path
    steps: int

    @property
    def adapter(self) -> Path:
        return self.folder / f"checkpoint-{self.steps}"


@dataclass(slots=True)
class _Clock:
    """How long it took to play how many tasks."""

    seconds: float = 0.0
    tasks: int = 0


def run(
    cell: Cell, folder: Path, results: Path, paths: Mapping[str, str] | None = None, *, side_by_side: int = 1
) -> Result:
    """Run the cell in `folder/<its name>`, or go on with it there, and write its result into `results`.

    `paths` says where bases lie that have no place of their own. `side_by_side` tells how many cells share the
    machine, and is recorded. A search cell whose tuning goes wrong is a result with the reason. Raises Interrupted when
    a signal stopped it after a checkpoint, and what `train` raises.
    """
    started, place, clock = time.monotonic(), folder / cell.name, _Clock()
    result = Result(
        cell.claim, cell.arm, cell.seed, cell.search, configuration(cell), {}, machine=machine.describe(side_by_side)
    )
    kept = None
    try:
        result, kept = _run(placed(cell, paths or {}), place, clock, result)
    except RolecraftError as error:
        # The plain class is a training that went wrong, such as a loss that is not finite: an answer to a search.
        if cell.search is None or type(error) is not RolecraftError:
            raise
        result = replace(result, failed=str(error))
    result = replace(result, seconds=round(time.monotonic() - started, 1))
    write(cell, result, results)
    for stage in cell.stages:
        for checkpoint in (place / stage.name).glob("checkpoint-*"):
            if checkpoint != kept:
                shutil.rmtree(checkpoint)
    return result


def placed(cell: Cell, paths: Mapping[str, str]) -> Cell:
    """Return the cell with its base where `paths` says that it lies; its hash is another one."""
    base = cell.stages[0].recipe.model.base
    found = paths.get(base, base)
    return replace(cell, stages=tuple(replace(one, recipe=stages.on(one.recipe, found)) for one in cell.stages))


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Let what is printed inside go to a file, at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        yield


def check_tasks(cell: Cell) -> None:
    """Raise DataError if a split has fewer tasks than the cell plays, before anything is tuned for them."""
    asked = cell.evaluation
    for name, column in {**asked.columns, **asked.development_columns}.items():
        playing.check(name, column)
    if asked.columns:
        return
    wanted = [(split, asked.development_n, asked.development_seed) for split in asked.development_splits]
    if cell.search is None:
        wanted += [(split, asked.n, asked.seed) for split in asked.splits]
    for split, n, seed in wanted:
        found = len(evaluate.tasks(_settings(cell, (split,), n, seed), _team(cell.stages[-1].recipe)))
        if found < n:
            raise DataError(
                f"{asked.benchmark!r} has {found} tasks in split {split!r}, not {n}; raise its size in "
                "evaluation.options, or ask for fewer"
            )


def probe(recipe: Recipe, folder: Path) -> Tuning:
    """Tune a few steps on a few tasks to learn a recipe's speed; nothing of them stays. The scores mean nothing.

    `folder` is where, with this process's number behind it: another one may be probing there.
    What a round plays first is left out, and pairs are as rows; reinforcement is a base's that knows nothing.
    """
    data, plays = recipe.data, recipe.reinforcement is not None or recipe.on_policy is not None
    steps = _PROBED_PLAY if plays else _PROBED
    if data.benchmark:
        data = replace(data, size=_PROBED * recipe.training.per_device_train_batch_size)
    recipe = stages.taught(recipe, lambda _: recipe.model.base)  # as fast as the stage that is not there yet
    training = replace(recipe.training, max_steps=steps, logging_steps=max(1, steps // 3), save_steps=0)
    recipe = replace(recipe, training=training, data=data, experience=None, preference=None)
    folder = folder.with_name(f"{folder.name}-{os.getpid()}")
    try:
        train.train(recipe, folder)
        seconds, tokens = _paces(Run(folder).metrics(), steps)[-1]  # the first one compiles kernels
        trainable = train.count_parameters(recipe.model.base, recipe)["trainable"]
        return Tuning(trainable, steps, round(steps * tokens), steps * seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(cell: Cell, place: Path, clock: _Clock, result: Result) -> tuple[Result, Path]:
    """Return the result with everything filled in, and the adapter that was played."""
    tuned, points = _tune_all(cell, place, clock)
    asked, tuning = cell.evaluation, _tuning(tuned)
    if cell.search is None and asked.columns:
        scores = {}  # each column is played by a cell of its own
    elif cell.search is None:
        scores = _play(cell, tuned[-1], place / "test", asked.splits, (asked.n, asked.seed), clock)
    else:
        scores = _develop(cell, tuned[-1], place / "development", clock)
    found = replace(
        result,
        scores=scores,
        # a step costs the same wherever in the run it is
        development=tuple(replace(one, seconds=round(one.steps * tuning.seconds / tuning.steps, 1)) for one in points),
        tuning=tuning,
        seconds_per_task=round(clock.seconds / max(1, clock.tasks), 4),
    )
    return found, tuned[-1].adapter


# ---- tuning


def _tune_all(cell: Cell, place: Path, clock: _Clock) -> tuple[list[_Stage], list[Point]]:
    """Tune one stage after the other, each from where it starts; return all of them and the last one's scores."""
    done = dict[str, _Stage]()
    for told in cell.stages[:-1]:
        done[told.name] = _stage(told, place, done)
        if not (done[told.name].folder / stages.MERGED).exists():  # else its checkpoint may be gone
            _tune(done[told.name])
    stage = _stage(cell.stages[-1], place, done)
    before = sum(one.steps for one in done.values())
    ends = list(range(stage.steps, cell.most_steps - before + 1, stage.steps))
    if len(ends) > 1:
        stage, points = _grow(cell, stage, ends, before, clock)
    else:
        _tune(stage)
        points = _curve(cell, stage, before, clock) if cell.search is None and cell.budget.curve else []
    return [*done.values(), stage], points


def _stage(told: Stage, place: Path, done: Mapping[str, _Stage]) -> _Stage:
    """Return a stage with the base that it starts from, which is made of those `done` if it is not there yet."""
    recipe = told.recipe
    if told.start is not None:
        recipe = stages.on(recipe, _merged(done[told.start], recipe))
    recipe = stages.taught(recipe, lambda name: _merged(done[name], told.recipe))
    if recipe.experience is not None:
        before = done[recipe.experience.stage]
        recipe = rounds.prepare(recipe, place / told.name, before.adapter, before.recipe.model.base, before.folder)
    return _Stage(recipe, place / told.name, recipe.training.max_steps)


def _merged(done: _Stage, recipe: Recipe) -> str:
    settings = replace(recipe.model, base=done.recipe.model.base)
    return stages.merge(done.adapter, settings, done.folder / stages.MERGED)


def _tune(stage: _Stage) -> None:
    """Train the stage to its step, going on from what is in its folder."""
    recipe = replace(stage.recipe, training=replace(stage.recipe.training, max_steps=stage.steps))
    found = checkpoints.last_checkpoint(stage.folder)
    if found and found[1]["step"] >= stage.steps:
        return
    if found and found[1]["of"] < stage.steps:
        recipe = precision.decide(recipe, stage.folder, resume=True)
        # The settings first: after a kill in between, the run is extended again.
        Run(stage.folder).write_settings(recipe_to_dict(recipe))
        checkpoints.extend(found[0], stage.steps)
    with _shared_references(recipe, stage.folder):
        train.train(recipe, stage.folder, resume=True)


def _grow(cell: Cell, stage: _Stage, ends: Sequence[int], before: int, clock: _Clock) -> tuple[_Stage, list[Point]]:
    """Tune chunk after chunk while the development score rises; return the best chunk's end, and all their scores."""
    points, best, highest = list[Point](), stage, -1.0
    for steps in ends:
        tuned = replace(stage, steps=steps)
        _tune(tuned)
        points.append(_point(cell, tuned, before, clock))
        gained = points[-1].score - highest
        if gained > 0:
            best, highest = tuned, points[-1].score
        if gained < cell.budget.least_gain:
            break
    return best, points


def _curve(cell: Cell, stage: _Stage, before: int, clock: _Clock) -> list[Point]:
    apart = stage.recipe.training.save_steps
    steps = range(apart, apart * cell.budget.curve + 1, apart)  # there are others where a signal came, or the end is
    return [_point(cell, replace(stage, steps=step), before, clock) for step in steps]


def _point(cell: Cell, stage: _Stage, before: int, clock: _Clock) -> Point:
    scores = _develop(cell, stage, stage.folder / f"development-{stage.steps}", clock)
    mean = statistics.fmean(one.score for one in scores.values())
    return Point(before + stage.steps, 0.0, round(mean, 6), sum(one.n for one in scores.values()))


@contextmanager
def _shared_references(recipe: Recipe, folder: Path) -> Iterator[None]:
    """Lend the references that another cell has played to this one, and this one's to the others: one file, linked."""
    told = hash_json({"version": VERSION, "data": to_dict(recipe.data), "team": str(recipe.team.preset)})
    own, shared = folder / references.NAME, folder.parents[1] / f"references-{told}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if shared.exists() and not own.exists():
        os.link(shared, own)
    yield
    if own.exists():
        with suppress(FileExistsError):
            os.link(own, shared)


def _tuning(tuned: Sequence[_Stage]) -> Tuning:
    seconds = tokens = flops = 0.0
    for stage in tuned:
        paces = _paces(Run(stage.folder).metrics(), stage.recipe.training.max_steps, stage.steps)
        read = stage.steps * statistics.fmean(tokens for _, tokens in paces) if paces else 0.0
        seconds += stage.steps * statistics.fmean(pace for pace, _ in paces) if paces else 0.0
        tokens += read
        flops += read * work.per_token(stage.recipe)
    last = tuned[-1]
    trainable = [train.count_parameters(one.recipe.model.base, one.recipe)["trainable"] for one in tuned]
    logged = [entry for entry in Run(last.folder).metrics() if entry["step"] <= last.steps]
    found = checkpoints.last_checkpoint(last.folder)
    return Tuning(
        trainable=trainable[-1],
        steps=sum(stage.steps for stage in tuned),
        tokens=round(tokens),
        seconds=round(seconds, 1),
        losses=tuple((entry["step"], round(entry["loss"], 5)) for entry in logged),
        logged={key: float(f"{value:.5g}") for key, value in logged[-1].items() if key not in _PACE},
        data=str(found[1]["data"])[:12] if found else "",
        stored=sum(trainable),
        flops=round(flops),
    )


def _paces(logged: Sequence[dict[str, Any]], chunk: int, until: int | None = None) -> list[tuple[float, float]]:
    """Return the seconds and tokens of one step at each log but those at a chunk's end, where no time is left."""
    found = []
    for entry in logged:
        left = -entry["step"] % chunk
        if left and entry["step"] <= (until or chunk):
            seconds = entry["seconds_left"] / left
            found.append((seconds, entry["tokens_per_second"] * seconds))
    return found


# ---- playing


def _develop(cell: Cell, stage: _Stage, folder: Path, clock: _Clock) -> dict[str, Played]:
    asked = cell.evaluation
    if asked.columns:
        return _develop_on_columns(cell, stage, folder, clock)
    return _play(cell, stage, folder, asked.development_splits, (asked.development_n, asked.development_seed), clock)


def _develop_on_columns(cell: Cell, stage: _Stage, folder: Path, clock: _Clock) -> dict[str, Played]:
    """Play the development columns in the claim's first mode."""
    mode = next(iter(cell.evaluation.modes.values()))
    base, players = stage.recipe.model, _team(stage.recipe)
    player = playing.Player(base.base, stage.adapter, players, base.dtype, bases.identity(base.base, stage.adapter))
    found = {}
    for name, column in cell.evaluation.development_columns.items():
        asked = replace(playing.asking(name, column), name=cell.title, model=player.identity)
        what = playing.in_mode(asked, mode)
        run = Run(folder / name.replace(":", "-"))
        held, started = len(run.finished()), time.monotonic()
        opener, how = partial(playing.open_player, player, mode), playing.episode_settings(mode)
        scores = evaluate.run(what, players, opener, run, how, console=Console(quiet=True))
        clock.seconds += time.monotonic() - started
        clock.tasks += scores.n - held
        found[name] = _played(scores, evaluate.tasks(what, players), run, column.seed)
    return found


def _play(
    cell: Cell, stage: _Stage, folder: Path, splits: Sequence[str], drawn: tuple[int, int], clock: _Clock
) -> dict[str, Played]:
    """Play the splits with the stage's adapter; `drawn` is how many tasks of which seed."""
    base, players = stage.recipe.model, _team(stage.recipe)
    what = replace(_settings(cell, splits, *drawn), model=bases.identity(base.base, stage.adapter))
    opener = partial(engine.open_local, base.base, stage.adapter, base.dtype, settings=engine.Settings(_SLOTS))
    how = agent.Settings(
        max_turns=cell.evaluation.max_turns,
        sampling=Sampling(max_tokens=cell.evaluation.max_tokens),
        strict_calls=True,
    )
    held = sum(len(Run(folder / split).finished()) for split in splits)
    started = time.monotonic()
    scores = evaluate.play_splits(what, players, opener, Run(folder), how, console=Console(quiet=True))
    clock.seconds += time.monotonic() - started
    clock.tasks += sum(one.n for one in scores.values()) - held
    return {
        split: _played(found, evaluate.tasks(replace(what, split=split), players), Run(folder / split), drawn[1])
        for split, found in scores.items()
    }


def _settings(cell: Cell, splits: Sequence[str], n: int, seed: int) -> evaluate.Settings:
    return evaluate.Settings(
        name=cell.title,
        benchmark=cell.evaluation.benchmark,
        split="+".join(splits),
        seed=seed,
        limit=n,
        concurrency=_SLOTS,
        options=cell.evaluation.options,
        command=f"rolecraft reproduce {cell.claim}",
    )


def _team(recipe: Recipe) -> Team:
    return team.find(recipe.team.preset, instructions=recipe.team.instructions)


def _played(scores: Scores, tasks: Sequence[Task], run: Run, seed: int) -> Played:
    verdicts = {one.task.id: one.verdict.score for one in run.trajectories() if one.verdict is not None}
    outcomes = tuple(verdicts[task.id] for task in tasks)
    binary = all(outcome in (0.0, 1.0) for outcome in outcomes)
    return Played(
        score=round(scores.score, 6),
        n=scores.n,
        interval=tuple(round(bound, 6) for bound in scores.interval),
        seed=seed,
        tasks=playing.hash_questions(tasks),
        outcomes="".join(str(int(outcome)) for outcome in outcomes) if binary else outcomes,
        families={name: {"score": round(one.score, 6), "n": one.n} for name, one in scores.families.items()},
        failures=scores.failures,
        cost={name: round(value, 4) for name, value in asdict(scores.cost).items()},
    )
