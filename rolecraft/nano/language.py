"""The words and sentence frames of the pretraining documents."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from rolecraft.benchmarks.toolworld import names

ASKERS = "user user user user system tool client".split()
SPEAKERS = "assistant reasoner executor summarizer planner caller checker actor critic teacher student".split()

COPY_CUES = ("Copy: ", "Repeat: ", "Again: ", "Write this twice.\n", "Say: ", "")

CUES = {"python": "Call:", "json": "JSON:", "signature": "Use:", "name": "Function:"}

DESCRIPTIONS = (
    "{t} of one {k}",
    "{t} of a {k}",
    "{t} of any {k}",
    "the {t} of a {k}",
    "the {k}'s {t}",
    "returns the {t} of a {k}",
    "gives the {t} for a {k}",
    "finds a {k}'s {t}",
    "{k} {t}",
    "{t} by {k}",
)

FACTS = (
    "The {t} of {e} is {v}.",
    "{e} has a {t} of {v}.",
    "{e}: {t} {v}.",
    "{v} is the {t} of {e}.",
    "For {e} the {t} is {v}.",
    "At {e} the {t} stands at {v}.",
)

HOPS = (
    "What is the {t} of the {r} of {e}?",
    "{e} has a {r}. What {t} has that {r}?",
    "Take the {r} of {e} and name its {t}.",
    "The {t} of {e}'s {r}?",
    "First the {r} of {e}, then the {t} of it.",
)

_REQUESTS = (
    "What is the {t} of {e}?",
    "What {t} does {e} have?",
    "Which {t} has {e}?",
    "Tell me the {t} of {e}.",
    "Name the {t} of {e}.",
    "Give the {t} for {e}.",
    "State the {t} of the {k} {e}.",
    "{e}: {t}?",
    "{t} of {e}",
    "{t} for {e}, please.",
    "The {t} of {e} is wanted.",
    "We want the {t} of the {k} named {e}.",
    "How much {t} does {e} have?",
    "How big is the {t} of {e}?",
    "Is the {t} of {e} known?",
    "For {e}, what is the {t}?",
    "About {e}: say its {t}.",
    "{e} has some {t}. How much?",
    "Answer with the {t} of {e}.",
    "My question is about {e} and its {t}.",
    "The {k} {e} must have a {t}. Which one?",
    "Report {e}'s {t}.",
    "{e}'s {t}?",
    "Take {e} and find the {t}.",
    "Say how {e} does in {t}.",
)

_OPENERS = (
    "Please answer. ",
    "Hello. ",
    "One question. ",
    "Quickly: ",
    "This is for a list. ",
    "The day was long. ",
    "A friend asks: ",
    "Now ",
    "Next: ",
    "We talk of a {k}. ",
    "I met {o} at noon. ",
    "{o} is of no interest. ",
    "Not {o}. ",
)

_CLOSERS = (" Thanks.", " It is for a table.", " Be short.", " That is all.", " No rush.", " Do not tell {o}.")

SQL = (
    ("", "SELECT {t} FROM {k} WHERE name='{e}'"),
    ("", "SELECT {t} FROM {k} WHERE name='{e}'"),
    ("", "SELECT {t} FROM {k} WHERE name='{e}'"),
    (
        "How many have a {t} above {v}?/Count each {k} with {t} over {v}./{t} more than {v}: how many?",
        "SELECT COUNT(*) FROM {k} WHERE {t}>{v}",
    ),
    (
        "How many have a {t} below {v}?/Count each {k} with {t} under {v}./{t} less than {v}: how many?",
        "SELECT COUNT(*) FROM {k} WHERE {t}<{v}",
    ),
    ("What is the highest {t}?/Largest {t}?/Name the top {t} of all.", "SELECT MAX({t}) FROM {k}"),
    ("What is the lowest {t}?/Smallest {t}?/Name the least {t} of all.", "SELECT MIN({t}) FROM {k}"),
    (
        "Which {k} has the highest {t}?/Who has the most {t}?/Name the {k} with the largest {t}.",
        "SELECT name FROM {k} ORDER BY {t} DESC LIMIT 1",
    ),
    (
        "Which {k} has the lowest {t}?/Who has the least {t}?/Name the {k} with the smallest {t}.",
        "SELECT name FROM {k} ORDER BY {t} LIMIT 1",
    ),
    ("What is the sum of {t}?/Add up each {t}./Total {t}?", "SELECT SUM({t}) FROM {k}"),
    ("How many rows?/Count each {k}.", "SELECT COUNT(*) FROM {k}"),
)
"""Question frames separated by slashes (none: a request about one entity), and the query."""

_PROBLEMS = (
    ("What is {a} plus {b}?/Add {a} and {b}./The sum of {a} and {b}./{a} and {b} together?", "{a}+{b}"),
    ("What is {a} minus {b}?/Take {b} from {a}./{a} less {b}?/The difference of {a} and {b}.", "{a}-{b}"),
    ("What is {a} times {b}?/Multiply {a} by {b}./The product of {a} and {b}./{a} by {b}?", "{a}*{b}"),
    ("What is {a} divided by {b}?/Divide {a} by {b}./{a} split in {b} parts?/{a} over {b}?", "{a}/{b}"),
    (
        "{e} has {a} {i} and gets {b} more. How many now?/{a} {i} in one box, {b} in another. All in all?"
        "/{e} made {a} {i} first and {b} later. How many {i}?",
        "{a}+{b}",
    ),
    (
        "{e} had {a} {i} and lost {b}. How many are left?/Of {a} {i}, {b} are gone. How many remain?"
        "/{e} owns {a} {i} and sells {b}. What is left?",
        "{a}-{b}",
    ),
    (
        "{a} boxes with {b} {i} each. How many {i}?/{e} packs {b} {i} in every box and fills {a} boxes. How many?"
        "/Each of {a} people brings {b} {i}. How many {i}?",
        "{a}*{b}",
    ),
    ("{e} shares {a} {i} among {b} people. How many each?/{a} {i} go in {b} equal boxes. How many in one?", "{a}/{b}"),
    (
        "Add {a} and {b}, then times {c}./{e} has {a} red and {b} blue {i}, and {c} times that comes. How many come?",
        "({a}+{b})*{c}",
    ),
    (
        "Multiply {a} by {b}, then add {c}./{a} boxes of {b} {i} and {c} loose ones. How many {i}?",
        "{a}*{b}+{c}",
    ),
    (
        "Multiply {a} by {b}, then take away {c}./{a} boxes of {b} {i}, but {c} broke. How many are whole?",
        "{a}*{b}-{c}",
    ),
    ("Add {a}, {b} and {c}./{a} plus {b} plus {c}?/{e} counts {a}, {b} and {c} {i}. All in all?", "{a}+{b}+{c}"),
    ("Start at {a}, add {b}, take off {c}./{e} had {a} {i}, got {b}, lost {c}. How many now?", "{a}+{b}-{c}"),
    ("Take {b} from {a}, then times {c}./What is {a} minus {b}, all times {c}?", "({a}-{b})*{c}"),
)

_ITEMS = "apples books coins cards stones eggs nails cups pens bricks seeds keys lamps tiles boxes".split()

_WORDS = (
    "time year way day man thing woman life child world school state family student group country problem hand part "
    "place case week system program question work night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father hour game line end member "
    "law car city name team minute idea body back parent face others level office door health person art war history "
    "party result change morning reason research girl guy moment air teacher force education error server down failed "
    "retry backup mirror archive copy second first other same different answer call tool next use need want know tell "
    "find give show have get make can could would should will may must not and or but if when then because with "
    "without from into over under after before between about again very more most less least all both each few many "
    "some any none no yes the this that these those there here where what which who how why is are was were be been"
).split()


def word(random: Random) -> str:
    """Return a common English word."""
    return random.choice(_WORDS)


def request(random: Random, topic: str, entity: str, kind: str = "city") -> str:
    """Ask for the `topic` of `entity`, now and then with a sentence before or after that must be ignored."""
    text = random.choice(_REQUESTS)
    if random.random() < 0.35:
        text = random.choice(_OPENERS) + text
    if random.random() < 0.15:
        text += random.choice(_CLOSERS)
    other = entity if "{o}" not in text else _other(random)
    return text.format(t=topic, e=entity, k=kind, o=other)


def problem(random: Random, number: Callable[[Random], str], entity: Callable[[Random], str]) -> tuple[str, str]:
    """Return a word problem and the expression that solves it."""
    frames, expression = random.choice(_PROBLEMS)
    values = {"a": number(random), "b": number(random), "c": number(random)}
    text = random.choice(frames.split("/")).format(**values, e=entity(random), i=random.choice(_ITEMS))
    return text, expression.format(**values)


def _other(random: Random) -> str:
    return names.entity(random, unseen=False)
