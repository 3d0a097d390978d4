"""Runs a claim: tells its cost, runs the cells that are not finished yet, side by side, and writes down what they say.

Each finished cell is one file, so the command is repeated until all are there: after Ctrl-C, after a kill, on another
machine. Not covered: several machines at once on the same claim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from rolecraft import model, store
from rolecraft.errors import DataError, Interrupted, NotFound, SettingsError, UserError
from rolecraft.reproduce import cells, cost, document, findings, playing, plays, processes, standings, trial
from rolecraft.reproduce.board import Board
from rolecraft.reproduce.cells import Cell, Result
from rolecraft.reproduce.claim import Claim, load, require
from rolecraft.reproduce.cost import Cost, Probing
from rolecraft.reproduce.findings import Findings
from rolecraft.reproduce.grid import Grid, to_table
from rolecraft.reproduce.plays import Play
from rolecraft.reproduce.processes import Done, Job, Work
from rolecraft.reproduce.standings import Standings
from rolecraft.types import Json


@dataclass(frozen=True, slots=True)
class Settings:
    """Which of the claim's cells are run (the first `seeds`, these `arms`, `columns` and `modes`; none: all), and how.

    `bases` says where bases lie that have no place of their own: a folder or a GGUF file by the base's name. `workers`
    cells run side by side, each in a process with one thread; with 1 they run in this process. `yes` runs them though
    they will take longer than the claim allows. `results` holds the finished cells, `output` run folders.
    """

    seeds: int | None = None
    arms: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2
    dry_run: bool = False
    yes: bool = False
    results: Path = Path("results/claims")
    docs: Path = Path("docs/claims.md")
    output: Path = Path("runs/reproduce")


def reproduce(path: Path, settings: Settings, console: Console) -> dict[str, Json]:
    """Run what is missing of the claim in the file, show and write down what its cells say, and return that as JSON.

    Raises UserError if it would take longer than the claim allows, Interrupted on Ctrl-C; what is finished is kept.
    """
    claim = load(path)
    arms, seeds = _asked(claim, settings)
    board = _open(claim, settings, arms)
    board.modes = settings.modes
    _tell_plan(board, arms, seeds, settings.columns, console)  # before the cost, which may have to be measured first
    probing = Probing(settings.output, console, settings.bases)
    costs = cost.estimate(board, arms, seeds, probing, settings.columns)
    minutes = cost.minutes(costs, settings.workers)
    _tell_cost(board, costs, minutes, console)
    if settings.dry_run:
        return {"claim": board.claim.name, "cells": sum(one.count for one in costs), "minutes": round(minutes, 1)}
    if minutes > board.claim.budget.minutes and not settings.yes:
        raise UserError(
            f"claim {board.claim.name!r} would take about {minutes:.0f} minutes, and it allows "
            f"{board.claim.budget.minutes:.0f}; do a part ({_part(claim, arms)}), or say --yes"
        )
    _run_missing(board, arms, seeds, costs, settings, console)
    board.modes = ()  # what is written down is all that there is
    return _write_down(board, settings, console)


def report(path: Path, settings: Settings, console: Console) -> dict[str, Json]:
    """Show and write down what the finished cells say, and run nothing; raises DataError if there are none."""
    return _write_down(_open(load(path), settings, ()), settings, console)


def _part(claim: Claim, arms: Sequence[str]) -> str:
    return (
        f"--columns {next(iter(claim.evaluation.columns))}"
        if claim.evaluation.columns
        else f"--seeds 1, --arms {arms[0]}"
    )


def _open(claim: Claim, settings: Settings, needed: Collection[str]) -> Board:
    """Resolve every arm, so that a mistake in any is told before a cell runs; bases of `needed` arms must be there.

    On columns another arm's base is known by the cells that it has played, so that a report needs no base at all; of
    several weights that they tell, those with the most finished cells of the present settings are meant.
    """
    board = Board(claim, settings.results / claim.name)
    bases = {
        arm: told.base or cells.stages(claim, arm)[0].recipe.model.base
        for arm, told in claim.arms.items()
        if told.policy is None
    }
    recorded = plays.weights(board.folder) if claim.evaluation.columns else {}
    weights = dict[str, str]()
    for base in dict.fromkeys(bases.values()):
        if claim.evaluation.columns and not any(bases.get(arm) == base for arm in needed):
            arms = [arm for arm, other in bases.items() if other == base]
            weights[base] = max(recorded.get(base, ("",)), key=partial(_count_finished, board, arms))
        else:
            weights[base] = model.load(_place(claim, base, settings)).weights
    board.weights = {arm: weights[base] for arm, base in bases.items()}
    return board


def _count_finished(board: Board, arms: Sequence[str], weights: str) -> int:
    """Return how many played cells of the arms are finished if their base has such weights."""
    board.weights = {**board.weights, **dict.fromkeys(arms, weights)}
    return sum(board.record(play) is not None for play in board.plays(arms, board.claim.seeds))


def _place(claim: Claim, base: str, settings: Settings) -> str:
    """Return where a base lies; raises NotFound, with how it is got, for one that is not at hand."""
    if base in claim.bases and base not in settings.bases:
        raise NotFound(
            f"claim {claim.name!r} plays base {base!r} ({claim.bases[base]}); say where it lies: --base {base}=PATH"
        )
    return settings.bases.get(base, base)


def _asked(claim: Claim, settings: Settings) -> tuple[tuple[str, ...], tuple[int, ...]]:
    for name in settings.arms:
        require(name, claim.arms, "--arms has")
    for name in settings.columns:
        require(name, claim.evaluation.columns, "--columns has")
    for name in settings.modes:
        require(name, claim.evaluation.modes, "--modes has")
    if settings.seeds is not None and not 1 <= settings.seeds <= len(claim.seeds):
        raise SettingsError(f"--seeds is {settings.seeds}; claim {claim.name!r} has {len(claim.seeds)}")
    if settings.workers < 1:
        raise SettingsError(f"--workers is {settings.workers}; give at least 1")
    return tuple(dict.fromkeys(settings.arms or claim.arms)), claim.seeds[: settings.seeds]


def _tell_plan(
    board: Board, arms: Sequence[str], seeds: Sequence[int], columns: Collection[str], console: Console
) -> None:
    """Show the claim, and of the cells that are asked for how many are finished already."""
    console.print(board.claim.title, style="bold", markup=False)
    console.print(board.claim.question, markup=False)
    groups: dict[str, list[bool]] = {}
    for arm in (arm for arm in arms if board.claim.arms[arm].tuned):
        groups[f"{arm}, search"] = [board.result(cell) is not None for cell in board.searched(arm)]
        own = board.claim.seeds_of(arm, seeds)
        groups[arm] = [bool((cell := board.final(arm, seed)) and board.result(cell)) for seed in own]
    for play in board.plays(arms, seeds, columns, guess=True):
        groups.setdefault(play.contender, []).append(board.record(play) is not None)
    rows = [
        (name, str(len(finished)), str(sum(finished)), str(len(finished) - sum(finished)))
        for name, finished in groups.items()
        if finished
    ]
    heading = ("cells", "number", "finished", "to do")
    console.print(to_table(Grid("what is asked for", heading, tuple(rows))))


def _tell_cost(board: Board, costs: Sequence[Cost], minutes: float, console: Console) -> None:
    rows = [
        (
            f"{one.arm}, search" if one.search else one.arm,
            *(str(one.count), str(one.steps), f"{one.tokens / 1e3:,.0f}k", f"{one.seconds:.0f}"),
        )
        for one in costs
    ]
    if rows:
        heading = ("cells to do", "number", "steps", "tokens", "seconds")
        console.print(to_table(Grid("what it will cost, each at most", heading, tuple(rows))))
    told = (
        f"about {minutes:.0f} of at most {board.claim.budget.minutes:.0f} minutes" if rows else "every cell is finished"
    )
    console.print(told)


# ---- running


@dataclass(slots=True)
class _Progress:
    """Tells each finished cell in a line, with the time left: the estimate, corrected by how wrong it was so far."""

    console: Console
    costs: Mapping[tuple[str, bool], float]
    total: float
    workers: int
    count: int
    done: int = 0
    expected: float = 0.0
    took: float = 0.0

    def tell(self, cell: Work, done: Done) -> None:
        """Tell that a cell is finished."""
        self.done += 1
        self.expected += self.costs.get(_key(cell), 0.0)
        self.took += done.seconds
        left = (self.total - self.expected) * (self.took / self.expected if self.expected else 1.0) / self.workers / 60
        rest = f"about {max(0.0, left):.0f} min left" if self.done < self.count else "the last one"
        told = f"{cell.title}: {_came_out(done)}; {done.seconds:.0f} s; {rest}"
        self.console.print(f"[{self.done}/{self.count}] {told}", markup=False)


def _key(cell: Work) -> tuple[str, bool]:
    return (cell.contender, False) if isinstance(cell, Play) else (cell.arm, cell.search is not None)


def _came_out(done: Done) -> str:
    if not isinstance(done, Result):
        return f"{100 * done.score:.1f}"
    if done.failed:
        return f"failed: {done.failed}"
    return ", ".join(f"{split} {100 * one.score:.1f}" for split, one in done.scores.items()) or "tuned"


def _run_missing(
    board: Board,
    arms: Sequence[str],
    seeds: Sequence[int],
    costs: Sequence[Cost],
    settings: Settings,
    console: Console,
) -> None:
    """Run the searches, then what they lead to."""
    total, count = sum(one.count * one.seconds for one in costs), sum(one.count for one in costs)
    expected = {(one.arm, one.search): one.seconds for one in costs}
    progress = _Progress(console, expected, total, settings.workers, count)

    def keep(cell: Work, done: Done) -> None:
        if isinstance(done, Result):
            board.results[cell.name] = done
        else:
            board.records[cell.name] = done
        progress.tell(cell, done)

    job = Job(settings.output / board.claim.name, board.folder, settings.workers, settings.bases)
    tuned = [arm for arm in arms if board.claim.arms[arm].tuned]
    searching = [cell for arm in tuned for cell in board.searched(arm) if not board.result(cell)]
    try:
        with store.lock(job.output):
            _run(searching, job, keep)
            _run(board.todo(arms, seeds, settings.columns, job.output), job, keep)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted(
            f"stopped with {progress.done} of {count} cells finished, in {board.folder}; the others go on from their "
            "checkpoints: repeat the command"
        ) from stop


def _run(todo: Sequence[Work], job: Job, keep: Callable[[Work, Done], None]) -> None:
    """Run cells, once it is clear that there are the tasks that they play."""
    tuned = next((cell for cell in todo if isinstance(cell, Cell)), None)
    if tuned:
        trial.check_tasks(tuned)
    else:
        for name, column in {cell.column_name: cell.column for cell in todo if isinstance(cell, Play)}.items():
            playing.check(name, column)
    if todo:
        processes.run_all(todo, job, keep)


# ---- what came of it


def _write_down(board: Board, settings: Settings, console: Console) -> dict[str, Json]:
    found = standings.find(board) if board.claim.evaluation.columns else _find(board)
    if not found.finished:
        others = len(list(board.folder.glob("**/*.json")))
        raise DataError(
            f"claim {board.claim.name!r} has no finished cell of its present settings and base in {board.folder} "
            f"({others} files of others); run them: rolecraft reproduce {board.claim.name}"
        )
    if isinstance(found, Standings):
        grids, section, told = standings.grids(found), standings.section(found), standings.to_json(found)
    else:
        grids, section, told = findings.grids(found), findings.section(found), findings.to_json(found)
    for grid in grids:
        console.print(to_table(grid))
    console.print(f"[bold]verdict: {found.verdict}[/bold] ({found.finished} of {found.wanted} cells)")
    console.print(findings.rule(board.claim), markup=False)
    document.write_section(settings.docs, board.claim.name, section)
    console.print(f"written into {settings.docs} from the cells in {board.folder}")
    return told


def _find(board: Board) -> Findings:
    chosen = {arm: values for arm in board.claim.arms if (values := board.chosen(arm)) is not None}
    done = {
        arm: {
            seed: result
            for seed in board.claim.seeds_of(arm)
            if (cell := board.final(arm, seed)) and (result := board.result(cell))
        }
        for arm in chosen
    }
    return findings.find(board.claim, done, chosen)
