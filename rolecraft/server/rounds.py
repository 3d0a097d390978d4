"""Plays one answer of a served model: its roles speak until one calls tools, which the client runs, or has answered."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rolecraft.agent import remarks
from rolecraft.errors import ContextFull, EngineError
from rolecraft.renderers import why_unparsed
from rolecraft.server.protocol import Asked, Refused
from rolecraft.server.screen import Screen
from rolecraft.server.served import Served
from rolecraft.types import Choice, Completion, Message, Prompt, Sampling, ToolCall, Turn

Channel = Literal["reasoning", "content"]
Finish = Literal["stop", "tool_calls", "length"]

_SEEDS_APART = 1 << 20  # between the choices of one request; the turns of a choice count up


@dataclass(frozen=True, slots=True)
class Settings:
    """How an answer is drawn where the request does not say, and what bounds it.

    `max_tokens` caps what all roles together write for one answer, `max_turns` how often they speak, `max_calls` how
    many calls of one message are kept, `max_thought` the tokens of a role that neither calls nor answers.
    `constrained`: each role is held to its part, and calls to their schemas.
    """

    temperature: float = 0.0
    max_tokens: int = 1024
    max_turns: int = 12
    max_calls: int = 16
    max_thought: int = 160
    constrained: bool = True


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one choice."""

    choice: int
    channel: Channel
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """The calls of one choice, complete."""

    choice: int
    calls: tuple[ToolCall, ...]


