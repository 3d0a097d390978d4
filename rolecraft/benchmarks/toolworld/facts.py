"""The facts of a search world: who stands to whom, what each one's numbers are, the passages that say so, and chains.

Not covered: passages that tell several facts, contradict each other or need common knowledge.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from rolecraft.benchmarks.toolworld import vocabulary
from rolecraft.benchmarks.toolworld.asking import Frames
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a question reaches: its hops, and the bounds of the numbers in it; `factors` are those of products.

    Near, numbers have one digit: a model of a million parameters learns such sums by heart, and no others.
    """

    hops: tuple[int, int] = (1, 3)
    numbers: tuple[int, int] = (3, 9)
    factors: tuple[int, int] = (2, 3)


NEAR = Reach()
FAR: Mapping[str, Reach] = {
    "hops": replace(NEAR, hops=(4, 5)),
    "numbers": replace(NEAR, numbers=(10, 99), factors=(4, 9)),
}
"""The reach of training and of the splits that test words; and of those that test the reach itself."""

_ENTITIES = (5, 6)

SAID = Frames(
    wording="",  # passages are no questions: training data says them in no other words
    training=(
        "The {fact} of {entity} is {value}.",
        "{entity} has the {fact} {value}.",
        "{value} is the {fact} of {entity}.",
        "{entity}: {fact} {value}.",
    ),
    held_out=("For {entity} the {fact} reads {value}.", "As its {fact} {entity} gives {value}."),
)
"""How a passage says a fact; a relation's value is an entity too, so that its direction must be read."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a passage says: `fact` is a relation or a topic, `value` an entity or a number."""

    fact: str
    entity: str
    value: str

    @property
    def query(self) -> str:
        """What to search for to find it."""
        return f"{self.fact} of {self.entity}"

    @property
    def told(self) -> str:
        """The fact in a sentence."""
        return f"The {self.fact} of {self.entity} is {self.value}."


@dataclass(frozen=True, slots=True)
class Chain:
    """The facts that lead from the named entity to the numbers asked for, and all passages of the world."""

    kind: str
    names: Sequence[str]
    relations: Sequence[str]
    topics: Sequence[str]
    hops: tuple[Fact, ...]
    found: tuple[Fact, ...]
    passages: tuple[str, ...]

    @property
    def path(self) -> str:
        """What the numbers belong to, as the question says it: `the owner of the rival of Quil`."""
        return "".join(f"the {hop.fact} of " for hop in reversed(self.hops)) + self.names[0]

    @property
    def steps(self) -> tuple[Fact, ...]:
        """The facts in the order in which they must be found."""
        return (*self.hops, *self.found)


def draw(random: Random, words: Vocabulary, reach: Reach, numbers: int) -> Chain:
    """Return a world and a chain in it that ends in so many numbers of one entity.

    Every entity has every relation and every topic, so that a hop left out gives a wrong number and not nothing. A
    relation leads each entity to another and no two to the same one; a topic has different numbers.
    """
    hops = random.randint(*reach.hops)
    names = vocabulary.entities(random, words, max(random.randint(*_ENTITIES), hops + 2))
    relations = random.sample(words.relations, hops if random.random() < 0.5 else max(1, hops - 1))
    topics = random.sample(words.topics, 2)
    leads = _relations(names, relations, _shifts(random, len(names), len(relations)))
    low, high = reach.numbers
    values = {topic: random.sample(range(low, high + 1), len(names)) for topic in topics}
    has = {(topic, name): str(values[topic][place]) for topic in topics for place, name in enumerate(names)}
    at, taken = names[0], list[Fact]()
    for relation in relations[: hops - 1]:
        taken.append(Fact(relation, at, leads[relation, at]))
        at = taken[-1].value
    found = tuple(Fact(topic, at, has[topic, at]) for topic in topics[:numbers])
    said = [Fact(fact, name, value) for (fact, name), value in {**leads, **has}.items()]
    passages = [
        SAID.pick(random, words.sentences).format(fact=one.fact, entity=one.entity, value=one.value) for one in said
    ]
    random.shuffle(passages)
    return Chain(random.choice(words.kinds), names, relations, topics, tuple(taken), found, tuple(passages))


def _relations(names: Sequence[str], relations: Sequence[str], shifts: Sequence[int]) -> dict[tuple[str, str], str]:
    """Return whom each relation leads each entity to: as many places on as its shift says."""
    return {
        (relation, name): names[(place + shift) % len(names)]
        for relation, shift in zip(relations, shifts, strict=True)
        for place, name in enumerate(names)
    }


def _shifts(random: Random, entities: int, count: int) -> list[int]:
    """Return different shifts that, one after the other, never lead back to where a chain has been."""
    while True:
        shifts = random.sample(range(1, entities), count)
        visited = {total % entities for total in itertools.accumulate(shifts, initial=0)}
        if len(visited) == count + 1:
            return shifts


PLUS = Frames(
    wording="search+",
    training=(
        "What is the {topic} of {path} plus {number}?",
        "Add {number} to the {topic} of {path}.",
        "The {topic} of {path} grows by {number}. What is it then?",
        "I need the {topic} of {path} and {number} more.",
        "Find the {topic} of {path} and add {number}.",
        "If the {topic} of {path} rises by {number}, how much is it?",
    ),
    held_out=(
        "Raise the {topic} of {path} by {number}; what figure results?",
        "{number} on top of the {topic} of {path} makes what?",
    ),
)
MINUS = Frames(
    wording="search-",
    training=(
        "What is the {topic} of {path} minus {number}?",
        "Subtract {number} from the {topic} of {path}.",
        "The {topic} of {path} falls by {number}. What is it then?",
        "I need the {topic} of {path} less {number}.",
        "Find the {topic} of {path} and take away {number}.",
        "If the {topic} of {path} drops by {number}, how much is left?",
    ),
    held_out=(
        "Strip {number} from the {topic} of {path}; what figure results?",
        "Out of the {topic} of {path} they lose {number}; what remains?",
    ),
)
TIMES = Frames(
    wording="search*",
    training=(
        "What is the {topic} of {path} times {number}?",
        "Multiply the {topic} of {path} by {number}.",
        "What is {number} times the {topic} of {path}?",
        "I need the {topic} of {path}, {number} times.",
        "Find the {topic} of {path} and multiply it by {number}.",
        "If each of {number} has the {topic} of {path}, how much is that?",
    ),
    held_out=(
        "Scale the {topic} of {path} up {number} fold; what comes out?",
        "{number} copies of the {topic} of {path} amount to what?",
    ),
)
BOTH = Frames(
    wording="search++",
    training=(
        "What is the {topic} plus the {second} of {path}?",
        "Add the {topic} and the {second} of {path}.",
        "What are the {topic} and the {second} of {path} together?",
        "I need the sum of the {topic} and the {second} of {path}.",
        "Find the {topic} and the {second} of {path} and add them.",
    ),
    held_out=(
        "Lump the {topic} in with the {second} of {path}: how much?",
        "Total up {topic} and {second} for {path}.",
    ),
)
