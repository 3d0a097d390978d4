"""A checker vets each action before it counts, and sends it back with a critique (CMAT, arXiv 2404.01663, section 3).

`rules` asks whether the calls fit their schemas; `dry_run`, besides, runs them on a branch of
the state, which becomes the state only if none fails; `ranking`, besides the rules, asks the model itself whether the
action is the right next step, by the probability of yes beside no (as ToolPRM does with a checker of its own); an
endpoint cannot be held to these words. After so many
retries the last action counts as it is. A vetoed action is not in the record, its critique is: it is what the role was
told. Neither the judge nor the reference has a say.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import rolecraft.step as step
from rolecraft.errors import ContextFull
from rolecraft.step import Episode, Position, Reply
from rolecraft.strategies._bounds import require
from rolecraft.tools import misfit
from rolecraft.types import Json, Message, Prompt, Sampling, ToolCall, Toolset, Trajectory, Turn, Usage
from rolecraft.voting import Tally

_NAME = "checked"
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Settings:
    """Who checks, how often an action may be sent back, and from which probability of yes on it is accepted."""

    checker: Literal["rules", "dry_run", "ranking"] = "dry_run"
    retries: int = 2
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what checks nothing."""
        require(_NAME, least={"retries": (self.retries, 1), "threshold": (self.threshold, 0)})


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Play the episode action by action; raises NotForkable where a dry run has no copy of a tool's state."""
    if settings.checker == "dry_run":
        episode.environment.toolbox.branch().close()  # refused before anything is asked
    tally, position = Tally(_NAME), step.begin(episode)
    while position.speaker is not None:
        following = await _advance(episode, position, settings, tally)
        step.tell(episode, position, following)
        position = following
    return await step.finish(episode, position, tally.trials())


async def _advance(episode: Episode, position: Position, settings: Settings, tally: Tally) -> Position:
    """Return the position after the first action that the checker accepts, else after the last one."""
    if (full := step.out_of_turns(episode, position)) is not None:
        return full
    told: tuple[Message, ...] = ()
    for attempt in range(settings.retries + 1):
        asked = replace(position, messages=(*position.messages, *told))
        try:
            (reply,) = await step.ask(replace(episode, seed=episode.seed + (attempt << 20)), asked)
        except ContextFull:
            return replace(position, stop="length", speaker=None)
        tally.tried += 1
        checked = await _check(episode, asked, reply, settings, tally, last=attempt == settings.retries)
        if isinstance(checked, Position):
            return checked
        tally.failed += 1
        _spend(tally, reply.completion.turn)
        told = (*told, Message("user", checked))
    raise AssertionError("the last action counts as it is")


async def _check(
    episode: Episode, position: Position, reply: Reply, settings: Settings, tally: Tally, *, last: bool
) -> Position | str:
    """Return the position after an action that is accepted, or what the role is told of one that is not."""
    toolbox, calls = episode.environment.toolbox, reply.completion.message.tool_calls
    if last or not calls or episode.environment.calls_only:
        vetoed = None if last else _objection(calls, toolbox)
        return await step.take(episode, position, reply, toolbox.call) if vetoed is None else vetoed
    if (vetoed := _objection(calls, toolbox)) is not None:
        return vetoed
    if settings.checker == "ranking":
        vetoed = await _unlikely(episode, position, calls, settings.threshold, tally)
        return await step.take(episode, position, reply, toolbox.call) if vetoed is None else vetoed
    if settings.checker == "rules":
        return await step.take(episode, position, reply, toolbox.call)
    return await _dry_run(episode, position, reply, tally)


def _objection(calls: Sequence[ToolCall], toolbox: Toolset) -> str | None:
    """Return what the rules have against calls: no such tool, or arguments that do not fit."""
    specs = {spec.name: spec for spec in toolbox.specs}
    for call in calls:
        if call.name not in specs:
            return _critique(call, f"there is no tool {call.name[:60]!r}; there are {', '.join(specs) or 'none'}")
        if (wrong := misfit(specs[call.name], call.arguments)) is not None:
            return _critique(call, wrong)
    return None


async def _dry_run(episode: Episode, position: Position, reply: Reply, tally: Tally) -> Position | str:
    """Run the calls on a branch of the state, which becomes the state if none has failed."""
    branch = episode.environment.toolbox.branch()
    try:
        end = await step.take(episode, position, reply, branch.call)
        made = reply.completion.message.tool_calls
        failed = [message for message in end.messages[len(position.messages) :] if message.failed]
        if not failed:
            await asyncio.to_thread(branch.commit)
            return end
    finally:
        await asyncio.to_thread(branch.close)
    tally.tool_calls += len(made)
    call = next((one for one in end.turns[-1].message.tool_calls if one.id == failed[0].tool_call_id), made[0])
    return _critique(call, f"tried out, it answers: {failed[0].content}")


async def _unlikely(
    episode: Episode, position: Position, calls: Sequence[ToolCall], threshold: float, tally: Tally
) -> str | None:
    """Return what the role is told where the model finds it too unlikely that the calls are the right next step.

    Both words are scored: the log-probability of one that is drawn under a schema is the model's own, and so tells
    nothing of the other. Where there is no room to ask, the action is accepted.
    """
    role = episode.team.role(str(position.speaker))
    proposed = "; ".join(map(_written, calls))
    question = f"Proposed next step: {proposed}\nIs it the right next step for the request? Answer yes or no."
    prompt = Prompt(
        (*role.view(position.messages, episode.task.tools), Message("user", question)),
        role.tools(episode.task.tools),
        role.name,
        choice="none",
        sampling=Sampling(max_tokens=32, seed=episode.seed),
    )
    asked = (replace(prompt, schema=_only(word)) for word in ("yes", "no"))
    try:
        said = await asyncio.gather(*map(episode.engine.complete, asked))
    except ContextFull:
        return None
    turns = [completion.turn for (completion,) in said]
    for turn in turns:
        _spend(tally, turn)
    yes, no = (math.fsum(turn.logprobs) for turn in turns)
    likely = 1 / (1 + math.exp(min(no - yes, 700.0)))
    return None if likely >= threshold else _critique(calls[0], "a checker finds it is not the right next step")


def _only(word: str) -> dict[str, Json]:
    """Return the schema of an object that says nothing but a word."""
    return {"type": "object", "properties": {"right": {"enum": [word]}}, "required": ["right"]}


def _critique(call: ToolCall, why: str) -> str:
    return f"The call {_written(call)} was not run: {why[:_SHOWN]}. Write another one, or answer."


def _written(call: ToolCall) -> str:
    text = f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False, default=str)})"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _spend(tally: Tally, turn: Turn) -> None:
    tally.model_calls += 1
    used = turn.usage
    tally.usages.append(Usage(used.prompt, used.cached, used.completion, used.seconds))
