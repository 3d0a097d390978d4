"""Thoughts by rule: each says what its reply does, and a reasoner is trained on it."""

from __future__ import annotations

import pytest

from rolecraft import catalog, team, thoughts
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.types import Message, Task, ToolCall, Trajectory

CALL = ToolCall("findFerry", {"day": "Monday", "car": True}, "call_0")
ASKED = Message("user", "A ferry on Monday, with my car")


def result(text, failed=False):
    return Message("tool", text, tool_call_id="call_0", failed=failed)


def thought(*messages, steps=()):
    task = Task("t", messages[:1], (), {"steps": list(steps)})
    written = thoughts.written(Trajectory("t", task, messages)).messages
    text = written[-1].content
    assert text.startswith("<think>\n")
    told, _, rest = text.removeprefix("<think>\n").partition("\n</think>\n\n")
    assert rest == messages[-1].content
    return told


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ((ASKED, Message("assistant", tool_calls=(CALL,))), "I use findFerry with day, car."),
        ((ASKED, Message("assistant", tool_calls=(ToolCall("list", {}),))), "I use list."),
        (
            (ASKED, Message("assistant", tool_calls=(CALL, ToolCall("list", {})))),
            "I use findFerry with day, car and list.",
        ),
        ((ASKED, Message("assistant", NO_TOOL_FITS)), "No tool fits."),
        ((ASKED, Message("assistant", "Hello.")), "Nothing is to be called."),
        ((ASKED, result("12"), Message("assistant", "It is at 12.")), "I have the result."),
        ((ASKED, result("1"), result("2"), Message("assistant", "At 1 and 2.")), "I have the results."),
        ((ASKED, result("full", failed=True), Message("assistant", "It is full.")), "The call failed."),
        (
            (ASKED, result("full", failed=True), Message("assistant", tool_calls=(CALL,))),
            "The call failed. I use findFerry with day, car.",
        ),
    ],
)
def test_a_thought_says_what_its_reply_does(messages, told):
    assert thought(*messages) == told


def test_a_question_for_a_value_says_which_tool_it_is_for():
    question = Message("assistant", "On which day?")
    step = {"at": 1, "calls": [], "asks_for": ["findFerry"]}
    assert thought(ASKED, question, steps=[step]) == "findFerry fits, but a required value is missing."


def test_what_thinks_already_stays_as_it_is():
    said = (Message("assistant", "<think>Hm.</think>Yes."), Message("assistant", "I look.", (CALL,)))
    row = Trajectory("t", Task("t", (ASKED,)), (ASKED, *said))
    assert thoughts.written(row) == row


def test_a_dialogue_of_people_becomes_a_reasoners_thoughts_an_executors_calls_and_a_summarizers_answers():
    sgd = catalog.find("importers", "sgd")
    row = thoughts.written(sgd.convert(sgd.EXAMPLE))
    divided = team.divided(row.messages, team.find("mor"))
    reasoner = [message.content for message in divided if message.speaker == "reasoner"]
    assert any(text.startswith("I use BookFerry with ") and text.endswith(". Next: executor.") for text in reasoner)
    assert any(text.endswith("fits, but a required value is missing. Next: summarizer.") for text in reasoner)
    assert all(message.content == "" for message in divided if message.speaker == "executor")
    assert not any("<think>" in message.content for message in divided)
