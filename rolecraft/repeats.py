"""Which of a reply's calls are run: not one that stands there twice, nor one whose answer still holds.

Not covered: calls that mean the same and are written differently, and what changes a tool's state beside its calls.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rolecraft.types import Message, Observation, ToolCall, ToolSpec


def key(call: ToolCall) -> str:
    """Return what equal calls have in common, whatever the order of their arguments."""
    return f"{call.name}({json.dumps(dict(call.arguments), sort_keys=True, ensure_ascii=False, default=str)})"


def without_twins(message: Message, tools: Iterable[ToolSpec]) -> tuple[Message, tuple[Message, ...]]:
    """Return `message` with each call once, and what the model is told of those dropped; repeatable tools keep all."""
    kept: dict[str, ToolCall] = {}
    dropped: Counter[str] = Counter()
    repeatable = {tool.name for tool in tools if tool.repeatable}
    for place, call in enumerate(message.tool_calls):
        if call.name in repeatable:
            kept[str(place)] = call
        elif key(call) in kept:
            dropped[call.name] += 1
        else:
            kept[key(call)] = call
    if not dropped:
        return message, ()
    # A reply keeps its ids: they are what was written, of which this is what counts.
    return replace(message, tool_calls=tuple(kept.values())), tuple(_dropped(name, n) for name, n in dropped.items())


@dataclass(slots=True)
class Answered:
    """What an episode's successful calls have answered, kept until a call may have changed the state behind it.

    A tool is taken to change state unless it is pure. The calls of one reply run at once: what they answer counts as
    told after all of them, but for pure tools beside one that changes state, which may have been asked too early.
    """

    tools: Mapping[str, ToolSpec]
    _known: dict[str, Observation] = field(default_factory=dict)

    def copy(self) -> Answered:
        """Return one that knows the same, and goes its own way."""
        return replace(self, _known=dict(self._known))

    def recall(self, calls: Sequence[ToolCall]) -> dict[str, Observation]:
        """Return the answers that still hold, by the calls' ids; all other calls are to be run."""
        found = {call.id: self._known[key(call)] for call in calls if key(call) in self._known}
        if any(call.id not in found and not self._is_pure(call) for call in calls):
            found = {call.id: found[call.id] for call in calls if call.id in found and not self._is_pure(call)}
        return found

    def has(self, calls: Sequence[ToolCall]) -> bool:
        """Tell whether there are calls and all their answers still hold: who writes them has nothing new to ask."""
        return bool(calls) and all(key(call) in self._known for call in calls)

    def keep(self, ran: Sequence[tuple[ToolCall, Observation]]) -> None:
        """Take in what the calls of one reply that were run have answered."""
        changed = any(not self._is_pure(call) for call, _ in ran)
        if changed:
            self._known.clear()
        for call, observation in ran:
            tool = self.tools.get(call.name)
            if tool is not None and not (observation.failed or tool.repeatable or (changed and tool.pure)):
                self._known[key(call)] = observation

    def _is_pure(self, call: ToolCall) -> bool:
        """Tell whether running a call leaves all state as it is; a tool that does not exist does nothing."""
        return call.name not in self.tools or self.tools[call.name].pure


def remark(call: ToolCall) -> Message:
    """Return what the model is told beside an answer that it is given again."""
    return Message("tool", f"note: {call.name} was called just so before; that answer still holds and is told again")


def _dropped(name: str, count: int) -> Message:
    times = "once more" if count == 1 else f"{count} times more"
    return Message("tool", f"note: the same call of {name} stood in the reply {times}; it was run once")
