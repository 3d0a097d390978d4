"""The cost of a claim follows from what is unfinished and from the speed of what is finished."""

from __future__ import annotations

import claims
import pytest
from rich.console import Console

from rolecraft.reproduce import board as boards
from rolecraft.reproduce import cells, cost
from rolecraft.reproduce.cost import Cost, Probing

SEARCH = {"small": {"search": {"adapter.r": [2, 3]}}, "large": {}}


def one(seconds: float, count: int = 1, *, search: bool = False) -> Cost:
    return Cost("small", search, count, 10, 100.0, seconds)


@pytest.mark.parametrize(
    ("costs", "workers", "minutes"),
    [
        ([], 2, 0),
        ([one(60, 3)], 1, 3),
        ([one(60, 3)], 2, 2),
        ([one(60, 2), one(120)], 2, 2),
        ([one(60, 2, search=True), one(60, 1)], 2, 2),  # what is searched comes first
    ],
)
def test_cells_side_by_side_take_the_longer_side(costs, workers, minutes):
    assert cost.minutes(costs, workers) == pytest.approx(minutes)


def board(tmp_path, **changes) -> boards.Board:
    read = claims.make(tmp_path, **changes)
    return boards.Board(read, tmp_path / "results", dict.fromkeys(read.arms, "w"))


def finish(made: boards.Board, cell: cells.Cell, **changes) -> None:
    result = claims.result(cell.arm, cell.seed, "10", configuration=cells.configuration(cell), **changes)
    cells.write(cell, result, made.folder)


def estimate(made: boards.Board, tmp_path) -> dict[tuple[str, bool], Cost]:
    costs = cost.estimate(
        made, tuple(made.claim.arms), made.claim.seeds, Probing(tmp_path / "runs", Console(quiet=True))
    )
    return {(each.arm, each.search): each for each in costs}


def test_finished_cells_cost_nothing_and_tell_the_speed_of_the_others(tmp_path):
    made = board(tmp_path)
    for arm in ("small", "large"):
        finish(made, made.final(arm, 0), seconds_per_task=1.0)
    found = estimate(made, tmp_path)
    # 100 steps took 30 s: 2 take 0.6 s, and 2 tasks 2 s
    assert found["small", False].seconds == pytest.approx(0.6 + 2 + cost._LOAD)
    assert found["small", False].count == 1
    assert found["small", False].tokens == pytest.approx(400)
    assert not (tmp_path / "runs").exists()


def test_nothing_left_costs_nothing(tmp_path):
    made = board(tmp_path)
    for arm in ("small", "large"):
        for seed in (0, 1):
            finish(made, made.final(arm, seed))
    assert estimate(made, tmp_path) == {}


def test_a_search_is_paid_for_with_what_it_leads_to(tmp_path):
    made = board(tmp_path, arms=SEARCH)
    first, _ = made.searched("small")
    finish(made, first, search=dict(first.search))
    finish(made, made.final("large", 0))
    assert made.final("small", 0) is None
    found = estimate(made, tmp_path)
    assert (found["small", True].count, found["small", False].count, found["large", False].count) == (1, 2, 1)


def test_an_arm_that_grows_is_paid_for_to_its_bound(tmp_path):
    made = board(tmp_path, budget={"most_steps": 6})
    finish(made, made.final("small", 0), seconds_per_task=1.0)
    finish(made, made.final("large", 0), seconds_per_task=1.0)
    found = estimate(made, tmp_path)["small", False]
    assert found.steps == 6
    assert found.seconds == pytest.approx(6 * 0.3 + 3 * 2 + 2 + 3 * cost._LOAD)
