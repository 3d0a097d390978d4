"""Plays whole episodes side by side, each on its own branch of the state, and takes one of the most frequent answer.

Self-consistency over whole chains (Wang et al., arXiv 2203.11171) with tools: neither the judge nor the reference has a
say, the majority of canonical final answers has, then how likely the episode was to its model.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import rolecraft.step as step
from rolecraft import voting
from rolecraft.agent import together
from rolecraft.step import Episode, Position
from rolecraft.strategies._bounds import require
from rolecraft.strategies._trying import close_all
from rolecraft.types import Message, Sampling, Toolset, Trajectory
from rolecraft.voting import Ballot, Tally

NEEDS = ("logprobs",)
_NAME = "best_of_n"
_SEEDS_APART = 1 << 20  # between the episodes; the turns of one count up


@dataclass(frozen=True, slots=True)
class Settings:
    """How many episodes are played at once, and how their replies are drawn."""

    n: int = 8
    temperature: float = 0.7
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what nothing can be drawn with."""
        require(_NAME, least={"n": (self.n, 1), "temperature": (self.temperature, 0), "top_p": (self.top_p, 0)})


def width(settings: Settings) -> int:
    """Return how many replies are asked for at once."""
    return settings.n


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Play the episodes and return the chosen one; raises NotForkable where a tool's state cannot be copied."""
    drawn = replace(episode.settings.sampling, n=1, temperature=settings.temperature, top_p=settings.top_p)
    branches = [episode.environment.toolbox.branch() for _ in range(settings.n)]
    try:
        ends = await together(_played(episode, place, branch, drawn) for place, branch in enumerate(branches))
        election = voting.elect([Ballot(voting.final(end), voting.likelihood(end.turns)) for end in ends])
        chosen = ends[election.chosen]
        await asyncio.to_thread(branches[election.chosen].commit)
    finally:
        await asyncio.to_thread(close_all, branches)
    tally = Tally(_NAME)
    tally.vote([end.turns for end in ends], election)
    tally.tool_calls = sum(_calls(end) for place, end in enumerate(ends) if place != election.chosen)
    step.tell(episode, step.begin(episode), chosen)
    return await step.finish(episode, chosen, tally.trials())


async def _played(episode: Episode, place: int, branch: Toolset, sampling: Sampling) -> Position:
    one = replace(episode, seed=episode.seed + place * _SEEDS_APART, watch=_unseen)
    return await step.to_the_end(one, step.begin(one), branch.call, sampling)


def _unseen(message: Message) -> None:
    """Show nothing of an episode that may not be chosen."""


def _calls(end: Position) -> int:
    return sum(len(turn.message.tool_calls) for turn in end.turns)
