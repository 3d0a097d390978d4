"""Roles and the rule for who speaks next; every member of `teams/` is a team."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rolecraft import catalog
from rolecraft.errors import NotFound
from rolecraft.types import Choice, Environment, Message, Observation, ToolCall, ToolSpec

CHECKER = "checker"
"""The name of the role that looks at what the others do, and speaks only when it is asked (`vetting`)."""

_THINKING = re.compile(
    r"<think>(.*?)</think>\s*", re.DOTALL
)  # white space is stripped after: matched here, it costs n^3
_NEXT = re.compile(r"next\s*:\s*(\w+)\s*\.?\s*$", re.IGNORECASE)


def _never(message: Message) -> bool:
    return False


class Read(Protocol):
    """Finds the calls in a reply; `cut` tells that its length ended it."""

    def __call__(self, message: Message, tools: Sequence[ToolSpec], *, cut: bool) -> Message:
        """Return the reply with its calls, or with `unparsed`."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """How a role acts that writes its calls in another way than its base's own syntax, such as in code.

    `tell` is what it is told of the tools; `read` finds the call in a reply, of which there is at most one, and
    `explain` says why there is none. A conversation is `shown` to it, and a reply `written` to be trained on, as text.
    `opened` gives a world in which its calls run, and `record` what the record has of a reply whose call was run.
    `begins` tells where in a reply's text the action begins, which a thought stands before. `stops` end a reply.
    """

    tell: Callable[[Sequence[ToolSpec]], str]
    read: Read
    explain: Callable[[str], str]
    shown: Callable[[Sequence[Message]], tuple[Message, ...]]
    written: Callable[[Message], Message]
    opened: Callable[[Environment], AbstractAsyncContextManager[Environment]]
    record: Callable[[Message, ToolCall, Observation], tuple[Message, ...]]
    begins: Callable[[str], int]
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """One part of an agent: its name, and what it is told beyond the conversation.

    Where replies are constrained, `choice` says whether its replies call tools, and `next_roles` by which words they
    may designate who speaks next, a calling role's being its name; a role that may designate some must. One that is
    not `told_tools` sees none of the task's tools, though it sees what they were asked and answered. With a `form` it
    acts by that, and is told of the tools in its words. `instructions` open what a role sees; a `reminder` is the last
    of it, each time it speaks, and `{said}` in it stands for the message before, which it then sees only there.
    """

    name: str
    instructions: str = ""
    choice: Choice = "auto"
    next_roles: tuple[str, ...] = ()
    told_tools: bool = True
    form: Form | None = None
    reminder: str = ""

    @property
    def calls_tools(self) -> bool:
        """Whether this role acts by calling tools; the text of one that does not is never searched for calls."""
        return self.choice != "none"

    @property
    def acts(self) -> bool:
        """Whether this role is there to call tools, so that a reply of its without a call is a mistake."""
        return self.choice == "required"

    def view(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> tuple[Message, ...]:
        """Return what this role sees of `messages`; training and playing both call this, so they cannot differ.

        The instructions open the system message, and with a `form` the task's `tools` stand there too. A view that only
        ever appends lets the roles share one key-value cache (assignment `stream`); it does so as long as all roles of
        a team carry the same instructions, and no reminder, which is told anew each time.
        """
        told = self.instructions
        if self.form is not None:
            told = "\n\n".join(filter(None, (told, self.form.tell(tools) if self.told_tools else "")))
            messages = self.form.shown(messages)
        seen = self._reminded(messages) if self.reminder else tuple(messages)
        if not told:
            return seen
        if seen and seen[0].role == "system":
            head = seen[0].edited(content=f"{told}\n\n{seen[0].content}".strip())
            return (head, *seen[1:])
        return (Message("system", told), *seen)

    def _reminded(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        if "{said}" not in self.reminder or not messages or messages[-1].role != "assistant":
            return (*messages, Message("user", self.reminder.replace("{said}", "")))
        return (*messages[:-1], Message("user", self.reminder.replace("{said}", messages[-1].content)))

    def untold(self) -> Role:
        """Return this role, told nothing but the conversation and its tools."""
        return replace(self, instructions="", reminder="")

    def tools(self, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Return which of the task's tools this role is told of; it belongs to the view, and is shared as widely."""
        return tuple(tools) if self.told_tools and self.form is None else ()

    def written(self, message: Message) -> Message:
        """Return a reply of this role's as it writes it, which is what is trained."""
        return message if self.form is None else self.form.written(message)


