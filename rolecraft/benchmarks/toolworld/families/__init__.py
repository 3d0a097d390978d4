"""What a family of toolworld is: tasks of one skill, drawn at random.

To add one, write `families/x.py` with `draw(random, words, options) -> Draft`. It takes every name and topic from
`words`, so that the splits stay apart, and every random choice from `random`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol

from rolecraft.benchmarks.toolworld.draft import Draft
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Options:
    """What every family is told: how many functions a choice has, and how often tools of another kind lie about."""

    min_functions: int = 3
    max_functions: int = 6
    mixed: float = 0.25
    tools: bool = True


class Family(Protocol):
    """The contract of a module in this folder."""

    def draw(self, random: Random, words: Vocabulary, options: Options) -> Draft:
        """Return a task; equal arguments give an equal one."""
        ...
