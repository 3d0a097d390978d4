"""On failure the agent reflects and tries the task again, told what it said of the failure (CMAT's Algorithm 1).

A try has failed if it came to no answer, if its last call was answered by an error, or if the checker objects to its
answer; neither the judge nor the reference is asked. Each try begins on a branch of the state, and that of the try
that is chosen becomes the state: the first without a failure, else the last one that answered, else the last. With
`reflects=false` the tries know nothing of each other: as many independent tries, chosen by the same checker.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import rolecraft.step as step
from rolecraft import reflection, vetting
from rolecraft.errors import ContextFull
from rolecraft.step import Episode, Position
from rolecraft.strategies import checked
from rolecraft.strategies._bounds import require
from rolecraft.strategies._trying import close_all
from rolecraft.types import Message, Toolset, Trajectory
from rolecraft.voting import Tally

_NAME = "reflect"
_SEEDS_APART = 1 << 40  # between the tries; the retries of a step are 1 << 20 apart
_WHY = {
    "gave_up": "gave up",
    "max_turns": "used up its turns without an answer",
    "repeated_call": "made the same call again and again",
    "length": "ran out of tokens before it had an answer",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How many tries, whether each is told what went wrong before, and how those after the first are drawn.

    `checker`, `retries`, `threshold` and `as_result` are those of strategy `checked`, by which each try is played.
    """

    tries: int = 3
    reflects: bool = True
    temperature: float = 0.7
    checker: vetting.Kind = "rules"
    retries: int = 2
    threshold: float = 0.5
    as_result: bool = False

    def __post_init__(self) -> None:
        """Refuse what tries nothing."""
        require(_NAME, least={"tries": (self.tries, 1)})
        self.checked()

    def checked(self) -> checked.Settings:
        """Return how each try is played."""
        return checked.Settings(self.checker, self.retries, self.threshold, self.temperature, as_result=self.as_result)


@dataclass(frozen=True, slots=True)
class _Try:
    """A try that has ended, on its branch, what it spent beside its turns, and why it failed ('': it did not)."""

    end: Position
    branch: Toolset
    tally: Tally
    why: str


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Play until a try does not fail; raises NotForkable where a tool's state cannot be copied."""
    toolbox, tally, tries = episode.environment.toolbox, Tally(_NAME), list[_Try]()
    told: tuple[Message, ...] = ()
    branches = list[Toolset]()
    try:
        for number in range(settings.tries):
            branches.append(toolbox.branch())
            tries.append(await _try(episode, branches[-1], told, number, settings))
            if not tries[-1].why:
                break
            if settings.reflects and number + 1 < settings.tries:
                told = (*told, await _reflect(episode, tries[-1], number, tally))
        chosen = _chosen(tries)
        await asyncio.to_thread(chosen.branch.commit)
    finally:
        await asyncio.to_thread(close_all, branches)
    _count(tally, tries, chosen)
    step.tell(episode, step.begin(episode), chosen.end)
    return await step.finish(episode, chosen.end, tally.trials())


async def _try(episode: Episode, branch: Toolset, told: tuple[Message, ...], number: int, settings: Settings) -> _Try:
    """Play one try to its end and say why it failed."""
    sampling = episode.settings.sampling
    if number:
        sampling = replace(sampling, temperature=max(sampling.temperature, settings.temperature))
    one = replace(
        episode,
        environment=replace(episode.environment, toolbox=branch),
        settings=replace(episode.settings, sampling=sampling),
        seed=episode.seed + number * _SEEDS_APART,
        watch=_unseen,
    )
    tally, position = Tally(_NAME), step.begin(one)
    position = replace(position, messages=(*position.messages, *told))
    end = await checked.to_the_end(one, position, settings.checked(), tally)
    return _Try(end, branch, tally, await _failure(one, end, settings, tally))


async def _failure(episode: Episode, end: Position, settings: Settings, tally: Tally) -> str:
    """Return why a try has failed, by what can be known while playing."""
    if end.stop != "answered":
        return _WHY.get(str(end.stop), f"ended by {end.stop}")
    result = _last_result(episode, end, tally)
    if result is not None and result.failed:
        return f"answered although the last call had failed: {result.content[:200]}"
    if episode.environment.calls_only:
        return ""
    found = await checked.answer(episode, end, settings.checked(), tally)
    return "" if found.right else f"gave an answer that a checker finds wrong: {found.why}"


def _last_result(episode: Episode, end: Position, tally: Tally) -> Message | None:
    """Return what a tool answered last, or a remark in its place; an objection is neither.

    Of code it is what came of the last block, whatever failed within it; a block that ends the task has none.
    """
    refused, result, act, by_code = vetting.refused(tally.checks), None, -1, False
    for place, message in enumerate(end.messages[len(episode.task.messages) :], start=len(episode.task.messages)):
        if message.role == "assistant":
            act = place
            by_code = episode.team.acts_by_code(message.speaker)
            result = None if by_code else result
        if message.role == "tool" and act not in refused and not (by_code and message.tool_call_id is not None):
            result = message
    return result


async def _reflect(episode: Episode, failed: _Try, number: int, tally: Tally) -> Message:
    """Return what the next try is told: what went wrong, and what the agent says of it."""
    prompt = reflection.ask_again(episode.task, failed.end.messages, failed.why)
    speaker = episode.team.first
    sampling = replace(prompt.sampling, seed=episode.seed + number)
    said = ""
    try:
        (completion,) = await episode.engine.complete(replace(prompt, speaker=speaker, sampling=sampling))
        tally.spend([completion.turn])
        said = reflection.first_sentences(completion.message.content)
    except ContextFull:
        pass  # then it is told the failure alone
    return Message("user", f"An earlier try {failed.why}. {said}".strip())


def _count(tally: Tally, tries: list[_Try], chosen: _Try) -> None:
    """Count what all tries have cost beside the record, and keep the checks of the chosen one, which it is about."""
    tally.tried, tally.failed = len(tries), sum(bool(one.why) for one in tries)
    tally.checks = chosen.tally.checks
    for one in tries:
        tally.model_calls += one.tally.model_calls
        tally.tool_calls += one.tally.tool_calls
        tally.usages += one.tally.usages
        if one is not chosen:
            tally.spend(one.end.turns)
            tally.tool_calls += sum(len(turn.message.tool_calls) for turn in one.end.turns)


def _chosen(tries: list[_Try]) -> _Try:
    answered = [one for one in tries if one.end.stop == "answered"]
    return next((one for one in tries if not one.why), answered[-1] if answered else tries[-1])


def _unseen(message: Message) -> None:
    """Show nothing of a try that may not be chosen."""
