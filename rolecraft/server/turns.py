"""Writes one choice of an answer, turn by turn: roles speak until one calls the client's tools or has answered."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import rolecraft.server.choosing as choosing
from rolecraft import repeats, strategies, vetting, voting
from rolecraft.agent import remarks, together
from rolecraft.errors import ContextFull, EngineError
from rolecraft.renderers import why_unparsed
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel
from rolecraft.server.requests import ChatRequest
from rolecraft.server.tool_call_filter import ToolCallFilter
from rolecraft.server.written import completion_tokens, stops_within_a_call
from rolecraft.types import Choice, Completion, Message, Prompt, ToolCall, Trials, Turn
from rolecraft.vetting import Asked
from rolecraft.voting import Outcome, Tally

Channel = Literal["reasoning", "content"]
Finish = Literal["stop", "tool_calls", "length"]

SEEDS_APART = 1 << 20  # between the choices of one request; the turns of a choice count up


@dataclass(frozen=True, slots=True)
class Settings:
    """How an answer is drawn where the request does not say, and what bounds it.

    `max_tokens` caps what all roles together write for one answer, `max_turns` how often they speak, `max_calls` how
    many calls of one message are kept, `max_thought` the tokens of a role that neither calls nor answers.
    `constrained`: each role is held to its part, and calls to their schemas. `strict_calls`: only calls in the model
    family's own syntax are calls. `skip_repeats`: a call that a message has twice is sent once.
    """

    temperature: float = 0.0
    max_tokens: int = 1024
    max_turns: int = 12
    max_calls: int = 16
    max_thought: int = 160
    constrained: bool = True
    strict_calls: bool = False
    skip_repeats: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of one choice."""

    choice: int
    channel: Channel
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The calls of one choice, complete."""

    choice: int
    calls: tuple[ToolCall, ...]


Emit = Callable[[TextDelta | ToolCallDelta], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FinishedChoice:
    """One choice, finished: what the client is sent of it, and the exact messages and turns.

    `messages` were added to the conversation; `trailing` come after the answers to the calls. `trials` are what a
    strategy had written beside them.
    """

    reasoning: str
    content: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    trailing: tuple[Message, ...] = ()
    trials: Trials | None = None


class Output:
    """The text and calls of one choice that the client is sent, as they come."""

    def __init__(self, choice: int, emit: Emit | None) -> None:
        self.emit, self._choice = emit, choice
        self._texts: dict[Channel, list[str]] = {"reasoning": [], "content": []}

    async def add(self, channel: Channel, text: str, *, new_message: bool) -> None:
        """Add text; a `new_message` begins on a line of its own."""
        if not text:
            return
        text = f"\n{text}" if new_message and self._texts[channel] else text
        self._texts[channel].append(text)
        if self.emit is not None:
            await self.emit(TextDelta(self._choice, channel, text))

    def text(self, channel: Channel) -> str:
        """Return all text of a channel."""
        return "".join(self._texts[channel])

    async def call(self, calls: tuple[ToolCall, ...]) -> None:
        """Send the calls."""
        if self.emit is not None:
            await self.emit(ToolCallDelta(self._choice, calls))


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
    """Play choice number `choice` of a request and return it.

    `emit` is given its text and calls while they are written, `scopes` are its prompts' `cache_scopes`.

    Raises Refused for a conversation that is over, ContextFull if not even the first role has room, EngineError.
    """
    seed += choice * SEEDS_APART
    if request.strategy is not None and request.strategy.name == "best_of_n":
        return await _best(model, request, messages, settings, seed, scopes, Output(choice, emit))
    one = _Choice(model, request, settings, seed, scopes, list(messages), Output(choice, emit))
    speaker = model.single_role if request.text is not None else model.first_speaker(messages[-1], one.tool_choice)
    if speaker is None:
        raise Refused(
            400, "the last message is an answer; end in a question or in what a tool answered", param="messages"
        )
    finish = await one.write_turn(speaker)
    while finish is None:
        speaker = model.speaker_after(one.messages[-1], one.tool_choice)
        finish = "stop" if speaker is None else await one.write_turn(speaker)
    return FinishedChoice(
        reasoning=one.output.text("reasoning"),
        content=one.output.text("content"),
        calls=one.calls,
        finish=finish,
        messages=tuple(one.messages[len(messages) :]),
        turns=tuple(one.turns),
        trailing=one.trailing,
        trials=None if one.tally is None else one.tally.trials(),
    )


async def _best(
    model: ServedModel,
    request: ChatRequest,
    messages: Sequence[Message],
    settings: Settings,
    seed: int,
    scopes: tuple[str, ...],
    output: Output,
) -> FinishedChoice:
    """Return one of several whole answers, and send it: the most frequent one (see `strategies.best_of_n`)."""
    assert request.strategy is not None
    how = request.strategy.values
    sampling = replace(request.sampling, top_p=how.top_p)
    asked = replace(request, strategy=None, temperature=how.temperature, sampling=sampling)
    played = [
        play_choice(model, asked, messages, settings, seed=seed + place * SEEDS_APART * SEEDS_APART, scopes=scopes)
        for place in range(how.n)
    ]
    found = await together(played)
    election = choosing.elect([choosing.Candidate(_outcome(one), one.turns) for one in found])
    tally, chosen = Tally("best_of_n"), found[election.chosen]
    tally.vote([one.turns for one in found], election)
    await output.add("reasoning", chosen.reasoning, new_message=True)
    await output.add("content", chosen.content, new_message=True)
    if chosen.calls:
        await output.call(chosen.calls)
    return replace(chosen, trials=tally.trials())


def _outcome(finished: FinishedChoice) -> Outcome | None:
    """Return what a whole answer comes to, None for one that was cut or says nothing."""
    if finished.finish == "length" or not finished.messages:
        return None
    return voting.said(finished.messages[-1], None, cut=False)


@dataclass(slots=True)
class _Choice:
    """One choice while it is written."""

    model: ServedModel
    request: ChatRequest
    settings: Settings
    seed: int
    scopes: tuple[str, ...]
    messages: list[Message]
    output: Output
    turns: list[Turn] = field(default_factory=list)
    calls: tuple[ToolCall, ...] = ()
    trailing: tuple[Message, ...] = ()
    tally: Tally | None = None

    @property
    def tool_choice(self) -> Choice:
        """What the client wants of calls; without tools there are none."""
        return self.request.choice if self.request.tools else "none"

    async def write_turn(self, speaker: str) -> Finish | None:
        """Let `speaker` write one message; return how that ends the choice, or None if somebody else goes on."""
        room = self._room(speaker)
        if room < 1 or len(self.turns) == self.settings.max_turns:
            return "length"
        try:
            completion = await self._complete(self._prompt(speaker, room))
        except ContextFull:
            if not self.turns:
                raise
            return "length"
        message, dropped = completion.message, tuple[Message, ...]()
        if self.settings.skip_repeats:
            message, dropped = repeats.without_twins(message, self.request.tools)
        message = self._named(message, speaker)
        self.turns.append(replace(completion.turn, message=message, speaker=speaker))
        self.messages.append(message)
        remarked = tuple[Message, ...]()
        if not self.model.single_role:
            remarked = remarks(message, why_unparsed, self.request.tools, acts=self.model.team.role(speaker).acts)
        if message.tool_calls:
            self.calls, self.trailing = message.tool_calls, (*dropped, *remarked)
            await self.output.call(self.calls)
            return "length" if self._cuts_a_call(completion) else "tool_calls"
        if completion.turn.stop == "length" and not remarked:
            return "length"
        self.messages += remarked
        return None

    def _room(self, speaker: str) -> int:
        """Return how many tokens `speaker` may write; a role whose text is reasoning leaves half for what follows."""
        cap = self.settings.max_tokens
        left = min(self.request.max_tokens or cap, cap) - sum(map(completion_tokens, self.turns))
        if speaker in (self.model.calling_role, self.model.answering_role):
            return left
        return min(self.settings.max_thought, (left + 1) // 2)

    def _prompt(self, speaker: str, room: int) -> Prompt:
        """Return what `speaker` sees and how it writes; stop strings end only the text that is sent as content."""
        request, model = self.request, self.model
        answers = speaker == model.answering_role
        sampling = replace(
            request.sampling,
            temperature=self.settings.temperature if request.temperature is None else request.temperature,
            seed=self.seed + len(self.turns),
            max_tokens=room,
            stop=request.stop if answers else (),
        )
        if request.text is not None:
            return Prompt((), speaker=speaker, sampling=sampling, cache_scopes=self.scopes, text=request.text)
        role = model.team.role(speaker)
        prompt = Prompt(
            role.view(self.messages, request.tools),
            role.tools(request.tools),
            speaker,
            sampling=sampling,
            parallel=request.parallel,
            lenient=self._reads_leniently(speaker),
            cache_scopes=self.scopes,
            think=request.think,
        )
        if role.form is not None:  # of the role alone: its code is text, and the client's to run
            return replace(prompt, choice="none")
        if not self.settings.constrained:
            return prompt
        choice, next_roles = model.constraints(speaker, self.tool_choice)
        if choice not in ("none", "auto"):  # all of it is a call, half of which is none
            prompt = replace(prompt, sampling=replace(sampling, stop=()))
        if answers and request.schema is not None:
            return replace(prompt, choice=choice, schema=request.schema)
        return replace(prompt, choice=choice, next_roles=next_roles)

    def _reads_leniently(self, speaker: str) -> bool:
        role = self.model.team.role(speaker)
        return role.calls_tools and self.tool_choice != "none" and not self.settings.strict_calls

    async def _complete(self, prompt: Prompt) -> Completion:
        """Return the reply to `prompt`, its text sent as it comes if the answer is streamed."""
        engine, channel = self.model.loaded.engine, self._channel(prompt.speaker)
        if self.output.emit is None or self.request.strategy is not None:
            completion = await self._chosen(prompt)
            await self.output.add(channel, self._text(completion), new_message=True)
            return completion
        renderer = self.model.loaded.renderer
        free = prompt.schema is None and prompt.text is None
        lenient = free and prompt.lenient and renderer is not None and renderer.format.lenient
        tools = prompt.tools if lenient else ()
        calls = renderer is not None and (free or bool(prompt.tools and prompt.choice != "none"))
        syntax = renderer.call_syntax if renderer is not None and calls else None
        filtered, sent, last = ToolCallFilter(syntax, tools), list[str](), None
        deltas = engine.stream(prompt)
        try:
            async for delta in deltas:
                if certain := filtered.feed(delta.text):
                    await self.output.add(channel, certain, new_message=not sent)
                    sent.append(certain)
                last = delta.completion
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()
        if last is None:
            raise EngineError("the engine's stream ended without its completion")
        whole, early = self._text(last), "".join(sent)
        await self.output.add(channel, whole[len(early) :] if whole.startswith(early) else "", new_message=not sent)
        return last

    async def _chosen(self, prompt: Prompt) -> Completion:
        """Return the reply to `prompt`, or by a strategy the one of several that is voted for, or not objected to."""
        engine, chosen = self.model.loaded.engine, self.request.strategy
        if chosen is None:
            (completion,) = await engine.complete(prompt)
            return completion
        how, self.tally = chosen.values, self.tally or Tally(str(chosen.name))
        if chosen.name == strategies.CHECKED:
            return await self._vetted(prompt, how, self.tally)
        sampling = replace(prompt.sampling, n=how.n, temperature=how.temperature, top_p=how.top_p)
        completions = await engine.complete(replace(prompt, sampling=sampling))

        def speaker_after(message: Message) -> str | None:
            return self.model.speaker_after(replace(message, speaker=prompt.speaker), self.tool_choice)

        election = choosing.elect(choosing.replies(completions, speaker_after))
        self.tally.vote([(one.turn,) for one in completions], election)
        return completions[election.chosen]

    async def _vetted(self, prompt: Prompt, how: Any, tally: Tally) -> Completion:
        """Return the first reply whose calls the checker accepts, else the last; the role is told what it objects to.

        Each retry is drawn anew, at a temperature.
        """
        role, tools = self.model.team.role(prompt.speaker), self.request.tools
        for attempt in range(how.retries + 1):
            (completion,) = await self.model.loaded.engine.complete(prompt)
            tally.tried += 1
            calls = completion.message.tool_calls
            if attempt == how.retries or not calls:
                break
            found = await choosing.vet(self._asked(prompt), calls, how)
            tally.spend(found.turns)
            if found.right:
                break
            tally.failed += 1
            tally.spend([completion.turn])
            self.messages.append(Message("user", vetting.critique(calls, found.why)))
            warm, seed = max(prompt.sampling.temperature, how.temperature), prompt.sampling.seed + SEEDS_APART**2
            sampling = replace(prompt.sampling, temperature=warm, seed=seed)
            prompt = replace(prompt, messages=role.view(self.messages, tools), sampling=sampling)
        return completion

    def _asked(self, prompt: Prompt) -> Asked:
        return Asked(
            self.model.loaded.engine,
            self.model.team,
            prompt.speaker,
            tuple(self.messages),
            self.request.tools,
            prompt.sampling.seed,
            self.settings.constrained and self.model.loaded.renderer is not None,
            lambda asked: replace(asked, cache_scopes=self.scopes, think=self.request.think),
        )

    def _channel(self, speaker: str) -> Channel:
        return "content" if speaker == self.model.answering_role else "reasoning"

    def _text(self, completion: Completion) -> str:
        """Return what is sent of a reply as text; of a single role also an unreadable call, unless it was cut."""
        message = completion.message
        if not self.model.single_role or message.unparsed is None or self._cuts_a_call(completion):
            return message.content
        stopped = stops_within_a_call(completion, self.model.loaded.renderer, self.request.stop)
        if stopped and self.tool_choice != "none":
            return message.content
        message = message.strict or message
        return "\n".join(part for part in (message.content, message.unparsed) if part)

    def _cuts_a_call(self, completion: Completion) -> bool:
        """Tell whether a reply ran out of tokens within a call; where none may be made, what looks like one is text."""
        cut = completion.turn.stop == "length" and completion.message.unparsed is not None
        return cut and self.tool_choice != "none"

    def _named(self, message: Message, speaker: str) -> Message:
        """Give the calls ids that nobody can guess, and keep as many as are wanted."""
        most = self.settings.max_calls if self.request.parallel else 1
        if len(message.tool_calls) > most:
            message = message.edited(tool_calls=message.tool_calls[:most])
        named = tuple(replace(call, id=f"call_{secrets.token_hex(12)}") for call in message.tool_calls)
        return replace(message, speaker=speaker, tool_calls=named)
