"""Admission control: bounds the answers written at once and the requests that wait; others are refused at once."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rolecraft.server.errors import Refused

_LONGEST_WAIT = 60
_RECENT = 0.2  # the share of the newest request in the average of how long one takes


class Admission:
    """First come, first served; a request takes one place per choice. For one event loop."""

    def __init__(self, places: int, waiting: int) -> None:
        """Hold `places` choices at once, and let at most `waiting` requests wait for theirs."""
        self.places = places
        self._most_waiting = waiting
        self._taken = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._seconds = 1.0
        self._stopping = False

    @property
    def busy(self) -> tuple[int, int]:
        """How many places are taken, and how many requests wait."""
        return self._taken, len(self._queue)

    @asynccontextmanager
    async def enter(self, places: int) -> AsyncIterator[None]:
        """Hold `places` while the body runs; raises Refused: 400 for more than there are, 429 if too many wait, 503."""
        if places > self.places:
            raise Refused(400, f"'n' is {places}; at most {self.places} choices are written at once", param="n")
        if self._stopping:
            raise _stopping()
        if self._queue or self._taken + places > self.places:
            await self._wait(places)
        else:
            self._taken += places
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self._seconds += _RECENT * (loop.time() - began - self._seconds)
            self._leave(places)

    def stop(self) -> None:
        """Admit nobody any more, and send away those who wait."""
        self._stopping = True
        while self._queue:
            _, future = self._queue.popleft()
            if not future.done():
                future.set_exception(_stopping())

    async def _wait(self, places: int) -> None:
        if len(self._queue) >= self._most_waiting:
            seconds = math.ceil(self._seconds * (len(self._queue) + 1) / self.places)
            wait = max(1, min(seconds, _LONGEST_WAIT))
            reason = f"{len(self._queue)} requests wait already; try again in {wait} s"
            raise Refused(429, reason, code="rate_limit_exceeded", wait=wait)
        entry = (places, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._queue:
                self._queue.remove(entry)
                self._admit()  # whoever stood behind it may fit
            elif entry[1].done() and not entry[1].cancelled() and entry[1].exception() is None:
                self._leave(places)  # admitted in the very moment it went away
            raise

    def _leave(self, places: int) -> None:
        self._taken -= places
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._taken + self._queue[0][0] <= self.places:
            places, future = self._queue.popleft()
            if not future.done():  # else its request was cancelled
                self._taken += places
                future.set_result(None)


def _stopping() -> Refused:
    return Refused(503, "the server is stopping; ask another one", code="stopping", wait=1)
