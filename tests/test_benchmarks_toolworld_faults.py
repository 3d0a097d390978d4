"""In the split `faults` an episode's first call fails and works when made again, and branches know what has failed."""

from __future__ import annotations

import asyncio

import pytest

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import faults, script
from rolecraft.types import Message, ToolCall

SETTINGS = toolworld.Settings(size=4, families=("hub", "hop"), mixed=0.0)


@pytest.fixture
def task():
    return toolworld.tasks(SETTINGS, "faults", 3)[0]


def first_call(task) -> ToolCall:
    made = task.reference["calls"][0]
    return ToolCall(made["name"], made["arguments"], "1")


def test_the_first_call_fails_and_the_same_one_works_then(task):
    environment = toolworld.open(task)
    said = [asyncio.run(environment.toolbox.call(first_call(task))) for _ in range(2)]
    assert [one.failed for one in said] == [True, False]
    assert said[0].text == faults.ERROR
    assert asyncio.run(toolworld.open(task).toolbox.call(first_call(task))).failed  # of each episode


def test_the_tasks_are_those_of_test_in_worlds_that_fail():
    told = zip(toolworld.tasks(SETTINGS, "faults", 3), toolworld.tasks(SETTINGS, "test", 3), strict=True)
    for faulty, plain in told:
        assert faulty.reference["family"] == plain.reference["family"]
        assert "faults" not in plain.reference
        assert toolworld.reference(faulty, "single").verdict.score == 1.0


def test_an_agent_that_calls_again_is_right_and_one_that_gives_up_is_not(task):
    right = script.replies(task, "single")
    again = [right[0], *right]
    assert script.play_now(toolworld.open(task), "single", again).verdict.score == 1.0
    gives_up = [right[0], Message("assistant", "It does not work.", speaker="assistant")]
    assert script.play_now(toolworld.open(task), "single", gives_up).verdict.score == 0.0


def test_a_branch_has_its_own_failures_until_they_are_committed(task):
    toolbox = toolworld.open(task).toolbox
    call = first_call(task)
    for commits in (False, True):
        branch = toolbox.branch()
        assert asyncio.run(branch.call(call)).failed
        assert not asyncio.run(branch.call(call)).failed
        if commits:
            branch.commit()
        branch.close()
        assert toolbox.left == (0 if commits else 1)
    assert not asyncio.run(toolbox.call(call)).failed
