"""Tries the replies to one prompt beside each other: equal calls run once, and those of each reply on its own state."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rolecraft import repeats
from rolecraft.types import Observation, ToolCall, Toolset


@dataclass(slots=True)
class Trying:
    """One step's branches of a toolbox, and what their calls have answered; `ran` counts the calls.

    Replies with the same calls share a branch, since they come to the same state. A call of a pure tool is shared by
    all replies, one of a tool that means something else each time (`repeatable`) by none.
    """

    toolbox: Toolset
    ran: int = 0
    _branches: dict[tuple[str, ...], Toolset] = field(default_factory=dict)
    _answers: dict[str, asyncio.Future[Observation]] = field(default_factory=dict)

    def place(self, calls: Sequence[ToolCall]) -> Place:
        """Return where a reply with these calls is tried."""
        kinds = {spec.name: spec for spec in self.toolbox.specs}
        asked = [kinds[call.name] for call in calls if call.name in kinds]
        same = tuple(repeats.key(call) for call in calls)
        if any(spec.repeatable for spec in asked):
            same = (*same, f"reply {len(self._branches)}")
        if same not in self._branches:
            self._branches[same] = self.toolbox.branch()
        pure = frozenset(spec.name for spec in asked if spec.pure and not spec.repeatable)
        return Place(self, self._branches[same], repr(same), pure)

    async def answer(self, name: str, branch: Toolset, call: ToolCall) -> Observation:
        """Return what a call answers, which is run now if the one of this name was not yet."""
        if name not in self._answers:
            self.ran += 1
            self._answers[name] = asyncio.ensure_future(branch.call(call))
        return await asyncio.shield(self._answers[name])

    async def close(self) -> None:
        """Free what the branches hold, off the event loop, once their calls have ended."""
        await asyncio.gather(*self._answers.values(), return_exceptions=True)
        if self.ran:
            await asyncio.to_thread(close_all, list(self._branches.values()))


@dataclass(slots=True)
class Place:
    """Where one reply is tried: a branch of the toolbox, with the answers that others have had before it."""

    trying: Trying
    branch: Toolset
    state: str
    pure: frozenset[str]
    _asked: Counter[str] = field(default_factory=Counter)

    async def run(self, call: ToolCall) -> Observation:
        """Run one call, or return what the same call has answered; a second one of the same reply is another."""
        key = repeats.key(call)
        self._asked[key] += 1
        name = f"{key} {self._asked[key]}"
        return await self.trying.answer(name if call.name in self.pure else f"{self.state} {name}", self.branch, call)


def close_all(branches: Iterable[Toolset]) -> None:
    """Free what branches hold, the rest too when one fails."""
    with contextlib.ExitStack() as closing:
        for branch in branches:
            closing.callback(branch.close)
