"""Synthetic documents that give the nano base its skills: copying, look-up, reading schemas, SQL, arithmetic language.

What is not here: any toolworld trajectory, and any held-out name, topic or phrasing; `tests/test_nano.py` proves it.
A document is a list of (text, weight) segments: answers carry the loss, the random context little of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from rolecraft.benchmarks.toolworld import names, topics
from rolecraft.nano import language, problems

Document = list[tuple[str, float]]

_CONTEXT = 0.15
"""Loss weight of context: enough to learn the language, little enough not to chase random names."""

_MISSING = 0.12
"""Share of the questions about something that is not there."""

_NONE = 0.22
"""Share of the requests that no function serves."""

_SHARED_HEAD = 0.3
"""Share of the tool lists whose nonsense names all begin with the same word: after it the model must find its place."""

_TWIN = 0.25
"""Share of the tool lists where a second function has the topic of another one, and a word that tells them apart."""


def document(random: Random, budget: int) -> Document:
    """Return one document of roughly `budget` tokens (a token is about three characters here)."""
    maker = random.choices(_MAKERS, _SHARES)[0]
    return maker(random, budget)


def _entity(random: Random) -> str:
    return names.entity(random, unseen=False)


def _entities(random: Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[_entity(random)] = None
    return list(found)


def _number(random: Random) -> str:
    return str(random.randrange(10 ** random.choice((1, 2, 2, 3, 3, 4, 5))))


def _value(random: Random) -> str:
    return _number(random) if random.random() < 0.7 else _entity(random)


def _dialogue(random: Random, question: str, answer: str) -> Document:
    """Return a question and its answer, sometimes in chat markup with any speakers' names, mostly as plain lines."""
    kind = random.random()
    if kind < 0.35:
        asker, speaker = random.choice(language.ASKERS), random.choice(language.SPEAKERS)
        head = f"<|im_start|>{asker}\n{question}<|im_end|><|im_start|>{speaker}\n"
        return [(head, _CONTEXT), (answer + "<|im_end|>", 1.0)]
    if kind < 0.7:
        return [(question + "\n", _CONTEXT), (answer + "\n", 1.0)]
    return [(f"Q: {question}\nA: ", _CONTEXT), (answer + "\n", 1.0)]


