"""The remote engine: answers prompts with what an endpoint writes, many at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from rolecraft.errors import DataError, EngineError
from rolecraft.remote.cache import AnswerCache
from rolecraft.remote.refusals import Misread
from rolecraft.remote.replies import Joined, completion, completions, read_message, read_usage
from rolecraft.remote.requests import request_body
from rolecraft.remote.settings import Settings
from rolecraft.remote.transport import Transport
from rolecraft.types import Completion, Delta, Json, Message, Prompt, Usage

_T = TypeVar("_T")


class RemoteEngine:
    """Implements `types.Engine` on an endpoint; callers may sit on any number of event loops.

    The connections live on an event loop of the engine's own, in a thread, so that they outlast a caller's.
    """

    def __init__(self, settings: Settings, key: str | None = None) -> None:
        """Start the thread; nothing is sent yet."""
        self.settings = settings
        self._transport = Transport(settings, key)
        self._cache = None if settings.cache is None else AnswerCache(settings.cache)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rolecraft-remote", daemon=True)
        self._thread.start()

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return `prompt.sampling.n` completions, without token ids.

        Raises EngineError for what the endpoint cannot do, does not answer or refuses, and ContextFull where it says
        that the prompt is too long.
        """
        return await asyncio.wrap_future(self._start(self._complete(prompt)))

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield a reply's text as it comes; the last delta holds the completion. Raises what `complete` raises."""
        if prompt.sampling.n != 1:
            raise EngineError(f"a stream is one reply, not n={prompt.sampling.n}; ask complete() for several")
        loop, deltas = asyncio.get_running_loop(), asyncio.Queue[Delta | None]()

        def tell(delta: Delta | None) -> None:
            with suppress(RuntimeError):  # the loop that asked is closed: nobody listens
                loop.call_soon_threadsafe(deltas.put_nowait, delta)

        async def pump() -> None:
            async with aclosing(self._stream(prompt)) as stream:
                async for delta in stream:
                    tell(delta)

        future = self._start(pump())
        future.add_done_callback(lambda _: tell(None))
        try:
            while (delta := await deltas.get()) is not None:
                yield delta
            future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Give up what is under way and close the connections. Safe to call twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> RemoteEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work: Coroutine[Any, Any, _T]) -> Any:
        if self._loop.is_closed():
            work.close()
            raise EngineError("the remote engine is closed; open it again")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._transport.aclose()

    async def _complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        body, form = request_body(prompt, self.settings), self.settings.tools
        if self._cache and (known := self._cache.get(self.settings.url, body)) is not None:
            with suppress(DataError):
                return completions(known, prompt, form)
        if self._cache:
            self._cache.begin(self.settings.url, body)
        began = time.monotonic()

        def read(answer: Json) -> tuple[Json, tuple[Completion, ...]]:
            return answer, completions(answer, prompt, form, time.monotonic() - began)

        try:
            answer, found = await self._transport.post(body, read)
        except EngineError as error:
            if self._cache:
                self._cache.end(self.settings.url, body)
            if not isinstance(error, Misread):
                raise
            return (_misread(error, prompt, time.monotonic() - began),) * prompt.sampling.n
        if self._cache:
            self._cache.put(self.settings.url, body, answer)
        return found

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        body = request_body(prompt, self.settings)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        began, joined = time.monotonic(), Joined()
        try:
            async with aclosing(self._transport.events(body)) as events:
                async for event in events:
                    if text := joined.add(event):
                        yield Delta(text)
            message = read_message(joined.message(), self.settings.tools, prompt, joined.finish)
        except Misread as error:
            yield Delta("", _misread(error, prompt, time.monotonic() - began))
            return
        except DataError as error:
            why = self._transport.told(error)
            raise EngineError(f"{self.settings.url} streamed no reply: {why}; repeat the request") from None
        usage = read_usage(joined.usage, time.monotonic() - began)
        yield Delta("", completion(message, joined.finish, prompt, usage))


def _misread(error: Misread, prompt: Prompt, seconds: float) -> Completion:
    """Return the reply that the endpoint could not read: the model's mistake, and no fault of a connection."""
    message = Message("assistant", unparsed=error.text, speaker=prompt.speaker)
    return completion(message, "stop", prompt, Usage(seconds=seconds))
