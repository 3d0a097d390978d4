"""Long-term memory: what earlier episodes taught, in a SQLite file, found again by the words of a new task (BM25).

A lesson is a reflection on a failure and what fixes it, or a strategy that worked (CMAT, arXiv 2404.01663; Reflexion,
arXiv 2303.11366). Lessons belong to a family of tasks. They are appended, or merged with one that says the same, never
rewritten; the least useful one of a full family goes. One that holds an answer of the task it comes from is refused: it
would be remembered, not learned. Not covered: who writes them, and meaning, since words must match.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import bm25s
import numpy as np

from rolecraft.errors import DataError, SettingsError
from rolecraft.types import Message, Task

Kind = Literal["reflection", "strategy"]
Outcome = Literal["added", "merged", "refused"]

KINDS: tuple[Kind, ...] = ("reflection", "strategy")
_CHARACTERS = 600
_ALIKE = 0.8
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
_TABLE = """
CREATE TABLE IF NOT EXISTS lesson (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    family TEXT NOT NULL, kind TEXT NOT NULL, situation TEXT NOT NULL, text TEXT NOT NULL,
    tasks TEXT NOT NULL, seen INTEGER NOT NULL, made REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS of_family ON lesson (family, kind);
CREATE TABLE IF NOT EXISTS taught (
    lesson INTEGER NOT NULL, family TEXT NOT NULL, task TEXT NOT NULL, UNIQUE (lesson, task)
);
"""
"""`taught` has which task taught which lesson, as long as the family is remembered. In files from before it was there
the column `tasks` has their names, a line each; it is empty since."""
_COLUMNS = "id, family, kind, situation, text, tasks, seen"
_HEADING = "What earlier tries at such tasks taught:"


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson: what it says, of what `situation`, from which tasks, and how often it was `seen`."""

    family: str
    kind: Kind
    situation: str
    text: str
    tasks: tuple[str, ...] = ()
    seen: int = 1
    id: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is kept and told: the most lessons of a family, and how many of them a task is told."""

    most: int = 200
    told: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        for name in ("most", "told"):
            if getattr(self, name) < 1:
                raise SettingsError(f"memory.{name} is {getattr(self, name)!r}; it must be at least 1")


class Lessons:
    """A file of lessons; several processes may add to it at once. `frozen`: it is read, and nothing is added."""

    def __init__(
        self, path: Path, settings: Settings = Settings(), *, frozen: bool = False, exists: bool = False
    ) -> None:
        """Open the file, made anew where there is none unless frozen, or `exists` is asked for.

        Raises DataError for one that is no memory, which stays as it is.
        """
        if (frozen or exists) and not path.is_file():
            raise DataError(f"no memory at {str(path)!r}; name the file that `rolecraft memory learn` wrote")
        self.frozen = frozen
        self._path, self._settings = path, settings
        address = f"{path.resolve().as_uri()}?mode={'ro' if frozen else 'rwc'}"
        try:
            self._connection = sqlite3.connect(address, uri=True, timeout=30, isolation_level=None)
            if frozen or self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._connection.execute(f"SELECT {_COLUMNS} FROM lesson LIMIT 1")  # before anything is written
            if not frozen:
                self._connection.executescript(_TABLE)
                self._move_tasks()
        except sqlite3.Error as error:
            raise DataError(f"{path}: it is no memory of lessons: {error}; name another file") from error

    def __enter__(self) -> Lessons:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()

    def add(self, lesson: Lesson, answers: Sequence[str] = ()) -> Outcome:
        """Add a lesson, or count one that says the same once more; `answers` are those of the task it comes from.

        A lesson that holds one of them, or says nothing, is refused. Too long a one is cut at a word.
        """
        if self.frozen:
            raise SettingsError(f"the memory {str(self._path)!r} is frozen; open it to add to it")
        if lesson.kind not in KINDS:
            raise SettingsError(f"a lesson's kind is {lesson.kind!r}; it is one of {', '.join(KINDS)}")
        text, situation = _cut(lesson.text), _cut(lesson.situation)
        if not _words(text) or any(_holds(f"{situation} {text}", answer) for answer in answers):
            return "refused"
        with self._writing():
            twin = self._twin(lesson.family, lesson.kind, text)
            if twin is not None:
                self._connection.execute("UPDATE lesson SET seen = seen + ? WHERE id = ?", (lesson.seen, twin.id))
                self._note(twin.id, lesson.family, lesson.tasks)
                return "merged"
            made = self._connection.execute(
                "INSERT INTO lesson (family, kind, situation, text, tasks, seen, made) VALUES (?, ?, ?, ?, '', ?, ?)",
                (lesson.family, lesson.kind, situation, text, lesson.seen, time.time()),
            )
            assert made.lastrowid is not None
            self._note(made.lastrowid, lesson.family, lesson.tasks)
            self._evict(lesson.family, made.lastrowid)
        return "added"

    def find(self, family: str | None, question: str, *, without: str = "") -> tuple[Lesson, ...]:
        """Return the lessons of a family, or of all, that a question calls for; none that the task `without` taught.

        Those that share words with the question come first, then those that were seen most; of all families those alone
        that share words.
        """
        known = [one for one in self.all(family) if without not in one.tasks]
        order = {one.id: -score for one, score in zip(known, _scores(known, question), strict=True)}
        known = [one for one in known if family is not None or order[one.id]]
        best = sorted(known, key=lambda one: (order[one.id], -one.seen, one.id))
        return tuple(best[: self._settings.told])

    def all(self, family: str | None = None) -> Iterator[Lesson]:
        """Yield the lessons of a family, or all, in the order in which they were added."""
        where, values = ("WHERE family = ?", (family,)) if family is not None else ("", ())
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM lesson {where} ORDER BY id", values).fetchall()
        taught: dict[int, list[str]] = {}
        for number, task in self._taught():
            taught.setdefault(number, []).append(task)
        for row in rows:
            yield _lesson(row, taught.get(row[0], ()))

    def tasks(self) -> frozenset[str]:
        """Return the tasks that taught something, also what has made room for other lessons since."""
        return frozenset(task for _, task in self._taught()) | {task for one in self.all() for task in one.tasks}

    def clear(self, family: str | None = None) -> int:
        """Forget a family's lessons, or all; return how many."""
        where, values = ("WHERE family = ?", (family,)) if family is not None else ("", ())
        with self._writing():
            self._connection.execute(f"DELETE FROM taught {where}", values)
            return self._connection.execute(f"DELETE FROM lesson {where}", values).rowcount

    def _writing(self) -> _Writing:
        return _Writing(self._connection)

    def _taught(self) -> list[tuple[int, str]]:
        """Return each lesson's number with each task that taught it, in the order in which they did."""
        known = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'taught'").fetchone()
        return self._connection.execute("SELECT lesson, task FROM taught ORDER BY rowid").fetchall() if known else []

    def _note(self, lesson: int, family: str, tasks: Sequence[str]) -> None:
        rows = [(lesson, family, task) for task in tasks]
        self._connection.executemany("INSERT OR IGNORE INTO taught (lesson, family, task) VALUES (?, ?, ?)", rows)

    def _move_tasks(self) -> None:
        """Move what an older file has in its column `tasks` to the table `taught`."""
        asked = "SELECT id, family, tasks FROM lesson WHERE tasks != ''"
        if self._connection.execute(f"{asked} LIMIT 1").fetchone() is None:
            return
        with self._writing():
            for number, family, tasks in self._connection.execute(asked).fetchall():
                self._note(number, family, _lines(tasks))
            self._connection.execute("UPDATE lesson SET tasks = ''")

    def _twin(self, family: str, kind: Kind, text: str) -> Lesson | None:
        """Return the lesson that says the same: nearly all words of either are in both."""
        words = set(_words(text))
        for one in self.all(family):
            other = set(_words(one.text))
            if one.kind == kind and len(words & other) >= _ALIKE * len(words | other):
                return one
        return None

    def _evict(self, family: str, newest: int) -> None:
        """Let the least seen lessons of a full family go, but not the one that was added: it could be seen never."""
        self._connection.execute(
            "DELETE FROM lesson WHERE id IN (SELECT id FROM lesson WHERE family = ? "
            "ORDER BY id = ? DESC, seen DESC, id DESC LIMIT -1 OFFSET ?)",
            (family, newest, self._settings.most),
        )


class _Writing:
    """A transaction that begins by taking the write lock, so that what is read in it stays true."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")


def told(task: Task, lessons: Sequence[Lesson]) -> Task:
    """Return the task with lessons in its system message; the task itself if there are none."""
    if not lessons:
        return task
    text = "\n".join([_HEADING, *(f"- {one.text}" for one in lessons)])
    first, *rest = task.messages or (Message("system"),)
    if first.role == "system":
        opening = (first.edited(content=f"{first.content}\n\n{text}".strip()), *rest)
    else:
        opening = (Message("system", text), first, *rest)
    return Task(task.id, opening, task.tools, task.reference)


def question_of(task: Task) -> str:
    """Return what a task asks: the last thing that its user says."""
    return next((message.content for message in reversed(task.messages) if message.role == "user"), "")


def to_json(lesson: Lesson) -> dict[str, Any]:
    """Return a lesson as a row of a data file."""
    row = asdict(lesson)
    del row["id"]
    return {**row, "tasks": list(lesson.tasks)}


def from_json(row: Mapping[str, Any], where: str) -> Lesson:
    """Return the lesson in a row of a data file; raises DataError with `where` it stands for one that is none."""
    try:
        texts = [row[key] for key in ("family", "kind", "situation", "text")]
        seen = row.get("seen", 1)
        tasks = row.get("tasks", [])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: a lesson has family, kind, situation and text; {error} is missing") from error
    told = (*texts, *tasks) if isinstance(tasks, list) else (None,)
    if not all(isinstance(one, str) for one in told) or texts[1] not in KINDS:
        raise DataError(f"{where}: family, kind ({' or '.join(KINDS)}), situation, text and tasks are texts")
    if not isinstance(seen, int) or seen < 1:
        raise DataError(f"{where}: seen is a number, at least 1, got {seen!r}")
    family, kind, situation, text = texts
    return Lesson(family, kind, situation, text, tuple(tasks), seen)


def _lesson(row: Sequence[Any], taught: Sequence[str]) -> Lesson:
    number, family, kind, situation, text, tasks, seen = row
    return Lesson(family, kind, situation, text, (*_lines(tasks), *taught), seen, number)


def _lines(tasks: str) -> list[str]:
    return [one for one in tasks.split("\n") if one]


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _CHARACTERS else flat[:_CHARACTERS].rsplit(" ", 1)[0] + " ..."


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _holds(text: str, answer: str) -> bool:
    """Tell whether an answer's words stand side by side in a text, its numbers in whatever notation."""
    words, wanted = _words(_NUMBER.sub(_plain, text)), _words(_NUMBER.sub(_plain, answer))
    places = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[place : place + len(wanted)] == wanted for place in places)


def _plain(number: re.Match[str]) -> str:
    """Return a number without marks of thousands, and without noughts behind its point."""
    whole, point, rest = number[0].replace(",", "").partition(".")
    rest = rest.rstrip("0")
    return f"{whole}{point}{rest}" if rest else whole


def _scores(lessons: Sequence[Lesson], question: str) -> Sequence[float]:
    """Return how well each lesson's situation and text match the words of a question (BM25)."""
    corpus, asked = [_words(f"{one.situation} {one.text}") for one in lessons], _words(question)
    if not asked or not any(corpus):
        return [0.0] * len(lessons)
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    scores: Sequence[float] = np.maximum(index.get_scores(asked), 0.0).tolist()
    return scores
