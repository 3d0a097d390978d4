"""snips: spoken requests with seven functions, asked from the validation files; training may have had these seven.

Its split is called `in_domain` for that reason. The split `dev` is for choosing: 100 requests of each training file,
which the same training must leave out. One call is right, with the marked spans as arguments; nothing runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rolecraft import store
from rolecraft.benchmarks import _asked, _public
from rolecraft.benchmarks._asked import POLICIES
from rolecraft.benchmarks._slots import judge
from rolecraft.errors import DataError, SettingsError
from rolecraft.types import Environment, Message, Task, ToolCall, Trajectory

__all__ = [
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

SPLITS = ("dev", "in_domain")
REPORTED = ("in_domain",)
UNSEEN = ()

_SOURCE = "the folder 2017-06-custom-intent-engines of github.com/sonos/nlu-benchmark"
_DEV = 100
_DEV_SEED = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """How many requests are asked; of more, a sample that the seed decides, the same anywhere."""

    size: int = 200

    def __post_init__(self) -> None:
        """Raise SettingsError for a size that asks nothing."""
        if self.size < 1:
            raise SettingsError(f"snips needs a size of at least 1; got {self.size!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of a split; equal arguments give equal tasks, a smaller size the first of a larger one.

    Raises SettingsError for an unknown split and NotFound where the data are not.
    """
    if split not in SPLITS:
        raise SettingsError(f"snips has no split {split!r}; it has {', '.join(SPLITS)}, and several are asked as a+b")
    folder = _public.folder("snips", _SOURCE)
    found = _held_out(folder) if split == "dev" else _validation(folder)
    return tuple(_public.drawn(found, lambda task: task.id, seed)[: settings.size])


def sources(split: str) -> tuple[Path, ...]:
    """Return what the tasks of each split are read from."""
    return (_public.place("snips"),)


def open(task: Task) -> Environment:
    """Open the task for one episode, which ends with its calls; raises DataError if the task is not one of snips'."""
    if "calls" not in task.reference:
        raise DataError(f"task {task.id!r} has no 'calls' in its reference; only tasks of snips open here")
    return _asked.open_told(task, judge)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of a preset team."""
    return _asked.solved(task, _solution(task), team_name, judge)


def few_shot(asked: Sequence[Task], team_name: str, k: int = 3, seed: int = 0) -> tuple[Task, ...]:
    """Return the tasks after `k` solved ones of the training files, as turns of the conversation, the same for all.

    Each is of another function than the one before; none is asked, nor in `dev`.
    """
    folder = _public.folder("snips", _SOURCE)
    held_out = {task.id for task in (*asked, *_held_out(folder))}
    pool = _public.drawn((t for t in _training(folder) if t.id not in held_out), lambda task: task.id, seed)
    turns: list[Message] = []
    for place in range(k):
        families = sorted({task.reference["family"] for task in pool})
        chosen = next(task for task in pool if task.reference["family"] == families[(3 * place) % len(families)])
        pool.remove(chosen)
        turns += _asked.example(chosen, _solution(chosen), team_name)
    return tuple(_asked.after(task, turns) for task in asked)


def _solution(task: Task) -> Message:
    return Message(
        "assistant", tool_calls=tuple(ToolCall(one["name"], one["arguments"]) for one in task.reference["calls"])
    )


def _held_out(folder: Path) -> list[Task]:
    """Return 100 requests of each training file, whatever the seed of the tasks: trainings leave these out."""
    found = _public.drawn(_training(folder), lambda task: task.id, _DEV_SEED)
    families = sorted({task.reference["family"] for task in found})
    return [task for name in families for task in [t for t in found if t.reference["family"] == name][:_DEV]]


@lru_cache(maxsize=2)
def _training(folder: Path) -> tuple[Task, ...]:
    return tuple(map(_task, store.read_trajectories(folder, "snips", "skip", store.BadRows())))


@lru_cache(maxsize=2)
def _validation(folder: Path) -> tuple[Task, ...]:
    found = sorted(folder.glob("*/validate_*.json"))
    return tuple(_task(t) for path in found for t in store.read_trajectories(path, "snips", "skip", store.BadRows()))


def _task(trajectory: Trajectory) -> Task:
    (step,) = trajectory.task.reference["steps"]
    known = {"family": step["calls"][0]["name"], "ordered": False, **step}
    return Task(trajectory.id, trajectory.task.messages, trajectory.task.tools, known)
