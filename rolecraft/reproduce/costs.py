"""What a claim's arms cost, from the finished cells: parameters and operations of tuning, tokens and seconds at play.

Seconds are those of the machine that the cells ran on, beside what else ran there; the other figures are the same
anywhere. Not covered: what unfinished cells will cost (`cost`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rolecraft.reproduce.cells import Result
from rolecraft.reproduce.claim import Claim, Limit
from rolecraft.reproduce.grid import Grid

MEASURES = {
    "trained": "trained at once",
    "stored": "stored beside the base",
    "training_tokens": "tokens of tuning",
    "training_flops": "operations of tuning",
    "training_seconds": "seconds of tuning",
    "play_tokens": "tokens of a task",
    "play_calls": "model calls of a task",
    "play_seconds": "seconds of a task",
}
"""The measures by name, and what their columns are called."""


def figures(result: Result) -> dict[str, float]:
    """Return a finished cell's costs by measure; nothing if it was finished before they were recorded."""
    played = [one.cost for one in result.scores.values() if one.cost]
    tuning = result.tuning
    if tuning is None or not tuning.flops or not played:
        return {}
    mean = {name: statistics.fmean(cost[name] for cost in played) for name in played[0]}
    return {
        "trained": tuning.trainable,
        "stored": tuning.stored,
        "training_tokens": tuning.tokens,
        "training_flops": tuning.flops,
        "training_seconds": tuning.seconds,
        "play_tokens": mean["computed"] + mean["completion"],
        "play_calls": mean["model_calls"],
        "play_seconds": result.seconds_per_task,
    }


def grids(claim: Claim, cells: Mapping[str, Mapping[int, Result]]) -> list[Grid]:
    """Return the table of costs, each also as a multiple of the first arm's; none where no cell has recorded them."""
    found = {name: _mean(list(cells.get(name, {}).values())) for name in claim.arms}
    first = next((one for one in found.values() if one), None)
    if first is None:
        return []
    rows = [
        (name, *(_cell(costs[key], first[key]) if costs else "-" for key in MEASURES)) for name, costs in found.items()
    ]
    title = "cost, the mean of the seeds (times the first arm's)"
    return [Grid(title, ("arm", *MEASURES.values()), tuple(rows))]


def holds(limit: Limit, cells: Mapping[str, Mapping[int, Result]], seeds: Sequence[int]) -> bool | None:
    """Return whether a limit holds at every seed; None while a cell is missing that it rests on."""
    ratios = ratio(limit, cells, seeds)
    return None if len(ratios) < len(seeds) else all(one <= limit.at_most for one in ratios)


def ratio(limit: Limit, cells: Mapping[str, Mapping[int, Result]], seeds: Sequence[int]) -> list[float]:
    """Return what the limited arm costs as a multiple of the other, at each seed that both have."""
    pairs = (
        (figures(cells[limit.arm][seed]), figures(cells[limit.than][seed]))
        for seed in seeds
        if seed in cells.get(limit.arm, {}) and seed in cells.get(limit.than, {})
    )
    return [mine[limit.cost] / other[limit.cost] for mine, other in pairs if mine and other and other[limit.cost]]


def told(limit: Limit, cells: Mapping[str, Mapping[int, Result]], seeds: Sequence[int]) -> str:
    """Return a limit in words, with what was found."""
    ratios = ratio(limit, cells, seeds)
    found = f"found {statistics.fmean(ratios):.2f}" if ratios else "not finished"
    return f"{MEASURES[limit.cost]}: `{limit.arm}` at most {limit.at_most:g} times `{limit.than}` ({found})"


def _mean(results: Sequence[Result]) -> dict[str, float]:
    costs = [found for one in results if (found := figures(one))]
    return {key: statistics.fmean(one[key] for one in costs) for key in MEASURES} if costs else {}


def _cell(value: float, first: float) -> str:
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    if value >= 1e9:
        text = f"{value:.2e}"
    return f"{text} ({value / first:.2f})" if first else text
