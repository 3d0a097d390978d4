"""Runs cells in this process, or side by side in processes with one thread each, stoppable by Ctrl-C at any time.

Not covered: which cells are run, and in what order (`reproduce`).
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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import rolecraft.reproduce.together as together
import rolecraft.reproduce.trial as trial
from rolecraft import model
from rolecraft.errors import Interrupted, RolecraftError
from rolecraft.reproduce.cells import Cell, Result
from rolecraft.reproduce.plays import Play, Record

Work = Cell | Play
Done = Result | Record
Group = tuple[Work, ...]
"""Cells that one process runs: a tuning, or plays that share their prompts."""
Keep = Callable[[Work, Done], None]

_GRACE = 60.0  # seconds that a cell gets to save a checkpoint when it is stopped


@dataclass(frozen=True, slots=True)
class Job:
    """Where a process that runs a cell writes, how many of them there are, and where bases lie (`paths`)."""

    output: Path
    results: Path
    workers: int
    paths: Mapping[str, str] = field(default_factory=dict)


def run_all(todo: Sequence[Work], job: Job, keep: Keep) -> None:
    """Run the cells, in this process for a single worker, and give each to `keep` as it is finished.

    Raises RolecraftError with the reason for a cell that failed, and stops the others.
    """
    if job.workers > 1:
        _run_side_by_side(todo, job, keep)
        return
    model.limit_threads()
    for group in _groups(todo):
        with trial.logged(job.output / group[0].name / "log.txt"):
            done = _run(group, job)
        for cell, one in zip(group, done, strict=True):
            keep(cell, one)


def _groups(todo: Sequence[Work]) -> list[Group]:
    """Return the cells in the groups that one process runs, in the order of their first ones."""
    plays = [cell for cell in todo if isinstance(cell, Play)]
    first = {group[0].name: group for group in together.groups(plays)}
    found: list[Group] = []
    for cell in todo:
        if not isinstance(cell, Play):
            found.append((cell,))
        elif cell.name in first:
            found.append(first[cell.name])
    return found


def _run(group: Group, job: Job) -> list[Done]:
    plays = [cell for cell in group if isinstance(cell, Play)]
    if plays:
        return [*together.run(plays, job.output, job.results, job.paths, side_by_side=job.workers)]
    (cell,) = (cell for cell in group if isinstance(cell, Cell))
    return [trial.run(cell, job.output, job.results, job.paths, side_by_side=job.workers)]


def _run_side_by_side(todo: Sequence[Work], job: Job, keep: Keep) -> None:
    context = multiprocessing.get_context("spawn")
    waiting, running = _groups(todo), dict[Connection, tuple[BaseProcess, Group]]()
    try:
        while waiting or running:
            while len(running) < job.workers and (group := _next(waiting, [group for _, group in running.values()])):
                waiting.remove(group)
                reader, writer = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_work, args=(group, job, writer))
                process.start()
                running[reader] = process, group
                writer.close()  # the other process's copy is then the only one: its end is seen here
            ready = wait(list(running))
            for reader in [one for one in running if one in ready]:
                ended, group = running.pop(reader)
                for cell, done in zip(group, _received(reader, ended, group[0], job), strict=True):
                    keep(cell, done)
    finally:
        _stop([process for process, _ in running.values()])


def _next(waiting: Sequence[Group], running: Sequence[Group]) -> Group | None:
    """Return the first cells that wait for no other: a play waits for the tuning of its adapter."""
    ahead = {cell.name for group in (*waiting, *running) for cell in group}
    return next((group for group in waiting if not _tunings(group) & ahead), None)


def _tunings(group: Group) -> set[str]:
    return {cell.tuning.name for cell in group if isinstance(cell, Play) and cell.tuning}


def _received(reader: Connection, process: BaseProcess, cell: Work, job: Job) -> Sequence[Done]:
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
    assert isinstance(result, list), result
    return result


def _work(group: Group, job: Job, writer: Connection) -> None:
    """Be the process of some cells: send their results, or the reason as text if they failed."""
    os.setsid()  # the terminal's Ctrl-C comes to the parent alone, who stops each cell once
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    model.limit_threads()
    log = job.output / group[0].name / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        writer.send(_run(group, job))
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
