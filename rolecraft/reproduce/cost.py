"""What the unfinished cells of a claim will cost, by the speed of the finished ones or of a short probe.

Not covered: that a long prompt or a reply held to a schema takes longer than another, until such cells are finished.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

import rolecraft.reproduce.playing as playing
import rolecraft.reproduce.plays as plays
from rolecraft.errors import Interrupted
from rolecraft.reproduce.board import Board
from rolecraft.reproduce.cells import Cell, Result, Tuning, final_cell, read_all
from rolecraft.reproduce.plays import Play, Record
from rolecraft.reproduce.trial import logged, placed, probe

_LOAD = 15.0  # seconds that a cell takes to load its model and to read its data, beside the steps and the tasks
_PLAY = 0.1  # seconds that one process needs for a task, where no finished cell tells
_CHECKED = 0.3  # the same of a task that a round plays with a checker
_PLAY_UNKNOWN = 3.0  # the same of a column, where neither a finished cell nor a probe tells


@dataclass(frozen=True, slots=True)
class Cost:
    """What the unfinished cells of an arm will take: how many, steps and tokens at most each, and seconds each.

    Of played cells `arm` is `arm/mode`, and the seconds are their mean.
    """

    arm: str
    search: bool
    count: int
    steps: int
    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Probing:
    """Where probes run, where bases lie that have no place of their own, and who is told."""

    output: Path
    console: Console
    paths: Mapping[str, str] = field(default_factory=dict)


def estimate(
    board: Board, arms: Sequence[str], seeds: Sequence[int], probing: Probing, names: Collection[str] = ()
) -> list[Cost]:
    """Return the cost of each arm's unfinished cells: searches, final ones and those played on columns apart."""
    tuned = _tuning(board, [arm for arm in arms if board.claim.arms[arm].tuned], seeds, probing)
    missing = [play for play in board.plays(arms, seeds, names, guess=True) if not board.record(play)]
    return [*tuned, *_playing(missing, plays.read_all(board.folder), probing)]


def _tuning(board: Board, arms: Sequence[str], seeds: Sequence[int], probing: Probing) -> list[Cost]:
    finished = read_all(board.folder)
    costs = []
    for arm in arms:
        todo = [cell for cell in board.searched(arm) if not board.result(cell)]
        # Without its search a final cell is as good as any other of the arm for what it will cost.
        own = board.claim.seeds_of(arm, seeds)
        final = [board.final(arm, s) or final_cell(board.claim, arm, s, board.weights[arm], {}) for s in own]
        rest = [cell for cell in final if board.chosen(arm) is None or not board.result(cell)]
        if todo or rest:
            speed = _speed((todo or rest)[0], finished, probing)
            costs += [_cost(group, speed) for group in (todo, rest) if group]
    return costs


def _cost(group: Sequence[Cell], speed: _Speed) -> Cost:
    cell, steps, search = group[0], group[0].most_steps, group[0].search is not None
    asked = cell.evaluation
    development, final = asked.development_n * len(asked.development_splits), asked.n * len(asked.splits)
    if asked.columns:  # they are cells of their own
        development, final = sum(column.n for column in asked.development_columns.values()), 0
    points = 1 if search else max(cell.budget.curve, _chunks(cell))
    played = points * development + (0 if search else final)
    seconds = steps * speed.step + played * speed.task + _LOAD * max(1, len(cell.stages), _chunks(cell))
    return Cost(cell.arm, search, len(group), steps, steps * speed.tokens, seconds)


def _chunks(cell: Cell) -> int:
    """Return in how many chunks the cell's last stage may grow, 0 if it does not."""
    last = cell.stages[-1].recipe.training.max_steps
    chunks = 1 + (cell.most_steps - sum(stage.recipe.training.max_steps for stage in cell.stages)) // last
    return chunks if chunks > 1 else 0


@dataclass(frozen=True, slots=True)
class _Speed:
    """Seconds of a step and of a task, and tokens of a step."""

    step: float
    tokens: float
    task: float


