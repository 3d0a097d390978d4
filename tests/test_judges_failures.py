"""Each failed episode has one class, and it is the one that a reader would give."""

from __future__ import annotations

from dataclasses import replace

import pytest
from episodes import CODE, FIND, READ, episode

from rolecraft.judges import failures
from rolecraft.types import Message, ToolSpec

OTHER = ("read_debt", {"key": "Sevvo"})
UNKNOWN = ("look_up", {"key": "Plalples"})
STRAY = ("python", {"code": "1"})
PAIR = {"wanted": (READ, OTHER), "ordered": False}


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("needless call", episode(READ, "17", wanted=())),
        ("needless call", episode(UNKNOWN, "17", wanted=())),
        ("needless call", episode(None, "17", wanted=())),
        ("unparsed", episode(None, "17")),
        ("unparsed", episode(FIND, None, "17")),
        ("unparsed", episode(None, UNKNOWN, STRAY, "17")),
        ("no such tool", episode(UNKNOWN, "17")),
        ("no such tool", episode(FIND, STRAY, UNKNOWN, "17")),
        ("wrong tool", episode(STRAY, "17")),
        ("wrong tool", episode(FIND, STRAY, "17")),
        ("wrong tool", episode([FIND, STRAY], "17")),
        ("wrong arguments", episode(FIND, OTHER, "17")),
        ("wrong arguments", episode(OTHER, FIND, "17")),
        ("wrong arguments", episode([READ, ("read_debt", {"key": "Sevv"})], "17", **PAIR)),
        ("wrong arguments", episode(FIND, OTHER, stop="max_turns")),
        ("missing step", episode(FIND, "Plalples")),
        ("missing step", episode(FIND, FIND, "Plalples")),
        ("missing step", episode(READ, "17", **PAIR)),
        ("missing step", episode(OTHER, "17", **PAIR)),
        ("gave up early", episode("I do not know.")),
        ("gave up early", episode()),
        ("ran out", episode("I think.", stop="max_turns")),
        ("ran out", episode(FIND, stop="length")),
        ("ran out", episode(FIND, READ, stop="repeated_call")),
        ("wrong order", episode(READ, FIND, "17")),
        ("extra call", episode(FIND, READ, STRAY, "17")),
        ("extra call", episode(FIND, READ, READ, "17")),
        ("wrong answer", episode(FIND, READ, "17")),
        ("wrong answer", episode([OTHER, READ], "17", **PAIR)),
        ("wrong answer", episode("17", wanted=())),
    ],
)
def test_a_failed_episode_has_the_class_that_explains_it(name, made):
    assert failures.failure(made) == name


@pytest.mark.parametrize("fault", [None, UNKNOWN, STRAY])
def test_a_fault_that_a_later_right_call_repaired_does_not_count(fault):
    assert failures.failure(episode(fault, FIND, "17")) == "missing step"


def test_the_last_call_stands_for_those_it_builds_on():
    assert failures.failure(episode(READ, "17")) == "wrong answer"


def test_other_code_with_the_expected_result_is_a_right_call():
    made = episode(("python", {"code": "sum([60, 63])"}, "123"), "17", wanted=(CODE,), answers=("123",))
    assert failures.failure(made) == "wrong answer"


@pytest.mark.parametrize("seen", ["1234", "-123", "the result is missing"])
def test_other_code_with_another_result_is_a_wrong_one(seen):
    made = episode(("python", {"code": "sum([60, 63])"}, seen), "17", wanted=(CODE,), answers=("123",))
    assert failures.failure(made) == "wrong arguments"


def with_errors(made):
    told = tuple(replace(m, failed=m.role == "tool") for m in made.messages)
    return replace(made, messages=told)


def test_an_error_that_names_the_expected_result_is_not_that_result():
    made = episode(
        ("python", {"code": "sum([60, 63])"}, "error: ValueError: 123"), "17", wanted=(CODE,), answers=("123",)
    )
    assert failures.failure(with_errors(made)) == "wrong arguments"


