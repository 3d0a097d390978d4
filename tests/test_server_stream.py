"""A stream costs what waits, not what was written; a reader who stalls or leaves ends it."""

from __future__ import annotations

import asyncio

import pytest

from rolecraft.server.stream import EventQueue, EventStreamResponse
from rolecraft.server.turns import TextDelta, ToolCallDelta
from rolecraft.types import ToolCall

CALLED = ToolCallDelta(0, (ToolCall("look", {}),))


def taken(*events, characters: int = 1000) -> list:
    async def run():
        queue = EventQueue(characters)
        for event in events:
            await queue.put(event)
        queue.close()
        got = []
        while (event := await queue.take()) is not None:
            got.append(event)
        return got

    return asyncio.run(run())


def test_text_that_waits_is_joined():
    assert taken(TextDelta(0, "content", "a"), TextDelta(0, "content", "b")) == [TextDelta(0, "content", "ab")]


@pytest.mark.parametrize("other", [TextDelta(0, "reasoning", "b"), TextDelta(1, "content", "b"), CALLED])
def test_what_is_of_another_kind_stays_apart(other):
    events = [TextDelta(0, "content", "a"), other, TextDelta(0, "content", "c")]
    assert taken(*events) == events


def test_a_writer_waits_once_too_much_does():
    async def run():
        queue = EventQueue(10)
        writing = asyncio.create_task(write(queue, 30))
        await asyncio.sleep(0.01)
        written_early = writing.done()
        pieces = []
        while (piece := await queue.take()) is not None:
            pieces.append(piece.text)
            await asyncio.sleep(0)
        return written_early, "".join(pieces), max(map(len, pieces))

    async def write(queue, count):
        for number in range(count):
            await queue.put(TextDelta(0, "content", str(number % 10)))
        queue.close()

    assert asyncio.run(run()) == (False, "0123456789" * 3, 10)


def test_several_writers_who_waited_all_go_on():
    async def run():
        queue = EventQueue(1)

        async def write(choice):
            for _ in range(5):
                await queue.put(TextDelta(choice, "content", "x"))

        writing = asyncio.gather(*(write(choice) for choice in range(4)))
        writing.add_done_callback(lambda _: queue.close())
        got = ""
        while (piece := await queue.take()) is not None:
            got += piece.text
        return len(got)

    assert asyncio.run(run()) == 20


class Wire:
    """An ASGI server's side: takes `reads` messages (None: all), then nothing; the client may hang up."""

    def __init__(self, reads: int | None = None):
        self.reads, self.sent, self.aborted, self.closed = reads, [], False, False
        self.hung_up = asyncio.Event()

    async def receive(self):
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if self.reads is not None and len(self.sent) >= self.reads:
            await asyncio.Event().wait()
        self.sent.append(message)

    def abort(self):
        self.aborted = True
        self.hung_up.set()

    async def close(self):
        self.closed = True


async def lines(count: int, pause: float = 0.0):
    for number in range(count):
        await asyncio.sleep(pause)
        yield f"data: {number}\n\n".encode()


async def played(wire: Wire, events, stall: float = 5.0, most: float = 5.0) -> Wire:
    stream = EventStreamResponse(
        events, stall=stall, deadline=asyncio.timeout(most), abort=wire.abort, close=wire.close
    )
    await stream({"type": "http"}, wire.receive, wire.send)
    return wire


def test_all_lines_arrive_in_order_with_the_head_of_an_event_stream():
    async def run():
        return await played(Wire(), lines(3))

    wire = asyncio.run(run())
    head, *bodies = wire.sent
    headers = dict(head["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert b"".join(one["body"] for one in bodies) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert [one["more_body"] for one in bodies] == [True, True, True, False]
    assert (wire.closed, wire.aborted) == (True, False)


@pytest.mark.parametrize("limits", [{"stall": 0.02}, {"most": 0.02}])
def test_a_reader_who_stalls_is_cut_off(limits):
    async def run():
        return await played(Wire(reads=2), lines(9), **limits)

    wire = asyncio.run(run())
    assert (wire.aborted, wire.closed, len(wire.sent)) == (True, True, 2)


def test_a_reader_who_is_slow_but_reads_is_not_cut_off_by_the_stall():
    async def run():
        return await played(Wire(), lines(5, pause=0.03), stall=0.02)

    assert len(asyncio.run(run()).sent) == 7


def test_a_client_that_hangs_up_ends_the_stream_at_once():
    async def run():
        wire = Wire()
        asyncio.get_running_loop().call_later(0.02, wire.hung_up.set)
        return await played(wire, lines(1000, pause=0.01))

    wire = asyncio.run(run())
    assert (wire.closed, wire.aborted) == (True, False)
    assert len(wire.sent) < 10


def test_what_breaks_inside_is_raised_and_the_writer_closed():
    async def broken():
        yield b"data: 0\n\n"
        raise ValueError("no")

    async def run(wire):
        with pytest.raises(ValueError, match="no"):
            await played(wire, broken())

    wire = Wire()
    asyncio.run(run(wire))
    assert wire.closed
