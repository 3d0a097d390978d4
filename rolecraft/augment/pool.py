"""What a rule draws from: the tools of all sources, and requests that can be joined with others."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from random import Random

from rolecraft.types import Message, ToolSpec, Trajectory

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_VERBS = frozenset(
    "get find search retrieve fetch check set create make add remove delete update list show book buy reserve calculate"
    " play look up view estimate determine perform analyze generate track the of for by in on to a an".split()
)
_TRIES = 40


def single(trajectory: Trajectory) -> bool:
    """Tell whether a trajectory is one request and one reply that calls."""
    roles = [message.role for message in trajectory.messages]
    return roles == ["user", "assistant"] and bool(trajectory.messages[1].tool_calls)


def subjects(name: str) -> frozenset[str]:
    """Return the words of a tool's name that say what it is about: without verbs of getting and making, singular."""
    found = [word.lower() for word in _WORDS.findall(name)]
    return frozenset(_singular(word) for word in found if word not in _VERBS) or frozenset(found)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


class Pool:
    """The different tools of some trajectories and besides, and the trajectories that can be joined."""

    def __init__(self, trajectories: Iterable[Trajectory] = (), tools: Iterable[ToolSpec] = ()) -> None:
        """Keep the first tool of each name."""
        named: dict[str, ToolSpec] = {}
        partners: list[Trajectory] = []
        for trajectory in trajectories:
            partners += [trajectory] if single(trajectory) else []
            for spec in trajectory.task.tools:
                named.setdefault(spec.name, spec)
        for spec in tools:
            named.setdefault(spec.name, spec)
        self.tools = tuple(named[name] for name in sorted(named))
        self.partners = tuple(partners)
        self._about = {spec.name: subjects(spec.name) for spec in self.tools}
        self._by_word: dict[str, list[ToolSpec]] = {}
        for spec in self.tools:
            for word in sorted(self._about[spec.name]):
                self._by_word.setdefault(word, []).append(spec)

    def near(self, wanted: ToolSpec, taken: Collection[str], draw: Random) -> ToolSpec | None:
        """Return a tool that is about something alike: its name shares a word of its subject, and neither has all.

        One that has all the words of the other's might do as well, and would be no wrong choice. None where there is
        none.
        """
        about = subjects(wanted.name)
        found = [
            spec
            for word in sorted(about)
            for spec in self._by_word.get(word, ())
            if spec.name not in taken and not (self._about[spec.name] <= about or about <= self._about[spec.name])
        ]
        return draw.choice(found) if found else None

    def far(self, avoided: Collection[str], taken: Collection[str], draw: Random) -> ToolSpec | None:
        """Return a tool whose subject has none of the `avoided` words; None where none was found."""
        for _ in range(min(_TRIES, 2 * len(self.tools))):
            spec = draw.choice(self.tools)
            if spec.name not in taken and not self._about[spec.name] & set(avoided):
                return spec
        return None


def heard(messages: Iterable[Message]) -> frozenset[str]:
    """Return the words that users say, in the form of `subjects`."""
    said = " ".join(message.content for message in messages if message.role == "user")
    return frozenset(_singular(word.lower()) for word in re.findall(r"[A-Za-z]+", said))
