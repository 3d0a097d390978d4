"""An answer is right when it holds what is expected as whole words and numbers, however they are written."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecraft.judges import answers
from rolecraft.types import Message, Task, ToolCall, Trajectory


def judged(text, stop="answered", last=None, **reference):
    question = Message("user", "?")
    reply = last or Message("assistant", text)
    return answers.judge(Trajectory("t", Task("t", (question,), (), reference), (question, reply), stop=stop))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The debt is 1,234.", "1234"),
        ("It is 1234", "1,234"),
        ("12.0", "12"),
        ("**12**", "12"),
        ("_12_", "12"),
        ("at −12°", "-12"),
        ("12%", "12"),
        ("$1,234.50.", "1234.5"),
        ("half: .5", "0.50"),
        ("from 3-5", "5"),
        ("covid-19", "19"),
        ("on 2024-05-12.", "2024-05-12"),
        ("the Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("New\nYork!", "new york"),
        ("use C++.", "C++"),
        ("答案是北京。", "北京"),
        ("共1234个", "1,234"),
        ("١٢", "12"),
        ("ze\u200bro", "zero"),
        ("user_name", "user_name"),
        ("O'Neil's", "O'Neil"),
        ("—", "—"),
    ],
)
def test_the_same_answer_in_another_spelling_is_found(text, wanted):
    assert answers.holds(text, wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3124", "12"),
        ("-12", "12"),
        ("12", "-12"),
        ("12.5", "12"),
        ("1,234", "234"),
        ("1e5", "1"),
        ("1.5e3", "1"),
        ("3.14.15", "3.14"),
        ("v12", "12"),
        ("10²", "102"),
        ("007", "7"),
        ("item_12", "12"),
        ("C", "C++"),
        ("York New", "New York"),
        ("NewYork", "New York"),
        ("anything", ""),
        ("anything", "—"),
    ],
)
def test_a_part_of_a_word_or_number_is_not_the_answer(text, wanted):
    assert not answers.holds(text, wanted)


@given(st.integers(-(10**30), 10**30), st.text(alphabet=" .,;:!\n*", max_size=3))
def test_a_whole_number_is_found_with_and_without_separators(number, around):
    assert answers.holds(f"is {number:,} {around}", str(number))
    assert answers.holds(f"is {number}.0 {around}", f"{number:,}")
    assert not answers.holds(f"is {number}", str(number + 1))


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_text_holds_itself_and_never_crashes(text, other):
    assert answers.holds(text, text) or not text.strip()
    assert answers.holds(text, other) in (True, False)


def test_all_answers_must_appear():
    verdict = judged("12 and 13", answers=["12", "14"])
    assert (verdict.score, verdict.parts) == (0.0, {"found": 0.5, "clean": 1.0})
    assert verdict.reason == "the answer lacks '14'"


def test_no_forbidden_answer_may_appear():
    verdict = judged("12 or 13", answers=["12"], forbidden=["13"])
    assert verdict.score == 0
    assert verdict.reason == "the answer holds '13', which is wrong"


def test_an_answer_may_be_one_number():
    assert judged("It is 12.", answers=12).score == 1


def test_reasoning_is_not_the_answer():
    assert judged("<think>12 or 13</think>It is 12.", answers=["12"], forbidden=["13"]).score == 1


@pytest.mark.parametrize("stop", ["max_turns", "repeated_call", "length", "engine_error"])
def test_an_episode_that_ran_out_has_no_answer(stop):
    verdict = judged("12", stop=stop, answers=["12"])
    assert verdict.score == 0
    assert stop in verdict.reason


@pytest.mark.parametrize(
    "last",
    [
        Message("assistant", "12", (ToolCall("f", {}),)),
        Message("assistant", "12", unparsed="{"),
        Message("tool", "12"),
    ],
)
def test_a_call_or_an_observation_is_no_answer(last):
    assert judged("", last=last, answers=["12"]).score == 0


def test_a_task_without_answers_is_told():
    assert "no 'answers'" in judged("12").reason


@pytest.mark.parametrize("text", ["1" * 200_000, "1," * 100_000, "1." * 100_000, "1,111" * 50_000, "_" * 200_000])
def test_long_texts_are_read_in_linear_time(text):
    start = time.process_time()
    answers.holds(text, "12")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("reference", "text", "score"),
    [
        ({"contains": [["zero", "0"], ["mug"]]}, "0 mugs, no mug", 1),
        ({"contains": [["zero", "0"], ["mug"]]}, "no mug", 0),
        ({"exact": "New York"}, "**new york**!", 1),
        ({"exact": "New York"}, "In New York", 0),
        ({"number": {"value": 1234.5, "tolerance": 0}}, "It is $1,234.50.", 1),
        ({"number": {"value": 1234.5, "tolerance": 0}}, "It is 1234.51", 0),
        ({"number": {"value": 3, "tolerance": 0.25}}, "2.75", 1),
        ({"number": {"value": 3, "tolerance": 0.25}}, "3 times 1" + "0" * 400, 1),
        ({"number": {"value": 3, "tolerance": 0.25}}, "A3 and -3", 0),
        ({"number": {"value": 2e-5, "tolerance": 0}}, "It is 2e-05.", 1),
        ({"number": {"value": -1.5e20, "tolerance": 0}}, "-1.5E+20", 1),
        ({"number": {"value": 1200, "tolerance": 0}}, "1.2e3", 1),
        ({"number": {"value": 2, "tolerance": 0}}, "2e-05, 2e9, 2e999 and 2e5x", 0),
    ],
)
def test_an_answer_may_be_one_of_several_texts_a_whole_text_or_a_number(reference, text, score):
    assert judged(text, **reference).score == score
