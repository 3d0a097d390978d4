"""Chooses among several replies, or answers, where a request names a strategy.

A client's tools run at the client's: nothing can be tried, so calls agree where they are the same. What needs to know
what tools answer before it goes on (`depth_first`, the dry run of `checked`, the published rule of `self_consistent`)
is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rolecraft import strategies, vetting, voting
from rolecraft.errors import UserError
from rolecraft.server.bodies import bad
from rolecraft.strategies import Chosen
from rolecraft.types import Completion, Message, ToolCall, Turn
from rolecraft.vetting import Asked, Opinion
from rolecraft.voting import Ballot, Election, Outcome

SERVED = ("greedy", "self_consistent", "best_of_n", strategies.CHECKED)
_RETRIES = 8
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several answers: what it came to (None: it failed), and its turns."""

    outcome: Outcome | None
    turns: Sequence[Turn]


def read(text: str) -> Chosen | None:
    """Return the strategy that a request names as `NAME,KEY=VALUE,...`, None for greedy play; raises Refused."""
    if len(text) > _LONGEST:
        raise bad(f"'strategy' has {len(text)} characters; write NAME,KEY=VALUE", "strategy")
    name = text.partition(",")[0].strip()
    if name not in SERVED:
        why = "; it needs what tools answer, and they run at the client's" if name == "depth_first" else ""
        raise bad(f"'strategy' {name!r} is not served{why}; there are {', '.join(SERVED)}", "strategy")
    try:
        chosen = strategies.parse(text)
    except UserError as error:
        raise bad(str(error), "strategy") from error
    if name == strategies.CHECKED:
        _require_checker(chosen.values)
    if getattr(chosen.values, "mode", "canonical") != "canonical":
        raise bad("'strategy' with mode=paper tries calls, and tools run at the client's; leave 'mode' out", "strategy")
    return None if name == "greedy" else chosen


def checking(chosen: Chosen | None, *, checks: bool) -> Chosen | None:
    """Return how a model answers: one that `checks` has its checker asked, unless the request says how."""
    return strategies.choose(strategies.CHECKED, {"checker": "role"}) if chosen is None and checks else chosen


async def vet(asked: Asked, calls: Sequence[ToolCall], how: Any) -> Opinion:
    """Return what the checker says of calls that are to be sent to the client, by the settings of `checked`."""
    found = vetting.objection(calls, asked.tools)
    if not found.right or how.checker == "rules":
        return found
    question = vetting.asking(calls)
    if how.checker == "ranking":
        return await vetting.likely(asked, question, how.threshold)
    return await vetting.opinion(asked, question)


def _require_checker(how: Any) -> None:
    if how.checker == "dry_run":
        why = "tries calls, and tools run at the client's; set checker=rules, ranking or role"
        raise bad(f"'strategy' with checker=dry_run {why}", "strategy")
    if how.as_result:
        why = "keeps refused calls in the record, which is the client's here; leave it out"
        raise bad(f"'strategy' with as_result=true {why}", "strategy")
    if how.retries > _RETRIES:
        raise bad(f"'strategy' has retries={how.retries}; at most {_RETRIES} are made", "strategy")


def elect(candidates: Sequence[Candidate]) -> Election:
    """Return which candidate is chosen."""
    return voting.elect([Ballot(one.outcome, voting.likelihood(one.turns)) for one in candidates])


def replies(completions: Sequence[Completion], speaker_after: Callable[[Message], str | None]) -> list[Candidate]:
    """Return the replies to one prompt as candidates: who is named next, which calls are made, or what is answered."""
    return [
        Candidate(
            voting.said(one.message, speaker_after(one.message), cut=one.turn.stop == "length"),
            (one.turn,),
        )
        for one in completions
    ]