def test_a_right_call_whose_tool_failed_is_not_blamed_on_the_answer():
    assert failures.failure(with_errors(episode(FIND, READ, "17"))) == "tool failed"


@pytest.mark.parametrize(
    ("made", "wanted", "right"),
    [
        (1, True, False),
        (True, 1, False),
        (1.0, True, False),
        (0, False, False),
        ([{"a": [1]}], [{"a": [True]}], False),
        (1.0, 1, True),
        ([{"a": [2]}], [{"a": [2.0]}], True),
        (0.1 + 0.2, 0.3, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ],
)
def test_true_is_not_1_and_1_is_1_0_at_any_depth(made, wanted, right):
    found = failures.failure(episode(("read_debt", {"key": made}), "17", wanted=(("read_debt", {"key": wanted}),)))
    assert found == ("wrong answer" if right else "wrong arguments")


def test_the_layout_of_code_does_not_matter():
    spaced = episode(("python", {"code": "print(60  +\n63)"}, ""), "17", wanted=(CODE,))
    assert failures.failure(spaced) == "wrong answer"


def test_an_observation_without_an_id_is_found_by_its_place():
    made = episode(
        [("python", {"code": "1"}, ""), ("python", {"code": "2"}, "123")], "17", wanted=(CODE,), answers=("123",)
    )
    nameless = tuple(replace(m, tool_call_id=None) for m in made.messages)
    bare = tuple(replace(m, tool_calls=tuple(replace(c, id="") for c in m.tool_calls)) for m in nameless)
    assert failures.failure(replace(made, messages=bare)) == "extra call"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("unparsed", episode(None, "17", wanted=None)),
        ("no such tool", episode(UNKNOWN, "17", wanted=None)),
        ("ran out", episode(READ, wanted=None, stop="max_turns")),
        ("wrong answer", episode(READ, STRAY, "17", wanted=None)),
        ("wrong answer", episode(READ, "17", wanted=None, calls=2)),
        ("wrong answer", episode(READ, "17", wanted=None, calls=[{"arguments": {}}])),
    ],
)
def test_without_reference_calls_only_what_shows_by_itself_is_told(name, made):
    assert failures.failure(made) == name


def test_a_solved_and_an_unjudged_episode_have_no_class():
    assert failures.failure(episode(STRAY, "3809", score=1.0)) is None
    assert failures.failure(episode(STRAY, "3809", score=None)) is None


def test_a_partly_solved_episode_has_one():
    assert failures.failure(episode(FIND, "Plalples", score=0.5)) == "missing step"


def test_calls_of_the_opening_are_not_the_episodes():
    made = episode(READ, "17")
    shown = replace(made.task, messages=made.messages[:3])
    assert failures.calls_made(replace(made, task=shown)) == ()


def test_arguments_nested_a_thousand_deep_are_wrong_not_an_error():
    deep = []
    for _ in range(3000):
        deep = [deep]
    assert failures.failure(episode(("read_debt", {"key": deep}), "17", wanted=(READ,))) == "wrong arguments"


def test_the_judge_accepts_right_calls_whatever_the_answer():
    assert failures.judge(episode(FIND, READ, "17")).score == 1
    assert failures.judge(episode(FIND, "17")).reason == "missing step: made right calls, but not all of them"


def test_the_judge_refuses_an_empty_conversation_without_an_error():
    assert failures.judge(replace(episode(), messages=(Message("user"),))).score == 0


def test_an_argument_that_was_left_out_is_its_default():
    deep = {"type": "boolean", "default": False}
    schema = {"type": "object", "properties": {"key": {"type": "string"}, "deep": deep}, "required": ["key"]}
    made = episode(("read_debt", {"key": "Plalples", "deep": False}), "17", wanted=(READ,))
    told = replace(made, task=replace(made.task, tools=(ToolSpec("read_debt", "debt", schema),)))
    assert failures.failure(told) == "wrong answer"
    assert failures.failure(made) == "wrong arguments"
