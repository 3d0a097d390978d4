"""The words and sentence frames of the pretraining documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    "In terms of {t}, what has {e} got?",
    "{e} it is, and {t} is the question.",
    "Write {t} of {e} here:",
    "The {k} in question is {e}, the question is its {t}.",
    "A figure is wanted: {t}, {e}.",
    "If {e} has a {t}, name it.",
    "Let us hear about {t} at {e}.",
    "{t}? The {k} is {e}.",
    "How does {e} stand with its {t}?",
    "All about {t}, but only of {e}.",
    "With {e} in mind: which {t}?",
    "As to {t}, say what {e} has.",
    "Of {e} we lack the {t}.",
    "Is it true that {e} has a {t}? Which?",
    "Say {t}, mean {e}.",
    "Between {o} and {e}, take the last and its {t}.",
    "Forget {o}. Which {t} does {e} have?",
    "{o} was yesterday; today {e} and its {t}.",
    "Where {o} ends {e} begins, so what is its {t}?",
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
    (
        "{e} keeps {a} {i}; {b} more come in. What is there now?/To {a} {i} come {b}. How many?/{a}, and {b} on "
        "top: how "
        "much?/{b} {i} join {a} others. How many are there?/First {a} {i}, later {b}. In all?",
        "{a}+{b}",
    ),
    (
        "From {a} {i} {e} gives {b} away. What stays?/{b} of the {a} {i} broke. How many are whole?/{a} {i} "
        "less {b}: what "
        "stays?/{e} wants {a} {i} and has {b}. How many lack?/By how much is {a} more than {b}?",
        "{a}-{b}",
    ),
    (
        "In each of {a} rows stand {b} {i}. How many?/{a} days, {b} {i} a day. How many {i}?/{e} buys {a} bags "
        "of {b} {i}. "
        "What is that?/{b} {i} fit in a box; there are {a} boxes./{a} people hold {b} {i} each. How many?",
        "{a}*{b}",
    ),
    (
        "{a} {i} on {b} tables, the same on each. How many on one?/{e} has {a} {i} for {b} friends. How many "
        "for each?/One "
        "of {b} parts of {a}?/{a} {i} in rows of {b}: how many rows?",
        "{a}/{b}",
    ),
    (
        "Big ones {a}, small ones {b} in a bag; {c} bags. How many {i}?/{c} times the sum of {a} and {b}?/{e} "
        "takes {a} "
        "and {b} {i} on each of {c} trips. How many?",
        "({a}+{b})*{c}",
    ),
    (
        "{a} rows of {b} {i}, and {c} besides?/{e} has {c} {i} and buys {a} bags of {b}. How many now?/{c} plus "
        "{a} times "
        "{b}?",
        "{a}*{b}+{c}",
    ),
    (
        "{a} rows of {b} {i}, {c} are missing?/{e} buys {a} bags of {b} {i} and loses {c}. What is left?/{a} "
        "times {b} "
        "less {c}?",
        "{a}*{b}-{c}",
    ),
    (
        "On day one {a}, on day two {b}, on day three {c}: in all?/{e} finds {a}, {b} and then {c} {i}. How many are "
        "that?/Three boxes hold {a}, {b} and {c} {i}. Together?",
        "{a}+{b}+{c}",
    ),
    (
        "Of {a} {i} {b} go and {c} come. How many?/{a} {i}, then {b} less, then {c} more?/{e} sells {b} of {a} "
        "{i} and "
        "makes {c} new ones. How many now?",
        "{a}-{b}+{c}",
    ),
    (
        "{e} had {a} {i}, lost {b}, and sells the rest at {c} each. What comes in?/What stays of {a} after {b} "
        "goes, {c} "
        "times over?",
        "({a}-{b})*{c}",
    ),
)

_ITEMS = "apples books coins cards stones eggs nails cups pens bricks seeds keys lamps tiles boxes".split()

_WORDS = (
    "time year way day man thing woman life child world school state family student group country problem hand part "
    "place case week system program question work night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father hour game line end "
    "member "
    "law car city name team minute idea body back parent face others level office door health person art war history "
    "party result change morning reason research girl guy moment air teacher force education error server down "
    "failed "
    "retry backup mirror archive copy second first other same different answer call tool next use need want "
    "know tell "
    "find give show have get make can could would should will may must not and or but if when then because with "
    "without from into over under after before between about again very more most less least all both each few many "
    "some any none no yes the this that these those there here where what which who how why is are was were be been"
).split()


def word(random: Random) -> str:
    """Return a common English word."""
    return random.choice(_WORDS)


NOUNS = (
    "apple arch arm army autumn baby band bank bath bay beach bean bed bee beef bell belt bench bill bird blade "
    "blood board boat body boot bottle brain branch brass brick brush bucket butter button cable cage cake camera "
    "candle card cat chair cheese church circle cloth cloud coal coat coin collar comb cook cord cork corn cotton "
    "cow cream crown cup curtain desk dirt dog door drain drawer dress drink drop dust earth engine eye fact "
    "farmer feather fence flame floor food foot fork forest frame fruit garden gate girl glass glove grass guide "
    "gun hair hammer hand head hill hole hook horn horse hour idea ink jewel juice kick knee knife lace lamp law "
    "lead leaf leg light lip list lunch mark match meal meat metal money month nail neck need needle nerve news "
    "night nose note number nut oil orange oven paint part paste pen pencil plane plate play pocket point potato "
    "print prison push rail rain rat rest ring roof room rope rule sand school science seat seed self sense shelf "
    "shirt shoe side silk sister skin skirt sky sleep smile snake snow soap sock song soul sound space spade "
    "sponge spoon spot spring square stage steam stem step stick stitch stocking stomach stretch sun talk taste "
    "test thread thumb thunder tin toe tongue tooth trade trick trouble turn twist umbrella use view voice walk "
    "wall war wash waste watch water wave wax weather week wheel whip whistle wind wine wire wood wool worm wound "
    "yard"
).split()
"""Everyday nouns: besides nonsense, what a description or a request can be about."""


def noun(random: Random, listed: Sequence[str]) -> str:
    """Return one of the `listed` words, an everyday noun, or a word that nobody has ever seen.

    An open class: a model that knows all topics by heart learns to recognise them, not to find the same word again.
    """
    kind = random.random()
    if kind < 0.4:
        return random.choice(listed)
    return random.choice(NOUNS) if kind < 0.6 else names.nonsense(random, unseen=False)


def nouns(random: Random, listed: Sequence[str], count: int) -> list[str]:
    """Return `count` different words as `noun` draws them."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[noun(random, listed)] = None
    return list(found)


def _scattered(random: Random, topic: str, entity: str) -> str:
    """Put the topic and the entity among random words, in either order: what is asked for counts, not the "
    "sentence."""
    parts = [topic, entity] if random.random() < 0.6 else [entity, topic]
    words = [word(random) for _ in range(random.randrange(2, 9))]
    for part in parts:
        words.insert(random.randrange(len(words) + 1), part)
    if words.index(parts[0]) > words.index(parts[1]) and random.random() < 0.5:
        words.reverse()
    if random.random() < 0.25:
        words.insert(random.randrange(len(words)), f"not {_other(random)},")
    for _ in range(random.randrange(2)):
        words[random.randrange(len(words) - 1)] += ","
    text = " ".join(words)
    return text[:1].upper() + text[1:] + random.choice((".", "?", "", "!"))


def request(random: Random, topic: str, entity: str, kind: str = "city") -> str:
    """Ask for the `topic` of `entity`, now and then with a sentence before or after that must be ignored."""
    if random.random() < 0.3:
        return _scattered(random, topic, entity)
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
