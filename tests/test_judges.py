"""`weigh` combines judges with named parts; `replies` are the episode's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft.errors import SettingsError
from rolecraft.judges import answers, calls, efficiency, replies, state, weigh
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory, Verdict

EMPTY = Trajectory("t", Task("t", ()), ())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "type", "properties", "$ref", "items", "required"]), VALUES, max_size=3)
TRAJECTORIES = st.builds(
    Trajectory,
    id=st.just("t"),
    task=st.builds(
        Task,
        id=st.just("t"),
        messages=st.just(()),
        tools=st.builds(ToolSpec, st.sampled_from("fg"), st.just(""), OBJECTS).map(lambda spec: (spec,)),
        reference=st.dictionaries(st.sampled_from(["answers", "forbidden", "state", "calls"]), VALUES),
    ),
    messages=st.lists(
        st.builds(
            Message,
            role=st.sampled_from(["user", "assistant"]),
            content=st.text(max_size=8),
            tool_calls=st.builds(ToolCall, st.sampled_from("fg"), OBJECTS).map(lambda call: (call,)) | st.just(()),
            unparsed=st.none() | st.text(max_size=3),
        ),
        max_size=3,
    ).map(tuple),
    final_state=st.none() | OBJECTS,
)


def scored(value, **parts):
    return lambda trajectory: Verdict(value, "so", parts)


def test_the_score_is_the_weighted_mean():
    assert weigh({"a": (scored(1.0), 3.0), "b": (scored(0.0), 1.0)})(EMPTY).score == 0.75


def test_parts_carry_the_names_of_judges_and_of_their_own_parts():
    verdict = weigh({"a": (scored(1.0, x=0.5), 1.0), "b": (scored(0.25), 1.0)})(EMPTY)
    assert verdict.parts == {"a": 1.0, "b": 0.25, "a.x": 0.5}


def test_the_reason_names_the_judges_below_one():
    assert weigh({"a": (scored(1.0), 1.0), "b": (scored(0.25), 1.0)})(EMPTY).reason == "b: so"


def test_weighed_judges_can_be_weighed_again():
    inner = weigh({"a": (scored(0.5), 1.0)})
    assert weigh({"outer": (inner, 2.0)})(EMPTY).parts == {"outer": 0.5, "outer.a": 0.5}


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_must_be_a_positive_number(weight):
    with pytest.raises(SettingsError, match=r"'a'.*positive"):
        weigh({"a": (scored(1.0), weight)})


def test_no_judges_are_refused():
    with pytest.raises(SettingsError, match="no judges"):
        weigh({})


@pytest.mark.parametrize("score", [1.5, -0.1, math.nan])
def test_a_judge_whose_score_is_out_of_range_is_named(score):
    with pytest.raises(SettingsError, match="'a' returned"):
        weigh({"a": (scored(score), 1.0)})(EMPTY)


def test_replies_leave_out_the_examples_of_the_opening():
    opening = (Message("user", "1+1"), Message("assistant", "2"), Message("user", "1+2"))
    trajectory = Trajectory("t", Task("t", opening), (*opening, Message("assistant", "3")))
    assert [(place, m.content) for place, m in replies(trajectory)] == [(3, "3")]


@pytest.mark.parametrize("judged", [calls, answers, state, efficiency], ids=lambda module: module.__name__)
@settings(max_examples=40)
@given(trajectory=TRAJECTORIES)
def test_any_trajectory_gets_the_same_verdict_twice_within_range(judged, trajectory):
    verdict = judged.judge(trajectory)
    assert all(0 <= value <= 1 for value in (verdict.score, *verdict.parts.values()))
    assert verdict.reason or verdict.score == 1
    assert judged.judge(trajectory) == verdict
