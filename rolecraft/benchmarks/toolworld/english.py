"""The few rules of English that filling in a frame needs."""

from __future__ import annotations

from collections.abc import Sequence


def listed(items: Sequence[str]) -> str:
    """Return `A`, `A and B` or `A, B and C`."""
    return " and ".join((", ".join(items[:-1]), items[-1])) if len(items) > 1 else items[0]


def plural(noun: str) -> str:
    """Return the plural of a kind."""
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + "es" if noun.endswith("o") else noun + "s"


def with_article(text: str) -> str:
    """Write `an` before a vowel."""
    words = text.split(" ")
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join("an" if word == "a" and following[:1] in tuple("aeiou") else word for word, following in pairs)
