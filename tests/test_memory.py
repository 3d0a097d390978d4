"""A conversation too long for the context loses its oldest questions, each whole, and nothing else."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecraft import memory
from rolecraft.errors import ContextFull
from rolecraft.types import Completion, Message, Prompt, Sampling, ToolCall, Turn, Usage

SYSTEM = Message("system", "s")


def exchange(name: str) -> tuple[Message, ...]:
    made = Message("assistant", "", (ToolCall("f", {}, name),))
    return Message("user", name), made, Message("tool", "1", tool_call_id=name), Message("assistant", f"a{name}")


class Small:
    """Holds so many messages with the reply; a reply that has no room for two more is cut."""

    def __init__(self, room: int) -> None:
        self.room, self.seen = room, []

    async def complete(self, prompt):
        self.seen.append(prompt.messages)
        left = self.room - len(prompt.messages)
        if left < 1:
            raise ContextFull(f"{len(prompt.messages)} messages, room for {self.room}")
        stop = "length" if left < 2 else "end"
        message = Message("assistant", "yes")
        return (Completion(message, Turn(message, "assistant", stop=stop, usage=Usage(completion=left))),)


def asked(room: int, messages, told=None):
    small = Small(room)
    window = memory.Window(small, (told if told is not None else []).append)
    made = asyncio.run(window.complete(Prompt(messages, sampling=Sampling(max_tokens=9))))
    return small.seen[-1], window, made


LONG = (SYSTEM, *exchange("1"), *exchange("2"), Message("user", "3"))


def test_what_fits_is_left_as_it_is():
    seen, window, _ = asked(20, LONG)
    assert (seen, window.left_out) == (LONG, 0)


@pytest.mark.parametrize("room", [8, 11])
def test_the_oldest_questions_are_left_out_with_their_calls_and_results(room):
    told: list[int] = []
    seen, window, _ = asked(room, LONG, told)
    assert seen == (SYSTEM, *exchange("2"), Message("user", "3"))
    assert (window.left_out, told) == (1, [1])


def test_a_reply_that_the_context_cut_is_asked_for_again_with_a_question_less():
    seen, _, (made,) = asked(7, LONG)
    assert seen == (SYSTEM, Message("user", "3"))
    assert made.turn.stop == "end"


def test_what_was_left_out_stays_out_while_a_question_is_answered():
    small = Small(9)
    window = memory.Window(small)
    for messages in (LONG, (*LONG, Message("assistant", "x"))):
        asyncio.run(window.complete(Prompt(messages, sampling=Sampling(max_tokens=9))))
    assert len(small.seen) == 3


def test_a_question_that_does_not_fit_alone_is_refused_with_the_reason():
    small = Small(1)
    window = memory.Window(small)
    with pytest.raises(ContextFull):
        asyncio.run(window.complete(Prompt(LONG)))
    assert window.full == "2 messages, room for 1"


@given(st.lists(st.booleans(), max_size=4), st.integers(0, 6), st.booleans())
def test_no_result_stays_without_its_call(calls, count, opened):
    messages = (SYSTEM,) * opened
    for number, with_call in enumerate(calls):
        messages += exchange(str(number)) if with_call else (Message("user", "u"), Message("assistant", "a"))
    kept = memory.without_oldest(messages, count)
    made = {call.id for message in kept for call in message.tool_calls}
    assert {message.tool_call_id for message in kept if message.role == "tool"} == made
    assert kept[:opened] == messages[:opened]
    assert memory.questions(kept) == (max(1, len(calls) - count) if calls else 0)
