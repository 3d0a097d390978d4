"""dbbench: questions to, and changes of, one SQL table (AgentBench's DBBench, standard split), on SQLite.

The database speaks MySQL's dialect as far as `_dialect` goes. A change is right where the table's checksum is the one
that MySQL gave after the right statement, whatever was said; a question where the list after `Final Answer:` is right.
Nothing that a model answers is evaluated: the list is read as a literal. AgentBench's headline is the mean of the three
families' scores. Nothing may be tuned on, or remembered from, the standard split; there is no other here.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rolecraft import catalog, store
from rolecraft.benchmarks import _asked, _public
from rolecraft.benchmarks.dbbench._table import SPEC, checksum, open_table
from rolecraft.benchmarks.toolworld import script
from rolecraft.errors import DataError, SettingsError
from rolecraft.judges import replies
from rolecraft.tools import Toolbox
from rolecraft.types import Environment, Message, Task, ToolCall, Trajectory, Verdict

__all__ = ["REPORTED", "SPLITS", "UNSEEN", "Settings", "judge", "open", "reference", "sources", "tasks"]

SPLITS = ("standard",)
REPORTED = SPLITS
UNSEEN = ()

_SOURCE = "data/dbbench/standard.jsonl of github.com/THUDM/AgentBench"
_FAMILIES = ("SELECT", "INSERT", "UPDATE")
_LONGEST_ANSWER = 4_000
_TOLERANCE = 1e-2
_MARK = re.compile(r"final answer\s*:", re.IGNORECASE)
_INSTRUCTIONS = (
    "You work on a MySQL database by calling the tool `sql`, one statement a call. Nothing is known of the rows, and "
    "nothing is changed, before a call of yours has done it. Once the results are there, write the values asked for as "
    'a list of texts after the words `Final Answer:`, such as Final Answer: ["a", "b"]; after a change, an empty list.'
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How many tasks are played, as many of each family as there are; of fewer than all, a sample by the seed."""

    size: int = 300

    def __post_init__(self) -> None:
        """Raise SettingsError for a size that asks nothing."""
        if self.size < 1:
            raise SettingsError(f"dbbench needs a size of at least 1; got {self.size!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of the split, the three families in turn; equal arguments give equal tasks.

    Raises SettingsError for an unknown split and NotFound where the data are not.
    """
    if split not in SPLITS:
        raise SettingsError(f"dbbench has no split {split!r}; it has {', '.join(SPLITS)}")
    found = _public.drawn(_read(_public.folder("agentbench_db", _SOURCE)), lambda task: task.id, seed)
    apart = [[task for task in found if task.reference["family"] == family] for family in _FAMILIES]
    return tuple(task for turn in zip_longest(*apart) for task in turn if task is not None)[: settings.size]


def sources(split: str) -> tuple[Path, ...]:
    """Return what the tasks of each split are read from."""
    return (_public.place("agentbench_db") / "standard.jsonl",)


def open(task: Task) -> Environment:
    """Build the task's table and open it; raises DataError if the task is not one of dbbench's."""
    if "table" not in task.reference:
        raise DataError(f"task {task.id!r} has no 'table' in its reference; only tasks of dbbench open here")
    return Environment(task, Toolbox([open_table(task.reference["table"])], output_chars=1000), judge)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of a preset team, its statement really run.

    A question's own SQL is wrong in a third of the rows, so the reference looks at the table and knows the answer.
    """
    asked = task.reference
    change = asked["family"] != "SELECT"
    query = asked["label"][0] if change else f"SELECT * FROM `{asked['table']['name']}` LIMIT 3"
    answer = f"Final Answer: {json.dumps([] if change else asked['label'], ensure_ascii=False)}"
    acted = Message("assistant", tool_calls=(ToolCall("sql", {"query": query}),), speaker="assistant")
    said = _asked.in_roles((acted, Message("assistant", answer, speaker="assistant")), team_name)
    return script.play_now(open(task), team_name, said)


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 for the right table after a change, or for the right list after a question; else 0 with the reason.

    For a question the part `told` is 1 where the answer's words hold all that was asked for, however it is written.
    """
    asked = trajectory.task.reference
    if "checksum" in asked:
        return _changed(trajectory, asked["checksum"])
    said = _last_words(trajectory)
    if said is None:
        return Verdict(0.0, f"no answer: the episode ended by {trajectory.stop!r}, or in a call", {"told": 0.0})
    told = {"told": _holds_all(trajectory)}
    given = _listed(said)
    if given is None:
        return Verdict(0.0, "no list after 'Final Answer:'", told)
    right = _same(given, asked["label"])
    return Verdict(float(right), "" if right else f"the answer is {str(given)[:120]}", told)


def _holds_all(trajectory: Trajectory) -> float:
    """Return 1 where the answer's words hold all that was asked for, else 0."""
    task = replace(trajectory.task, reference={"answers": trajectory.task.reference["label"]})
    score: float = catalog.find("judges", "answers").judge(replace(trajectory, task=task)).score
    return score


def _changed(trajectory: Trajectory, wanted: str) -> Verdict:
    rows = (trajectory.final_state or {}).get("sql")
    if not isinstance(rows, list):
        return Verdict(0.0, "the table cannot be read any more")
    if not any(message.tool_calls for _, message in replies(trajectory)):
        return Verdict(0.0, "nothing was changed: no statement was written")
    right = checksum(rows) == wanted
    return Verdict(float(right), "" if right else "the table is not what it should be after the change")


def _last_words(trajectory: Trajectory) -> str | None:
    last = trajectory.messages[-1]
    if last.role != "assistant" or last.tool_calls or last.unparsed is not None or trajectory.stop != "answered":
        return None
    return last.content


def _listed(text: str) -> list[str] | None:
    """Return the list after the last `Final Answer:`, read as a literal; None where there is none."""
    *_, last = ["", *_MARK.split(text)] if _MARK.search(text) else [""]
    last = last.strip()[:_LONGEST_ANSWER].strip("`* \n")
    if not last.startswith("["):
        return None
    last = last[: last.rfind("]") + 1]
    try:
        found = ast.literal_eval(last)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    flat = [one for item in found for one in (item if isinstance(item, tuple | list) else [item])]
    return [str(one) for one in flat]


def _same(given: list[str], label: list[str]) -> bool:
    """Tell whether two lists hold the same values, as AgentBench compares: numbers nearly, order and twins aside."""
    if len(label) == 1:
        return len(given) == 1 and _alike(given[0], label[0])
    every = all(any(_alike(one, other) for other in label) for one in given)
    return every and all(any(_alike(one, other) for one in given) for other in label)


def _alike(one: str, other: str) -> bool:
    first, second = _plain(one), _plain(other)
    try:
        return math.isclose(float(first), float(second), rel_tol=0.0, abs_tol=_TOLERANCE)
    except (ValueError, OverflowError):
        return first == second


def _plain(value: str) -> str:
    """Return a value without its percent sign and thousands' commas; nothing at all is 0, as AgentBench has it."""
    text = value.strip().removesuffix("%")
    if text.lower() in ("", "none", "null", "nan"):
        return "0"
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text


@lru_cache(maxsize=2)
def _read(folder: Path) -> tuple[Task, ...]:
    path = folder / "standard.jsonl"
    rows = list(store.read_jsonl(path)) if path.is_file() else []
    if not rows:
        raise DataError(f"{str(path)!r} has no rows; put {_SOURCE} there")
    return tuple(_task(number, row) for number, row in enumerate(rows))


def _task(number: int, row: Mapping[str, Any]) -> Task:
    table, kind = row["table"], row["type"][0]
    known = {
        "family": kind if kind in _FAMILIES else "SELECT",
        "kind": kind,
        "label": [str(value) for value in row["label"]],
        "table": {
            "name": table["table_name"],
            "columns": [column["name"] for column in table["table_info"]["columns"]],
            "rows": table["table_info"]["rows"],
        },
    }
    if known["family"] != "SELECT":
        known["checksum"] = re.sub(r"[^0-9a-f]", "", str(row["answer_md5"]))
    question = f"{row['description']}\n{row['add_description']}"
    messages = (Message("system", _INSTRUCTIONS), Message("user", question))
    return Task(f"dbbench_{number}", messages, (SPEC,), known)