def _copying(random: Random, budget: int) -> Document:
    count = max(2, random.randrange(2, 3 + budget // 9))
    items = [random.choice((_entity, _number, language.word, _function_name))(random) for _ in range(count)]
    joint = random.choice((" ", ", ", "\n", "|", ",", "; "))
    text = joint.join(items)
    return [(f"{random.choice(language.COPY_CUES)}{text}\n", _CONTEXT), (text + "\n", 1.0)]


def _look_up(random: Random, budget: int) -> Document:
    """Key-value pairs, asked forwards and backwards."""
    count = max(2, int(random.uniform(0.3, 1.0) * budget / 12))
    keys = _entities(random, count)
    values = dict(zip(keys, (_value(random) for _ in keys), strict=True))
    sign = random.choice((": ", "=", " -> ", " is ", "|"))
    lines: Document = [("".join(f"{key}{sign}{value}\n" for key, value in values.items()), _CONTEXT)]
    for _ in range(random.randrange(2, 6 + count // 8)):
        key = random.choice(keys)
        if random.random() < _MISSING:
            lines += [(f"{_entity(random)}? ", _CONTEXT), ("none\n", 1.0)]
        elif random.random() < 0.3:
            lines += [(f"which is {values[key]}? ", _CONTEXT), (key + "\n", 1.0)]
        else:
            lines += [(f"{random.choice(('', 'and ', 'value of '))}{key}? ", _CONTEXT), (values[key] + "\n", 1.0)]
    return lines


def _facts(random: Random, budget: int) -> Document:
    """Sentences about entities, then questions in many frames."""
    count = max(2, random.randrange(2, 4 + budget // 20))
    facts = {(language.noun(random, topics.TOPICS), _entity(random)): _number(random) for _ in range(count)}
    told = [random.choice(language.FACTS).format(t=t, e=e, v=v) for (t, e), v in facts.items()]
    lines: Document = [(" ".join(told) + "\n", _CONTEXT)]
    for topic, entity in random.sample(list(facts), min(len(facts), random.randrange(1, 4))):
        value = facts[topic, entity]
        answer = random.choice((value, value, f"The {topic} of {entity} is {value}."))
        lines += _dialogue(random, language.request(random, topic, entity), answer)
    return lines


def _two_hops(random: Random, budget: int) -> Document:
    count = max(2, random.randrange(2, 3 + budget // 45))
    owners, owned = _entities(random, count), _entities(random, count)
    relation, topic = language.noun(random, topics.RELATIONS), language.noun(random, topics.TOPICS)
    values = [_number(random) for _ in owners]
    told = [f"The {relation} of {a} is {b}." for a, b in zip(owned, owners, strict=True)]
    told += [f"The {topic} of {b} is {v}." for b, v in zip(owners, values, strict=True)]
    random.shuffle(told)
    lines: Document = [(" ".join(told) + "\n", _CONTEXT)]
    for i in random.sample(range(count), min(2, count)):
        question = language.chained(random, topic, relation, owned[i])
        answer = f"The {relation} is {owners[i]}. The {topic} of {owners[i]} is {values[i]}."
        lines += _dialogue(random, question, answer)
    return lines


def _function_name(random: Random, topic: str | None = None, head: str | None = None) -> str:
    """Nonsense more often than not, so that the description must be read (a name is no hint)."""
    if topic is None or random.random() < 0.6:
        first = head or names.nonsense(random, unseen=False)
        alone = head is None and random.random() < 0.3
        return first if alone else f"{first}_{names.nonsense(random, unseen=False)}"
    return f"{language.noun(random, topics.VERBS)}_{topic}"


class _Function(NamedTuple):
    topic: str
    kind: str
    name: str
    parameter: str
    line: str

    def written(self, style: str, entity: str) -> str:
        return _written_call(style, self.name, self.parameter, entity)


def _functions(random: Random, count: int) -> list[_Function]:
    """Return `count` functions on different topics; now and then one of them has a twin, "mirror of the ..."."""
    found: list[_Function] = []
    kind = language.noun(random, topics.KINDS)
    head = names.nonsense(random, unseen=False) if random.random() < _SHARED_HEAD else None
    subjects = language.nouns(random, (*topics.TOPICS, *topics.RELATIONS), count)
    described = [random.choice(language.DESCRIPTIONS) for _ in subjects]
    if random.random() < _TWIN:
        modifier = language.noun(random, topics.BACKUPS)
        subjects[-1] = f"{modifier} of the {subjects[0]}"
        described[-1] = f"{modifier} of {random.choice((described[0], '{t} of a {k}', 'the {t} of a {k}'))}"
    for topic, description in zip(subjects, described, strict=True):
        if random.random() < 0.2:
            kind = language.noun(random, topics.KINDS)
        plain = topic.rpartition(" ")[2]
        name, parameter = _function_name(random, plain, head), language.noun(random, topics.PARAMETERS)
        found.append(
            _Function(topic, kind, name, parameter, f"{description.format(t=plain, k=kind)}:{name}({parameter})\n")
        )
    random.shuffle(found)
    return found


def _written_call(style: str, name: str, parameter: str, entity: str) -> str:
    if style == "python":
        return f'{name}({parameter}="{entity}")'
    if style == "json":
        return f'{{"name":"{name}","args":{{"{parameter}":"{entity}"}}}}'
    return f"{name}({parameter})" if style == "signature" else name


def _choosing(random: Random, budget: int) -> Document:
    """Described functions and requests; the answer is a call, its signature or its name, as a cue asks."""
    functions = _functions(random, min(10, random.randrange(2, 5 + budget // 60)))
    head = random.choice(("Tools:\n", "Functions:\n", "", ""))
    lines: Document = [(head + "".join(function.line for function in functions), _CONTEXT)]
    for _ in range(random.randrange(2, 6)):
        style = random.choice(("python", "json", "signature", "signature", "name"))
        if random.random() < 0.12 and not any(" " in function.topic for function in functions[:2]):
            question, answer = _two_topics(random, functions[:2], style)
        else:
            question, answer = _one_topic(random, functions, style)
        lines += _dialogue(random, f"{question} {language.CUES[style]}", answer)
    return lines


def _one_topic(random: Random, functions: Sequence[_Function], style: str) -> tuple[str, str]:
    topic, kind, *_ = chosen = random.choice(functions)
    entities = _entities(random, random.choice((1, 1, 1, 1, 1, 2, 3)))
    entity = " and ".join((", ".join(entities[:-1]), entities[-1])) if len(entities) > 1 else entities[0]
    answer = chosen.written(style, entities[0])
    if style in ("python", "json"):
        answer = "\n".join(chosen.written(style, each) for each in entities)
    if random.random() < _NONE:
        taken = {function.topic for function in functions}
        topic = next(t for t in language.nouns(random, topics.TOPICS, count=12) if t not in taken)
        answer = "none"
    if style in ("signature", "name") and random.random() < 0.5:
        answer = f"The {topic} of {entity}:{answer}"
    return language.request(random, topic, entity, kind), answer


def _two_topics(random: Random, functions: Sequence[_Function], style: str) -> tuple[str, str]:
    entity = _entity(random)
    first, second = functions
    answer = "\n".join(function.written(style, entity) for function in (first, second))
    return language.paired(random, first.topic, second.topic, entity), answer


def _chain(random: Random, budget: int) -> Document:
    """Two functions one after the other: the first finds who it is about, the second is asked about that one."""
    functions = _functions(random, min(8, random.randrange(3, 5 + budget // 60)))
    plain = [function for function in functions if " " not in function.topic]
    lines: Document = [("Tools:\n" + "".join(function.line for function in functions), _CONTEXT)]
    for _ in range(random.randrange(1, 4)):
        first, second = random.sample(plain, 2)
        entity, found = _entities(random, 2)
        question = language.chained(random, second.topic, first.topic, entity)
        lines += _dialogue(
            random, f"{question} First:", f"The {first.topic} of {entity}:{first.written('signature', '')}"
        )
        cue = random.choice(("The {r} is {f}. Then:", "{f} is the {r}. Then:", "{f}. Then:", "{f}\nThen:"))
        then = f"The {second.topic} of {found}:{second.written('signature', '')}"
        lines += _dialogue(random, cue.format(r=first.topic, f=found), then)
    return lines


def _json(random: Random, budget: int) -> Document:
    """Fill a signature with values, and read fields of an object."""
    lines: Document = []
    for _ in range(random.randrange(2, 4 + budget // 60)):
        if random.random() < 0.5:
            name, parameter = _function_name(random), language.noun(random, topics.PARAMETERS)
            entities = _entities(random, random.choice((1, 1, 1, 2, 3)))
            calls = "\n".join(_written_call("json", name, parameter, entity) for entity in entities)
            listed = " and ".join(entities)
            cue = random.choice(("{l}. {n}({p}).", "{n}({p}) for {l}.", "{l}:{n}({p})"))
            lines += _dialogue(random, cue.format(n=name, p=parameter, l=listed) + " JSON:", calls)
            continue
        keys = language.nouns(random, (*topics.TOPICS, *topics.KINDS), random.randrange(2, 5))
        record = {key: _value(random) for key in keys}
        text = "{" + ",".join(f'"{key}":"{value}"' for key, value in record.items()) + "}"
        key = random.choice(keys)
        pair = (text, f'"{key}"?', record[key])
        if random.random() < 0.5:
            pair = (", ".join(f"{key} {value}" for key, value in record.items()), "JSON:", text)
        lines += _dialogue(random, f"{pair[0]} {pair[1]}", pair[2])
    return lines


def _sql(random: Random, budget: int) -> Document:
    """A table's schema and questions; the answer is a query."""
    kind = language.noun(random, topics.KINDS)
    columns = language.nouns(random, topics.TOPICS, random.randrange(2, 5))
    lines: Document = [(f"{random.choice(('table ', 'tables: ', ''))}{kind}(name, {', '.join(columns)})\n", _CONTEXT)]
    for _ in range(random.randrange(2, 5)):
        column, entity, limit = random.choice(columns), _entity(random), _number(random)
        frame, query = random.choice(language.SQL)
        if frame == "":
            question = language.request(random, column, entity, kind)
        else:
            question = random.choice(frame.split("/")).format(t=column, k=kind, v=limit)
        answer = query.format(t=column, k=kind, v=limit, e=entity)
        lines += _dialogue(random, f"{question} SQL:", answer)
    return lines


def _words_to_numbers(random: Random, budget: int) -> Document:
    """Word problems to expressions; small sums with their result."""
    lines: Document = []
    for _ in range(random.randrange(2, 4 + budget // 50)):
        if random.random() < 0.2:
            a, b = random.randrange(100), random.randrange(100)
            sign, result = random.choice((("+", a + b), ("-", a - b), ("*", a * b)))
            lines.append((f"{a}{sign}{b}=", _CONTEXT))
            lines.append((f"{result}\n", 0.5))
            continue
        question, expression = problems.problem(random, _number, _entity)
        style, wrapped = random.choice((("Expression:", "{}"), ("Python:", "print({})"), ("Code:", "print({})")))
        lines += _dialogue(random, f"{question} {style}", wrapped.format(expression))
    return lines


_MAKERS: Sequence[Callable[[Random, int], Document]] = (
    _copying,
    _look_up,
    _facts,
    _two_hops,
    _choosing,
    _chain,
    _json,
    _sql,
    _words_to_numbers,
)
_SHARES = (9, 10, 9, 5, 34, 6, 8, 8, 11)
