"""Runs a claim: tells its cost, runs the cells that are not finished yet, side by side, and writes down what they say.

Each finished cell is one file, so the command is repeated until all are there: after Ctrl-C, after a kill, on another
machine. Not covered: several machines at once on the same claim.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console

from rolecraft import model, store
from rolecraft.errors import DataError, Interrupted, RolecraftError, SettingsError, UserError
from rolecraft.reproduce import cells, cost, findings, trial
from rolecraft.reproduce.cells import Board, Cell, Result
from rolecraft.reproduce.claim import Claim, load, require
from rolecraft.reproduce.cost import Cost
from rolecraft.reproduce.findings import Findings, Grid
from rolecraft.types import Json

_GRACE = 60.0  # seconds that a cell gets to save a checkpoint when it is stopped


@dataclass(frozen=True, slots=True)
class Settings:
    """Which of the claim's cells are run (the first `seeds`, these `arms`; None and nothing: all), how and where.

    `workers` cells run side by side, each in a process with one thread; with 1 they run in this process. `yes` runs
    them though they will take longer than the claim allows. `results` holds the finished cells, `output` run folders.
    """

    seeds: int | None = None
    arms: tuple[str, ...] = ()
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
    board = _open(path, settings)
    arms, seeds = _asked(board.claim, settings)
    _tell_plan(board, arms, seeds, console)  # before the cost, which may have to be measured first
    costs = cost.estimate(board, arms, seeds, settings.output, console)
    minutes = cost.minutes(costs, settings.workers)
    _tell_cost(board, costs, minutes, console)
    if settings.dry_run:
        return {"claim": board.claim.name, "cells": sum(one.count for one in costs), "minutes": round(minutes, 1)}
    if minutes > board.claim.budget.minutes and not settings.yes:
        raise UserError(
            f"claim {board.claim.name!r} would take about {minutes:.0f} minutes, and it allows "
            f"{board.claim.budget.minutes:.0f}; do a part (--seeds 1, --arms {arms[0]}), or say --yes"
        )
    _run_missing(board, arms, seeds, costs, settings, console)
    return _write_down(board, settings, console)


def report(path: Path, settings: Settings, console: Console) -> dict[str, Json]:
    """Show and write down what the finished cells say, and run nothing; raises DataError if there are none."""
    return _write_down(_open(path, settings), settings, console)


def _open(path: Path, settings: Settings) -> Board:
    """Read the claim and resolve every arm, so that a mistake in any is told before a cell runs."""
    claim = load(path)
    board = Board(claim, settings.results / claim.name)
    bases = {arm: cells.recipes(claim, arm)[0].model.base for arm in claim.arms}
    weights = {base: model.load(base).weights for base in dict.fromkeys(bases.values())}
    board.weights = {arm: weights[base] for arm, base in bases.items()}
    return board


def _asked(claim: Claim, settings: Settings) -> tuple[tuple[str, ...], tuple[int, ...]]:
    for name in settings.arms:
        require(name, claim.arms, "--arms has")
    if settings.seeds is not None and not 1 <= settings.seeds <= len(claim.seeds):
        raise SettingsError(f"--seeds is {settings.seeds}; claim {claim.name!r} has {len(claim.seeds)}")
    if settings.workers < 1:
        raise SettingsError(f"--workers is {settings.workers}; give at least 1")
    return tuple(dict.fromkeys(settings.arms or claim.arms)), claim.seeds[: settings.seeds]


def _tell_plan(board: Board, arms: Sequence[str], seeds: Sequence[int], console: Console) -> None:
    """Show the claim, and of the cells that are asked for how many are finished already."""
    console.print(board.claim.title, style="bold", markup=False)
    console.print(board.claim.question, markup=False)
    rows = []
    for arm in arms:
        searched = [board.result(cell) is not None for cell in board.searched(arm)]
        final = [bool((cell := board.final(arm, seed)) and board.result(cell)) for seed in seeds]
        for name, finished in ((f"{arm}, search", searched), (arm, final)):
            if finished:
                rows.append((name, str(len(finished)), str(sum(finished)), str(len(finished) - sum(finished))))
    heading = ("cells", "number", "finished", "to do")
    console.print(findings.to_table(Grid("what is asked for", heading, tuple(rows))))


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
        console.print(findings.to_table(Grid("what it will cost, each at most", heading, tuple(rows))))
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

    def tell(self, cell: Cell, result: Result) -> None:
        """Tell that a cell is finished."""
        self.done += 1
        self.expected += self.costs.get((cell.arm, cell.search is not None), 0.0)
        self.took += result.seconds
        left = (self.total - self.expected) * (self.took / self.expected if self.expected else 1.0) / self.workers / 60
        scores = ", ".join(f"{split} {100 * one.score:.1f}" for split, one in result.scores.items())
        told = scores or f"failed: {result.failed}"
        rest = f"about {max(0.0, left):.0f} min left" if self.done < self.count else "the last one"
        self.console.print(
            f"[{self.done}/{self.count}] {cell.title}: {told}; {result.seconds:.0f} s; {rest}", markup=False
        )


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

    def keep(cell: Cell, result: Result) -> None:
        board.results[cell.name] = result
        progress.tell(cell, result)

    searching = [cell for arm in arms for cell in board.searched(arm) if not board.result(cell)]
    try:
        with store.lock(settings.output / board.claim.name):
            _run(searching, board, settings, keep)
            # seed by seed, so that a part that was stopped compares all arms
            todo = (cell for seed in seeds for arm in arms if (cell := board.final(arm, seed)))
            _run([cell for cell in todo if not board.result(cell)], board, settings, keep)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted(
            f"stopped with {progress.done} of {count} cells finished, in {board.folder}; the others go on from their "
            "checkpoints: repeat the command"
        ) from stop


def _run(todo: Sequence[Cell], board: Board, settings: Settings, keep: Callable[[Cell, Result], None]) -> None:
    if not todo:
        return
    trial.check_tasks(todo[0])
    job = _Job(settings.output / board.claim.name, board.folder, settings.workers)
    if settings.workers == 1:
        model.limit_threads()
        for cell in todo:
            with trial.logged(job.output / cell.name / "log.txt"):
                result = trial.run(cell, job.output, job.results)
            keep(cell, result)
    else:
        _run_side_by_side(todo, job, keep)


@dataclass(frozen=True, slots=True)
class _Job:
    """Where a process that runs a cell writes, and how many of them there are."""

    output: Path
    results: Path
    workers: int


def _run_side_by_side(todo: Sequence[Cell], job: _Job, keep: Callable[[Cell, Result], None]) -> None:
    context = multiprocessing.get_context("spawn")
    waiting, running = list(todo), dict[Connection, tuple[BaseProcess, Cell]]()
    try:
        while waiting or running:
            while waiting and len(running) < job.workers:
                cell = waiting.pop(0)
                reader, writer = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_work, args=(cell, job, writer))
                process.start()
                running[reader] = process, cell
                writer.close()  # the other process's copy is then the only one: its end is seen here
            ready = wait(list(running))
            for reader in [one for one in running if one in ready]:
                ended, cell = running.pop(reader)
                keep(cell, _received(reader, ended, cell, job))
    finally:
        _stop([process for process, _ in running.values()])


def _received(reader: Connection, process: BaseProcess, cell: Cell, job: _Job) -> Result:
    """Return what a process sent; raises RolecraftError with its reason for one that failed."""
    log = job.output / cell.name / "log.txt"
    try:
        result = reader.recv()
    except (EOFError, OSError):
        process.join()
        raise RolecraftError(
            f"the process of cell {cell.name!r} died with exit code {process.exitcode} (-9 is most often too little "
            f"memory); its log is {log}; repeat the command to go on, with --workers 1 if memory is short"
        ) from None
    process.join()
    if isinstance(result, str):
        raise RolecraftError(
            f"cell {cell.name!r} failed: {result}; its log is {log}; repeat the command to go on once the cause is gone"
        )
    assert isinstance(result, Result), result
    return result


def _work(cell: Cell, job: _Job, writer: Connection) -> None:
    """Be the process of one cell: send its result, or the reason as text if it failed."""
    os.setsid()  # the terminal's Ctrl-C comes to the parent alone, who stops each cell once
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    model.limit_threads()
    log = job.output / cell.name / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        writer.send(trial.run(cell, job.output, job.results, side_by_side=job.workers))
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    except Exception as error:  # noqa: BLE001 - a process boundary: the parent raises it again, in words
        traceback.print_exc()
        writer.send(f"{type(error).__name__}: {error}")


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only `_run_side_by_side` starts this
    parent.join()
    os._exit(1)


def _stop(processes: Sequence[BaseProcess]) -> None:
    """End what still runs: each saves a checkpoint at SIGTERM; what does not heed it is killed."""
    for process in processes:
        process.terminate()
    limit = time.monotonic() + _GRACE
    for process in processes:
        process.join(timeout=max(0.0, limit - time.monotonic()))
        process.kill()
        process.join()


# ---- what came of it


def _write_down(board: Board, settings: Settings, console: Console) -> dict[str, Json]:
    found = _find(board)
    if not found.finished:
        others = len(list(board.folder.glob("*.json")))
        raise DataError(
            f"claim {board.claim.name!r} has no finished cell of its present settings and base in {board.folder} "
            f"({others} files of others); run them: rolecraft reproduce {board.claim.name}"
        )
    for grid in findings.grids(found):
        console.print(findings.to_table(grid))
    console.print(f"[bold]verdict: {found.verdict}[/bold] ({found.finished} of {found.wanted} cells)")
    console.print(findings.rule(board.claim), markup=False)
    findings.write_section(settings.docs, board.claim.name, findings.section(found))
    console.print(f"written into {settings.docs} from the cells in {board.folder}")
    return findings.to_json(found)


def _find(board: Board) -> Findings:
    chosen = {arm: values for arm in board.claim.arms if (values := board.chosen(arm)) is not None}
    done = {
        arm: {
            seed: result
            for seed in board.claim.seeds
            if (cell := board.final(arm, seed)) and (result := board.result(cell))
        }
        for arm in chosen
    }
    return findings.find(board.claim, done, chosen)
