"""A conversation too long for the context loses its oldest questions, each whole, and nothing else."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecraft import memory
from rolecraft.errors import ContextFull
from rolecraft.types import Completion, Delta, Message, Prompt, Sampling, ToolCall, Turn, Usage

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


# ---- within a budget


class Counting:
    """Counts a token for each word; it notes what it was asked, and streams its reply in two pieces."""

    def __init__(self) -> None:
        self.seen: list[tuple[Message, ...]] = []

    async def length(self, prompt):
        return sum(len(message.content.split()) + len(message.tool_calls) for message in prompt.messages)

    async def complete(self, prompt):
        self.seen.append(prompt.messages)
        message = Message("assistant", "yes")
        return (Completion(message, Turn(message, "assistant")),)

    async def stream(self, prompt):
        (made,) = await self.complete(prompt)
        yield Delta("y")
        yield Delta("es", made)


def observed(name: str, words: int) -> tuple[Message, ...]:
    made = Message("assistant", "", (ToolCall(f"find_{name}", {}, name),))
    return made, Message("tool", " ".join(["word"] * words), tool_call_id=name, name=f"find_{name}")


WALK = (SYSTEM, Message("user", "where?"), *observed("a", 50), *observed("b", 40), *observed("c", 60))
REMARK = "(249 characters of find_a were left out to save room; call it again if they are needed)"


def folded_at(budget: int, messages=WALK, stream: bool = False):
    counting = Counting()
    folding = memory.Folding(counting, budget)

    async def ask():
        if not stream:
            return (await folding.complete(Prompt(messages)))[0]
        return [delta async for delta in folding.stream(Prompt(messages))][-1].completion

    made = asyncio.run(ask())
    return counting.seen[-1], made.turn.folded


def test_within_the_budget_nothing_is_folded():
    assert folded_at(155) == (WALK, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_the_oldest_observation_is_folded_first_and_says_what_was_there(stream):
    seen, count = folded_at(154, stream=stream)
    assert count == 1
    assert [message.content for message in seen if message.role == "tool"] == [REMARK, *_contents(WALK)[1:]]
    assert [message.tool_call_id for message in seen] == [message.tool_call_id for message in WALK]


def test_as_many_are_folded_as_it_takes_and_never_the_last():
    seen, count = folded_at(100)
    assert count == 2
    assert _contents(seen)[2] == _contents(WALK)[2]
    with pytest.raises(ContextFull, match=r"has 99 tokens with all that may be folded \(2 observations\).*is 98:"):
        folded_at(98)


def test_all_answers_to_the_last_calls_stay():
    calls = Message("assistant", "", (ToolCall("f", {}, "1"), ToolCall("f", {}, "2")))
    both = tuple(Message("tool", "word " * 50, tool_call_id=name, name="f") for name in "12")
    assert memory.foldable((Message("user", "?"), calls, *both)) == ()
    after = (Message("user", "?"), calls, *both, Message("assistant", "thinking", speaker="reasoner"))
    assert memory.foldable(after) == ()  # it has spoken, and has not acted on them


def test_what_a_remark_would_not_shorten_is_left():
    short = (Message("user", "?"), *observed("a", 3), *observed("b", 40), *observed("c", 1))
    assert memory.foldable(short) == (4,)


@given(st.lists(st.integers(0, 80), min_size=1, max_size=6), st.integers(10, 400))
def test_folding_keeps_the_budget_or_refuses_and_is_told_by_its_count(sizes, budget):
    walk = (Message("user", "where?"), *(one for i, size in enumerate(sizes) for one in observed(f"t{i}", size)))
    try:
        seen, count = folded_at(budget, walk)
    except ContextFull:
        return
    assert asyncio.run(Counting().length(Prompt(seen))) <= budget
    assert memory.folded(walk, count) == seen
    assert seen[0] == walk[0]
    assert seen[-1] == walk[-1]
    if count:
        assert asyncio.run(Counting().length(Prompt(memory.folded(walk, count - 1)))) > budget


def _contents(messages) -> list[str]:
    return [message.content for message in messages if message.role == "tool"]
