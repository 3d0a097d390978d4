"""Streams an answer to a client that may be slow, stall or disconnect, bounded in memory and time.

Not covered: what the kernel and the HTTP library hold of a stream that was handed to them (some 64 KiB each).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rolecraft.server.turns import TextDelta, ToolCallDelta

Event = TextDelta | ToolCallDelta


class EventQueue:
    """A queue of text and calls, from the answer's writer to its sender, that joins neighbouring text while it waits.

    A slow reader costs no more than the text itself. Once `characters` wait, the writer waits too. For one writer or
    several, and one sender, on one event loop.
    """

    def __init__(self, characters: int) -> None:
        """Hold at most about `characters` before `put` waits."""
        self._most, self._held = characters, 0
        self._events: deque[Event] = deque()
        self._closed = False
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()

    async def put(self, event: Event) -> None:
        """Hand over an event; returns at once unless too much waits."""
        while self._held >= self._most:
            self._emptied.clear()
            await self._emptied.wait()
        last = self._events[-1] if self._events else None
        self._held += _size(event)
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and _alike(event, last):
            self._events[-1] = TextDelta(last.choice, last.channel, last.text + event.text)
        else:
            self._events.append(event)
        self._filled.set()

    def close(self) -> None:
        """Say that nothing more comes."""
        self._closed = True
        self._filled.set()

    async def take(self) -> Event | None:
        """Return the next event, waiting for one; None once nothing more comes."""
        while not self._events:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        event = self._events.popleft()
        self._held -= _size(event)
        self._emptied.set()
        return event


def _alike(first: TextDelta, second: TextDelta) -> bool:
    return (first.choice, first.channel) == (second.choice, second.channel)


def _size(event: Event) -> int:
    return len(event.text) if isinstance(event, TextDelta) else 0


class EventStreamResponse(Response):
    """Sends server-sent events as they come; `lines` ends when the answer does.

    A reader that takes nothing for `stall` seconds, or is not done in the time that `deadline` gives, is cut off by
    `abort`. However it ends, `close` is awaited.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        *,
        stall: float,
        deadline: AbstractAsyncContextManager[Any],
        abort: Callable[[], None],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare to send; nothing happens until the response is called."""
        self._lines, self._stall, self._deadline, self._abort, self._close = lines, stall, deadline, abort, close
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"}, media_type=self.media_type)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end, the reader is gone or its time is up."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(until_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await cancel(sending, leaving)
            finally:
                await self._close()
        if not sending.cancelled() and isinstance(sending.exception(), TimeoutError):
            self._abort()
            await until_disconnected(receive)
        elif not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        async with self._deadline:
            await self._deliver(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._lines):
                async for line in self._lines:
                    await self._deliver(send, {"type": "http.response.body", "body": line, "more_body": True})
            await self._deliver(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _deliver(self, send: Send, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self._stall):
            await send(message)


async def until_disconnected(receive: Receive) -> None:
    """Return once the client has hung up; what it sends meanwhile is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until all have ended; their errors are theirs."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not complain that nobody did
