"""Plays one choice of a team that acts by code: its functions are the server's own tools, so nobody is waited for.

A choice is a whole episode. It has tools and an interpreter of its own, opened for it and closed after it, so that no
client sees what another's code has left. Its steps (thought, code, what was printed) are reasoning; its answer is the
content. What a step may use is bounded by `bridge.Settings`, the whole by the request's tokens, turns and time.

Not covered: tools that the client has. A function of code cannot wait for the client's next request; for these there is
the role alone, which writes its code as text and runs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import rolecraft.agent as agent
from rolecraft.errors import ContextFull
from rolecraft.server.errors import Refused
from rolecraft.server.models import OpenTools, ServedModel
from rolecraft.server.requests import ChatRequest
from rolecraft.server.turns import SEEDS_APART, Emit, FinishedChoice, Output, Settings
from rolecraft.team import Form
from rolecraft.types import Completion, Delta, Engine, Environment, Message, Prompt, Task, Trajectory, Verdict


def require(model: ServedModel, request: ChatRequest) -> None:
    """Raise Refused for what a model that acts by code cannot do for a client; other models are not asked.

    The answer is a value that a program gave, not text that was written: it has no log-probabilities, no grammar holds
    it to a schema, and no string ends it.
    """
    if model.team.form is None or request.text is not None:
        return
    calls = request.choice not in ("auto", "none")
    if model.open_tools is None:
        if calls:
            raise Refused(400, f"{model.id!r} writes code and no calls; use 'auto'", param="tool_choice")
        return
    says = f"{model.id!r} acts by code, "
    role = f"{model.id.rpartition(':')[0]}:{model.team.first}"
    for param, asked, why in (
        ("tools", request.tools, f"whose functions are this server's own; leave 'tools' out, or ask {role!r} for code"),
        ("tool_choice", calls, "whose calls no client sees; leave 'tool_choice' out"),
        ("response_format", request.schema is not None, "and its answer is a value; leave 'response_format' out"),
        ("stop", request.stop, "and its answer is a value, which no text ends; leave 'stop' out"),
        ("logprobs", request.logprobs, "and its answer is a value; leave 'logprobs' out"),
    ):
        if asked:
            raise Refused(400, f"{says}{why}", param=param)


async def play_choice(
    model: ServedModel,
    request: ChatRequest,
    messages: Sequence[Message],
    settings: Settings,
    *,
    seed: int,
    scopes: tuple[str, ...] = ("",),
    choice: int = 0,
    emit: Emit | None = None,
) -> FinishedChoice:
    """Play choice number `choice` of a request to the end of its episode; as `turns.play_choice`.

    What is remembered of it is the answer alone: the variables of its steps are gone with its interpreter.
    """
    if messages[-1].role == "assistant":
        raise Refused(400, "the last message is an answer; end in a question", param="messages")
    assert model.open_tools is not None
    assert model.team.form is not None
    engine = _Bounded(model.loaded.engine, request, settings, scopes)
    spoken = _Spoken(Output(choice, emit), model.team.form)
    playing = _record(model, request, messages, settings, engine, spoken, seed + choice * SEEDS_APART)
    record, _ = await agent.together([playing, spoken.send()])
    assert record is not None
    if not record.turns and engine.full is not None:
        raise engine.full
    answer = record.messages[-1] if record.stop == "answered" else None
    await spoken.output.add("content", "" if answer is None else answer.content, new_message=True)
    return FinishedChoice(
        reasoning=spoken.output.text("reasoning"),
        content=spoken.output.text("content"),
        calls=(),
        finish="length" if answer is None else "stop",
        messages=() if answer is None else (answer,),
        turns=record.turns,
        trials=record.trials,
    )


async def _record(
    model: ServedModel,
    request: ChatRequest,
    messages: Sequence[Message],
    settings: Settings,
    engine: _Bounded,
    spoken: _Spoken,
    seed: int,
) -> Trajectory | None:
    """Return the episode's record; its messages are told to `spoken` as they come."""
    assert model.open_tools is not None
    chosen = request.strategy
    temperature = settings.temperature if request.temperature is None else request.temperature
    sampling = replace(request.sampling, temperature=temperature, max_tokens=engine.left)
    how = agent.Settings(max_turns=settings.max_turns, sampling=sampling, skip_repeats=settings.skip_repeats)
    try:
        async with agent.opened(_opener(model.open_tools, messages)) as environment:
            return await agent.episode(
                environment,
                model.team,
                engine,
                how,
                seed=seed,
                watch=spoken.hear,
                player=agent.greedily if chosen is None else chosen.player(),
            )
    finally:
        spoken.hear(None)


def _opener(open_tools: OpenTools, messages: Sequence[Message]) -> agent.Opener:
    def opener() -> Environment:
        tools = open_tools()
        task = Task("chat", tuple(messages), tools.specs)
        return Environment(task, tools, lambda record: Verdict(0.0, "nobody judged it"))

    return opener


class _Spoken:
    """What an episode says, on its way to the client: an episode does not wait for whoever reads it."""

    def __init__(self, output: Output, form: Form) -> None:
        self.output, self._form = output, form
        self._heard = asyncio.Queue[Message | None]()

    def hear(self, message: Message | None) -> None:
        """Take a message of the record; None ends it."""
        self._heard.put_nowait(message)

    async def send(self) -> None:
        """Send the steps as reasoning: what was written, and what was printed; calls are the code's own words."""
        while (message := await self._heard.get()) is not None:
            written = message.role == "assistant" and message.weight != 0.0  # without weight it is the answer, a value
            if written or (message.role == "tool" and message.tool_call_id is None):
                await self.output.add("reasoning", self._form.written(message).content, new_message=True)


class _Bounded:
    """An engine for one choice: its prompts keep to their scopes, and all that it writes to the request's tokens."""

    def __init__(self, engine: Engine, request: ChatRequest, settings: Settings, scopes: tuple[str, ...]) -> None:
        self._engine, self._request, self._scopes = engine, request, scopes
        width = 1 if request.strategy is None else request.strategy.width
        self.left = min(request.max_tokens or settings.max_tokens, settings.max_tokens) * width
        self.full: ContextFull | None = None

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return the engine's completions; raises ContextFull too where no tokens are left."""
        bounded = self._bounded(prompt)
        try:
            found = await self._engine.complete(bounded)
        except ContextFull as full:
            self.full = full
            raise
        self.left -= sum(one.turn.usage.completion or len(one.turn.token_ids) for one in found)
        return found

    def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the engine's deltas; an episode asks for whole replies."""
        return self._engine.stream(self._bounded(prompt))

    def _bounded(self, prompt: Prompt) -> Prompt:
        sampling = prompt.sampling
        room = min(sampling.max_tokens, self.left // sampling.n)
        if room < 1:
            raise ContextFull("the answer has had all its tokens")
        sampling = replace(sampling, max_tokens=room)
        return replace(prompt, sampling=sampling, cache_scopes=self._scopes, think=self._request.think)
