"""From answers that a server kept, and a file of rewards, to tries at tasks.

Told here is which answers make an episode, and which episodes are tries at the same task.

An answer belongs to the episode that its client named, else to that of the answer which its conversation goes on from.
Not covered: what rewards are worth (`credit`), and loading the policy (`recorded`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rolecraft import store
from rolecraft.errors import DataError
from rolecraft.store.served import Answer
from rolecraft.types import EpisodeStop, Json, Message, Trajectory
from rolecraft.wire.fields import read_field, read_object

_KEYS = ("episode", "reward")


@dataclass(slots=True)
class Episode:
    """The answers of one episode in their order, and the task that it is a try at."""

    name: str
    task: str
    answers: list[Answer] = field(default_factory=list)

    @property
    def whole(self) -> Trajectory:
        """The episode as one record: its last conversation, and the turns of all its answers."""
        last = self.answers[-1].record
        turns = tuple(turn for answer in self.answers for turn in answer.record.turns)
        stop: EpisodeStop = "length" if not turns or last.messages[-1].tool_calls else "answered"
        first = self.answers[0].record.task
        return replace(last, id=self.name, task=replace(first, id=self.task), turns=turns, stop=stop)


def episodes(answers: Iterable[Answer]) -> list[Episode]:
    """Return the episodes of some answers in the order in which they began.

    An episode that no client named is called as its first answer is. Where the conversations of several go the same
    way word for word, and no call tells them apart, what goes on from there is an episode of its own.
    """
    found: dict[str, Episode] = {}
    reached: dict[str, set[str]] = {}
    for answer in answers:
        name = answer.episode or _continued(answer, reached) or answer.id
        episode = found.setdefault(name, Episode(name, ""))
        episode.task = episode.task or answer.task
        episode.answers.append(answer)
        for mark in _marks(answer.record.messages):
            reached.setdefault(mark, set()).add(name)
    return [_settled(episode) for episode in found.values()]


def rewards(path: Path) -> dict[str, float]:
    """Return the reward of each episode that a file tells; raises DataError with the line for what it cannot mean."""
    seen = set[str]()

    def read(row: dict[str, Json], number: int) -> tuple[str, float]:
        fields = read_object(row, _KEYS, "reward")
        name, value = read_field(fields, "episode", str, "reward"), read_field(fields, "reward", float, "reward")
        if not math.isfinite(value):
            raise DataError(f"the reward of {name!r} is {value}; write a finite number")
        if name in seen:
            raise DataError(f"episode {name!r} is rewarded a second time; keep one line of it")
        seen.add(name)
        return name, value

    return dict(store.read_rows(path, read))


def rewarded(found: Sequence[Episode], told: Mapping[str, float], where: Path, run: Path) -> list[Episode]:
    """Return the episodes that have a reward; raises DataError for a reward of none."""
    names = {one.name for one in found}
    stray = next((name for name in told if name not in names), None)
    if stray is not None:
        some = ", ".join(repr(name) for name in list(names)[:3])
        raise DataError(
            f"{where}: episode {stray!r} is none of the {len(names)} that {str(run)!r} holds ({some}, ...); name it as "
            "its requests did (metadata 'episode'), or by the id of its first answer"
        )
    return [one for one in found if one.name in told]


def groups(found: Sequence[Episode]) -> list[int]:
    """Return the number of each episode's group: those of one task are tries at the same."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(one.task, len(numbers)) for one in found]


def refusals(found: Sequence[Episode]) -> Counter[str]:
    """Return why there are answers that nothing can be learned from, and in how many episodes."""
    return Counter(next(filter(None, (answer.refused for answer in one.answers)), "") for one in found)


def _continued(answer: Answer, reached: Mapping[str, set[str]]) -> str:
    """Return the episode whose last answer a conversation goes on from, '' where none does or several might."""
    before = answer.record.task.messages
    place = next((i for i in range(len(before), 0, -1) if before[i - 1].role == "assistant"), 0)
    for mark in _marks(before[:place]) if place else ():
        known = reached.get(mark, set())
        if len(known) == 1:
            return next(iter(known))
    return ""


def _marks(messages: Sequence[Message]) -> Iterator[str]:
    """Yield what tells a conversation that ends in an answer: its last call, whose id no other has, and its words."""
    last = messages[-1] if messages else Message("user")
    if last.tool_calls and last.tool_calls[-1].id:
        yield f"call {last.tool_calls[-1].id}"
    yield _digest(_visible(messages))


def _visible(messages: Sequence[Message]) -> list[Message]:
    """Return what a client knows of a conversation: no thought before an answer, nor what a memory told the system."""
    said = [one for one in messages if one.role != "system"]
    after = [*(one.role for one in said[1:]), ""]
    return [one for one, then in zip(said, after, strict=True) if (one.role, then) != ("assistant", "assistant")]


def _digest(messages: Sequence[Message]) -> str:
    said = [
        [one.role, one.content, one.unparsed, [[call.name, dict(call.arguments)] for call in one.tool_calls]]
        for one in messages
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _settled(episode: Episode) -> Episode:
    """Return an episode without answers that its client never used, and with a task: its opening, if none was named.

    A client that lost a connection asks again, and one that was stopped plays anew: of several answers to one
    conversation the last counts, unless the client went on from an earlier one after it, and nothing that goes on from
    the others.
    """
    used = {mark: place for place, one in enumerate(episode.answers) for mark in _prefixes(one.record.task.messages)}
    rivals: dict[str, list[Answer]] = {}
    places = {one.id: place for place, one in enumerate(episode.answers)}
    for one in episode.answers:
        rivals.setdefault(_digest(one.record.task.messages), []).append(one)
    kept = set[str]()
    for some in rivals.values():
        last = places[some[-1].id]  # what was gone on from before is of an earlier play
        gone_on = [one for one in some if used.get(next(_marks(one.record.messages)), -1) > last]
        kept.add((gone_on or some)[-1].id)
    left = {next(_marks(one.record.messages)) for one in episode.answers if one.id not in kept}
    left -= {next(_marks(one.record.messages)) for one in episode.answers if one.id in kept}
    for one in episode.answers:
        if one.id in kept and left.intersection(_prefixes(one.record.task.messages)):
            kept.discard(one.id)
            left.add(next(_marks(one.record.messages)))
    first = episode.answers[0].record.task
    tools = [[spec.name, spec.description] for spec in first.tools]
    task = episode.task or f"{_digest(first.messages)} {hashlib.sha256(repr(tools).encode()).hexdigest()}"
    return Episode(episode.name, task, [one for one in episode.answers if one.id in kept])


def _prefixes(messages: Sequence[Message]) -> Iterator[str]:
    """Yield the marks of all answers in a conversation."""
    for place, message in enumerate(messages, start=1):
        if message.role == "assistant":
            yield from _marks(messages[:place])
