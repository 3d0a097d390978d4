"""hotpotqa: questions over two Wikipedia pages (arXiv 1809.09600), with BM25 search over paragraphs, or closed.

Its data are two files of 100 questions with their paragraphs, from AgentTuning's held-out evaluation: the easy ones to
collect on (`train`), the medium ones to test on. The score is exact match; `em` and `f1`, as HotpotQA counts them, are
the verdict's parts. Not covered: supporting facts, and other spellings of an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from rolecraft import catalog, store
from rolecraft.benchmarks import _public
from rolecraft.benchmarks.toolworld import script
from rolecraft.errors import DataError, SettingsError
from rolecraft.settings import require_choice
from rolecraft.tools import Toolbox, ToolLike, find
from rolecraft.types import Environment, Json, Message, Task, ToolCall, ToolSpec, Trajectory, Verdict

__all__ = [
    "REPORTED",
    "SPLITS",
    "Settings",
    "exact_match",
    "judge",
    "open",
    "reference",
    "sources",
    "tasks",
    "token_f1",
]

SPLITS = ("train", "test")
REPORTED = ("test",)

Paragraphs = Literal["question", "file", "none"]
"""What `search` finds: the question's own paragraphs, those of all questions of the split, or there is no search."""

_FILES = {"train": "distractor_easy_100.jsonl", "test": "distractor_medium_100.jsonl"}
_SOURCE = "the files distractor_easy_100.jsonl and distractor_medium_100.jsonl (docs/distillation.md tells of them)"
_DESCRIPTION = "find paragraphs of Wikipedia about something"
_PARAGRAPH_CHARS = 800
_LABEL = re.compile(r".*\banswer\s*:", re.IGNORECASE | re.DOTALL)
_CLOSED = frozenset(("yes", "no", "noanswer"))


@dataclass(frozen=True, slots=True)
class Settings:
    """How many questions are asked, what `search` looks through, and how many paragraphs it answers.

    Where paragraphs are `given`, there is no tool: so many that a search for the question itself finds are told before
    it, the baseline of Agent Distillation that reasons over what is retrieved. `form` is said after each question; None
    says nothing, for teams that answer in another way.
    """

    size: int = 100
    search: Paragraphs = "question"
    top_k: int = 3
    given: int = 0
    form: str | None = "End with 'Answer:' and a name, a date, a number, yes or no, and nothing else."

    def __post_init__(self) -> None:
        """Raise SettingsError for what asks or finds nothing."""
        require_choice(self.search, get_args(Paragraphs), "search")
        if self.given < 0 or (self.given and self.search == "none"):
            raise SettingsError(
                f"hotpotqa gives {self.given!r} paragraphs of search={self.search!r}; name what it finds"
            )
        if self.size < 1 or self.top_k < 1:
            raise SettingsError(f"hotpotqa needs size and top_k of at least 1; got {self.size!r} and {self.top_k!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of a split; equal arguments give equal tasks, a smaller size the first of a larger one.

    Raises SettingsError for an unknown split and NotFound where the data are not.
    """
    if split not in SPLITS:
        raise SettingsError(
            f"hotpotqa has no split {split!r}; it has {', '.join(SPLITS)}, and several are asked as a+b"
        )
    found = _questions(_public.folder("hotpotqa", _SOURCE), split)
    chosen = _public.drawn(found, lambda question: question.id, seed)[: settings.size]
    return tuple(_task(question, split, settings, _given(question, split, settings)) for question in chosen)


def sources(split: str) -> tuple[Path, ...]:
    """Return what the tasks of each split are read from."""
    return (_public.place("hotpotqa"),)


def open(task: Task) -> Environment:
    """Open the task for one episode; raises DataError for a task of others, NotFound without the data."""
    told = task.reference
    if not {"answer", "split", "search", "top_k", "question"} <= told.keys():
        raise DataError(f"task {task.id!r} has no answer, split, search and top_k; only tasks of hotpotqa open here")
    one = told["question"] if told["search"] == "question" else ""
    tools = (_search(_public.folder("hotpotqa", _SOURCE), told["split"], one, told["top_k"]),) if task.tools else ()
    return Environment(task, Toolbox(tools), judge)


def judge(trajectory: Trajectory) -> Verdict:
    """Return exact match as the score, with the parts `em` and `f1`; of an answer what follows a last `Answer:`."""
    answer = catalog.find("judges", "answers").answer_of(trajectory)
    if answer is None:
        reason = f"no answer: the episode ended by {trajectory.stop!r}, or in a call"
        return Verdict(0.0, reason, {"em": 0.0, "f1": 0.0})
    told, gold = _LABEL.sub("", answer[-2000:]).strip(), str(trajectory.task.reference["answer"])
    right = exact_match(told, gold)
    reason = "" if right else f"{told[:80]!r} is not {gold[:80]!r}"
    return Verdict(float(right), reason, {"em": float(right), "f1": token_f1(told, gold)})


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of a preset team: one search, where there is search, and the answer."""
    said = list[Message]()
    if task.tools:
        query = {"query": " ".join(task.reference["supporting"])}
        said.append(Message("assistant", "", (ToolCall("search", query),), speaker="assistant"))
    said.append(Message("assistant", str(task.reference["answer"]), speaker="assistant"))
    return script.play_now(open(task), team_name, script.in_roles(said, team_name))


def exact_match(told: str, gold: str) -> bool:
    """Tell whether two answers are equal but for case, punctuation, articles and spaces, as HotpotQA's script does."""
    return _plain(told) == _plain(gold)


def token_f1(told: str, gold: str) -> float:
    """Return the F1 of the words that two answers share; 0 where one is yes or no and the other is not that."""
    one, other = _plain(told), _plain(gold)
    if one != other and (one in _CLOSED or other in _CLOSED):
        return 0.0
    words, wanted = one.split(), other.split()
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def _plain(text: str) -> str:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    question: str
    answer: str
    kind: str
    supporting: tuple[str, ...]
    paragraphs: tuple[Mapping[str, Json], ...]


@lru_cache(maxsize=2)
def _questions(folder: Path, split: str) -> tuple[_Question, ...]:
    def read(row: dict[str, Json], number: int) -> _Question:
        try:
            titles = dict.fromkeys(title for title, _ in row["supporting_facts"])
            paragraphs = tuple({"title": title, "text": "".join(said) or title} for title, said in row["context"])
            kind, question, answer = (str(row[key]) for key in ("type", "question", "answer"))
            return _Question(f"hotpotqa-{split}-{number}", question, answer, kind, tuple(titles), paragraphs)
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f"row: it is no question of HotpotQA ({type(error).__name__}: {error})") from error

    return tuple(store.read_rows(folder / _FILES[split], read))