Say = Callable[[Piece | Called], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Played:
    """One choice, finished: what is heard of it, and exactly what was said.

    `messages` were added to the conversation; `trailing` come after the answers to the calls.
    """

    reasoning: str
    content: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    trailing: tuple[Message, ...] = ()


class _Heard:
    """What a client hears of one choice, as it comes."""

    def __init__(self, choice: int, say: Say | None) -> None:
        self.say, self._choice = say, choice
        self._texts: dict[Channel, list[str]] = {"reasoning": [], "content": []}

    async def add(self, channel: Channel, text: str, *, opens: bool) -> None:
        """Add text; what `opens` a message begins on a line of its own."""
        if not text:
            return
        text = f"\n{text}" if opens and self._texts[channel] else text
        self._texts[channel].append(text)
        if self.say is not None:
            await self.say(Piece(self._choice, channel, text))

    def text(self, channel: Channel) -> str:
        """Return all that was heard on a channel."""
        return "".join(self._texts[channel])

    async def call(self, calls: tuple[ToolCall, ...]) -> None:
        """Tell the calls."""
        if self.say is not None:
            await self.say(Called(self._choice, calls))


async def play(
    served: Served,
    asked: Asked,
    messages: Sequence[Message],
    settings: Settings,
    *,
    seed: int,
    scopes: tuple[str, ...] = ("",),
    choice: int = 0,
    say: Say | None = None,
) -> Played:
    """Play choice number `choice` of a request and return it; `say` hears it while it is written.

    `scopes` are those of its prompts (`Prompt.cache_scopes`).
    Raises Refused for a conversation that is over, ContextFull if not even the first role has room, EngineError.
    """
    one = _Choice(served, asked, settings, seed + choice * _SEEDS_APART, scopes, list(messages), _Heard(choice, say))
    speaker = served.opens(messages[-1], one.wish)
    if speaker is None:
        raise Refused(
            400, "the last message is an answer; end in a question or in what a tool answered", param="messages"
        )
    finish = await one.turn(speaker)
    while finish is None:
        speaker = served.follows(one.said[-1], one.wish)
        finish = "stop" if speaker is None else await one.turn(speaker)
    return Played(
        reasoning=one.heard.text("reasoning"),
        content=one.heard.text("content"),
        calls=one.calls,
        finish=finish,
        messages=tuple(one.said[len(messages) :]),
        turns=tuple(one.turns),
        trailing=one.trailing,
    )


def written(turn: Turn) -> int:
    """Return how many tokens a turn wrote; a remote engine tells their number and not which they are."""
    return turn.usage.completion or len(turn.token_ids)


@dataclass(slots=True)
class _Choice:
    """One choice in the making."""

    served: Served
    asked: Asked
    settings: Settings
    seed: int
    scopes: tuple[str, ...]
    said: list[Message]
    heard: _Heard
    turns: list[Turn] = field(default_factory=list)
    calls: tuple[ToolCall, ...] = ()
    trailing: tuple[Message, ...] = ()

    @property
    def wish(self) -> Choice:
        """What the client wants of calls; without tools there are none."""
        return self.asked.choice if self.asked.tools else "none"

    async def turn(self, speaker: str) -> Finish | None:
        """Let `speaker` write one message; return how that ends the choice, or None if somebody else goes on."""
        room = self._room(speaker)
        if room < 1 or len(self.turns) == self.settings.max_turns:
            return "length"
        try:
            completion = await self._write(self._prompt(speaker, room))
        except ContextFull:
            if not self.turns:
                raise
            return "length"
        message = self._named(completion.message, speaker)
        self.turns.append(replace(completion.turn, message=message, speaker=speaker))
        self.said.append(message)
        remarked = () if self.served.alone else remarks(message, why_unparsed)
        if message.tool_calls:
            self.calls, self.trailing = message.tool_calls, remarked
            await self.heard.call(self.calls)
            return "tool_calls"
        if completion.turn.stop == "length" and not remarked:
            return "length"
        self.said += remarked
        return None

    def _room(self, speaker: str) -> int:
        """Return how many tokens `speaker` may write; a thought leaves as much for what it leads to."""
        cap = self.settings.max_tokens
        left = min(self.asked.max_tokens or cap, cap) - sum(map(written, self.turns))
        if speaker in (self.served.caller, self.served.closer):
            return left
        return min(self.settings.max_thought, (left + 1) // 2)

    def _prompt(self, speaker: str, room: int) -> Prompt:
        """Return what `speaker` sees and how it writes; stop strings are for what is heard as content."""
        asked, served = self.asked, self.served
        answers = speaker == served.closer
        sampling = Sampling(
            temperature=self.settings.temperature if asked.temperature is None else asked.temperature,
            top_p=asked.top_p,
            seed=self.seed + len(self.turns),
            max_tokens=room,
            stop=asked.stop if answers else (),
        )
        view = served.team.role(speaker).view(self.said)
        prompt = Prompt(
            view, asked.tools, speaker, sampling=sampling, parallel=asked.parallel, cache_scopes=self.scopes
        )
        if not self.settings.constrained:
            return prompt
        choice, next_roles = served.part(speaker, self.wish)
        return replace(prompt, choice=choice, next_roles=next_roles)

    async def _write(self, prompt: Prompt) -> Completion:
        """Return the reply to `prompt`, its text heard as it comes where somebody listens."""
        engine, channel = self.served.player.engine, self._channel(prompt.speaker)
        if self.heard.say is None:
            (completion,) = await engine.complete(prompt)
            await self.heard.add(channel, self._text(completion.message), opens=True)
            return completion
        renderer = self.served.player.renderer
        screen, told, last = Screen(renderer.call_syntax if renderer else None), list[str](), None
        deltas = engine.stream(prompt)
        try:
            async for delta in deltas:
                if certain := screen.read(delta.text):
                    await self.heard.add(channel, certain, opens=not told)
                    told.append(certain)
                last = delta.completion
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()
        if last is None:
            raise EngineError("the engine's stream ended without its completion")
        whole, early = self._text(last.message), "".join(told)
        await self.heard.add(channel, whole[len(early) :] if whole.startswith(early) else "", opens=not told)
        return last

    def _channel(self, speaker: str) -> Channel:
        return "content" if speaker == self.served.closer else "reasoning"

    def _text(self, message: Message) -> str:
        """Return what is heard of a message; of a role alone also what looks like a call and is none."""
        if not self.served.alone or message.unparsed is None:
            return message.content
        return "\n".join(part for part in (message.content, message.unparsed) if part)

    def _named(self, message: Message, speaker: str) -> Message:
        """Give the calls ids that nobody can guess, and keep as many as are wanted."""
        most = self.settings.max_calls if self.asked.parallel else 1
        if len(message.tool_calls) > most:
            message = message.edited(tool_calls=message.tool_calls[:most])
        named = tuple(replace(call, id=f"call_{secrets.token_hex(12)}") for call in message.tool_calls)
        return replace(message, speaker=speaker, tool_calls=named)
