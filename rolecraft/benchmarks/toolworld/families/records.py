"""Questions to one small SQL table: mostly look-ups by name, also counts, extremes and differences."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from rolecraft.benchmarks.toolworld import english, frames, questions, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Needed, Step, others
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import Table, ToolData
from rolecraft.types import ToolCall


@dataclass(frozen=True, slots=True)
class _Query:
    """A question, what the reasoner writes, the query, and what proves and answers it."""

    question: str
    need: str
    sql: str
    result: str
    answer: str
    shows: tuple[tuple[str, ...], ...]
    forbidden: tuple[str, ...] = ()


_MAKERS = ("look_up", "count", "best", "difference")
_SHARES = (0.55, 0.15, 0.15, 0.15)


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a question that one query answers; the rows are not in the prompt."""
    names = vocabulary.entities(random, words, random.randint(10, 18))
    kind = random.choice(words.kinds)
    subjects = random.sample(words.topics, 7)
    width = random.randint(2, 4)
    table = supply.table(random, subjects[:width], kind, names)
    column = random.randrange(width)
    makers = {"look_up": _look_up, "count": _count, "best": _best, "difference": _difference}
    query = makers[random.choices(_MAKERS, _SHARES)[0]](random, words, table, subjects[column], kind)
    tools: list[ToolData] = [table]
    if random.random() < options.mixed:
        aside = random.sample(subjects[width:], random.randint(1, 2))
        tools += supply.functions(random, words, aside, kind, names[:4])
    return Draft(
        question=query.question,
        tools=supply.shuffled(random, tools),
        steps=(Step(f"I need {query.need}. Use:sql(query).", (ToolCall("sql", {"query": query.sql}),)),),
        closing=HAVE_RESULT,
        answer=query.answer,
        answers=(query.result,),
        forbidden=query.forbidden,
        needed=((Needed("sql", None, query.shows),),),
    )


def _look_up(random: Random, words: Vocabulary, table: Table, topic: str, kind: str) -> _Query:
    entity, other = random.sample([str(row[0]) for row in table.rows], 2)
    posed = frames.LOOKUP if random.random() < 0.6 else frames.TABLE_LOOKUP
    values = {"topic": topic, "entity": entity, "other": other, "kind": kind, "kinds": english.plural(kind)}
    question = questions.ask(random, words, posed, values)
    result = _cell(table, entity, topic)
    return _Query(
        question,
        need=f"the {topic} of {entity} in {table.name}",
        sql=f"SELECT {topic} FROM {table.name} WHERE name='{entity}'",
        result=result,
        answer=f"The {topic} of {entity} is {result}.",
        shows=((result,),),
        forbidden=others([table], (result,), question),
    )


def _count(random: Random, words: Vocabulary, table: Table, topic: str, kind: str) -> _Query:
    place = list(table.columns).index(topic)
    cells = sorted(int(row[place]) for row in table.rows)
    limit = random.choice([c for c in range(200, 9900, 50) if cells[0] < c < cells[-1] and c not in cells])
    sign = random.choice("<>")
    matching = [row for row in table.rows if (int(row[place]) > limit) == (sign == ">")]
    result = str(len(matching))
    than = random.choice(frames.ABOVE if sign == ">" else frames.BELOW)
    values = {"topic": topic, "than": than, "number": str(limit), "kinds": english.plural(kind)}
    question = questions.ask(random, words, frames.COUNT, values)
    return _Query(
        question,
        need=f"the count of {table.name} with {topic}{sign}{limit}",
        sql=f"SELECT COUNT(*) FROM {table.name} WHERE {topic}{sign}{limit}",
        result=result,
        answer=f"The count is {result}.",
        shows=((result,), tuple(str(row[0]) for row in matching)),
        forbidden=tuple(str(n) for n in range(len(table.rows)) if str(n) != result),
    )


def _best(random: Random, words: Vocabulary, table: Table, topic: str, kind: str) -> _Query:
    place = list(table.columns).index(topic)
    ranked = sorted(table.rows, key=lambda row: int(row[place]))
    highest = random.random() < 0.5
    result = str(ranked[-1 if highest else 0][0])
    values = {"topic": topic, "kind": kind, "kinds": english.plural(kind)}
    values["most"] = random.choice(frames.MOST if highest else frames.LEAST)
    question = questions.ask(random, words, frames.BEST, values)
    word, order = ("highest", " DESC") if highest else ("lowest", "")
    return _Query(
        question,
        need=f"the {table.name} with the {word} {topic}",
        sql=f"SELECT name FROM {table.name} ORDER BY {topic}{order} LIMIT 1",
        result=result,
        answer=f"{result} has the {word} {topic}.",
        shows=((result,),),
        forbidden=tuple(str(row[0]) for row in table.rows if str(row[0]) != result),
    )


def _difference(random: Random, words: Vocabulary, table: Table, topic: str, kind: str) -> _Query:
    first, second = random.sample([str(row[0]) for row in table.rows], 2)
    values = {"topic": topic, "first": first, "second": second, "kinds": english.plural(kind)}
    question = questions.ask(random, words, frames.DIFFERENCE, values)
    cells = _cell(table, first, topic), _cell(table, second, topic)
    result = str(abs(int(cells[0]) - int(cells[1])))
    return _Query(
        question,
        need=f"the difference in {topic} of {first} and {second} in {table.name}",
        sql=f"SELECT MAX({topic})-MIN({topic}) FROM {table.name} WHERE name IN ('{first}','{second}')",
        result=result,
        answer=f"The difference is {result}.",
        shows=((result,), cells),
        forbidden=others([table], (result, *cells), question),
    )


def _cell(table: Table, entity: str, topic: str) -> str:
    place = list(table.columns).index(topic)
    (cell,) = (row[place] for row in table.rows if row[0] == entity)
    return str(cell)
