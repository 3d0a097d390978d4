"""A database of several tables to read and to change: look-ups, updates, inserts, two changes, a copy of what is read.

After CMAT's and AgentBench's database tasks (arXiv 2404.01663, 2308.03688). What counts is the state that the database
is left in, every row of every table, and an answer that says what was asked; how a statement is written is free. A
table is told by its kind of thing and a value by its topic; the rows are not in the prompt, and tables may share
topics, so that a change in the wrong table is one that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from rolecraft.benchmarks.toolworld import asking, requests, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Needed, Step
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import Database, Table
from rolecraft.types import ToolCall

_SHARES = {"find": 0.2, "set": 0.2, "add": 0.2, "both": 0.2, "copy": 0.2}
_NUMBERS = range(100, 10_000)


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a request to a database of two or three tables."""
    tables = _tables(random, words)
    make = random.choices([_find, _set, _add, _both, _copy], list(_SHARES.values()))[0]
    draft = make(random, words, tables)
    told = supply.database(random, tables)
    return replace(draft, tools=(told,), closing=HAVE_RESULT)


def _tables(random: Random, words: Vocabulary) -> list[Table]:
    """Return tables whose entities all differ; half of the databases have a topic in two of them."""
    count = random.randint(2, 3)
    kinds = random.sample(words.kinds, count)
    subjects = iter(random.sample(words.topics, 2 * count))
    shared = random.random() < 0.5
    names, found = vocabulary.entities(random, words, 4 * count), list[Table]()
    for place, kind in enumerate(kinds):
        columns = [next(subjects), next(subjects)]
        if shared and place == 1:
            columns[0] = found[0].columns[1]
        found.append(supply.table(random, columns, kind, names[4 * place : 4 * place + 4]))
    return found


def _find(random: Random, words: Vocabulary, tables: list[Table]) -> Draft:
    table, entity, topic = _cell(random, tables)
    value = _value(table, entity, topic)
    question = _ask(random, words, requests.FIND, kind=table.name, entity=entity, topic=topic)
    return _draft(question, tables, [_read(table, entity, topic)], f"The {topic} of {entity} is {value}.", (value,))


def _set(random: Random, words: Vocabulary, tables: list[Table]) -> Draft:
    table, entity, topic = _cell(random, tables)
    number = _fresh(random, tables)
    question = _ask(random, words, requests.SET, kind=table.name, entity=entity, topic=topic, number=str(number))
    return _draft(
        question,
        _changed(tables, table, entity, topic, number),
        [_write(table, entity, topic, number)],
        f"The {topic} of {entity} is now {number}.",
        (str(number),),
    )


def _add(random: Random, words: Vocabulary, tables: list[Table]) -> Draft:
    table = random.choice(tables)
    (entity,) = vocabulary.entities(random, words, 1)
    while any(entity == row[0] for one in tables for row in one.rows):
        (entity,) = vocabulary.entities(random, words, 1)
    numbers = random.sample(_NUMBERS, 2)
    first, second = table.columns[1:]
    named = [(first, numbers[0]), (second, numbers[1])]
    (a, x), (b, y) = random.sample(named, 2)  # not always as the columns stand
    values = {"topic": a, "number": str(x), "second": b, "other": str(y)}
    question = _ask(random, words, requests.ADD, kind=table.name, entity=entity, **values)
    sql = f"INSERT INTO {table.name} VALUES ('{entity}',{numbers[0]},{numbers[1]})"
    grown = replace(table, rows=(*table.rows, (entity, *numbers)))
    step = _step(f"I need a new {table.name} {entity} with {first} {numbers[0]} and {second} {numbers[1]}.", sql)
    return _draft(question, _replaced(tables, table, grown), [step], f"{entity} is added.", (entity,))


