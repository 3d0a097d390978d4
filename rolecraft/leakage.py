"""Finds what a training shares with the tasks that measure it: requests, services and tools on both sides.

Of every column: a request that is the same or nearly so. Of columns whose tools training is said not to have seen, also
a service, and of the tools that are to be called one of the same name and parameters, or one that differs by its names
alone. Names of tools and parameters that merely recur are listed; they are no leak.

Not covered: requests in other words, and what a base read before it was tuned.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rolecraft import toolschema
from rolecraft.types import Message, Task, ToolSpec, Trajectory

NEAR = 0.8
"""The share of three-word pieces from which two requests are nearly the same."""

_PIECE = 3
_WHOLE = 5  # pieces from which a request is found inside a longer one
_LONGEST = 20_000
_SHOWN = 5

_Pieces = frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """The tasks of one column of a table; `unseen` says that training has none of its services and tools."""

    name: str
    tasks: Sequence[Task]
    unseen: bool = False


@dataclass(slots=True)
class Found:
    """What a column shares with a training: counts of its tasks, services or tools by kind, and the first of each.

    `tools` and `parameters` count the names that recur.
    """

    column: str
    tasks: int
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    def add(self, kind: str, what: str) -> None:
        """Count one more of a kind."""
        self.counts[kind] += 1
        shown = self.first.setdefault(kind, [])
        shown += [what] if len(shown) < _SHOWN else []


KINDS = ("same request", "near-duplicate request", "service", "tool", "renamed tool")
"""What is found, in the order in which it is told."""


def check(training: Iterable[Trajectory], columns: Sequence[Column]) -> list[Found]:
    """Return what each column shares with the training's rows."""
    rows = list(training)
    offered = {spec.name: spec for row in rows for spec in row.task.tools}
    specs = list(dict.fromkeys(_signature(spec) for row in rows for spec in row.task.tools))
    services = {str(name): row.id for row in rows for name in row.task.reference.get("services", ())}
    keys = {key: name for name, plain, told in specs for key in (*plain, *told)}
    parameters = {key for spec in offered.values() for key in toolschema.properties(spec.parameters)}
    return [_checked(column, rows, services, keys, set(offered), parameters) for column in columns]


def _checked(
    column: Column,
    rows: Sequence[Trajectory],
    services: Mapping[str, str],
    keys: Mapping[object, str],
    tools: set[str],
    parameters: set[str],
) -> Found:
    found = Found(column.name, len(column.tasks))
    for task, row, same in Requests(column.tasks).shared(rows):
        found.add("same request" if same else "near-duplicate request", f"{task.id} is in {row.id}")
    asked = {spec.name: spec for task in column.tasks for spec in task.tools}
    found.tools = tuple(sorted(asked.keys() & tools))
    names = {key for spec in asked.values() for key in toolschema.properties(spec.parameters)}
    found.parameters = tuple(sorted(names & parameters))
    if column.unseen:
        for name in sorted({str(name) for task in column.tasks for name in task.reference.get("services", ())}):
            if name in services:
                found.add("service", f"{name} is in {services[name]}")
        for name, plain, told in dict.fromkeys(_signature(spec) for task in column.tasks for spec in _wanted(task)):
            if any(key in keys for key in plain):
                found.add("tool", name)
            elif known := next((keys[key] for key in told if key in keys), None):
                found.add("renamed tool", f"{name} is {known}")
    return found


def used(trajectory: Trajectory) -> set[str]:
    """Return the names of the tools that a trajectory calls or asks for."""
    steps = trajectory.task.reference.get("steps", ())
    return {call.name for message in trajectory.messages for call in message.tool_calls} | {
        str(name) for step in steps for name in step.get("asks_for", ())
    }


