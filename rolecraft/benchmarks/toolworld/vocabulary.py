"""Which words a split may use, and how functions are named and described with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from rolecraft.benchmarks.toolworld.asking import Sentences
from rolecraft.benchmarks.toolworld.english import with_article
from rolecraft.benchmarks.toolworld.names import coined, entity, nonsense
from rolecraft.benchmarks.toolworld.topics import (
    BACKUPS,
    ERRORS,
    HELD_OUT_BACKUPS,
    HELD_OUT_ERRORS,
    HELD_OUT_KINDS,
    HELD_OUT_PARAMETERS,
    HELD_OUT_RELATIONS,
    HELD_OUT_TOPICS,
    HELD_OUT_VERBS,
    KINDS,
    PARAMETERS,
    RELATIONS,
    TOPICS,
    VERBS,
    WORDS,
)
from rolecraft.errors import SettingsError

SPLITS = ("train", "test", "tools", "phrasing")
FAULTS = "faults"
"""The split in the words of `test` whose tools fail at an episode's first call."""
FAR_SPLITS = ("hops", "numbers")
"""Splits of the family search alone, in the words of `test`: chains longer than in training, and larger numbers."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of one split, and its `sentences`; the flags choose the side of the hash for names.

    `shared_heads` is how often the nonsense names of one task all begin with the same word, `scattered` how often a
    question is no sentence at all, `far` the split of FAR_SPLITS if it is one.
    """

    topics: Sequence[str]
    relations: Sequence[str]
    kinds: Sequence[str]
    parameters: Sequence[str]
    verbs: Sequence[str]
    errors: Sequence[str]
    backups: Sequence[str]
    sentences: Sentences = Sentences()
    unseen_entities: bool = False
    unseen_functions: bool = False
    shared_heads: float = 0.0
    scattered: float = 0.0
    far: str = ""


def find(split: str) -> Vocabulary:
    """Return the vocabulary of a split; raises SettingsError naming the splits there are."""
    if split not in (*SPLITS, FAULTS, *FAR_SPLITS):
        further = ", ".join(FAR_SPLITS)
        known = ", ".join((*SPLITS, FAULTS))
        raise SettingsError(f"toolworld has no split {split!r}; it has {known}, and of search {further}")
    if split == "tools":
        return Vocabulary(
            HELD_OUT_TOPICS,
            HELD_OUT_RELATIONS,
            HELD_OUT_KINDS,
            HELD_OUT_PARAMETERS,
            HELD_OUT_VERBS,
            HELD_OUT_ERRORS,
            HELD_OUT_BACKUPS,
            unseen_entities=True,
            unseen_functions=True,
        )
    return Vocabulary(
        TOPICS,
        RELATIONS,
        KINDS,
        PARAMETERS,
        VERBS,
        ERRORS,
        BACKUPS,
        Sentences(unseen=split == "phrasing"),
        unseen_entities=split != "train",
        far=split if split in FAR_SPLITS else "",
    )


def opened(random: Random, words: Vocabulary, share: float) -> Vocabulary:
    """Return the vocabulary of one task in which each list is, with chance `share`, replaced by words never listed.

    Words of closed lists are learned by heart, and then a model recognises them instead of finding the same word again.
    The shortest lists, of kinds, errors and backups, are replaced twice as often.
    """

    def some(listed: Sequence[str], make: Callable[[], str], chance: float = share) -> Sequence[str]:
        return tuple(dict.fromkeys(make() for _ in range(_OPEN))) if random.random() < chance else listed

    def word() -> str:
        return coined(random) if random.random() < _COINED else nonsense(random, unseen=False)

    def error() -> str:
        return " ".join(random.choice(WORDS) for _ in range(random.randint(2, 3)))

    topic_words = some(words.topics, word)
    listed = topic_words is words.topics  # else a relation could be the same word as a topic
    return replace(
        words,
        topics=topic_words,
        relations=some(words.relations, word) if listed else words.relations,
        kinds=some(words.kinds, word, 2 * share),
        parameters=some(words.parameters, word),
        backups=some(words.backups, word, 2 * share),
        errors=some(words.errors, error, 2 * share),
    )


_COINED, _OPEN = 0.5, 14
"""The share of words coined of everyday nouns among those never listed, and how many words stand in for a list."""


def entities(random: Random, words: Vocabulary, count: int) -> list[str]:
    """Return `count` different entity names."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[entity(random, unseen=words.unseen_entities)] = None
    return list(found)


def function_names(random: Random, words: Vocabulary, subjects: Sequence[str]) -> list[str]:
    """Return a different function name for each subject: mostly nonsense, else a verb and the subject.

    Near misses are common: names in one task often share their verb, or, if asked for, their first nonsense word.
    """
    verb, head = random.choice(words.verbs), _nonsense(random, words)
    share_verb, share_head = random.random() < 0.5, random.random() < words.shared_heads
    found: list[str] = []
    for subject in subjects:
        name = ""
        while not name or name in found:
            if random.random() < _NONSENSE_SHARE:
                name = _nonsense_name(random, words, head if share_head else None)
            else:
                name = f"{verb if share_verb else random.choice(words.verbs)}_{subject}"
        found.append(name)
    return found


_NONSENSE_SHARE = 0.58
"""At least half: with too many telling names a small model reads the name and not the description."""
_ONE_WORD_SHARE = 0.5


def _nonsense_name(random: Random, words: Vocabulary, head: str | None) -> str:
    if head is None and random.random() < _ONE_WORD_SHARE:
        return _nonsense(random, words)
    return f"{head or _nonsense(random, words)}_{_nonsense(random, words)}"


def _nonsense(random: Random, words: Vocabulary) -> str:
    return nonsense(random, unseen=words.unseen_functions)


_DESCRIPTIONS = (
    "{subject} of one {kind}",
    "{subject} of a {kind}",
    "the {subject} of a {kind}",
    "the {subject} of one {kind}",
    "the {subject} of any {kind}",
    "gives the {subject} of a {kind}",
    "tells the {subject} of a {kind}",
    "finds the {subject} for a {kind}",
    "returns the {subject} of the {kind}",
    "the {kind}'s {subject}",
)
_ONE_STYLE_SHARE = 0.5


def descriptions(random: Random, subjects: Sequence[str], kind: str) -> list[str]:
    """Describe a function for each subject, in half of the cases all in the same words."""
    style = random.choice(_DESCRIPTIONS) if random.random() < _ONE_STYLE_SHARE else None
    return [
        with_article((style or random.choice(_DESCRIPTIONS)).format(subject=subject, kind=kind)) for subject in subjects
    ]
