"""Questions: a sentence of the split or, for training, what is asked scattered among words that say nothing.

In a scattered question only the tools tell which words matter: it teaches to look there, and not to trust a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from rolecraft.benchmarks.toolworld import asking, frames, topics
from rolecraft.benchmarks.toolworld.asking import Frames
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary

_OWNED = ("{r} of {e}", "{e}'s {r}", "{r} to {e}", "{r} for {e}", "{e} and its {r}", "{r} that {e} has")


def ask(random: Random, words: Vocabulary, posed: Frames, values: Mapping[str, str]) -> str:
    """Return a question in one of the frames `posed`, filled with `values`."""
    if random.random() < words.scattered and (parts := _parts(random, posed, values)):
        return _scattered(random, parts)
    return asking.ask(random, posed, dict(values), words.sentences)


def _parts(random: Random, posed: Frames, values: Mapping[str, str]) -> list[str]:
    """Return what the question must hold, in an order that keeps its sense; nothing if only a sentence can ask it."""
    if posed is frames.HOP:
        owned = random.choice(_OWNED).format(r=values["relation"], e=values["entity"])
        return _shuffled(random, [values["topic"], owned])
    if posed is frames.SEVERAL_TOPICS:
        parts = [values["topic"], values["second"]]
        parts.insert(random.randrange(3), values["entity"])
        return parts
    if posed is frames.SEVERAL_ENTITIES:
        return _shuffled(random, [values["topic"], values["entities"]])
    return _shuffled(random, [values["topic"], values["entity"]]) if posed is frames.LOOKUP else []


def _shuffled(random: Random, parts: list[str]) -> list[str]:
    return random.sample(parts, len(parts))


def _scattered(random: Random, parts: list[str]) -> str:
    said = [random.choice(topics.WORDS) for _ in range(random.randint(2, 9))]
    places = sorted(random.randrange(len(said) + 1) for _ in parts)
    for place, part in reversed(list(zip(places, parts, strict=True))):
        said.insert(place, part)
    for place in random.sample(range(len(said) - 1), random.randint(0, min(2, len(said) - 1))):
        said[place] += random.choice(",,;:")
    text = " ".join(said)
    return text[:1].upper() + text[1:] + random.choice(".??")
