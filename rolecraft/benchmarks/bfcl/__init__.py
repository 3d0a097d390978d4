"""bfcl: the single-turn categories of the Berkeley Function Calling Leaderboard (v4), judged by its own checker.

Each category is a split. A model's first reply with calls is judged, and nothing runs. Functions are told as tools,
their types in JSON Schema's words, dots in their names as underscores; what a question says of them stays as it is.

Not covered: Java and JavaScript, whose values the checker wants as source text; several turns, memory and the web; the
leaderboard's overall score, which counts all of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rolecraft.benchmarks import _asked
from rolecraft.benchmarks._asked import POLICIES
from rolecraft.benchmarks.bfcl import data, schemas
from rolecraft.benchmarks.bfcl.judge import judge
from rolecraft.benchmarks.bfcl.schemas import tool_name
from rolecraft.errors import DataError, SettingsError
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.types import Environment, Json, Message, Task, ToolCall, Trajectory

__all__ = ["POLICIES", "SPLITS", "UNSEEN", "Settings", "few_shot", "judge", "open", "reference", "sources", "tasks"]

SPLITS = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_relevance",
    "live_irrelevance",
)
"""The categories; there is no training split."""

UNSEEN = SPLITS

_SHOWN = ("simple_python", "parallel", "irrelevance", "multiple")
"""The categories that examples are taken from, in turns."""

_KEYS = ("family", "functions", "answers")


@dataclass(frozen=True, slots=True)
class Settings:
    """How many rows of each category are asked; of more, a sample that the seed decides, the same anywhere."""

    size: int = 150

    def __post_init__(self) -> None:
        """Raise SettingsError for a size that asks nothing."""
        if self.size < 1:
            raise SettingsError(f"bfcl needs a size of at least 1; got {self.size!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of a category; equal arguments give equal tasks, a smaller size the first of a larger one.

    Raises SettingsError for an unknown split and MissingExtra where BFCL is not installed.
    """
    if split not in SPLITS:
        raise SettingsError(f"bfcl has no split {split!r}; it has {', '.join(SPLITS)}, and several are asked as a+b")
    return tuple(_task(row, split) for row in data.rows(split, seed)[: settings.size])


def sources(split: str) -> tuple[Path, ...]:
    """Return what the tasks of each split are read from; raises MissingExtra without bfcl-eval."""
    return (data.folder(),)


def open(task: Task) -> Environment:
    """Open the task for one episode, which ends with its calls; raises DataError if the task is not one of bfcl's."""
    if missing := next((key for key in _KEYS if key not in task.reference), None):
        raise DataError(f"task {task.id!r} has no {missing!r} in its reference; only tasks of bfcl open here")
    return _asked.open_told(task, judge)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of a preset team."""
    return _asked.solved(task, _solution(task), team_name, judge)


def few_shot(asked: Sequence[Task], team_name: str, k: int = 3, seed: int = 0) -> tuple[Task, ...]:
    """Return the tasks after `k` solved ones of other categories' and their own kinds, as turns of the conversation.

    All tasks get the same examples, none of which is asked: those that come last in the order of samples. An example's
    functions are not offered; a call of one is answered by `done`. Raises SettingsError where none is left.
    """
    taken = {task.id for task in asked}
    pools = {category: [row for row in data.rows(category, seed) if row["id"] not in taken] for category in _SHOWN}
    turns: list[Message] = []
    for place in range(k):
        category = _SHOWN[place % len(_SHOWN)]
        if not pools[category]:
            raise SettingsError(f"no row of {category} is left to be shown as an example; lower the size or the shots")
        example = _task(pools[category].pop(), category)
        turns += _asked.example(example, _solution(example), team_name)
    return tuple(_asked.after(task, turns) for task in asked)


def _task(row: Mapping[str, Json], category: str) -> Task:
    functions, answers = row["function"], row.get("ground_truth", [])
    messages = tuple(Message(said["role"], said["content"]) for turn in row["question"] for said in turn)
    known: dict[str, Json] = {
        "family": category,
        "functions": functions,
        "answers": answers,
        "calls": [_call(answer, functions) for answer in answers],
        "ordered": False,
    }
    if category.endswith("_relevance"):  # any call is right
        known["calls"] = [{"name": tool_name(functions[0]["name"]), "arguments": {}}]
    return Task(row["id"], messages, schemas.specs(functions), known)


def _call(answer: Mapping[str, Json], functions: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Return one of the calls that an answer allows: the first value of each argument that must or may be given.

    A few answers of the data allow none: they list an argument that the function has not, or no value for one it needs.
    """
    ((name, options),) = answer.items()
    (described,) = (function["parameters"] for function in functions if function["name"] == name)
    arguments = {
        key: _first(values, nested=True)
        for key, values in options.items()
        if key in described["properties"] and (any(value != "" for value in values) or key in described["required"])
    }
    return {"name": tool_name(name), "arguments": arguments}


def _first(values: Sequence[Json], *, nested: bool) -> Json:
    """Return the first value that is no leave to omit it; in an object the values are lists of options again."""
    value = next((value for value in values if value != ""), "")
    if nested and isinstance(value, dict):
        return dict(_chosen(value))
    if nested and isinstance(value, list):
        return [dict(_chosen(item)) if isinstance(item, dict) else item for item in value]
    return value


def _chosen(options: Mapping[str, Sequence[Json]]) -> Iterator[tuple[str, Json]]:
    for key, values in options.items():
        if any(value != "" for value in values):
            yield key, _first(values, nested=False)


def _solution(task: Task) -> Message:
    calls = tuple(ToolCall(one["name"], one["arguments"]) for one in task.reference["calls"])
    return Message("assistant", "" if calls else NO_TOOL_FITS, calls)
