"""Sends a request to an endpoint until it is answered: bounded in number, time and size, tried again where that helps.

Not covered: what an answer means (`replies`).
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

import httpx2

from rolecraft import wire
from rolecraft.errors import DataError, EngineError
from rolecraft.remote.refusals import blotted, in_a_line, read_refusal
from rolecraft.remote.settings import Settings
from rolecraft.types import Json

AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529))
"""Statuses that may be others the next time."""

_MOST_REFUSED = 1 << 16  # bytes of an error's body that are read
_BEGINS = 80  # characters of an answer that is none that are shown

_T = TypeVar("_T")


class Unanswered(Exception):
    """A try that brought no answer, where the next one may; `wait` is the pause that the endpoint asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Transport:
    """One endpoint's connections; it belongs to one event loop."""

    def __init__(self, settings: Settings, key: str | None = None) -> None:
        self._settings, self._key = settings, key
        self._slots = asyncio.Semaphore(settings.requests)
        self._random = random.Random()
        headers = {"accept-encoding": "identity", "user-agent": "rolecraft"}  # a small body must not become a large one
        self._client = httpx2.AsyncClient(
            headers=headers | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(settings.seconds, connect=settings.connect_seconds, pool=None),
            limits=httpx2.Limits(max_connections=settings.requests),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, body: Json, read: Callable[[Json], _T]) -> _T:
        """Return what `read` makes of the answer to a chat request; an answer that it cannot read is asked for again.

        `read` raises DataError. Raises EngineError, ContextFull among them, that names the endpoint and the remedy.
        """

        async def once() -> _T:
            async with self._response("POST", "/chat/completions", body) as response:
                raw = await self._body(response, self._settings.max_bytes)
            return self._read(raw, read)

        return await self._until_answered(once)

    async def get(self, path: str, read: Callable[[Json], _T]) -> _T:
        """Return what `read` makes of what stands at `path`; raises EngineError."""

        async def once() -> _T:
            async with self._response("GET", path) as response:
                raw = await self._body(response, self._settings.max_bytes)
            return self._read(raw, read)

        return await self._until_answered(once)

    async def events(self, body: Json) -> AsyncGenerator[Json, None]:
        """Yield the events of a streamed answer; tried again only while none has come. Raises EngineError."""
        begun = False
        failures = 0
        while True:
            try:
                async with self._slots, self._response("POST", "/chat/completions", body) as response:
                    async for event in self._events(response):
                        begun = True
                        yield event
                return
            except Unanswered as failure:
                failures += 1
                if begun or failures > self._settings.retries:
                    raise self._given_up(failure, failures) from failure
                await asyncio.sleep(self._pause(failures, failure.wait))

    def told(self, error: DataError | UnicodeDecodeError) -> str:
        """Return what is wrong with an answer, in words that may repeat it, without the key."""
        return in_a_line(str(error), self._key)

    async def _until_answered(self, once: Callable[[], Awaitable[_T]]) -> _T:
        failures = 0
        while True:
            try:
                async with self._slots:
                    return await once()
            except Unanswered as failure:
                failures += 1
                if failures > self._settings.retries:
                    raise self._given_up(failure, failures) from failure
                await asyncio.sleep(self._pause(failures, failure.wait))

    def _given_up(self, failure: Unanswered, tries: int) -> EngineError:
        times = f"tried {tries} times" if tries > 1 else "tried once"
        return EngineError(f"{failure}; {times}. See whether the server is well, and repeat the command")

    def _pause(self, failures: int, wanted: float | None) -> float:
        """Return the seconds until the next try: what the endpoint asked for, else twice as long each time, and jitter.

        Between half of it and all of it, so that requests that failed together do not come back together.
        """
        most = self._settings.longest_pause
        if wanted is not None:
            return min(wanted, most) + self._random.random() * min(self._settings.pause, most)
        return min(self._settings.pause * 2.0 ** min(failures - 1, 30), most) * (0.5 + self._random.random() / 2)

    @asynccontextmanager
    async def _response(self, method: str, path: str, body: Json = None) -> AsyncIterator[httpx2.Response]:
        """Give the response once its status is good; every failure on the way, and while it is read, is told."""
        url = self._settings.url + path
        content = None if body is None else wire.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        seconds = self._settings.seconds
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(method, url, content=content, headers=headers) as response,
            ):
                if response.status_code != HTTPStatus.OK:
                    raise await self._refused(url, response)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Unanswered(f"{url} answered in an encoding that was not asked for")
                yield response
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise Unanswered(f"{url} did not answer within {seconds:g} s (--engine-seconds)") from error
        except httpx2.HTTPError as error:
            raise Unanswered(f"{url} could not be asked: {str(error) or type(error).__name__}") from error

    async def _refused(self, url: str, response: httpx2.Response) -> Exception:
        """Return the error that a status makes: one to try again after, or one that will not change."""
        try:
            raw = await self._body(response, _MOST_REFUSED)
        except Unanswered:
            raw = b""
        refusal = read_refusal(url, response.status_code, response.headers.get("location", ""), raw, self._key)
        if response.status_code not in AGAIN or refusal.is_lasting:
            return refusal.error()
        return Unanswered(str(refusal), _seconds(response.headers.get("retry-after", "")))

    async def _body(self, response: httpx2.Response, most: int) -> bytes:
        raw = bytearray()
        async for piece in response.aiter_raw():
            raw += piece
            if len(raw) > most:
                raise Unanswered(f"{response.url} answered with more than {most} bytes")
        return bytes(raw)

    def _read(self, raw: bytes, read: Callable[[Json], _T]) -> _T:
        try:
            return read(wire.loads(raw.decode()))
        except (UnicodeDecodeError, DataError) as error:
            begins = raw[: _BEGINS + len(self._key or "")].decode(errors="replace")
            shown = blotted(" ".join(begins.split()), self._key)[:_BEGINS]
            why = f"{self.told(error)} ({shown!r})"
            raise Unanswered(f"{self._settings.url} answered with no chat completion: {why}") from None

    async def _events(self, response: httpx2.Response) -> AsyncIterator[Json]:
        """Yield the JSON of server-sent events up to `[DONE]`; raises Unanswered for anything else, or too much."""
        async for line in self._lines(response):
            if not line.startswith(b"data:"):
                continue  # comments, and fields that say nothing here
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield self._read(data, lambda event: event)

    async def _lines(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        count, rest = 0, bytearray()
        async for piece in response.aiter_raw():
            count += len(piece)
            if count > self._settings.max_bytes:
                raise Unanswered(f"{response.url} streamed more than {self._settings.max_bytes} bytes")
            rest += piece
            if b"\n" in piece:
                *whole, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in whole:
                    yield line
        yield bytes(rest)


def _seconds(header: str) -> float | None:
    """Return the seconds that `Retry-After` asks to wait, given as such or as a date; None for anything else."""
    if header.strip().isdecimal() and header.isascii():
        return float(header.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