def _speed(cell: Cell, finished: Sequence[Result], probing: Probing) -> _Speed:
    tunings = [one.tuning for one in finished if one.arm == cell.arm and one.tuning and one.tuning.seconds]
    played = [one.seconds_per_task for one in finished if one.seconds_per_task]
    if not tunings:
        probing.console.print(f"measuring the speed of {cell.arm!r} ...", style="dim")
        folder = probing.output / cell.claim
        try:
            with logged(folder / "probe.log"):
                tunings = [_probed(placed(cell, probing.paths), folder / "probe")]
        except Interrupted as stop:  # nothing of a probe is kept
            raise KeyboardInterrupt from stop
    return _Speed(
        step=statistics.median(one.seconds / one.steps for one in tunings),
        tokens=statistics.median(one.tokens / one.steps for one in tunings),
        task=statistics.median(played) if played else _PLAY,
    )


def _probed(cell: Cell, folder: Path) -> Tuning:
    """Return what the cell's tuning would take by the speed of each of its stages, all on the base."""
    seconds = tokens = 0.0
    for stage in cell.stages:
        told, steps, found = stage.recipe, stage.recipe.training.max_steps, probe(stage.recipe, folder)
        rows = 1 if told.preference is None else 2  # of a pair
        seconds += rows * steps * found.seconds / found.steps
        if told.experience is not None:
            seconds += told.experience.tasks * told.experience.tries * _CHECKED
        tokens += steps * found.tokens / found.steps
    return Tuning(0, sum(stage.recipe.training.max_steps for stage in cell.stages), round(tokens), seconds)


def _playing(missing: Sequence[Play], finished: Sequence[Record], probing: Probing) -> list[Cost]:
    """Return the cost of the played cells by arm and mode, at the pace of like ones, else of the same base."""
    paces = [
        (one.arm, one.mode, one.base, one.seconds_per_task) for one in finished if one.seconds_per_task and one.base
    ]
    groups: dict[str, list[Play]] = {}
    for play in missing:
        groups.setdefault(play.contender, []).append(play)
    costs = []
    # what can be probed comes first, so that its pace stands for the others of its base
    for group in sorted(groups.values(), key=lambda group: not _can_probe(group[0])):
        first = group[0]
        like = [pace for arm, mode, _, pace in paces if (arm, mode) == (first.arm, first.mode_name)]
        like = like or [pace for _, _, base, pace in paces if base == first.base]
        if not like and _can_probe(first):
            like = [_probe(first, probing)]
            paces.append((first.arm, first.mode_name, first.base, like[0]))
        pace = 0.0 if first.policy else statistics.median(like) if like else _PLAY_UNKNOWN
        mean = statistics.fmean(play.column.n for play in group) * pace + (0.0 if first.policy else _LOAD)
        costs.append(Cost(first.contender, False, len(group), 0, 0.0, mean))
    return costs


def _can_probe(play: Play) -> bool:
    """Whether the play's beginning tells its pace: examples depend on how many tasks are asked, and it keeps them."""
    return play.policy is None and not play.mode.shots


def _probe(play: Play, probing: Probing) -> float:
    """Return the seconds of a task; of an arm that is to be tuned those of its base, whose replies are no shorter."""
    play = replace(play, tuning=None)
    probing.console.print(f"measuring the speed of {play.contender!r} ...", style="dim")
    folder = probing.output / play.claim
    with logged(folder / "probe.log"):
        return playing.probe(play, folder, probing.paths)


def minutes(costs: Sequence[Cost], workers: int) -> float:
    """Return the wall time with the longest cells first, each for the worker that is free first; searches go ahead."""
    total = 0.0
    for search in (True, False):
        free = [0.0] * workers
        for seconds in sorted((c.seconds for c in costs if c.search == search for _ in range(c.count)), reverse=True):
            free[free.index(min(free))] += seconds
        total += max(free)
    return total / 60