def _given(question: _Question, split: str, settings: Settings) -> str:
    """Return the paragraphs that are told before the question, "" where none are."""
    if not settings.given:
        return ""
    one = question.id if settings.search == "question" else ""
    found = _search(_public.folder("hotpotqa", _SOURCE), split, one, settings.given)
    return found.call({"query": question.question})


def _task(question: _Question, split: str, settings: Settings, given: str) -> Task:
    known = {
        "family": question.kind,
        "answer": question.answer,
        "split": split,
        "search": settings.search,
        "top_k": settings.top_k,
        "question": question.id,
        "supporting": list(question.supporting),
    }
    asked = "\n\n".join(filter(None, (given, question.question, settings.form)))
    told = () if settings.search == "none" or settings.given else (_spec(),)
    return Task(question.id, (Message("user", asked),), told, known)


@lru_cache(maxsize=256)
def _search(folder: Path, split: str, one: str, top_k: int) -> ToolLike:
    """Return the search over a split's paragraphs, or over those of one question."""
    asked = [question for question in _questions(folder, split) if not one or question.id == one]
    if not asked:
        raise DataError(f"no question {one!r} in {_FILES[split]}; the task is of another version of the data")
    (tool,) = find("search", {"passages": tuple(_distinct(asked)), **_shown(top_k)})
    return tool


def _distinct(asked: list[_Question]) -> Iterator[Mapping[str, Json]]:
    """Yield each paragraph once: questions share some."""
    known = {(paragraph["title"], paragraph["text"]): paragraph for one in asked for paragraph in one.paragraphs}
    yield from known.values()


def _shown(top_k: int) -> dict[str, Json]:
    return {"top_k": top_k, "passage_chars": _PARAGRAPH_CHARS, "description": _DESCRIPTION}


@lru_cache(maxsize=1)
def _spec() -> ToolSpec:
    (tool,) = find("search", {"passages": ({"text": "nothing"},), **_shown(1)})
    return tool.spec
