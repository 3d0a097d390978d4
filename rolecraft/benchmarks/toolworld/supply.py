"""Draws the tools of a task: look-up functions whose values all differ, tables, and tools that are beside the point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary, descriptions, function_names
from rolecraft.benchmarks.toolworld.world import Calculator, Code, Database, Lookup, Passages, Table, ToolData

_CODE = ("runs Python code", "Python code", "executes Python code", "Python, for sums")
_SQL = ("SQL over", "SQL on", "runs SQL on", "query of")
_SEARCH = ("finds passages", "searches passages", "looks up passages", "passages about something")
_CALCULATOR = ("works out sums", "does sums", "result of a sum", "for sums")
_TOP_K = 2
_NUMBERS = range(100, 10_000)


def functions(
    random: Random, words: Vocabulary, subjects: Sequence[str], kind: str, keys: Sequence[str]
) -> list[Lookup]:
    """Return a function for each subject; every one knows every key, and no two values are equal."""
    names = function_names(random, words, subjects)
    told = descriptions(random, subjects, kind)
    values = iter(random.sample(_NUMBERS, len(subjects) * len(keys)))
    return [
        Lookup(name, text, random.choice(words.parameters), {key: str(next(values)) for key in keys})
        for name, text in zip(names, told, strict=True)
    ]


def relating(random: Random, function: Lookup, shift: int) -> Lookup:
    """Return `function` with entities for values: each key leads to another, a different one for each `shift`."""
    keys = list(function.values)
    turned = keys[shift % len(keys) :] + keys[: shift % len(keys)]
    return Lookup(function.name, function.description, function.parameter, dict(zip(keys, turned, strict=True)))


def code(random: Random) -> Code:
    """Return the Python tool."""
    return Code(random.choice(_CODE))


def table(random: Random, columns: Sequence[str], kind: str, keys: Sequence[str]) -> Table:
    """Return the SQL tool over a table of `keys` with `columns`; no two numbers are equal."""
    numbers = iter(random.sample(_NUMBERS, len(columns) * len(keys)))
    rows: list[tuple[str | int, ...]] = [(key, *(next(numbers) for _ in columns)) for key in keys]
    return Table(random.choice(_SQL), kind, ("name", *columns), tuple(rows))


def database(random: Random, tables: Sequence[Table]) -> Database:
    """Return the SQL tool that may write, over `tables`."""
    return Database(random.choice(_SQL[:3]), tuple(replace(table, description="") for table in tables))


def passages(random: Random, texts: Sequence[str]) -> Passages:
    """Return the search tool over `texts`; it answers a little more than a good query asks for."""
    return Passages(random.choice(_SEARCH), tuple(texts), _TOP_K)


def calculator(random: Random) -> Calculator:
    """Return the calculator."""
    return Calculator(random.choice(_CALCULATOR))


def backup(random: Random, words: Vocabulary, function: Lookup, topic: str, taken: Sequence[str]) -> Lookup:
    """Return a second function with the same values, described as the backup of the first; no name is `taken`."""
    word = random.choice(words.backups)
    name = function.name
    while name in taken or name == function.name:
        (name,) = function_names(random, words, [f"{topic}_{word}"])
    parameter = random.choice(words.parameters)
    return Lookup(name, f"{word} of {_bare(function.description)}", parameter, function.values)


def stranger(random: Random, words: Vocabulary, kind: str, keys: Sequence[str], taken: Sequence[str]) -> ToolData:
    """Return the Python tool, or a table without a column for any of the `taken` subjects."""
    if random.random() < 0.5:
        return code(random)
    free = [topic for topic in words.topics if topic not in taken]
    return table(random, random.sample(free, 2), kind, keys)


def shuffled(random: Random, tools: Sequence[ToolData]) -> tuple[ToolData, ...]:
    """Return the tools in random order."""
    return tuple(random.sample(tools, len(tools)))


def _bare(description: str) -> str:
    """Leave out the verb that a description may begin with."""
    first, _, rest = description.partition(" ")
    return rest if first in ("gives", "tells", "finds", "returns") else description
