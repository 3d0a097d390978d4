"""Keeps the exact answers of one policy for learning from them: which tokens, how likely, and of what episode.

A client names its episode and its task in the request's `metadata` or in headers. Not covered: the completions API,
which has no conversation, and the bare base that is served beside an adapter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rolecraft.errors import SettingsError
from rolecraft.server.bodies import bad
from rolecraft.server.errors import Refused
from rolecraft.server.models import LoadedEngine, ServedModel
from rolecraft.server.requests import ChatRequest
from rolecraft.server.turns import FinishedChoice, Settings
from rolecraft.store import served
from rolecraft.types import Message, Sampling, Task, Trajectory, Turn

HEADERS = {"episode": "x-rolecraft-episode", "task": "x-rolecraft-task"}
_LONGEST_NAME = 200
_WHOLE = Sampling()
_NARROWS = ("top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")


class Recorder:
    """Keeps the answers of one engine in a folder, up to `most` bytes; for one event loop."""

    def __init__(self, folder: Path, policy: served.Policy, loaded: LoadedEngine, most: int) -> None:
        """Keep what `loaded` answers; raises SettingsError for a folder that holds another policy's answers."""
        before = served.policy(folder)
        if before is not None and before != policy:
            raise SettingsError(
                f"{str(folder)!r} holds answers of {_named(before)}, and {_named(policy)} is served; name another "
                "folder (--record): what is learned from must be of one policy"
            )
        if before is None:
            served.write_policy(folder, policy)
        self._folder, self._loaded, self._most = folder, loaded, most
        self._held = served.size(folder)
        self._writing = asyncio.Lock()

    def keeps(self, model: ServedModel, request: ChatRequest) -> bool:
        """Tell whether the answer to a request is kept."""
        return model.loaded is self._loaded and request.text is None and model.open_tools is None

    def prepare(self, request: ChatRequest) -> ChatRequest:
        """Return the request with what has to be told of its tokens.

        Raises Refused where an answer could not be kept: half an episode would teach something else.
        """
        for name in HEADERS:
            value = getattr(request, name)
            if len(value) > _LONGEST_NAME or not value.isprintable():
                raise bad(
                    f"metadata {name!r} is {value[:40]!r}, of {len(value)} characters; name it in at most "
                    f"{_LONGEST_NAME} that can be printed",
                    "metadata",
                )
        if request.episode and request.n > 1:
            raise bad(f"'n' is {request.n}; an episode goes on with one answer, so ask for 1", "n")
        if self._held >= self._most:
            told = f"{str(self._folder / served.FILE)!r} has {self._held >> 20} MiB, all that --record-mb allows"
            raise Refused(503, f"{told}; serve with another folder, or more", code="record_full", wait=60)
        return replace(request, sampling=replace(request.sampling, tell_drawn=True))

    async def keep(
        self,
        identity: str,
        model: ServedModel,
        request: ChatRequest,
        messages: Sequence[Message],
        choices: Sequence[FinishedChoice],
        settings: Settings,
    ) -> None:
        """Keep the answers to a conversation; they are on disk when this returns."""
        temperature = settings.temperature if request.temperature is None else request.temperature
        for number, one in enumerate(choices):
            name = identity if number == 0 else f"{identity}#{number}"
            task = Task(request.task, tuple(messages), request.tools)
            record = Trajectory(name, task, (*messages, *one.messages), one.turns)
            why = _why_not(request, one.turns)
            answer = served.Answer(name, request.episode, request.task, model.id, temperature, record, why)
            await asyncio.shield(self._append(answer))  # a client that hangs up now leaves no half line

    async def _append(self, answer: served.Answer) -> None:
        async with self._writing:
            self._held += await asyncio.to_thread(served.append, self._folder, answer)


def _why_not(request: ChatRequest, turns: Sequence[Turn]) -> str:
    """Return why nothing can be learned from an answer by the chances of its tokens, '' if it can."""
    how = request.sampling
    if request.think is not None:
        return f"enable_thinking was {request.think}; a policy learns one way of thinking (serve --think, --no-think)"
    if request.strategy is not None:
        return f"strategy {str(request.strategy.name)!r} chose it among others"
    for name in _NARROWS:
        if (value := getattr(how, name)) != getattr(_WHOLE, name):
            return f"{name} was {value!r}, so it was not drawn from all that the policy might say"
    told = all(turn.drawn for turn in turns)
    return "" if told else "its engine does not tell how its tokens were drawn"


def named(request: ChatRequest, headers: Mapping[str, str]) -> ChatRequest:
    """Return the request with the names that its headers tell; raises Refused where its metadata tells others."""
    found = {}
    for name, header in HEADERS.items():
        told, said = headers.get(header, ""), getattr(request, name)
        if told and said and told != said:
            raise bad(f"metadata {name!r} is {said[:40]!r} and the header {header} {told[:40]!r}; send one", "metadata")
        found[name] = said or told
    return replace(request, episode=found["episode"], task=found["task"])


def _named(policy: served.Policy) -> str:
    adapter = f" with {policy.adapter}" if policy.adapter else ""
    return f"{policy.base}{adapter} ({policy.weights[:8]} {policy.tuned[:8]}, {policy.engine}, team {policy.team})"