class HeldOut:
    """What a training must not have beside some columns: their requests and, of unseen ones, services and tools."""

    def __init__(self, columns: Sequence[Column] = ()) -> None:
        """Index the tasks of all columns."""
        unseen = [task for column in columns if column.unseen for task in column.tasks]
        self._requests = Requests(task for column in columns for task in column.tasks)
        self._services = {str(name) for task in unseen for name in task.reference.get("services", ())}
        signatures = dict.fromkeys(_signature(spec) for task in unseen for spec in _wanted(task))
        self._keys = {key for _, plain, told in signatures for key in (*plain, *told)}

    def hides(self, spec: ToolSpec) -> bool:
        """Tell whether a tool is one that unseen tasks ask to call, be it by other names."""
        _, plain, told = _signature(spec)
        return any(key in self._keys for key in (*plain, *told))

    def reason(self, trajectory: Trajectory) -> str | None:
        """Return why no row may be made of this one; None if one may."""
        if self._services & set(map(str, trajectory.task.reference.get("services", ()))):
            return "a service that is held out"
        names = used(trajectory)
        found = any(spec.name in names and self.hides(spec) for spec in trajectory.task.tools)
        return "a tool that is held out" if found else None

    def request_reason(self, trajectory: Trajectory) -> str | None:
        """Return why a row must not be trained for what it asks; None if it may."""
        near = next(self._requests.near(trajectory), None)
        return None if near is None else "a request of a task, or nearly"


def _wanted(task: Task) -> Sequence[ToolSpec]:
    """Return the tools that a task is about: those to be called or asked for; all, where none is."""
    known = task.reference
    names = {str(one["name"]) for one in known.get("calls") or ()} | set(known.get("asks_for", ()))
    return [spec for spec in task.tools if spec.name in names] or task.tools


class Requests:
    """The requests of some tasks, to be found among others, the same or nearly so.

    A request is what the user says in a task, all of it. It is nearly the same as another that has four fifths of its
    three-word pieces and few others, or as a part of a longer one.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        """Index the rarest pieces of each request: one that shares none of these cannot be near."""
        self._tasks = [(task, _words(task.messages)) for task in tasks]
        self._pieces = [_pieces(words) for _, words in self._tasks]
        frequent = Counter(piece for pieces in self._pieces for piece in pieces)
        self._index: dict[tuple[str, ...], list[int]] = {}
        for place, pieces in enumerate(self._pieces):
            rarest = sorted(pieces, key=lambda piece: (frequent[piece], piece))
            for piece in rarest[: len(pieces) - math.ceil(NEAR * len(pieces)) + 1]:
                self._index.setdefault(piece, []).append(place)

    def near(self, trajectory: Trajectory) -> Iterator[tuple[int, bool]]:
        """Yield the place of each task whose request is near the trajectory's, and whether it is the same."""
        words = _words(trajectory.messages)
        pieces = _pieces(words)
        places = {place for piece in pieces for place in self._index.get(piece, ())}
        for place in sorted(places):
            wanted = self._pieces[place]
            shared = len(pieces & wanted)
            among = len(wanted) if len(wanted) >= _WHOLE else len(pieces | wanted)
            if shared >= NEAR * among:
                yield place, self._tasks[place][1] == words

    def shared(self, rows: Iterable[Trajectory]) -> Iterator[tuple[Task, Trajectory, bool]]:
        """Yield each task that some row has, once, with the row that has it most alike, and whether it is the same."""
        best: dict[int, tuple[Trajectory, bool]] = {}
        for row in rows:
            for place, same in self.near(row):
                if place not in best or (same and not best[place][1]):
                    best[place] = (row, same)
        for place in sorted(best):
            yield self._tasks[place][0], *best[place]


def _words(messages: Iterable[Message]) -> tuple[str, ...]:
    said = " ".join(message.content[:_LONGEST] for message in messages if message.role == "user")
    return tuple(re.findall(r"\w+", said.casefold()))


def _pieces(words: tuple[str, ...]) -> _Pieces:
    if len(words) < _PIECE:
        return frozenset((words,)) if words else frozenset()
    return frozenset(words[place : place + _PIECE] for place in range(len(words) - _PIECE + 1))


def _signature(spec: ToolSpec) -> tuple[str, tuple[object, ...], tuple[object, ...]]:
    """Return a tool's name, by what it is the same tool, and by what it is the same but for its names."""
    schemas = toolschema.properties(spec.parameters)
    names = frozenset(schemas)
    described = [str(inner.get("description", "")) if isinstance(inner, Mapping) else "" for inner in schemas.values()]
    about = _plain(spec.description)
    told: tuple[object, ...] = (("described", about, names),) if about and names else ()
    if about and described and all(described):
        told += (("told", about, frozenset(map(_plain, described))),)
    return spec.name, (("named", spec.name, names),), told


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
