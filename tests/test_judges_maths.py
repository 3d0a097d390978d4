"""An answer is compared with a number or expression by math-verify, in the sandbox and in time."""

from __future__ import annotations

import time

import pytest

from rolecraft.judges import maths
from rolecraft.types import Message, Task, ToolCall, Trajectory

pytest.importorskip("math_verify")
QUESTION = Message("user", "?")


def verdict(gold: object, *said: Message, stop="answered"):
    task = Task("t", (QUESTION,), (), {} if gold is None else {"maths": gold})
    return maths.judge(Trajectory("t", task, (QUESTION, *said), stop=stop))


def answer(text: str) -> Message:
    return Message("assistant", text)


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("1/2", "\\boxed{\\frac{1}{2}}"),
        ("0.5", "it is $\\frac12$"),
        (18, "18 dollars"),
        ("72000", "The answer is $72,000."),
        ("2*x+1", "$1+2x$"),
    ],
)
def test_other_ways_to_write_it_are_right(gold, text):
    assert verdict(gold, answer(text)).score == 1.0


def test_what_is_wrong_is_told():
    assert verdict("3", answer("4")).reason == "the answer does not come to 3"
    assert verdict("3", answer("I do not know")).reason == "the answer has no number or expression"
    assert "'maths'" in verdict(None, answer("3")).reason
    assert "max_turns" in verdict("3", stop="max_turns").reason
    assert "in a call" in verdict("3", Message("assistant", "3", (ToolCall("x", {}),))).reason


def test_an_expression_that_has_no_end_is_wrong_in_time():
    began = time.monotonic()
    assert verdict("3", answer("9^9^9^9^9^9")).score == 0.0
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("text", ["\ud800", "\0", '\'"""\n\\', "(" * 3000, "__import__('os').mkdir('/tmp/x')"])
def test_hostile_text_is_wrong_and_the_next_answer_is_compared(text):
    assert verdict("3", answer(text)).score == 0.0
    assert verdict("3", answer("3")).score == 1.0
