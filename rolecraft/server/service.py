"""Answers chat requests, independent of HTTP: admits them, bounds their time, and remembers the answers."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import rolecraft.server.acting as acting
import rolecraft.server.choosing as choosing
import rolecraft.server.turns as turns
from rolecraft.agent import together
from rolecraft.errors import ContextFull, RolecraftError, UserError
from rolecraft.server.admission import Admission
from rolecraft.server.answer_memory import AnswerMemory
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel
from rolecraft.server.recording import Recorder
from rolecraft.server.requests import ChatRequest
from rolecraft.server.turns import Emit, FinishedChoice
from rolecraft.strategies import Chosen
from rolecraft.types import Message

Remind = Callable[[tuple[Message, ...]], tuple[Message, ...]]
"""Returns a conversation with what is remembered for its last question; it may wait, so it is asked in a thread."""

_FAULT = re.compile(r"(?P<tools>\btools\[\d+\]|\d tools\b)|\bschema\b(?! keywords)")
"""What an error of a grammar names first: tools, or the schema of the answer's text."""


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
        models: Sequence[ServedModel],
        playing: turns.Settings = turns.Settings(),
        limits: Limits = Limits(),
        seeds: Callable[[], int] = lambda: secrets.randbits(48),
        recorder: Recorder | None = None,
        remind: Remind | None = None,
    ) -> None:
        """Serve `models`; `seeds` gives the seed of a request that names none, `recorder` keeps the answers.

        `remind` adds to a conversation what a memory has for it.
        """
        self.models = {model.id: model for model in models}
        self.limits = limits
        self.admission = Admission(limits.places, limits.waiting)
        self._playing, self._seeds, self._recorder, self._remind = playing, seeds, recorder, remind
        self._memory = AnswerMemory(limits.remembered)
        self._deadlines: dict[asyncio.Timeout, float] = {}
        self._stopping = False

    def find(self, name: str) -> ServedModel:
        """Return the model called `name`; raises Refused (404) naming those there are."""
        if name not in self.models:
            there = ", ".join(self.models)
            raise Refused(404, f"no model {name[:100]!r}; there are {there}", param="model", code="model_not_found")
        return self.models[name]

    async def answer(self, request: ChatRequest, emit: Emit | None = None, identity: str = "") -> list[FinishedChoice]:
        """Return the choices of an answer, called `identity`; `emit` is given text and calls while they are written.

        Raises Refused for whatever can be told to the client; another exception is a fault of ours.
        """
        model = self.find(request.model)
        request = replace(request, strategy=choosing.checking(request.strategy, checks=model.checks))
        if request.logprobs and model.loaded.renderer is None:
            raise Refused(400, f"{model.id!r} does not tell log-probabilities", param="logprobs")
        if request.think is not None and not model.loaded.switches:
            raise Refused(
                400,
                f"{model.id!r} has no switch for thinking; leave 'enable_thinking' out",
                param="chat_template_kwargs",
            )
        acting.require(model, request)
        self._require_constraint(request)
        places = self._replies(model, request)
        if request.text is not None and model.single_role is None:
            raise Refused(
                400, f"{model.id!r} is a team, which answers chats alone; name a base or a role", param="model"
            )
        kept = self._recorder if self._recorder is not None and self._recorder.keeps(model, request) else None
        if kept is not None:
            request = kept.prepare(request)
        restored = self._memory.restore(model, request.messages, request.cache_key)
        messages = restored.messages
        if self._remind is not None and request.text is None:
            messages = await asyncio.to_thread(self._remind, messages)
        scope = _scope(request.cache_key)
        scopes = (scope,) if restored.scope in (None, scope) else (scope, restored.scope)
        seed = self._seeds() if request.seed is None else request.seed
        one = turns.play_choice if model.open_tools is None else acting.play_choice
        play = partial(one, model, request, messages, self._playing, seed=seed, scopes=scopes, emit=emit)
        async with self._in_time():
            with _refusals(request):
                async with self.admission.enter(places):
                    choices = await together(play(choice=choice) for choice in range(request.n))
        if kept is not None:
            await kept.keep(identity, model, request, messages, choices, self._playing)
        for finished in choices if request.text is None else ():
            self._memory.remember(model, request.messages, finished, scope, request.cache_key)
        return choices

    def _replies(self, model: ServedModel, request: ChatRequest) -> int:
        """Return how many replies a request has written at once; refuse what cannot be had here."""
        width, most = 1 if request.strategy is None else self._width(model, request.strategy), self.limits.places
        if width > 1 and request.n * width > most:
            told = (
                f"'n' is {request.n} and 'strategy' writes {width} replies for each choice; at most {most} are written"
            )
            raise Refused(400, f"{told} at once, and these are {request.n * width}: lower one of the two", param="n")
        return request.n * width

    def _width(self, model: ServedModel, chosen: Chosen) -> int:
        """Return how many replies a strategy writes at once for a choice; refuse what cannot be had here."""
        scored = bool(chosen.needs) or getattr(chosen.values, "checker", "") == "ranking"
        if scored and model.loaded.renderer is None:
            raise Refused(400, f"{model.id!r} does not tell log-probabilities, which that needs", param="strategy")
        if chosen.width > self.limits.places:
            most = f"at most {self.limits.places} are written at once; set n lower"
            raise Refused(400, f"'strategy' asks for {chosen.width} replies; {most}", param="strategy")
        return chosen.width

    def _require_constraint(self, request: ChatRequest) -> None:
        """Refuse what needs a grammar where there is none."""
        if self._playing.constrained:
            return
        says = "this server constrains no replies; {}, or serve without --unconstrained"
        if request.tools and request.choice != "auto":
            raise Refused(400, says.format("use 'auto'"), param="tool_choice")
        if request.schema is not None:
            raise Refused(400, says.format("ask for text"), param="response_format")

    def stop(self, grace: float) -> None:
        """Admit nobody any more, and give those who are in `grace` seconds."""
        self._stopping = True
        self.admission.stop()
        end = asyncio.get_running_loop().time() + grace
        for deadline, beyond in self._deadlines.items():
            if not deadline.expired():
                deadline.reschedule(min(end + beyond, deadline.when() or end))

    @asynccontextmanager
    async def deadline(self, seconds: float, beyond: float = 0.0) -> AsyncIterator[asyncio.Timeout]:
        """Give the body so many seconds, and once the server stops its grace and what is `beyond`.

        Raises TimeoutError.
        """
        async with asyncio.timeout(seconds) as deadline:
            self._deadlines[deadline] = beyond
            try:
                yield deadline
            finally:
                del self._deadlines[deadline]

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with self.deadline(self.limits.seconds) as deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise self._too_late() from error

    def _too_late(self) -> Refused:
        if self._stopping:
            return Refused(503, "the server stopped before the answer was finished", code="stopping", wait=1)
        return Refused(408, f"the answer took more than {self.limits.seconds:g} s; ask for less", code="timeout")


def _scope(cache_key: str) -> str:
    """Return where the engine keeps what it computes for a request: with others of its key, else by itself.

    By itself: whoever could try how much of a text is cached already would read what others sent, character by
    character. The conversation goes on by the scope of its last answer.
    """
    return f"key {hashlib.sha256(cache_key.encode()).hexdigest()}" if cache_key else secrets.token_hex(16)


@contextmanager
def _refusals(request: ChatRequest) -> Iterator[None]:
    """Turn what an engine raises on purpose into what the client is told, with the parameter that is at fault."""
    try:
        yield
    except Refused:
        raise
    except ContextFull as error:
        param = "messages" if request.text is None else "prompt"
        raise Refused(400, str(error), param=param, code="context_length_exceeded") from error
    except UserError as error:
        raise Refused(400, str(error), param=_at_fault(request, str(error))) from error
    except RolecraftError as error:
        raise Refused(500, str(error), code="engine_error") from error


def _at_fault(request: ChatRequest, told: str) -> str | None:
    """Return the parameter that a grammar cannot be made of; None where the error is of something else."""
    found = _FAULT.search(told)
    if found is None or (request.schema is None and not request.tools):
        return None
    return "tools" if found["tools"] else "response_format"
