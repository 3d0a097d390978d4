"""What a server offers under one model id: an engine, and the team or the one role that answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rolecraft.renderers import Renderer
from rolecraft.server.protocol import Sent
from rolecraft.team import Team, find
from rolecraft.types import Choice, Engine, Message


@dataclass(frozen=True, slots=True)
class Player:
    """A model under way: what writes, how its tokens read (None: unknown), and a name that changes with its weights.

    `tuned` tells that an adapter is on its base.
    """

    engine: Engine
    renderer: Renderer | None = None
    fingerprint: str | None = None
    tuned: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """One model id. With `alone` a single role writes one reply; else the team plays until it calls or answers.

    Of a team, whoever may end an episode is heard as content (the closer); what all others write is reasoning. The
    caller is whom tools are for.
    """

    id: str
    player: Player
    team: Team
    alone: str | None = None

    @property
    def closer(self) -> str:
        """The role whose text is the answer."""
        speakers = self.team.speakers
        return self.alone or next((s for s in speakers if self._after_text(s) is None), speakers[-1])

    @property
    def caller(self) -> str:
        """The role whose calls are asked for; in a team of one it is the closer."""
        between = (s for s in self.team.speakers if s not in (self.team.first, self.closer))
        return self.alone or next(between, self.closer)

    @property
    def thinker(self) -> str | None:
        """The role that opens an episode, if nobody hears it."""
        return None if self.alone or self.team.first == self.closer else self.team.first

    def opens(self, last: Message, choice: Choice) -> str | None:
        """Return who answers a conversation that ends in `last`; None if it is over."""
        if self.alone:
            return self.alone
        first = last.role in ("system", "user")
        return self._directed(self.team.first if first else self.team.next_speaker(last), choice)

    def follows(self, last: Message, choice: Choice) -> str | None:
        """Return who speaks after `last`, a message of this request; None once it is answered.

        Where the client forbids calls the closer speaks instead of the caller, and where it demands one the other way.
        """
        return None if self.alone else self._directed(self.team.next_speaker(last), choice)

    def part(self, speaker: str, wish: Choice) -> tuple[Choice, tuple[str, ...]]:
        """Return what a constrained reply of `speaker` may be: its `choice` of tools, and the roles it may name next.

        The client's wish is the caller's choice, and the others designate accordingly.
        """
        role = self.team.role(speaker)
        if wish == "auto":
            return role.choice, role.next_roles
        if wish == "none":
            return "none", tuple(name for name in role.next_roles if name != self.caller)
        if speaker == self.caller:
            return wish, ()
        return role.choice, (self.caller,) if self.caller in role.next_roles else role.next_roles

    def reading(self, sent: Sent) -> tuple[Message, ...]:
        """Return an assistant message of unknown origin as the team's own words: reasoning, calls, answer.

        A message that names its speaker is that role's. Reasoning that belongs to no role is `<think>` text, as in data
        files.
        """
        message = sent.message
        if message.speaker is not None or self.thinker is None:
            return (self._by_one(sent),)
        acts = bool(message.tool_calls or message.unparsed is not None)
        words = message.edited(speaker=self.caller if acts else self.closer)
        if not sent.reasoning:
            return (words,)
        thought = Message("assistant", sent.reasoning, speaker=self.thinker)
        return (thought, words) if acts or message.content else (thought,)

    def _by_one(self, sent: Sent) -> Message:
        message = sent.message
        content = message.content
        if sent.reasoning:
            content = f"<think>\n{sent.reasoning}\n</think>\n\n{content}"
        return message.edited(content=content, speaker=message.speaker or self.closer)

    def _directed(self, speaker: str | None, choice: Choice) -> str | None:
        if self.caller == self.closer:
            return speaker
        if speaker == self.caller and choice == "none":
            return self.closer
        if speaker == self.closer and choice not in ("none", "auto"):
            return self.caller
        return speaker

    def _after_text(self, speaker: str) -> str | None:
        return self.team.next_speaker(Message("assistant", "", speaker=speaker))


def offered(base: str, team: Team, tuned: Player, untuned: Player | None = None) -> tuple[Served, ...]:
    """Return what can be asked for: `base`, a plain assistant; `base:role`, each role alone; `base:team`, all of them.

    `untuned` plays the base, which is left out without it; roles and team play on `tuned`.
    """
    plain = find("single", instructions=False)
    bases = () if untuned is None else (Served(base, untuned, plain, plain.first),)
    roles = (Served(f"{base}:{speaker}", tuned, team, speaker) for speaker in team.speakers)
    return (*bases, *roles, Served(f"{base}:team", tuned, team))


def in_words(models: Sequence[Served]) -> str:
    """Return the ids in one line, and which of them the bare base answers and which a tuned model."""
    bare = [served.id for served in models if not served.player.tuned]
    tuned = [served.id for served in models if served.player.tuned]
    parts = ((bare, "the bare base"), (tuned, "tuned"))
    return "; ".join(f"{', '.join(ids)} ({what})" for ids, what in parts if ids)
