"""The words and sentence frames of the pretraining documents."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from rolecraft.benchmarks.toolworld import names, topics

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
    "Which {t} has the {r} of {e}?",
    "{t} of the {r} of {e}",
    "{e}, its {r}, and of that the {t}.",
    "Ask for the {r} of {e}; the {t} of that {r} is wanted.",
    "We want not {e} but its {r}: which {t}?",
    "{e} -> {r} -> {t}?",
    "{r} of {e}? And then {t}?",
    "Some {r} works with {e}. Name the {t} there.",
    "Go from {e} to its {r}. What {t} is there?",
    "How much {t} has the one who is {r} of {e}?",
    "The {t} at the {r} of {e}, please.",
    "If {e} has a {r}, how big is its {t}?",
    "Say the {t} for whoever is {r} at {e}.",
    "Who is {r} of {e}? I ask because of the {t}.",
    "My {t} question is about the {r} of {e}.",
    "{e} is with a {r}; give me {t} for that {r}.",
)

_PAIRS = (
    "The {t} and the {s} of {e}?",
    "What are {t} and {s} of {e}?",
    "{e}: {t}, {s}?",
    "Tell me {t} and then {s} for {e}.",
    "For {e} both {t} and {s}.",
    "Of {e} we want {t}, and {s} as well.",
    "{t} and also {s}, both of {e}.",
    "How big is the {t} of {e}, how big the {s}?",
    "{e} has a {t} and a {s}. Name both.",
    "First {t}, then {s}; all for {e}.",
    "A list for {e}: {t}, {s}.",
    "Give {e} with {t} and with {s}.",
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


def word(random: Random) -> str:
    """Return a common English word."""
    return random.choice(topics.WORDS)


def noun(random: Random, listed: Sequence[str]) -> str:
    """Return one of the `listed` words, an everyday noun, or a word that nobody has ever seen.

    An open class: a model that knows all topics by heart learns to recognise them, not to find the same word again.
    """
    kind = random.random()
    if kind < 0.4:
        return random.choice(listed)
    return random.choice(topics.NOUNS) if kind < 0.6 else names.nonsense(random, unseen=False)


def nouns(random: Random, listed: Sequence[str], count: int) -> list[str]:
    """Return `count` different words as `noun` draws them."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[noun(random, listed)] = None
    return list(found)


def _scattered(random: Random, parts: Sequence[str]) -> str:
    """Put the parts among random words, in any order: what is asked for counts, not the sentence."""
    words = [word(random) for _ in range(random.randrange(2, 9))]
    places = sorted(random.randrange(len(words) + 1) for _ in parts)
    for place, part in reversed(list(zip(places, random.sample(parts, len(parts)), strict=True))):
        words.insert(place, part)
    if random.random() < 0.25:
        words.insert(random.randrange(len(words)), f"not {_other(random)},")
    for _ in range(random.randrange(2)):
        words[random.randrange(len(words) - 1)] += ","
    text = " ".join(words)
    return text[:1].upper() + text[1:] + random.choice((".", "?", "", "!"))


def chained(random: Random, topic: str, relation: str, entity: str) -> str:
    """Ask for the `topic` of the `relation` of `entity`."""
    if random.random() < 0.25:
        owned = random.choice(
            ("{r} of {e}", "{e}'s {r}", "{r} at {e}", "{e} with its {r}", "{r} to {e}", "{r} for {e}")
        )
        return _scattered(random, (topic, owned.format(r=relation, e=entity)))
    text = random.choice(HOPS)
    if random.random() < 0.35:
        text = random.choice(_OPENERS) + text
    return text.format(t=topic, r=relation, e=entity, k="city", o=_other(random))


def paired(random: Random, first: str, second: str, entity: str) -> str:
    """Ask for two topics of `entity`, the first one first."""
    text = random.choice(_PAIRS)
    if random.random() < 0.3:
        text = random.choice(_OPENERS) + text
    return text.format(t=first, s=second, e=entity, k="city", o=_other(random))


def request(random: Random, topic: str, entity: str, kind: str = "city") -> str:
    """Ask for the `topic` of `entity`, now and then with a sentence before or after that must be ignored."""
    if random.random() < 0.3:
        return _scattered(random, (topic, entity))
    text = random.choice(_REQUESTS)
    if random.random() < 0.35:
        text = random.choice(_OPENERS) + text
    if random.random() < 0.15:
        text += random.choice(_CLOSERS)
    other = entity if "{o}" not in text else _other(random)
    return text.format(t=topic, e=entity, k=kind, o=other)


def _other(random: Random) -> str:
    return names.entity(random, unseen=False)