@dataclass(frozen=True, slots=True)
class Team:
    """Roles, who begins, and who speaks after a message (None: the episode is over).

    `divide` turns a message of a lone assistant into what these roles would have said, by rule; None: there is no rule.
    `gives_up` tells whether a message that ends the episode does so without an answer.
    """

    name: str
    roles: tuple[Role, ...]
    first: str
    next_speaker: Callable[[Message], str | None]
    divide: Callable[[Message], tuple[Message, ...]] | None = None
    gives_up: Callable[[Message], bool] = _never

    @property
    def speakers(self) -> tuple[str, ...]:
        """The roles' names; a role's id is its place here."""
        return tuple(role.name for role in self.roles)

    @property
    def form(self) -> Form | None:
        """How the roles act that do not write calls in their base's own syntax; None where all do."""
        return next((role.form for role in self.roles if role.form is not None), None)

    @property
    def appends_only(self) -> bool:
        """Whether every view extends every earlier one, which sharing one key-value cache needs."""
        alike = len({(role.instructions, role.told_tools) for role in self.roles}) == 1
        return alike and not any(role.reminder for role in self.roles)

    @property
    def checks(self) -> bool:
        """Whether a role is there to check what the others do: the one called `checker`."""
        return CHECKER in self.speakers

    def role(self, speaker: str) -> Role:
        """Return the role called `speaker`; raises NotFound naming the roles there are."""
        for role in self.roles:
            if role.name == speaker:
                return role
        raise NotFound(f"no role {speaker!r} in team {self.name!r}: it has {', '.join(self.speakers)}")

    def acts_by_code(self, speaker: str | None) -> bool:
        """Whether a speaker's replies are run as code: what its calls answered is then the code's, not the author's."""
        return speaker is not None and self.role(speaker).form is not None


def find(name: str | Path, *, instructions: bool = True) -> Team:
    """Return the team `name` of `teams/`, or of a user's own file; without `instructions` its roles are told none.

    A tuned model has learned its roles, and a small context has no room to be told of them again.
    """
    team: Team = catalog.find("teams", name).TEAM
    if instructions:
        return team
    return replace(team, roles=tuple(role.untold() for role in team.roles))


def divided(messages: Sequence[Message], team: Team) -> tuple[Message, ...]:
    """Return the messages with each lone assistant's one divided among the team's roles.

    Messages that name one of the team's roles stay as they are. Raises NotFound where there is no rule.
    """
    if team.divide is None:
        able = [name for name in catalog.names("teams") if catalog.find("teams", name).TEAM.divide]
        raise NotFound(
            f"team {team.name!r} has no rule to divide an assistant's messages; teams with one: {', '.join(able)}"
        )
    found: list[Message] = []
    for message in messages:
        lone = message.role == "assistant" and (message.speaker or "assistant") == "assistant"
        found += team.divide(message) if lone and "assistant" not in team.speakers else (message,)
    return tuple(found)


def parts(message: Message) -> tuple[str, str]:
    """Return what a lone assistant's message thinks and what it answers, for rules that divide it.

    Its `<think>` text is thought, and so are the words before a call.
    """
    thinking = _THINKING.match(message.content)
    answer = message.content[thinking.end() :] if thinking else message.content
    thought = thinking.group(1).strip() if thinking else ""
    if message.tool_calls or message.unparsed is not None:
        return " ".join((thought, answer)).strip(), ""
    return thought.strip(), answer


def called_next(text: str) -> str | None:
    """Return the role that a reasoner's text designates by ending in `Next: role.`, in lower case (MoRAgent, 1.6)."""
    match = _NEXT.search(text.rstrip())
    return match.group(1).lower() if match else None
