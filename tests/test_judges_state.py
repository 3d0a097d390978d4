"""The final state is compared tool by tool, and the first difference is told."""

from __future__ import annotations

import pytest

from rolecraft.judges import state
from rolecraft.types import Task, Trajectory


def judged(wanted, final):
    return state.judge(Trajectory("t", Task("t", (), (), {"state": wanted}), (), final_state=final))


@pytest.mark.parametrize(
    ("wanted", "final"),
    [
        ({"sql": {"rows": [1, "a"]}}, {"sql": {"rows": (1.0, "a")}}),
        ({"sql": 1}, {"sql": 1, "python": 2}),
        ({"sql": 0.1 + 0.2}, {"sql": 0.3}),
        ({"sql": None}, {"sql": None}),
        ({}, {}),
    ],
)
def test_equal_states_are_accepted(wanted, final):
    assert judged(wanted, final).score == 1


@pytest.mark.parametrize(
    ("wanted", "final", "said"),
    [
        ({"sql": {"t": [{"a": 5}]}}, {"sql": {"t": [{"a": 6}]}}, "sql.t[0].a: expected 5, got 6"),
        ({"sql": [1, 2]}, {"sql": [2, 1]}, "sql[0]: expected 1, got 2"),
        ({"sql": [1]}, {"sql": [1, 2]}, "sql: expected 1 items, got 2"),
        ({"sql": {"a": 1}}, {"sql": {"b": 1}}, "sql: missing 'a'; unexpected 'b'"),
        ({"sql": 1}, {"sql": True}, "sql: expected 1, got True"),
        ({"sql": 1.0}, {"sql": 10**400}, "sql: expected 1.0"),
        ({"sql": 1.0}, {"sql": "1.0"}, "sql: expected 1.0, got '1.0'"),
        ({"sql": 1}, {}, "no tool 'sql' left a state"),
        ({"sql": 1}, None, "recorded no final state"),
        (None, {}, "no 'state'"),
    ],
)
def test_the_first_difference_is_told(wanted, final, said):
    verdict = judged(wanted, final)
    assert verdict.score == 0
    assert said in verdict.reason


def test_each_tool_is_a_part():
    assert judged({"a": 1, "b": 2}, {"a": 1, "b": 3}).parts == {"a": 1.0, "b": 0.0}


def test_endless_depth_is_a_difference():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert "nested" in judged({"x": deep}, {"x": deep}).reason
