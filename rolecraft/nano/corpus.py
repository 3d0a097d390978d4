"""Synthetic documents that give the nano base its skills: copying, look-up, reading schemas, SQL, arithmetic language.

What is not here: any toolworld trajectory, and any held-out name, topic or phrasing; `tests/test_nano.py` proves it.
A document is a list of (text, weight) segments: answers carry the loss, the random context little of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from rolecraft.benchmarks.toolworld import names, topics
from rolecraft.nano import language

Document = list[tuple[str, float]]

_CONTEXT = 0.15
"""Loss weight of context: enough to learn the language, little enough not to chase random names."""


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
    for _ in range(random.randrange(2, 6)):
        key = random.choice(keys)
        if random.random() < 0.3:
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
        question = random.choice(language.HOPS).format(t=topic, r=relation, e=owned[i])
        answer = f"The {relation} is {owners[i]}. The {topic} of {owners[i]} is {values[i]}."
        lines += _dialogue(random, question, answer)
    return lines


def _function_name(random: Random, topic: str | None = None) -> str:
    """Nonsense more often than not, so that the description must be read (a name is no hint)."""
    if topic is None or random.random() < 0.6:
        first = names.nonsense(random, unseen=False)
        return first if random.random() < 0.3 else f"{first}_{names.nonsense(random, unseen=False)}"
    return f"{language.noun(random, topics.VERBS)}_{topic}"


def _functions(random: Random, count: int) -> list[tuple[str, str, str, str, str]]:
    """Return (topic, kind, name, parameter, line) of `count` functions on different topics."""
    found = []
    kind = language.noun(random, topics.KINDS)
    for topic in language.nouns(random, (*topics.TOPICS, *topics.RELATIONS), count):
        if random.random() < 0.2:
            kind = language.noun(random, topics.KINDS)
        name, parameter = _function_name(random, topic), language.noun(random, topics.PARAMETERS)
        line = f"{random.choice(language.DESCRIPTIONS).format(t=topic, k=kind)}:{name}({parameter})\n"
        found.append((topic, kind, name, parameter, line))
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
    lines: Document = [(head + "".join(line for *_, line in functions), _CONTEXT)]
    for _ in range(random.randrange(2, 6)):
        style = random.choice(("python", "json", "signature", "signature", "name"))
        topic, kind, name, parameter, _ = random.choice(functions)
        entities = _entities(random, random.choice((1, 1, 1, 1, 1, 2, 3)))
        entity = " and ".join((", ".join(entities[:-1]), entities[-1])) if len(entities) > 1 else entities[0]
        answer = _written_call(style, name, parameter, entities[0])
        if style in ("python", "json"):
            answer = "\n".join(_written_call(style, name, parameter, each) for each in entities)
        if random.random() < 0.15:
            taken = {function[0] for function in functions}
            topic = next(t for t in language.nouns(random, topics.TOPICS, count=12) if t not in taken)
            answer = "none"
        question = language.request(random, topic, entity, kind)
        if style in ("signature", "name") and random.random() < 0.5:
            answer = f"The {topic} of {entity}:{answer}"
        lines += _dialogue(random, f"{question} {language.CUES[style]}", answer)
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
        question, expression = language.problem(random, _number, _entity)
        style, wrapped = random.choice((("Expression:", "{}"), ("Python:", "print({})"), ("Code:", "print({})")))
        lines += _dialogue(random, f"{question} {style}", wrapped.format(expression))
    return lines


_MAKERS: Sequence[Callable[[Random, int], Document]] = (
    _copying,
    _look_up,
    _facts,
    _two_hops,
    _choosing,
    _json,
    _sql,
    _words_to_numbers,
)
_SHARES = (10, 10, 10, 6, 36, 9, 8, 11)
