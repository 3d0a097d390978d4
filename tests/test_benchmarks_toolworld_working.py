"""Arithmetic in writing: every line of the working is true, and the tasks without tools can be judged."""

from __future__ import annotations

import re
from random import Random

import pytest

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, sums, working
from rolecraft.benchmarks.toolworld.asking import Sentences

FACT = re.compile(r"(\d+)([*+-])(\d+)([+-])(\d+)=(\d+)")


def values_of(text: str) -> list[tuple[int, int]]:
    """Both sides of every column of a sum, difference or product."""
    found = []
    for a, sign, b, then, c, result in FACT.findall(text):
        left = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
        found.append((left + (int(c) if then == "+" else -int(c)), int(result)))
    return found


def test_every_column_is_true():
    random = Random(3)
    for _ in range(300):
        text = working.write(sums.draw(random, "Plalples", Sentences()))
        assert all(left == right for left, right in values_of(text)), text


def test_every_operation_ends_in_its_result():
    random = Random(4)
    for _ in range(300):
        problem = sums.draw(random, "Plalples", Sentences())
        ends = [int(part.rpartition("= ")[2]) for part in working.write(problem).split(".")[1:-1]]
        assert ends == [step.result for step in problem.steps]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (working.add(78, 45), "78+45: 8+5+0=13:3 7+4+1=12:23 = 123"),
        (working.subtract(302, 45), "302-45: 12-5-0=7:7 10-4-1=5:57 3-0-1=2:257 = 257"),
        (working.divide(144, 12), "144/12: 1/12=0,1:0 14/12=1,2:1 24/12=2,0:12 = 12"),
        (working.multiply(34, 6), "34*6: 4*6+0=24:4 3*6+2=20:04 = 204"),
    ],
)
def test_the_working_is_digit_by_digit(written, expected):
    assert written == expected


@pytest.mark.parametrize("team", ["mor", "single"])
def test_a_task_without_tools_is_solved_in_writing(team):
    for task in toolworld.tasks(Settings(size=60, families=("calc",), tools=False), "test", 9):
        played = toolworld.reference(task, team)
        assert played.verdict.score == 1, played.verdict.reason
        assert task.tools == ()


def test_both_arms_get_the_same_problems():
    with_tools = toolworld.tasks(Settings(size=40, families=("calc",)), "test", 9)
    without = toolworld.tasks(Settings(size=40, families=("calc",), tools=False), "test", 9)
    assert [t.messages for t in with_tools] == [t.messages for t in without]
    assert [t.reference["answers"] for t in with_tools] == [t.reference["answers"] for t in without]