def _both(random: Random, words: Vocabulary, tables: list[Table]) -> Draft:
    """Two changes in different tables: one statement cannot make them."""
    one, two = random.sample(tables, 2)
    (a, first, topic), (b, second, other) = _cell(random, [one]), _cell(random, [two])
    x, y = _fresh(random, tables), _fresh(random, tables)
    values = {"kind": a.name, "entity": first, "topic": topic, "number": str(x)}
    values |= {"kind2": b.name, "entity2": second, "topic2": other, "number2": str(y)}
    question = _ask(random, words, requests.BOTH, **values)
    changed = _changed(_changed(tables, a, first, topic, x), b, second, other, y)
    steps = [_write(a, first, topic, x), _write(b, second, other, y)]
    answer = f"The {topic} of {first} is now {x} and the {other} of {second} is {y}."
    return _draft(question, changed, steps, answer, (str(x), str(y)))


def _copy(random: Random, words: Vocabulary, tables: list[Table]) -> Draft:
    """A change by what must be read first: the answer says the number, which stands in no prompt."""
    table = random.choice(tables)
    source, target = random.sample([str(row[0]) for row in table.rows], 2)
    topic = random.choice(list(table.columns[1:]))
    value = _value(table, source, topic)
    question = _ask(random, words, requests.COPY, kind=table.name, entity=target, other=source, topic=topic)
    steps = [_read(table, source, topic), _write(table, target, topic, int(value))]
    changed = _changed(tables, table, target, topic, int(value))
    return _draft(question, changed, steps, f"The {topic} of {target} is now {value}.", (value,), needs=True)


def _draft(
    question: str,
    after: Sequence[Table],
    steps: Sequence[Step],
    answer: str,
    answers: tuple[str, ...],
    needs: bool = False,
) -> Draft:
    reads = [step for step in steps if step.calls[0].arguments["query"].startswith("SELECT")]
    needed = ((Needed("sql", None, (answers,)),),) if reads or needs else ()
    return Draft(
        question,
        (),
        tuple(steps),
        closing="",
        answer=answer,
        answers=answers,
        needed=needed,
        state={"sql": Database("", tuple(after)).state()},
    )


def _ask(random: Random, words: Vocabulary, posed: asking.Frames, **values: str) -> str:
    return asking.ask(random, posed, values, words.sentences)


def _cell(random: Random, tables: Sequence[Table]) -> tuple[Table, str, str]:
    table = random.choice(tables)
    return table, str(random.choice(table.rows)[0]), random.choice(list(table.columns[1:]))


def _value(table: Table, entity: str, topic: str) -> str:
    place = list(table.columns).index(topic)
    return next(str(row[place]) for row in table.rows if row[0] == entity)


def _fresh(random: Random, tables: Sequence[Table]) -> int:
    """Return a number that stands nowhere."""
    known = {cell for table in tables for row in table.rows for cell in row}
    while (number := random.choice(_NUMBERS)) in known:
        pass
    return number


def _changed(tables: Sequence[Table], table: Table, entity: str, topic: str, number: int) -> list[Table]:
    now = next(one for one in tables if one.name == table.name)
    place = list(now.columns).index(topic)
    rows = tuple(
        tuple(number if at == place and row[0] == entity else cell for at, cell in enumerate(row)) for row in now.rows
    )
    return _replaced(tables, now, replace(now, rows=rows))


def _replaced(tables: Sequence[Table], old: Table, new: Table) -> list[Table]:
    return [new if one.name == old.name else one for one in tables]


def _read(table: Table, entity: str, topic: str) -> Step:
    sql = f"SELECT {topic} FROM {table.name} WHERE name='{entity}'"
    return _step(f"I need the {topic} of {entity} in {table.name}.", sql)


def _write(table: Table, entity: str, topic: str, number: int) -> Step:
    sql = f"UPDATE {table.name} SET {topic}={number} WHERE name='{entity}'"
    return _step(f"I need the {topic} of {entity} in {table.name} set to {number}.", sql)


def _step(need: str, sql: str) -> Step:
    return Step(f"{need} Use:sql(query).", (ToolCall("sql", {"query": sql}),))
