"""Questions: a sentence of the split or, for training, what is asked scattered among words that say nothing.

In a scattered question only the tools tell which words matter: it teaches to look there, and not to trust a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from rolecraft.benchmarks.toolworld.asking import Frames
from rolecraft.benchmarks.toolworld.asking import ask as in_words
from rolecraft.benchmarks.toolworld.frames import DIFFERENCE, HOP, SEVERAL_TOPICS
from rolecraft.benchmarks.toolworld.names import nonsense
from rolecraft.benchmarks.toolworld.topics import WORDS
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary

_OWNED = ("{r} of {e}", "{e}'s {r}", "{r} to {e}", "{r} for {e}", "{e} and its {r}", "{r} that {e} has")
_ABOUT = {"several_entities": "{entities}", "count": "{than} {number}", "best": "{most}"}
"""What a scattered question says beside the topic, where it is not one entity."""

_NONSENSE = 0.2


def ask(random: Random, words: Vocabulary, posed: Frames, values: Mapping[str, str]) -> str:
    """Return a question in one of the frames `posed`, filled with `values`."""
    if words.scattered and random.random() < words.scattered:
        return _scattered(random, _parts(random, posed, values))
    return in_words(random, posed, dict(values), words.sentences)


def _parts(random: Random, posed: Frames, values: Mapping[str, str]) -> list[str]:
    """Return what the question must hold, in an order that keeps its sense."""
    if posed is HOP:
        owned = random.choice(_OWNED).format(r=values["relation"], e=values["entity"])
        return _shuffled(random, [values["topic"], owned])
    if posed is SEVERAL_TOPICS:
        return _mixed_in(random, values["entity"], [values["topic"], values["second"]])
    if posed is DIFFERENCE:
        return _mixed_in(random, values["topic"], [values["first"], values["second"]])
    about = _ABOUT.get(posed.wording, "{entity}").format(**values)
    return _shuffled(random, [values["topic"], about])


def _mixed_in(random: Random, part: str, ordered: Sequence[str]) -> list[str]:
    """Return all, `ordered` in its order and `part` anywhere."""
    place = random.randrange(len(ordered) + 1)
    return [*ordered[:place], part, *ordered[place:]]


def _shuffled(random: Random, parts: list[str]) -> list[str]:
    return random.sample(parts, len(parts))


def _scattered(random: Random, parts: list[str]) -> str:
    said = [_filler(random) for _ in range(random.randint(2, 9))]
    places = sorted(random.randrange(len(said) + 1) for _ in parts)
    for place, part in reversed(list(zip(places, parts, strict=True))):
        said.insert(place, part)
    for place in random.sample(range(len(said) - 1), random.randint(0, min(2, len(said) - 1))):
        said[place] += random.choice(",,;:")
    text = " ".join(said)
    return text[:1].upper() + text[1:] + random.choice(".??")


def _filler(random: Random) -> str:
    """Return a word that says nothing, now and then one that nobody has ever said."""
    return nonsense(random, unseen=False) if random.random() < _NONSENSE else random.choice(WORDS)
