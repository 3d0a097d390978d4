"""What the unfinished cells of a claim will cost, by the speed of the finished ones or of a short probe."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rolecraft.errors import Interrupted
from rolecraft.reproduce.cells import Board, Cell, Result, final_cell, read_all
from rolecraft.reproduce.trial import logged, probe

_LOAD = 15.0  # seconds that a cell takes to load its model and to read its data, beside the steps and the tasks
_PLAY = 0.1  # seconds that one process needs for a task, where no finished cell tells


@dataclass(frozen=True, slots=True)
class Cost:
    """What the unfinished cells of an arm will take: how many, steps and tokens at most each, and seconds each."""

    arm: str
    search: bool
    count: int
    steps: int
    tokens: float
    seconds: float


def estimate(board: Board, arms: Sequence[str], seeds: Sequence[int], output: Path, console: Console) -> list[Cost]:
    """Return the cost of each arm's unfinished cells, searches and final ones apart; probes run in `output`."""
    finished = read_all(board.folder)
    costs = []
    for arm in arms:
        todo = [cell for cell in board.searched(arm) if not board.result(cell)]
        # Without its search a final cell is as good as any other of the arm for what it will cost.
        final = [board.final(arm, s) or final_cell(board.claim, arm, s, board.weights[arm], {}) for s in seeds]
        rest = [cell for cell in final if board.chosen(arm) is None or not board.result(cell)]
        if todo or rest:
            speed = _speed((todo or rest)[0], finished, output, console)
            costs += [_cost(group, speed) for group in (todo, rest) if group]
    return costs


def _cost(group: Sequence[Cell], speed: _Speed) -> Cost:
    cell, steps, search = group[0], group[0].most_steps, group[0].search is not None
    asked = cell.evaluation
    development = asked.development_n * len(asked.development_splits)
    points = 1 if search else max(cell.budget.curve, _chunks(cell))
    played = points * development + (0 if search else asked.n * len(asked.splits))
    seconds = steps * speed.step + played * speed.task + _LOAD * max(1, len(cell.stages), _chunks(cell))
    return Cost(cell.arm, search, len(group), steps, steps * speed.tokens, seconds)


def _chunks(cell: Cell) -> int:
    """Return in how many chunks the cell's last stage may grow, 0 if it does not."""
    last = cell.stages[-1].training.max_steps
    chunks = 1 + (cell.most_steps - sum(stage.training.max_steps for stage in cell.stages)) // last
    return chunks if chunks > 1 else 0


@dataclass(frozen=True, slots=True)
class _Speed:
    """Seconds of a step and of a task, and tokens of a step."""

    step: float
    tokens: float
    task: float


def _speed(cell: Cell, finished: Sequence[Result], output: Path, console: Console) -> _Speed:
    tunings = [one.tuning for one in finished if one.arm == cell.arm and one.tuning and one.tuning.seconds]
    played = [one.seconds_per_task for one in finished if one.seconds_per_task]
    if not tunings:
        console.print(f"measuring the speed of {cell.arm!r} ...", style="dim")
        try:
            with logged(output / cell.claim / "probe.log"):
                tunings = [probe(cell.stages[-1], output / cell.claim / "probe")]
        except Interrupted as stop:  # nothing of a probe is kept
            raise KeyboardInterrupt from stop
    return _Speed(
        step=statistics.median(one.seconds / one.steps for one in tunings),
        tokens=statistics.median(one.tokens / one.steps for one in tunings),
        task=statistics.median(played) if played else _PLAY,
    )


def minutes(costs: Sequence[Cost], workers: int) -> float:
    """Return the wall time with the longest cells first, each for the worker that is free first; searches go ahead."""
    total = 0.0
    for search in (True, False):
        free = [0.0] * workers
        for seconds in sorted((c.seconds for c in costs if c.search == search for _ in range(c.count)), reverse=True):
            free[free.index(min(free))] += seconds
        total += max(free)
    return total / 60
