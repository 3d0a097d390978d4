"""Self-consistent action generation: at each step several replies are tried, and a vote says which one counts.

Agent Distillation (arXiv 2505.17612): n replies are drawn from one prompt, each is tried, those that fail are dropped,
and of those that came to the same as most others one is taken. The method is the paper's, but for two defects of its
published code: there all final answers count as one outcome (they print nothing), and the replies are tried on one
state, where the chosen one runs once more. `mode: paper` does as published. Here each reply is tried on a branch of the
state, and the chosen one's branch becomes the state; equal calls of one step run once. A role that calls nothing is
voted on by whom it names next.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import rolecraft.step as step
from rolecraft import voting
from rolecraft.errors import ContextFull
from rolecraft.step import Episode, Position, Reply
from rolecraft.strategies._bounds import require
from rolecraft.strategies._trying import Trying
from rolecraft.types import Sampling, Trajectory
from rolecraft.voting import Ballot, Election, Tally

NEEDS = ("n", "logprobs")
_NAME = "self_consistent"


@dataclass(frozen=True, slots=True)
class Settings:
    """How many replies are tried at each step, how they are drawn (the paper's values), and which rule chooses.

    `mode` `paper` is the rule of the published code: it votes on what was printed alone, so that all final answers are
    one outcome, tries all replies on one state, and runs the chosen one once more.
    """

    n: int = 8
    temperature: float = 0.4
    top_p: float = 0.8
    mode: Literal["canonical", "paper"] = "canonical"

    def __post_init__(self) -> None:
        """Refuse what nothing can be drawn with."""
        require(_NAME, least={"n": (self.n, 1), "temperature": (self.temperature, 0), "top_p": (self.top_p, 0)})


def width(settings: Settings) -> int:
    """Return how many replies are asked for at once."""
    return settings.n


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Play the episode step by step; raises NotForkable where a tool's state cannot be copied."""
    shared = settings.mode == "paper"
    drawn = replace(episode.settings.sampling, n=settings.n, temperature=settings.temperature, top_p=settings.top_p)
    tally, position = Tally(_NAME), step.begin(episode)
    if not shared:
        episode.environment.toolbox.branch().close()  # refused before anything is asked
    while position.speaker is not None:
        following = await _advance(episode, position, drawn, tally, shared=shared)
        step.tell(episode, position, following)
        position = following
    return await step.finish(episode, position, tally.trials())


async def _advance(episode: Episode, position: Position, sampling: Sampling, tally: Tally, *, shared: bool) -> Position:
    """Return the position after the reply that was chosen."""
    if (full := step.out_of_turns(episode, position)) is not None:
        return full
    try:
        replies = await step.ask(episode, position, sampling)
    except ContextFull:
        return replace(position, stop="length", speaker=None)
    vote = _as_published if shared else _voted
    return await vote(episode, position, replies, tally)


async def _voted(episode: Episode, position: Position, replies: Sequence[Reply], tally: Tally) -> Position:
    """Return where the chosen reply leads, each having been tried on a branch of the state."""
    trying = Trying(episode.environment.toolbox)
    try:
        tries = [trying.place(reply.completion.message.tool_calls) for reply in replies]
        ends = await asyncio.gather(
            *(step.take(episode, position, reply, one.run) for reply, one in zip(replies, tries, strict=True))
        )
        election = _elect(episode, position, ends)
        await asyncio.to_thread(tries[election.chosen].branch.commit)
    finally:
        await trying.close()
    _count(tally, ends, election, ran=trying.ran)
    return ends[election.chosen]


async def _as_published(episode: Episode, position: Position, replies: Sequence[Reply], tally: Tally) -> Position:
    """Return where the reply leads that the published rule chooses, all tried on one state, and that one twice."""
    toolbox = episode.environment.toolbox
    ends = [await step.take(episode, position, reply, toolbox.call) for reply in replies]
    printed = [_printed(episode, position, end) for end in ends]
    valid = [place for place, text in enumerate(printed) if text is not None]
    counts = Counter(printed[place] for place in valid)
    chosen = max(valid, key=lambda place: counts[printed[place]]) if valid else 0  # the first of the most
    share = counts[printed[chosen]] / len(valid) if valid else None
    election = Election(chosen, len(replies) - len(valid), share)
    again = await step.take(episode, position, replies[chosen], toolbox.call)
    _count(tally, ends, election, ran=sum(map(_runs, ends)) + _runs(again))
    return again


def _elect(episode: Episode, before: Position, ends: Sequence[Position]) -> Election:
    by_code = episode.team.acts_by_code(before.speaker)
    outcomes = [voting.outcome(before, end, by_code=by_code) for end in ends]
    return voting.elect(
        [Ballot(one, voting.likelihood(end.turns[-1:])) for one, end in zip(outcomes, ends, strict=True)]
    )


def _printed(episode: Episode, before: Position, end: Position) -> str | None:
    """Return what the published rule votes on: what was printed, so nothing for any text; None for a failure."""
    by_code = episode.team.acts_by_code(before.speaker)
    if voting.outcome(before, end, by_code=by_code) is None:
        return None
    told = voting.observations(end.messages[len(before.messages) :], by_code=by_code)
    return "\n".join(message.content for message in told)


def _runs(end: Position) -> int:
    return len(end.turns[-1].message.tool_calls)


def _count(tally: Tally, ends: Sequence[Position], election: Election, *, ran: int) -> None:
    tally.vote([end.turns[-1:] for end in ends], election)
    tally.tool_calls += max(0, ran - _runs(ends[election.chosen]))
