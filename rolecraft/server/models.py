"""The models that clients can name: for each id an engine, and the team or the single role that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rolecraft.errors import SettingsError
from rolecraft.renderers import Renderer
from rolecraft.server.requests import SentMessage
from rolecraft.team import CHECKER, Team, find
from rolecraft.types import Choice, Engine, Message, Toolset

_BYTES_PER_TOKEN = 32
_LEAST_BODY = 1 << 16
_UNKNOWN_CONTEXT = 1 << 15

OpenTools = Callable[[], Toolset]
"""Opens the server's own tools for one answer of a team that acts by code, which closes them."""


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine, the renderer of its model (None: unknown), and a fingerprint that changes with its weights.

    `tuned` tells that an adapter is on its base, `context` how many tokens a conversation may have (None: unknown),
    `switches` that a request may have it think or not. `weights` is the digest of the base's.
    """

    engine: Engine
    renderer: Renderer | None = None
    fingerprint: str | None = None
    tuned: bool = False
    context: int | None = None
    switches: bool = False
    weights: str = ""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model id. With `single_role` that role writes one reply; else the team plays until it calls or answers.

    The text of a team's answering role, which may end an episode, is sent as content; what all others write is
    reasoning. The calling role is the one that tools are for. With `open_tools` the team's tools are the server's own,
    and it plays until it has answered.
    """

    id: str
    loaded: LoadedEngine
    team: Team
    single_role: str | None = None
    open_tools: OpenTools | None = None

    @property
    def answering_role(self) -> str:
        """The role whose text is the answer."""
        speakers = self.team.speakers
        return self.single_role or next((s for s in speakers if self._after_text(s) is None), speakers[-1])

    @property
    def calling_role(self) -> str:
        """The role whose calls are asked for; in a team of one it is the answering role."""
        ends = (self.team.first, self.answering_role, CHECKER)
        between = (s for s in self.team.speakers if s not in ends)
        return self.single_role or next(between, self.answering_role)

    @property
    def checks(self) -> bool:
        """Whether a role of the team looks at what the others do before it is sent."""
        return self.single_role is None and self.team.checks

    @property
    def thinking_role(self) -> str | None:
        """The role that opens an episode, if its text is reasoning."""
        return None if self.single_role or self.team.first == self.answering_role else self.team.first

    def first_speaker(self, last: Message, choice: Choice) -> str | None:
        """Return who answers a conversation that ends in `last`; None if it is over."""
        if self.single_role:
            return self.single_role
        first = last.role in ("system", "user")
        return self._directed(self.team.first if first else self._after(last), choice)

    def speaker_after(self, last: Message, choice: Choice) -> str | None:
        """Return who speaks after `last`, a message of this request; None once it is answered.

        Where the client forbids calls the answering role speaks instead of the calling one; where it demands one, the
        other way.
        """
        return None if self.single_role else self._directed(self._after(last), choice)

    def constraints(self, speaker: str, choice: Choice) -> tuple[Choice, tuple[str, ...]]:
        """Return what a constrained reply of `speaker` may be: its choice of tools, and the roles it may name next.

        The client's `choice` is the calling role's, and the others name the next role accordingly.
        """
        role = self.team.role(speaker)
        if choice == "auto":
            return role.choice, role.next_roles
        if choice == "none":
            return "none", tuple(name for name in role.next_roles if name != self.calling_role)
        if speaker == self.calling_role:
            return choice, ()
        return role.choice, (self.calling_role,) if self.calling_role in role.next_roles else role.next_roles

    def as_team_messages(self, sent: SentMessage) -> tuple[Message, ...]:
        """Return an assistant message of unknown origin as the team's own words: reasoning, calls, answer.

        A message that names its speaker is that role's. Reasoning that belongs to no role is `<think>` text, as in data
        files.
        """
        message = sent.message
        if message.speaker is not None or self.thinking_role is None:
            return (self._by_one(sent),)
        acts = bool(message.tool_calls or message.unparsed is not None)
        words = message.edited(speaker=self.calling_role if acts else self.answering_role)
        if not sent.reasoning:
            return (words,)
        thought = Message("assistant", sent.reasoning, speaker=self.thinking_role)
        return (thought, words) if acts or message.content else (thought,)

    def _by_one(self, sent: SentMessage) -> Message:
        message = sent.message
        content = message.content
        if sent.reasoning:
            content = f"<think>\n{sent.reasoning}\n</think>\n\n{content}"
        return message.edited(content=content, speaker=message.speaker or self.answering_role)

    def _after(self, last: Message) -> str | None:
        """Return who speaks after `last`; a team that gives up tells the client so, by its answering role."""
        following = self.team.next_speaker(last)
        if following is None and last.speaker != self.answering_role and self.team.gives_up(last):
            return self.answering_role
        return following

    def _directed(self, speaker: str | None, choice: Choice) -> str | None:
        if self.calling_role == self.answering_role:
            return speaker
        if speaker == self.calling_role and choice == "none":
            return self.answering_role
        if speaker == self.answering_role and choice not in ("none", "auto"):
            return self.calling_role
        return speaker

    def _after_text(self, speaker: str) -> str | None:
        return self.team.next_speaker(Message("assistant", "", speaker=speaker))


def served_models(
    base: str,
    team: Team,
    tuned: LoadedEngine,
    untuned: LoadedEngine | None = None,
    open_tools: OpenTools | None = None,
) -> tuple[ServedModel, ...]:
    """Return the models: `base`, a plain assistant; `base:role`, each role alone; `base:team`, all of them.

    The base runs on `untuned` and is left out without it; roles and team run on `tuned`. A team that acts by code calls
    the server's tools, which `open_tools` opens, and any other the client's. Raises SettingsError for the wrong ones.
    """
    if team.form is not None and open_tools is None:
        raise SettingsError(
            f"team {team.name!r} runs its calls as functions of code, which cannot wait for a client to answer them; "
            "give it tools of the server's own (open_tools)"
        )
    if team.form is None and open_tools is not None:
        raise SettingsError(
            f"team {team.name!r} calls the client's tools; leave the server's out, or serve team 'code'"
        )
    plain = find("single", instructions=False)
    bases = () if untuned is None else (ServedModel(base, untuned, plain, plain.first),)
    roles = (ServedModel(f"{base}:{speaker}", tuned, team, speaker) for speaker in team.speakers)
    return (*bases, *roles, ServedModel(f"{base}:team", tuned, team, open_tools=open_tools))


def largest_body(models: Sequence[ServedModel]) -> int:
    """Return how many bytes of a request are worth reading, by the longest context of the models."""
    contexts = [model.loaded.context or _UNKNOWN_CONTEXT for model in models]
    return max(_LEAST_BODY, _BYTES_PER_TOKEN * max(contexts, default=0))


def describe(models: Sequence[ServedModel]) -> str:
    """Return the ids in one line, and which of them the bare base answers and which a tuned model."""
    bare = [model.id for model in models if not model.loaded.tuned]
    tuned = [model.id for model in models if model.loaded.tuned]
    parts = ((bare, "the bare base"), (tuned, "tuned"))
    return "; ".join(f"{', '.join(ids)} ({what})" for ids, what in parts if ids)
