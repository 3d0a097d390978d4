"""Remembers the answers that were written, so that a follow-up request extends the prefix that the engine has cached.

A client sends back what it saw of an answer: calls and content, seldom the reasoning, never the token ids. With the
exact messages in their place, the prompt's tokens extend those whose keys and values the engine still holds. A
conversation is known by what its clients alone know: the ids of its calls, or all that was said in it.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from rolecraft.server.models import ServedModel
from rolecraft.server.requests import SentMessage
from rolecraft.server.turns import FinishedChoice
from rolecraft.types import Message

_BESIDES = 64  # what an entry weighs besides its tokens and characters


@dataclass(frozen=True, slots=True)
class Restored:
    """A conversation as it was written, and the scope of the last answer that was found in it."""

    messages: tuple[Message, ...]
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class _Written:
    """An answer as it was written: its messages, and those that come after the answers to its calls.

    `scope` is where the engine keeps what it computed for it.
    """

    model: str
    scope: str
    seen: str
    messages: tuple[Message, ...]
    trailing: tuple[Message, ...]
    calls: tuple[str, ...]
    weight: int


class AnswerMemory:
    """A bounded memory of answers, the least recently used forgotten first; `held` is what they weigh.

    An answer is found by the ids of its calls, or by the conversation before it and what was seen of it. One that the
    client has changed is not found: what it sends then holds.
    """

    def __init__(self, capacity: int) -> None:
        """Hold at most `capacity` tokens and characters together."""
        self._capacity = capacity
        self.held = 0
        self._answers: OrderedDict[str, _Written] = OrderedDict()
        self._by_call: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def restore(self, model: ServedModel, sent: Sequence[SentMessage], cache_key: str = "") -> Restored:
        """Return the conversation with each answer as it was written; what is not known is read as sent."""
        messages: list[Message] = []
        trailing: tuple[Message, ...] = ()
        scope = None
        before = _start(model, cache_key)
        for one in sent:
            message = one.message
            if message.role != "tool":
                messages += trailing
                trailing = ()
            if message.role == "assistant":
                written = self._find(model, before, message)
                messages += model.as_team_messages(one) if written is None else written.messages
                trailing = () if written is None else written.trailing
                scope = scope if written is None else written.scope
            else:
                messages.append(message)
            before = _extended(before, message)
        return Restored((*messages, *trailing), scope)

    def remember(
        self,
        model: ServedModel,
        sent: Sequence[SentMessage],
        finished: FinishedChoice,
        scope: str = "",
        cache_key: str = "",
    ) -> None:
        """Remember an answer to the conversation `sent`, which the engine computed under `scope`."""
        seen = Message("assistant", finished.content, tool_calls=finished.calls)
        before = _start(model, cache_key)
        for one in sent:
            before = _extended(before, one.message)
        key = _extended(before, seen)
        weight = sum(_weight(message) for message in (*finished.messages, *finished.trailing))
        if weight > self._capacity:
            return
        self._drop(key)
        calls = tuple(call.id for call in finished.calls)
        self._answers[key] = _Written(
            model.id, scope, _appearance(seen), finished.messages, finished.trailing, calls, weight
        )
        self._by_call |= dict.fromkeys(calls, key)
        self.held += weight
        while self.held > self._capacity:
            self._drop(next(iter(self._answers)))

    def _find(self, model: ServedModel, before: str, seen: Message) -> _Written | None:
        by_call = self._by_call.get(seen.tool_calls[0].id) if seen.tool_calls else None
        key = by_call or _extended(before, seen)
        written = self._answers.get(key)
        if written is None or (written.model, written.seen) != (model.id, _appearance(seen)):
            return None
        self._answers.move_to_end(key)
        return written

    def _drop(self, key: str) -> None:
        written = self._answers.pop(key, None)
        if written is not None:
            self.held -= written.weight
            for call in written.calls:
                del self._by_call[call]


def _start(model: ServedModel, cache_key: str) -> str:
    return hashlib.sha256(json.dumps([model.id, cache_key]).encode()).hexdigest()


def _extended(before: str, message: Message) -> str:
    """Return the digest of a conversation and one message more; ids of calls do not count, clients rename them."""
    return hashlib.sha256((before + _appearance(message)).encode("utf-8", "surrogatepass")).hexdigest()


def _appearance(message: Message) -> str:
    calls = [[call.name, dict(call.arguments)] for call in message.tool_calls]
    seen = [message.role, message.speaker, message.content, message.unparsed, calls]
    return json.dumps(seen, sort_keys=True, ensure_ascii=False)


def _weight(message: Message) -> int:
    characters = len(message.content) + len(message.unparsed or "")
    calls = sum(len(json.dumps(dict(call.arguments))) for call in message.tool_calls)
    return _BESIDES + characters + calls + len(message.ids or ())
