"""Roles and the rule for who speaks next; a plain agent and a Mixture of Roles are both teams."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rolecraft.errors import NotFound
from rolecraft.types import Choice, Message

_THINKING = re.compile(r"<think>\s*(.*?)\s*</think>\s*", re.DOTALL)
_NEXT = re.compile(r"next\s*:\s*(\w+)\s*\.?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Role:
    """One part of an agent: its name, and what it is told beyond the conversation.

    Where replies are constrained, `choice` says whether its replies call tools, and `next_roles` which roles they may
    designate; a role that may designate some must.
    """

    name: str
    instructions: str = ""
    choice: Choice = "auto"
    next_roles: tuple[str, ...] = ()

    @property
    def calls_tools(self) -> bool:
        """Whether this role acts by calling tools; the text of one that does not is never searched for calls."""
        return self.choice != "none"

    def view(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return what this role sees of `messages`; training and playing both call this, so they cannot differ.

        The instructions open the system message. A view that only ever appends lets the roles share one key-value
        cache (assignment `stream`); it does so as long as all roles of a team carry the same instructions.
        """
        if not self.instructions:
            return tuple(messages)
        if messages and messages[0].role == "system":
            head = messages[0].edited(content=f"{self.instructions}\n\n{messages[0].content}".strip())
            return (head, *messages[1:])
        return (Message("system", self.instructions), *messages)


@dataclass(frozen=True, slots=True)
class Team:
    """Roles, who begins, and who speaks after a message (None: the episode is over).

    `divide` turns a message of a lone assistant into what these roles would have said, by rule; None: there is no rule.
    """

    name: str
    roles: tuple[Role, ...]
    first: str
    next_speaker: Callable[[Message], str | None]
    divide: Callable[[Message], tuple[Message, ...]] | None = None

    @property
    def speakers(self) -> tuple[str, ...]:
        """The roles' names; a role's id is its place here."""
        return tuple(role.name for role in self.roles)

    @property
    def appends_only(self) -> bool:
        """Whether every view extends every earlier one, which sharing one key-value cache needs."""
        return len({role.instructions for role in self.roles}) == 1

    def role(self, speaker: str) -> Role:
        """Return the role called `speaker`; raises NotFound naming the roles there are."""
        for role in self.roles:
            if role.name == speaker:
                return role
        raise NotFound(f"no role {speaker!r} in team {self.name!r}: it has {', '.join(self.speakers)}")


def find(name: str, *, instructions: bool = True) -> Team:
    """Return the preset team `name`; without `instructions` its roles are told nothing but the conversation.

    A tuned model has learned its roles, and a small context has no room to be told of them again.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NotFound(f"no team {name!r}: there are {', '.join(PRESETS)}.{hint}")
    team = PRESETS[name]
    if instructions:
        return team
    return replace(team, roles=tuple(replace(role, instructions="") for role in team.roles))


def divided(messages: Sequence[Message], team: Team) -> tuple[Message, ...]:
    """Return the messages with each lone assistant's one divided among the team's roles.

    Messages that name one of the team's roles stay as they are. Raises NotFound where there is no rule.
    """
    if team.divide is None:
        raise NotFound(f"team {team.name!r} has no rule to divide an assistant's messages; teams with one: mor")
    found: list[Message] = []
    for message in messages:
        lone = message.role == "assistant" and (message.speaker or "assistant") == "assistant"
        found += team.divide(message) if lone and "assistant" not in team.speakers else (message,)
    return tuple(found)


def called_next(text: str) -> str | None:
    """Return the role that a reasoner's text designates by ending in `Next: role.`, in lower case (MoRAgent, 1.6)."""
    match = _NEXT.search(text.rstrip())
    return match.group(1).lower() if match else None


def _next_of_single(message: Message) -> str | None:
    acted = message.role == "tool" or message.tool_calls or message.unparsed is not None
    return "assistant" if acted else None


def _next_of_mor(message: Message) -> str | None:
    """Queries and observations go to the reasoner, then whoever it designates (MoRAgent, section 3.1).

    A reasoner that designates nobody has nothing left to try: the summarizer closes the episode.
    """
    if message.role != "assistant" or message.speaker == "executor":
        return "reasoner"
    if message.speaker == "reasoner":
        return "executor" if called_next(message.content) == "executor" else "summarizer"
    return None


def _divide_for_mor(message: Message) -> tuple[Message, ...]:
    """`<think>` text and words before a call are the reasoner's, calls the executor's, an answer the summarizer's.

    The reasoner's designation is written in; the thought of a data set that has none stays empty (MoRAgent fills it in
    with a teacher, section 4.1). The model's own token ids do not survive, since they told it otherwise.
    """
    calls = bool(message.tool_calls) or message.unparsed is not None
    thinking = _THINKING.match(message.content)
    answer = message.content[thinking.end() :] if thinking else message.content
    thought = " ".join((thinking.group(1) if thinking else "", answer if calls else "")).strip()
    said = f"{thought} Next: {'executor' if calls else 'summarizer'}.".strip()
    reasoner = Message("assistant", said, speaker="reasoner", weight=message.weight)
    if calls:
        return reasoner, message.edited(content="", speaker="executor")
    return reasoner, message.edited(content=answer, speaker="summarizer")


_MOR_TEXT = (
    "Three roles work on the request in one conversation.\n"
    "reasoner: analyse the state of the task and say in a sentence or two what to do; do not solve it yourself. "
    "End with 'Next: executor.' while a tool must be called, and with 'Next: summarizer.' when the observations "
    "suffice or no tool can help.\n"
    "executor: write the tool calls that the reasoner asks for, and nothing else.\n"
    "summarizer: answer the user from the observations, briefly."
)
_SINGLE_TEXT = "Think briefly, call tools where they help, and answer the user once you know the answer."

PRESETS: dict[str, Team] = {
    "single": Team("single", (Role("assistant", _SINGLE_TEXT),), "assistant", _next_of_single),
    "mor": Team(
        "mor",
        (
            Role("reasoner", _MOR_TEXT, "none", ("executor", "summarizer")),
            Role("executor", _MOR_TEXT, "required"),
            Role("summarizer", _MOR_TEXT, "none"),
        ),
        "reasoner",
        _next_of_mor,
        _divide_for_mor,
    ),
}
"""The teams that come with Rolecraft: a plain ReAct agent, and MoRAgent's three roles."""
