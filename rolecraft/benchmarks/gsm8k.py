"""gsm8k: word problems of primary school (arXiv 2110.14168), with the python tool or without.

Its data are the files train.jsonl and test.jsonl of github.com/openai/grade-school-math. An answer is right if it comes
to the reference's number (see `judges/maths.py`). A task's family is the number of steps of its published solution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rolecraft import catalog, store
from rolecraft.benchmarks import _asked, _public
from rolecraft.benchmarks.toolworld import script
from rolecraft.errors import DataError, SettingsError
from rolecraft.tools import Toolbox, find
from rolecraft.types import Environment, Json, Message, Task, ToolCall, Trajectory, Verdict

__all__ = ["REPORTED", "SPLITS", "Settings", "few_shot", "judge", "open", "reference", "sources", "tasks"]

SPLITS = ("train", "test")
REPORTED = ("test",)

_SOURCE = "the folder grade_school_math/data of github.com/openai/grade-school-math"
_MOST_STEPS = 6
_WORKING = re.compile(r"<<([^<>]*)=[^<>]*>>")


@dataclass(frozen=True, slots=True)
class Settings:
    """How many problems are asked; of more, a sample that the seed decides, the same anywhere.

    `python`: the task has the tool `python`. `form` is said after each problem, as the paper's prompts do (Agent
    Distillation's released prompts ask for a boxed number as well); None says nothing.
    """

    size: int = 200
    python: bool = True
    form: str | None = "Give the final number in \\boxed{}."

    def __post_init__(self) -> None:
        """Raise SettingsError for a size that asks nothing."""
        if self.size < 1:
            raise SettingsError(f"gsm8k needs a size of at least 1; got {self.size!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of a split; equal arguments give equal tasks, a smaller size the first of a larger one.

    Raises SettingsError for an unknown split, NotFound where the data are not, MissingExtra without math-verify.
    """
    if split not in SPLITS:
        raise SettingsError(f"gsm8k has no split {split!r}; it has {', '.join(SPLITS)}, and several are asked as a+b")
    catalog.find("judges", "maths").require()
    found = _problems(_public.folder("gsm8k", _SOURCE), split)
    chosen = _public.drawn(found, lambda problem: problem.id, seed)[: settings.size]
    return tuple(_task(problem, settings) for problem in chosen)


def sources(split: str) -> tuple[Path, ...]:
    """Return what the tasks of a split are read from."""
    return (_public.place("gsm8k") / f"{split}.jsonl",)


def open(task: Task) -> Environment:
    """Open the task for one episode; raises DataError if the task is not one of gsm8k's."""
    if "maths" not in task.reference:
        raise DataError(f"task {task.id!r} has no 'maths' in its reference; only tasks of gsm8k open here")
    return Environment(task, Toolbox(find("python") if task.tools else ()), judge)


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 if the answer comes to the reference's number, else 0."""
    verdict: Verdict = catalog.find("judges", "maths").judge(trajectory)
    return verdict


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of a preset team: its own sums, computed where there is a tool."""
    return script.play_now(open(task), team_name, script.in_roles(tuple(_solution(task)), team_name))


def few_shot(asked: Sequence[Task], team_name: str, k: int = 4, seed: int = 0) -> tuple[Task, ...]:
    """Return the tasks after `k` solved ones of the training file, as turns of the conversation, the same for all."""
    if not asked:
        return ()
    taken = {task.id for task in asked}
    settings = Settings(size=k + len(taken), python=bool(asked[0].tools), form=_form(asked[0]))
    pool = [task for task in tasks(settings, "train", seed) if task.id not in taken][:k]
    turns = [message for task in pool for message in reference(task, team_name).messages]
    return tuple(_asked.after(task, turns) for task in asked)


@dataclass(frozen=True, slots=True)
class _Problem:
    id: str
    question: str
    solution: str
    number: str


@lru_cache(maxsize=2)
def _problems(folder: Path, split: str) -> tuple[_Problem, ...]:
    def read(row: dict[str, Json], number: int) -> _Problem:
        question, told = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(told, str) or "####" not in told:
            raise DataError("row: it has no 'question' and 'answer' with a number after ####")
        solution, _, last = told.rpartition("####")
        return _Problem(f"gsm8k-{split}-{number}", question.strip(), solution.strip(), last.strip().replace(",", ""))

    return tuple(store.read_rows(folder / f"{split}.jsonl", read))


def _task(problem: _Problem, settings: Settings) -> Task:
    steps = len(_WORKING.findall(problem.solution))
    known = {
        "family": f"steps: {max(1, steps)}" if steps < _MOST_STEPS else f"steps: {_MOST_STEPS} or more",
        "maths": problem.number,
        "solution": problem.solution,
    }
    tools = (catalog.find("tools", "python").SPEC,) if settings.python else ()
    asked = "\n\n".join(filter(None, (problem.question, settings.form)))
    return Task(problem.id, (Message("user", asked),), tools, known)


def _form(task: Task) -> str | None:
    """Return what a task says after its problem."""
    problems = _problems(_public.folder("gsm8k", _SOURCE), task.id.split("-")[1])
    question = next(problem.question for problem in problems if problem.id == task.id)
    return task.messages[-1].content.removeprefix(question).removeprefix("\n\n") or None


def _solution(task: Task) -> Iterator[Message]:
    """Yield the published solution: its sums as a call where there is the tool, its words, its number."""
    text, number = str(task.reference["solution"]), str(task.reference["maths"])
    sums = _WORKING.findall(text) or [number]
    if task.tools:
        code = "\n".join(f"print({one})" for one in sums)
        yield Message("assistant", "", (ToolCall("python", {"code": code}),), speaker="assistant")
    words = _WORKING.sub("", text)
    yield Message("assistant", f"{words}\nThe answer is \\boxed{{{number}}}.", speaker="assistant")
