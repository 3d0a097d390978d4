"""Answers chat requests, whatever carries them: admits, times and plays them, and remembers what was written."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rolecraft.errors import ContextFull, RolecraftError, UserError
from rolecraft.server import rounds
from rolecraft.server.admission import Admission
from rolecraft.server.protocol import Asked, Refused
from rolecraft.server.recall import Recall
from rolecraft.server.rounds import Played, Say
from rolecraft.server.served import Served


@dataclass(frozen=True, slots=True)
class Limits:
    """What requests may take together: `places` choices at once, `waiting` requests beside them, `seconds` each.

    The time of a request counts from when it was read, waiting included. `messages` is how many one may hold,
    `remembered` how many tokens and characters of answers are kept for conversations that come back.
    """

    places: int = 16
    waiting: int = 64
    seconds: float = 120.0
    messages: int = 512
    remembered: int = 2_000_000


class Service:
    """The models under their ids, and what all requests share; for one event loop."""

    def __init__(
        self,
        models: Sequence[Served],
        playing: rounds.Settings = rounds.Settings(),
        limits: Limits = Limits(),
        seeds: Callable[[], int] = lambda: secrets.randbits(48),
    ) -> None:
        """Offer `models`; `seeds` gives the seed of a request that names none."""
        self.models = {served.id: served for served in models}
        self.limits = limits
        self.admission = Admission(limits.places, limits.waiting)
        self._playing, self._seeds = playing, seeds
        self._recall = Recall(limits.remembered)
        self._clocks: dict[asyncio.Timeout, float] = {}
        self._stopping = False

    def served(self, model: str) -> Served:
        """Return the model called `model`; raises Refused (404) naming those there are."""
        if model not in self.models:
            there = ", ".join(self.models)
            raise Refused(404, f"no model {model[:100]!r}; there are {there}", param="model", code="model_not_found")
        return self.models[model]

    async def answer(self, asked: Asked, say: Say | None = None) -> list[Played]:
        """Return the choices of an answer; `say` hears them while they are written.

        Raises Refused for whatever can be told to the client; another exception is a fault of ours.
        """
        served = self.served(asked.model)
        if asked.logprobs and served.player.renderer is None:
            raise Refused(400, f"{served.id!r} does not tell log-probabilities", param="logprobs")
        if asked.tools and asked.choice != "auto" and not self._playing.constrained:
            raise Refused(
                400,
                "this server constrains no replies; use 'auto', or serve without --unconstrained",
                param="tool_choice",
            )
        restored = self._recall.restore(served, asked.messages, asked.cache_key)
        scope = _scope(asked.cache_key)
        scopes = (scope,) if restored.scope in (None, scope) else (scope, restored.scope)
        seed = self._seeds() if asked.seed is None else asked.seed
        play = partial(rounds.play, served, asked, restored.messages, self._playing, seed=seed, scopes=scopes, say=say)
        async with self._in_time():
            with _refusals():
                async with self.admission.enter(asked.n):
                    choices = await _all(play(choice=choice) for choice in range(asked.n))
        for played in choices:
            self._recall.keep(served, asked.messages, played, scope, asked.cache_key)
        return choices

    def stop(self, grace: float) -> None:
        """Admit nobody any more, and give those who are in `grace` seconds."""
        self._stopping = True
        self.admission.stop()
        end = asyncio.get_running_loop().time() + grace
        for clock, beyond in self._clocks.items():
            if not clock.expired():
                clock.reschedule(min(end + beyond, clock.when() or end))

    @asynccontextmanager
    async def clock(self, seconds: float, beyond: float = 0.0) -> AsyncIterator[asyncio.Timeout]:
        """Give the body so many seconds, and once the server stops its grace and what is `beyond`.

        Raises TimeoutError.
        """
        async with asyncio.timeout(seconds) as clock:
            self._clocks[clock] = beyond
            try:
                yield clock
            finally:
                del self._clocks[clock]

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with self.clock(self.limits.seconds) as clock:
                yield
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise self._too_late() from error

    def _too_late(self) -> Refused:
        if self._stopping:
            return Refused(503, "the server stopped before the answer was finished", code="stopping", wait=1)
        return Refused(408, f"the answer took more than {self.limits.seconds:g} s; ask for less", code="timeout")


def _scope(cache_key: str) -> str:
    """Return where the engine keeps what it computes for a request: with others of its key, else by itself.

    A request alone: whoever could try how much of a text is cached already would read what others sent, character by
    character. The conversation goes on by the scope of its last answer.
    """
    return f"key {hashlib.sha256(cache_key.encode()).hexdigest()}" if cache_key else secrets.token_hex(16)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what an engine raises on purpose into what the client is told."""
    try:
        yield
    except Refused:
        raise
    except ContextFull as error:
        raise Refused(400, str(error), param="messages", code="context_length_exceeded") from error
    except UserError as error:
        raise Refused(400, str(error)) from error
    except RolecraftError as error:
        raise Refused(500, str(error), code="engine_error") from error


async def _all(choices: Iterator[Coroutine[Any, Any, Played]]) -> list[Played]:
    """Play all choices at once; the first that fails ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            playing = [group.create_task(choice) for choice in choices]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    return [task.result() for task in playing]
