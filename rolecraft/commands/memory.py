"""Learn lessons from failed episodes, and show, export, add or forget them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rolecraft.commands import _endpoint, _playing

if TYPE_CHECKING:
    from rolecraft.lessons import Lesson, Lessons

GROUP = "playing"

_MOST_SEEN = 10**9  # of one row; the sum of many still fits SQLite's 64 bits
_ACTIONS = ("learn", "show", "export", "add", "clear")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    text = (
        "learn: have the model reflect on the failed episodes of a run of training tasks; show: print the lessons; "
        "export: write them as JSONL; add: take those of a JSONL file; clear: forget them"
    )
    parser.add_argument("action", choices=_ACTIONS, help=text)
    parser.add_argument("memory", type=Path, metavar="FILE", help="the file of lessons")
    text = "learn: the run folder; export and add: the JSONL file"
    parser.add_argument("other", nargs="?", type=Path, metavar="RUN_OR_ROWS", help=text)
    parser.add_argument("--family", help="show, export or clear the lessons of one family of tasks only")
    _playing.add_model(parser)
    _playing.add_constrain(parser)
    _endpoint.add_engine(parser)
    _endpoint.keep_defaults(parser)


def run(options: argparse.Namespace) -> None:
    """Do what the action says; raises SettingsError where a run or a file is missing that it needs."""
    from rolecraft.errors import SettingsError
    from rolecraft.lessons import Lessons

    if options.action in ("learn", "export", "add") and options.other is None:
        what = "a run folder" if options.action == "learn" else "a JSONL file"
        raise SettingsError(f"memory {options.action} needs {what}: rolecraft memory {options.action} FILE NAME")
    frozen, exists = options.action in ("show", "export"), options.action == "clear"
    with Lessons(options.memory, frozen=frozen, exists=exists) as lessons:
        {"learn": _learn, "show": _show, "export": _export, "add": _add, "clear": _clear}[options.action](
            options, lessons
        )


def _learn(options: argparse.Namespace, lessons: Lessons) -> None:
    import asyncio

    from rolecraft import reflection
    from rolecraft.store import Run

    run = Run(options.other)
    _require_training(run.settings(), options.other)
    player, _ = _playing.player_and_team(options)
    _playing.settle_weights(player, options)

    async def learn() -> Counter[str]:
        outcomes: Counter[str] = Counter()
        with _playing.open_engine(player, options) as engine:
            async for outcome, said in reflection.learn(run.trajectories(), engine, lessons):
                outcomes[outcome] += 1
                print(f"{outcome}: {said}", flush=True)
        return outcomes

    print(reflection.summary(asyncio.run(learn())))


def _require_training(told: dict[str, object], folder: Path) -> None:
    """Raise SettingsError for a run of tasks that measure: what is remembered of them would be scored again.

    The first of a benchmark's splits is for training, if it is not reported; all others measure something.
    """
    from rolecraft import evaluate
    from rolecraft.catalog import find
    from rolecraft.errors import SettingsError

    played = told.get("evaluation")
    if not isinstance(played, dict):
        raise SettingsError(f"{str(folder)!r} is no run of `rolecraft eval`; name the folder that it wrote")
    benchmark, split = str(played.get("benchmark")), str(played.get("split"))
    if benchmark == "tasks":
        return
    first = str(getattr(find("benchmarks", benchmark), "SPLITS", ("test",))[0])
    if split != first or split in evaluate.splits(benchmark).split("+"):
        other = "there is no other" if first in evaluate.splits(benchmark).split("+") else f"learn from {first!r}"
        raise SettingsError(f"{str(folder)!r} holds {benchmark}'s split {split!r}, which measures; {other}")


def _show(options: argparse.Namespace, lessons: Lessons) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = list(lessons.all(options.family))
    table = Table("family", "kind", "seen", "lesson", "first asked", title=f"lessons: {len(found)}")
    for one in found:
        table.add_row(*map(escape, (one.family, one.kind, str(one.seen), one.text, one.situation[:80])))
    Console().print(table)


def _export(options: argparse.Namespace, lessons: Lessons) -> None:
    from rolecraft import store
    from rolecraft.lessons import to_json

    written = store.write_jsonl(options.other, map(to_json, lessons.all(options.family)))
    print(f"{written} lessons: {options.other}")


def _add(options: argparse.Namespace, lessons: Lessons) -> None:
    from rolecraft import parsing
    from rolecraft.errors import DataError, NotFound
    from rolecraft.lessons import from_json

    if not options.other.is_file():
        raise NotFound(f"no file {str(options.other)!r}; give a JSONL file of lessons")
    rows = []
    for number, line in enumerate(parsing.read_text(options.other).removesuffix("\n").split("\n"), start=1):
        where = f"{options.other}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON: {error}") from error
        one = from_json(row, where)
        _require_storable(one, where)
        rows.append(one)
    print(dict(Counter(lessons.add(one) for one in rows)))


def _require_storable(lesson: Lesson, where: str) -> None:
    """Raise DataError for what SQLite cannot hold; it would be met after the rows before it were added."""
    from rolecraft.errors import DataError

    if lesson.seen > _MOST_SEEN:
        raise DataError(f"{where}: seen is {lesson.seen}; it is at most {_MOST_SEEN}")
    texts = (lesson.family, lesson.situation, lesson.text, *lesson.tasks)
    if any("\ud800" <= one <= "\udfff" for text in texts for one in text):
        raise DataError(f"{where}: a text holds half a character (a lone surrogate); write the whole one, or drop it")


def _clear(options: argparse.Namespace, lessons: Lessons) -> None:
    print(f"{lessons.clear(options.family)} lessons forgotten")
