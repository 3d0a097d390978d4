"""sgd: the next call of a person's dialogue with a service that training never saw, or the question that comes first.

Its data are Schema-Guided Dialogue's, typed by its importer. A task is a dialogue up to the point where a service is
called (`test`), or where the user must be asked for a required slot (`ask`), with all tools of the dialogue's services;
no training dialogue has its service. `seen` are calls of services that the training dialogues have too, `dev`
and `dev_ask` are for choosing: services of the training files that a training must leave out (`held_out`). Nothing
runs. Of a question it is judged only that nothing is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rolecraft import augment, catalog, store
from rolecraft.benchmarks import _asked, _public
from rolecraft.benchmarks._asked import POLICIES
from rolecraft.benchmarks._slots import judge
from rolecraft.errors import DataError, SettingsError
from rolecraft.types import Environment, Json, Message, Task, ToolCall, Trajectory

__all__ = [
    "HELD_OUT",
    "POLICIES",
    "REPORTED",
    "SPLITS",
    "UNSEEN",
    "Settings",
    "few_shot",
    "judge",
    "open",
    "reference",
    "sources",
    "tasks",
]

SPLITS = ("dev", "dev_ask", "test", "ask", "seen")
REPORTED = ("test", "ask")
UNSEEN = ("dev", "dev_ask", "test", "ask")

HELD_OUT = ("Buses_2", "Media_1", "RentalCars_2", "Services_3")
"""Services of the training files to choose with: three have a sibling in training, one is alone in its domain."""

_SOURCE = "the folders train and test of github.com/google-research-datasets/dstc8-schema-guided-dialogue"


@dataclass(frozen=True, slots=True)
class Settings:
    """How many tasks are asked; of more, a sample that the seed decides, the same anywhere.

    `results` is how many of a call's results the dialogue so far tells; the source has up to ten. `held_out` are the
    services of `dev` and `dev_ask`.
    """

    size: int = 200
    results: int = 3
    held_out: tuple[str, ...] = HELD_OUT

    def __post_init__(self) -> None:
        """Raise SettingsError for a size that asks nothing."""
        for name, least in (("size", 1), ("results", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"sgd needs {name} to be at least {least}; got {getattr(self, name)!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of a split; equal arguments give equal tasks, a smaller size the first of a larger one.

    Raises SettingsError for an unknown split or service, and NotFound where the data are not.
    """
    if split not in SPLITS:
        raise SettingsError(f"sgd has no split {split!r}; it has {', '.join(SPLITS)}, and several are asked as a+b")
    folder = _public.folder("sgd", _SOURCE)
    trained = _services(folder / "train")
    if stray := next((name for name in settings.held_out if name not in trained), None):
        raise SettingsError(f"sgd's training files have no service {stray!r}; they have {', '.join(sorted(trained))}")
    part = folder / ("train" if split.startswith("dev") else "test")
    found = [
        task
        for task in _steps(part, settings.results)
        if bool(task.reference["calls"]) != split.endswith("ask")
        and _belongs(set(task.reference["services"]), split, trained, set(settings.held_out))
    ]
    return tuple(_public.drawn(found, lambda task: task.id, seed)[: settings.size])


def sources(split: str) -> tuple[Path, ...]:
    """Return what the tasks of a split are read from."""
    return tuple(_public.place("sgd") / part for part in (("train",) if split.startswith("dev") else ("train", "test")))


def open(task: Task) -> Environment:
    """Open the task for one episode, which ends with its calls; raises DataError if the task is not one of sgd's."""
    if "calls" not in task.reference:
        raise DataError(f"task {task.id!r} has no 'calls' in its reference; only tasks of sgd open here")
    return _asked.open_told(task, judge)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of a preset team: the call, or the question of the dialogue itself."""
    return _asked.solved(task, _solution(task), team_name, judge)


def few_shot(asked: Sequence[Task], team_name: str, k: int = 3, seed: int = 0) -> tuple[Task, ...]:
    """Return the tasks after `k` solved ones of the training files, as turns of the conversation, the same for all.

    They are first turns of dialogues, calls and questions in turn, of services that are not in `HELD_OUT`.
    """
    free = [
        task
        for task in _steps(_public.folder("sgd", _SOURCE) / "train", 0)
        if len(task.messages) == 2 and not set(HELD_OUT) & set(task.reference["services"])
    ]
    pool = _public.drawn(free, lambda task: task.id, seed)
    turns: list[Message] = []
    for place in range(k):
        chosen = next(task for task in pool if bool(task.reference["calls"]) == (place % 2 == 0))
        pool.remove(chosen)
        turns += _asked.example(chosen, _solution(chosen), team_name)
    return tuple(_asked.after(task, turns) for task in asked)


@lru_cache(maxsize=2)
def _services(folder: Path) -> frozenset[str]:
    found: frozenset[str] = catalog.find("importers", "sgd").services(folder)
    return found


def _belongs(services: set[str], split: str, trained: frozenset[str], held_out: set[str]) -> bool:
    """Tell whether a step about these services is one of the split's."""
    if split.startswith("dev"):
        return services <= held_out
    return services <= trained if split == "seen" else not services & trained


def _solution(task: Task) -> Message:
    calls = tuple(ToolCall(one["name"], one["arguments"]) for one in task.reference["calls"])
    return Message("assistant", "" if calls else task.reference["said"], calls)


@lru_cache(maxsize=2)
def _steps(folder: Path, results: int) -> tuple[Task, ...]:
    """Return every call and question of a folder's dialogues as a task."""
    read = store.read_trajectories(folder, "sgd", "skip", store.BadRows())
    return tuple(_task(folder.name, t, step, results) for t in read for step in t.task.reference["steps"])


def _task(folder: str, trajectory: Trajectory, step: Mapping[str, Json], results: int) -> Task:
    place = step["at"]
    known = {"family": "call" if step["calls"] else "ask", "ordered": False, **step}
    if not step["calls"]:
        known["said"] = trajectory.messages[place].content
    messages = tuple(message.edited(weight=None) for message in trajectory.messages[:place])
    return Task(
        f"{folder}-{trajectory.id}-{place}", augment.with_short_results(messages, results), trajectory.task.tools, known
    )
