"""Random names, and the hash that keeps those of training apart from those of the test splits."""

from __future__ import annotations

import hashlib
from random import Random

from rolecraft.benchmarks.toolworld.topics import HELD_OUT, NOUNS

_ONSETS = "b br c cl d dr f fl g gl gr h j k l m n p pl pr qu r s sk st t tr v w y z".split()
_VOWELS = "a e i o u ai ea io ou".split()
_CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "x", "ck", "ld", "nd", "rt"]
_HELD_OUT_PARTS = 4  # one name in four belongs to the test splits


def held_out(name: str) -> bool:
    """Tell whether `name` (case folded) belongs to the test splits; pretraining and training never use it."""
    digest = hashlib.sha256(name.casefold().encode()).digest()
    return digest[0] % _HELD_OUT_PARTS == 0


def entity(random: Random, *, unseen: bool) -> str:
    """Return a capitalised nonsense name of two or three syllables on the asked side of the hash."""
    return _draw(random, (2, 2, 3), unseen=unseen).capitalize()


def nonsense(random: Random, *, unseen: bool) -> str:
    """Return a lower-case nonsense word of two syllables, as function names use it."""
    return _draw(random, (1, 2, 2), unseen=unseen)


def coined(random: Random) -> str:
    """Return an everyday noun as it is, or lengthened: `spoon`, `spoonness`, `spoonwheel`; never a held-out word.

    Long words of many pieces are what is cut short when it is copied: the listed ones are mostly short.
    """
    while True:
        noun, longer = random.choice(NOUNS), random.choice(random.choice(_LONGER))
        if not longer or not (held_out(noun + longer) or noun + longer in HELD_OUT):
            return noun + longer


_ENDINGS = "ness ment ure age ity ter al ion ous ance ing o a er ish ium ade ist".split()
_LONGER = ([""], _ENDINGS, NOUNS)


def _draw(random: Random, lengths: tuple[int, ...], *, unseen: bool) -> str:
    while True:
        word = "".join(_syllable(random) for _ in range(random.choice(lengths)))
        if len(word) >= 4 and held_out(word) == unseen:
            return word


def _syllable(random: Random) -> str:
    return random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS)
