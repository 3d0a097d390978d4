"""Plays your own tasks: a JSONL of questions with what is right, and your own tools, which really run.

`rows.py` tells what a row may hold. Every episode has fresh tools: a tools file is run anew for each, the modules that
it imports are not. Where a task has a `database`, the world also has the `sql` tool on a database of its own.

Not covered: partial credit; an episode is right in all that its row tells, or wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecraft import catalog, team
from rolecraft.benchmarks.tasks import rows
from rolecraft.benchmarks.toolworld import script
from rolecraft.errors import DataError, SettingsError
from rolecraft.store import hash_file, read_rows
from rolecraft.tools import Toolbox, ToolLike, find
from rolecraft.types import Environment, Json, Message, Task, ToolCall, ToolSpec, Trajectory, Verdict

__all__ = ["SPLITS", "Settings", "digest", "judge", "open", "opener", "reference", "tasks"]

SPLITS = ("test",)

_EXAMPLE = Path(__file__).parent / "example.jsonl"
_JUDGES = {
    "answer": ("answers", ("exact", "number", "contains", "forbidden")),
    "calls": ("failures", ("calls",)),
    "state": ("state", ("state",)),
}
"""Part of the verdict -> the judge of it, and the keys of the reference with which it is judged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which tasks, with which tools; without a `path`, a few examples.

    A tool is the name of one that comes with Rolecraft, or a `Path`, which only the command line and Python give: a
    name that stands in a file runs no other file. A call may take `tool_seconds` and answer `tool_chars` characters.
    `system` opens the conversations that have no system message of their own. `unsafe`: code that the model writes runs
    even where it cannot be isolated. `digest` is of the tools' files: with other tools it is another evaluation.
    """

    path: Path | None = None
    tools: tuple[Any, ...] = ("calculator",)
    tool_seconds: float = 10.0
    tool_chars: int = 2000
    system: str = ""
    unsafe: bool = False
    digest: str = ""


def digest(tools: Sequence[str | Path]) -> str:
    """Return a digest of the files among `tools`; raises NotFound for one that is not there."""
    return " ".join(f"{tool.name}:{hash_file(tool)[:12]}" for tool in tools if isinstance(tool, Path))


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of the file, in its order; raises DataError with file, line and reason for a bad row."""
    if split not in SPLITS:
        raise SettingsError(f"tasks of your own have no split {split!r}; they have {', '.join(SPLITS)}")
    path = settings.path or _EXAMPLE
    told = _Told(settings)
    seen: dict[str, int] = {}

    def read(row: dict[str, Json], number: int) -> Task:
        task = rows.read(row, path, number, settings.system, told.specs)
        rows.require_new(task.id, number, seen)
        return task

    return tuple(read_rows(path, read))


def opener(settings: Settings) -> Callable[[Task], Environment]:
    """Return what opens a task's world with the tools that the settings name."""
    one_at_a_time = threading.Lock()  # a file that two threads ran at once would be one module

    def open_world(task: Task) -> Environment:
        with one_at_a_time:
            offered = _open_tools(settings, rows.database_of(task.reference))
        wanted = {spec.name for spec in task.tools}
        for tool in offered:
            if tool.spec.name not in wanted:
                tool.close()
        chosen = [tool for tool in offered if tool.spec.name in wanted]
        box = Toolbox(chosen, seconds=settings.tool_seconds, output_chars=settings.tool_chars)
        return Environment(task, box, judge)

    return open_world


def open(task: Task) -> Environment:
    """Open the world of a task that needs no tools but those of the examples, and its own database."""
    return opener(Settings())(task)


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 if all is right that the task's row tells: its answer, its calls and its state; a part for each."""
    reference = trajectory.task.reference
    verdicts = {
        part: catalog.find("judges", name).judge(trajectory)
        for part, (name, keys) in _JUDGES.items()
        if any(key in reference for key in keys)
    }
    parts = {part: float(verdict.score >= 1) for part, verdict in verdicts.items()}
    reasons = [f"{part}: {verdict.reason}" for part, verdict in verdicts.items() if verdict.score < 1]
    return Verdict(float(bool(parts) and all(parts.values())), "; ".join(reasons), parts)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in a team's roles: the row's calls, really run, and an answer that holds what is right.

    Of a task whose row tells a state and no calls, it is the answer alone.
    """
    calls = [ToolCall(call["name"], call["arguments"]) for call in task.reference.get("calls", ())]
    acts = [Message("assistant", "", (call,), speaker="assistant") for call in calls]
    said = (*acts, Message("assistant", rows.right_answer(task.reference), speaker="assistant"))
    players = team.find(team_name, instructions=False)
    messages = said if "assistant" in players.speakers else team.divided(said, players)
    return script.play_now(open(task), team_name, messages)


class _Told:
    """What the model is told of the tools, opened and tried once for each database that a row has."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._specs: dict[rows.Database, tuple[ToolSpec, ...]] = {}

    def specs(self, database: rows.Database) -> tuple[ToolSpec, ...]:
        if database not in self._specs:
            with closing(Toolbox(_open_tools(self._settings, database))) as box:
                missed = box.state().get("sql") if database.query else None
                if isinstance(missed, dict):
                    raise DataError(f"state: its 'query' does not run: {missed['missed']}")
                self._specs[database] = box.specs
        return self._specs[database]


def _open_tools(settings: Settings, database: rows.Database) -> list[ToolLike]:
    """Open the tools that the settings name, and `sql` where there is a database."""
    with ExitStack() as opened:
        found = list[ToolLike]()
        for name in settings.tools:
            unsafe = {"unsafe": True} if settings.unsafe and name == "python" else None
            for tool in find(name, unsafe):
                opened.callback(tool.close)
                found.append(tool)
        if database.script:
            asked = {"script": database.script, "read_only": False, "state_query": database.query}
            try:
                found += find("sql", asked)
            except SettingsError as error:
                raise DataError(f"row: 'database' cannot be opened: {error}") from error
        opened.pop_all()
    return found
