"""Neither waste nor skipped steps pay."""

from __future__ import annotations

import pytest

from rolecraft.judges import efficiency
from rolecraft.types import Message, Task, ToolCall, Trajectory


def judged(calls, names, unparsed=None):
    made = Message("assistant", tool_calls=tuple(ToolCall(name, {}, str(i)) for i, name in enumerate(names)))
    reference = {} if calls is None else {"calls": calls}
    return efficiency.judge(Trajectory("t", Task("t", (), (), reference), (made.edited(unparsed=unparsed),)))


@pytest.mark.parametrize(
    ("calls", "names", "score"),
    [
        (2, "ab", 1.0),
        ([{"name": "a"}, {"name": "b"}], "ab", 1.0),
        (2, "abc", 0.5),
        (2, "abcd", 0.0),
        (2, "abcdefg", 0.0),
        (2, "a", 0.5),
        (2, "", 0.0),
        (2, "aa", 0.5),
        (2, "aba", 0.5),
        (0, "", 1.0),
        (0, "a", 0.0),
        (-3, "", 1.0),
    ],
)
def test_the_score_falls_with_each_call_too_many_or_too_few(calls, names, score):
    assert judged(calls, names).score == score


def test_a_call_that_does_not_parse_is_waste():
    assert judged(2, "ab", unparsed="{").parts == {"made": 1.0, "lean": 0.5}


@pytest.mark.parametrize("calls", [None, "two", True, 1.5])
def test_a_reference_without_calls_is_told(calls):
    verdict = judged(calls, "a")
    assert (verdict.score, "no 'calls'" in verdict.reason) == (0.0, True)


def test_waste_is_told():
    assert judged(1, "ab").reason == "2 calls, 2 of them different; the reference makes 1"
